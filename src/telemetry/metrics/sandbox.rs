//! Which parts of the sandbox hold.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SandboxLabels {
    pub(super) part: &'static str,
}

pub(super) fn register(registry: &mut Registry) -> Family<SandboxLabels, Gauge> {
    let family = Family::<SandboxLabels, Gauge>::default();
    registry.register(
        "sandbox_enforced",
        "Whether this part of the sandbox holds the process: 1 or 0",
        family.clone(),
    );
    family
}
