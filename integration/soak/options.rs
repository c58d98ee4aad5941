//! What the environment asks for.

use std::path::PathBuf;
use std::time::Duration;

/// How a run is to be.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How long the troubles are mixed; none: each of them once, one after the other, which takes twenty seconds or so.
    pub(crate) mixed: Option<Duration>,
    /// What the mixture and all payloads are drawn from.
    pub(crate) seed: u64,
    /// These troubles alone; none named: all.
    pub(crate) only: Vec<String>,
    /// The connections of the crowd.
    pub(crate) crowd: usize,
    /// Where the report goes.
    pub(crate) report: Option<PathBuf>,
}

/// The crowd of a long run.
const MANY: usize = 9000;
/// That of the short one, which the usual limit of descriptors and a busy machine bear.
const SOME: usize = 200;

impl Options {
    /// `SVIDECAR_SOAK=10m`, `SVIDECAR_SOAK_SEED=7`, `SVIDECAR_SOAK_TROUBLES="crowd,disk full"`, `SVIDECAR_SOAK_CROWD=9000`,
    /// `SVIDECAR_SOAK_REPORT=FILE`.
    pub(crate) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        let mixed = text("SVIDECAR_SOAK").map(|text| duration(&text));
        Self {
            seed: text("SVIDECAR_SOAK_SEED")
                .map_or_else(|| fastrand::u64(..1_000_000), |text| text.parse().unwrap()),
            crowd: text("SVIDECAR_SOAK_CROWD").map_or(if mixed.is_some() { MANY } else { SOME }, |text| {
                text.parse().unwrap()
            }),
            only: text("SVIDECAR_SOAK_TROUBLES").map_or_else(Vec::new, |text| {
                text.split(',').map(|name| name.trim().to_owned()).collect()
            }),
            report: text("SVIDECAR_SOAK_REPORT").map(PathBuf::from),
            mixed,
        }
    }
}

fn duration(text: &str) -> Duration {
    let (number, unit) = text.split_at(text.len() - 1);
    let number: u64 = number
        .parse()
        .unwrap_or_else(|_| panic!("SVIDECAR_SOAK={text}: expected a whole number and s, m or h, as 10m"));
    Duration::from_secs(match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3600,
        _ => panic!("SVIDECAR_SOAK={text}: expected a unit, s, m or h, as 10m"),
    })
}
