//! The metrics of the process itself, under the names that every Prometheus client uses. Read from `/proc` at
//! each scrape; what cannot be read (a hidden `/proc`) is left out.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric as _};
use prometheus_client::registry::Unit;

/// `USER_HZ`, the unit of times in `/proc`: part of Linux' user-space ABI and 100 on all that Rust has tier 1 or 2 for.
const TICKS_PER_SECOND: f64 = 100.0;

/// What the process uses at the moment; what can't be read is absent.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// User and system CPU time.
    pub cpu_seconds: Option<f64>,
    /// Resident memory.
    pub resident_bytes: Option<f64>,
    /// Threads.
    pub threads: Option<f64>,
    /// Open file descriptors.
    pub open_files: Option<f64>,
    /// Their limit.
    pub max_open_files: Option<f64>,
}

impl ProcessUse {
    /// Reads it from `/proc`: some hundred microseconds, more with very many descriptors.
    #[must_use]
    pub fn now() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        Self {
            cpu_seconds: cpu_seconds(&read("/proc/self/stat")),
            resident_bytes: kibibytes(&status, "VmRSS:"),
            threads: status_number(&status, "Threads:"),
            open_files: open_fds(),
            max_open_files: max_fds(&read("/proc/self/limits")),
        }
    }
}

#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let stat = read("/proc/self/stat");
        let start = start_seconds(&stat, &read("/proc/stat"));
        if let Some(seconds) = cpu_seconds(&stat) {
            let help = "User and system CPU time spent";
            let kind = ConstCounter::<f64>::TYPE;
            let metric = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?;
            ConstCounter::new(seconds).encode(metric)?;
        }
        let gauges = [
            (
                "process_start_time_seconds",
                "When the process started, in unix time",
                start,
            ),
            ("process_open_fds", "Open file descriptors", open_fds()),
            (
                "process_max_fds",
                "The limit of open file descriptors",
                max_fds(&read("/proc/self/limits")),
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory",
                kibibytes(&status, "VmRSS:"),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory",
                kibibytes(&status, "VmSize:"),
            ),
            ("process_threads", "Threads", status_number(&status, "Threads:")),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
                ConstGauge::new(value).encode(metric)?;
            }
        }
        Ok(())
    }
}

/// The field `number` of `/proc/self/stat` as proc(5) counts them. The second one is the program's name in
/// brackets, which may hold anything, so counting starts behind the last bracket.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace()
        .nth(number.checked_sub(3)?)?
        .parse()
        .ok()
}

fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

fn start_seconds(stat: &str, machine: &str) -> Option<f64> {
    let boot: f64 = machine
        .lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    Some(boot + stat_field(stat, 22)? / TICKS_PER_SECOND)
}

fn open_fds() -> Option<f64> {
    // Reading the directory opens one more.
    let open = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(open).ok().map(f64::from)
}

fn max_fds(limits: &str) -> Option<f64> {
    let soft = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_ascii_whitespace()
        .next()?;
    if soft == "unlimited" {
        Some(f64::INFINITY)
    } else {
        soft.parse().ok()
    }
}

fn status_number(status: &str, key: &str) -> Option<f64> {
    status
        .lines()
        .find_map(|line| line.strip_prefix(key))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

fn kibibytes(status: &str, key: &str) -> Option<f64> {
    status_number(status, key).map(|kib| kib * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "4242 (a) b (c) R 1 4242 4242 0 -1 4194304 90 0 0 0 250 50 0 0 20 0 3 0 12345 8192 99 1";

    #[test]
    fn reads_times_behind_a_confusing_name() {
        assert_eq!(cpu_seconds(STAT), Some(3.0));
        assert_eq!(start_seconds(STAT, "cpu 1 2\nbtime 1000\n"), Some(1123.45));
        assert_eq!(cpu_seconds("4242 (x) R 1"), None);
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn reads_limits_and_memory() {
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096  files\n";
        assert_eq!(max_fds(limits), Some(1024.0));
        assert_eq!(
            max_fds("Max open files   unlimited  unlimited files"),
            Some(f64::INFINITY)
        );
        assert_eq!(max_fds(""), None);
        assert_eq!(
            kibibytes("VmSize:\t 8 kB\nVmRSS:\t    12 kB\n", "VmRSS:"),
            Some(12288.0)
        );
    }

    #[test]
    fn counts_its_own_descriptors() {
        let before = open_fds().unwrap();
        let held: Vec<_> = (0..50)
            .map(|_| std::fs::File::open("/dev/null").unwrap())
            .collect();
        // Other tests of this process open and close descriptors at the same time: 50 stand out.
        assert!(open_fds().unwrap() > before + 25.0);
        drop(held);
    }
}
