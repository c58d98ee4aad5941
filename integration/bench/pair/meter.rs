//! What the kernel knows of a process: CPU time and memory.

use std::fs;
use std::time::Duration;

use crate::Result;

/// The kernel's clock tick on every architecture that svidecar is built for.
const TICKS_PER_SECOND: u64 = 100;

/// The CPU time of the threads that the process has now, user and system, in the scheduler's nanoseconds. A thread that
/// ends takes its share along; the threads that move bytes stay.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    let mut nanoseconds = 0_u64;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A helper thread may end between the listing and the reading.
        let Ok(text) = fs::read_to_string(task?.path().join("schedstat")) else {
            continue;
        };
        let on_cpu = text.split_ascii_whitespace().next().unwrap_or_default();
        nanoseconds = nanoseconds.saturating_add(on_cpu.parse()?);
    }
    if nanoseconds == 0 {
        return Err("the kernel keeps no scheduler statistics (`/proc/PID/task/TID/schedstat`)".into());
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// The memory of a process in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Resident, the program's own pages among it.
    pub(crate) rss: f64,
    /// Each shared page divided by its users. Only root may ask it of a process that forbids core dumps.
    pub(crate) pss: Option<f64>,
}

pub(crate) fn memory(pid: u32) -> Result<Memory> {
    let kilobytes = |text: &str, name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .and_then(|rest| rest.split_ascii_whitespace().next())
            .and_then(|number| number.parse::<u32>().ok())
            .map(|number| f64::from(number) * 1024.0)
    };
    if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
        let rss = kilobytes(&text, "Rss:").ok_or("no `Rss` in `smaps_rollup`")?;
        let pss = kilobytes(&text, "Pss:");
        return Ok(Memory { rss, pss });
    }
    // Readable for everybody, but counted in batches per CPU: off by some pages.
    let text = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let rss = kilobytes(&text, "VmRSS:").ok_or("no `VmRSS` in `status`")?;
    Ok(Memory { rss, pss: None })
}

/// How long the machine's cores have been busy, all added up.
pub(crate) fn machine_busy() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let cpu = text.lines().next().and_then(|line| line.strip_prefix("cpu "));
    // user nice system idle iowait irq softirq steal; guest time is part of the first two.
    let ticks: u64 = cpu
        .ok_or("`/proc/stat` has no line `cpu`")?
        .split_ascii_whitespace()
        .take(8)
        .enumerate()
        .filter(|(place, _)| !matches!(place, 3 | 4))
        .map(|(_, ticks)| ticks.parse::<u64>())
        .sum::<std::result::Result<_, _>>()?;
    Ok(Duration::from_millis(
        ticks.saturating_mul(1000 / TICKS_PER_SECOND),
    ))
}
