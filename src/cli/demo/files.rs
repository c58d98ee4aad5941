//! The config and policy files of the demo, as a person would write them.

use std::net::SocketAddr;
use std::path::Path;

/// The policy with the one rule that the story begins with.
pub(super) const POLICY: &str = "\
# Who may call `orders`. What no rule allows is denied.
# Edit and save: the sidecar of `orders` reads this file again within a second.
rules:
  - name: storefront-may-order
    action: allow
    to: [orders]
    from: [spiffe://example.org/storefront]
";

/// What is added to it in the course of the story.
pub(super) const MORE_POLICY: &str = "
  - name: reports-may-read
    action: allow
    to: [orders]
    from: [spiffe://example.org/reports]
";

/// The file with the policy, in the demo's folder.
pub(super) const POLICY_FILE: &str = "policy/orders.yaml";

/// Where the parts of the demo are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) folder: &'a Path,
    /// Where the sidecar of `orders` takes mutual TLS.
    pub(super) orders: SocketAddr,
}

/// The sidecar of `orders`.
pub(super) fn orders(place: &Place<'_>, upstream: SocketAddr, admin: SocketAddr) -> String {
    let (folder, listen) = (place.folder.display(), place.orders);
    format!(
        "\
# The sidecar of `orders`: mutual TLS in, plaintext to the application.
identity:
  socket: unix://{folder}/example.org.sock
  svid: spiffe://example.org/orders      # the demo's Workload API offers several
policy:
  path: policy/
inbound:
  - name: orders
    listen: {listen}
    upstream: {upstream}
    trust: [partner.example]             # beside our own; once its bundle is there
admin:
  listen: {admin}
{REST}"
    )
}

/// The sidecar of a caller in the trust domain `domain`, with `more` listeners.
pub(super) fn caller(place: &Place<'_>, name: &str, domain: &str, listen: SocketAddr, more: &str) -> String {
    let (folder, connect) = (place.folder.display(), place.orders);
    format!(
        "\
# The sidecar of `{name}`: plaintext from the application, mutual TLS to `orders`.
identity:
  socket: unix://{folder}/{domain}.sock
  svid: spiffe://{domain}/{name}
outbound:
  - name: to-orders
    listen: {listen}
    connect: {connect}
    peer: [spiffe://example.org/orders]  # who may answer
{more}admin:
  listen: unix://{folder}/{name}.admin.sock
{REST}"
    )
}

/// One more way out: its address leads to `orders`, but `payments` is expected to answer.
pub(super) fn misled(place: &Place<'_>, listen: SocketAddr) -> String {
    format!(
        "  - name: to-payments                    # the address is wrong, as after a bad DNS entry
    listen: {listen}
    connect: {}
    peer: [spiffe://example.org/payments]
",
        place.orders
    )
}

const REST: &str = "\
limits: { max_connections: 500, drain_timeout: 1s }
telemetry: { log: { format: json } }
";
