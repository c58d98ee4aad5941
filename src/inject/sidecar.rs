//! What a pod gets: the containers, the volumes, and how much of what they need. The one place where this is said;
//! the manifests in `deploy/` are compared with it.

use super::Options;
use super::annotations::{Source, Wanted};
use super::config::CONFIG_KEY;
use super::tree::{Node, map, texts};
use crate::intercept::SIDECAR_USER;

/// The sidecar's container.
pub const CONTAINER: &str = "svidecar";
/// The init container that redirects connections.
pub const INTERCEPT: &str = "svidecar-intercept";
/// The volume with the Workload API's socket.
pub const SPIFFE_VOLUME: &str = "svidecar-spiffe";
/// The volume with the config.
pub const CONFIG_VOLUME: &str = "svidecar-config";
/// The volume with the policy.
pub const POLICY_VOLUME: &str = "svidecar-policy";
/// The volume with the sockets that application and sidecar share.
pub const SOCKETS_VOLUME: &str = "svidecar-sockets";
/// All containers that may be ours.
pub const CONTAINERS: &[&str] = &[INTERCEPT, CONTAINER];
/// All volumes that may be ours.
pub const VOLUMES: &[&str] = &[SPIFFE_VOLUME, CONFIG_VOLUME, POLICY_VOLUME, SOCKETS_VOLUME];

/// Where the folder with the Workload API's socket is mounted.
pub const SPIFFE_FOLDER: &str = "/spiffe-workload-api";
/// Where the config is mounted. Config and policy lie side by side, since a mount inside a read-only one is asking for trouble.
pub const CONFIG_FOLDER: &str = "/etc/svidecar/config";
/// Where the policy is mounted.
pub const POLICY_FOLDER: &str = "/etc/svidecar/policy";
/// Where sockets of application and sidecar are, in both.
pub const SOCKETS_FOLDER: &str = "/run/svidecar/sockets";
/// The port of the health endpoints.
pub const PROBES_PORT: u16 = 15021;
/// Threads that move bytes. Said, because without a CPU limit the default is as many as the node has, up to four,
/// and memory goes with them.
pub const WORKERS: u64 = 2;
/// The image's user. Where connections are redirected it is [`SIDECAR_USER`]: many applications' images have this one, too.
pub const USER: u64 = 65532;
/// Between the end of the drain and the kubelet's SIGKILL, in seconds.
pub const MARGIN_SECONDS: u64 = 5;
/// The grace period of a pod that says none, in seconds.
pub const DEFAULT_GRACE_SECONDS: u64 = 30;

const MIB: u64 = 1 << 20;
/// An idle sidecar, measured: 5 MB.
const IDLE_BYTES: u64 = 5 * MIB;
/// An idle connection, measured: 2.9 KB.
const IDLE_CONNECTION_BYTES: u64 = 3 << 10;
/// What a connection takes at the most: two buffers of 17 KB and what it keeps besides (ARCHITECTURE.md, "Memory").
const BUSY_CONNECTION_BYTES: u64 = 40 << 10;
/// Each worker's ration of large buffers.
const WORKER_BYTES: u64 = 8 * MIB;
/// Room for the rest: policies, bundles, records on their way out, what the allocator keeps.
const HEADROOM_BYTES: u64 = 16 * MIB;

/// What is asked for: an idle sidecar with all its connections open. In steps of 8 MiB.
pub(super) fn memory_request(max_connections: u64) -> String {
    in_steps(
        IDLE_BYTES.saturating_add(max_connections.saturating_mul(IDLE_CONNECTION_BYTES)),
        8,
    )
}

/// What is never passed: all connections open and all of them busy with a peer that does not read. In steps of 16 MiB.
pub(super) fn memory_limit(max_connections: u64) -> String {
    let connections = max_connections.saturating_mul(BUSY_CONNECTION_BYTES);
    let rest = IDLE_BYTES + HEADROOM_BYTES + WORKERS * WORKER_BYTES;
    in_steps(connections.saturating_add(rest), 16)
}

fn in_steps(bytes: u64, step: u64) -> String {
    format!("{}Mi", bytes.div_ceil(step * MIB).saturating_mul(step))
}

/// The sidecar's container: an init container that goes on (Kubernetes 1.29 and later), so that it is ready before the
/// application starts, ends after it, and keeps no Job from finishing.
pub(super) fn container(wanted: &Wanted, options: &Options) -> Node {
    let user = match wanted.transparent {
        true => u64::from(SIDECAR_USER),
        false => USER,
    };
    let config = format!("{CONFIG_FOLDER}/{CONFIG_KEY}");
    let mut mounts = vec![
        mount(SPIFFE_VOLUME, SPIFFE_FOLDER),
        mount(CONFIG_VOLUME, CONFIG_FOLDER),
    ];
    if wanted.policy.is_some() {
        mounts.push(mount(POLICY_VOLUME, POLICY_FOLDER));
    }
    if wanted.sockets {
        mounts.push(sockets_mount());
    }
    mounts.extend(wanted.mounts.iter().map(|(name, path)| {
        map([
            ("name", name.as_str().into()),
            ("mountPath", path.as_str().into()),
        ])
    }));
    let mut ports = vec![port("svidecar-probe", PROBES_PORT)];
    if let Source::Listeners(inbound, _) = &wanted.source {
        for (index, listener) in inbound.iter().enumerate() {
            ports.push(port(&format!("svidecar-in-{index}"), listener.port));
        }
    }
    map([
        ("name", CONTAINER.into()),
        ("image", image(wanted, options)),
        ("restartPolicy", "Always".into()),
        ("args", texts(["run", "--config", &config])),
        (
            "env",
            // For a config of one's own that names no socket, and for `svidecar identity` in the pod.
            Node::List(vec![map([
                ("name", "SPIFFE_ENDPOINT_SOCKET".into()),
                ("value", format!("unix://{}", options.socket_path()).into()),
            ])]),
        ),
        ("ports", Node::List(ports)),
        // One a second, for two minutes: the identity may take its time in a new pod.
        ("startupProbe", probe("/startupz", 1, 120)),
        ("livenessProbe", probe("/livez", 10, 3)),
        ("readinessProbe", probe("/readyz", 5, 2)),
        (
            "resources",
            map([
                (
                    "requests",
                    map([
                        ("cpu", "10m".into()),
                        ("memory", memory_request(wanted.max_connections).into()),
                    ]),
                ),
                // No limit of CPU: it would hold up the application's bytes while the node is idle.
                (
                    "limits",
                    map([("memory", memory_limit(wanted.max_connections).into())]),
                ),
            ]),
        ),
        (
            "securityContext",
            map([
                ("allowPrivilegeEscalation", false.into()),
                ("capabilities", map([("drop", texts(["ALL"]))])),
                ("readOnlyRootFilesystem", true.into()),
                ("runAsGroup", user.into()),
                ("runAsNonRoot", true.into()),
                ("runAsUser", user.into()),
                ("seccompProfile", map([("type", "RuntimeDefault".into())])),
            ]),
        ),
        ("volumeMounts", Node::List(mounts)),
    ])
}

/// The init container that redirects connections. It needs what Pod Security's "restricted" forbids: root, and the
/// right to change the pod's network.
pub(super) fn intercept(wanted: &Wanted, options: &Options) -> Node {
    let config = format!("{CONFIG_FOLDER}/{CONFIG_KEY}");
    let mut args = ["intercept", "--config", &config, "--apply"]
        .map(str::to_owned)
        .to_vec();
    // Said, as an image of another version may leave out somebody else.
    args.push(format!("--uid={SIDECAR_USER}"));
    let options_of = |(name, values): &(&str, Vec<String>)| format!("--{name}={}", values.join(","));
    args.extend(wanted.redirection.iter().map(options_of));
    let mut mounts = vec![mount(CONFIG_VOLUME, CONFIG_FOLDER)];
    if wanted.policy.is_some() {
        mounts.push(mount(POLICY_VOLUME, POLICY_FOLDER));
    }
    map([
        ("name", INTERCEPT.into()),
        ("image", image(wanted, options)),
        ("args", texts(args)),
        (
            "env",
            Node::List(vec![map([
                ("name", "SPIFFE_ENDPOINT_SOCKET".into()),
                ("value", format!("unix://{}", options.socket_path()).into()),
            ])]),
        ),
        (
            "resources",
            map([
                ("requests", map([("cpu", "10m".into()), ("memory", "8Mi".into())])),
                ("limits", map([("memory", "32Mi".into())])),
            ]),
        ),
        (
            "securityContext",
            map([
                ("allowPrivilegeEscalation", false.into()),
                (
                    "capabilities",
                    map([("drop", texts(["ALL"])), ("add", texts(["NET_ADMIN"]))]),
                ),
                ("readOnlyRootFilesystem", true.into()),
                ("runAsGroup", 0.into()),
                ("runAsNonRoot", false.into()),
                ("runAsUser", 0.into()),
                ("seccompProfile", map([("type", "RuntimeDefault".into())])),
            ]),
        ),
        ("volumeMounts", Node::List(mounts)),
    ])
}

/// The volumes. `config` is the ConfigMap with the config.
pub(super) fn volumes(wanted: &Wanted, config: &str) -> Vec<Node> {
    let config_map = |name: &str, map_name: &str| {
        map([
            ("name", name.into()),
            ("configMap", map([("name", map_name.into())])),
        ])
    };
    let csi = map([("driver", "csi.spiffe.io".into()), ("readOnly", true.into())]);
    let mut all = vec![
        map([("name", SPIFFE_VOLUME.into()), ("csi", csi)]),
        config_map(CONFIG_VOLUME, config),
    ];
    all.extend(
        wanted
            .policy
            .iter()
            .map(|policy| config_map(POLICY_VOLUME, policy)),
    );
    if wanted.sockets {
        let empty = map([("medium", "Memory".into()), ("sizeLimit", "1Mi".into())]);
        all.push(map([("name", SOCKETS_VOLUME.into()), ("emptyDir", empty)]));
    }
    all
}

/// The folder of sockets, as sidecar and application mount it.
pub(super) fn sockets_mount() -> Node {
    map([
        ("name", SOCKETS_VOLUME.into()),
        ("mountPath", SOCKETS_FOLDER.into()),
    ])
}

fn image(wanted: &Wanted, options: &Options) -> Node {
    wanted.image.as_deref().unwrap_or(&options.image).into()
}

fn mount(name: &str, path: &str) -> Node {
    map([
        ("name", name.into()),
        ("mountPath", path.into()),
        ("readOnly", true.into()),
    ])
}

fn port(name: &str, port: u16) -> Node {
    map([
        ("name", name.into()),
        ("containerPort", u64::from(port).into()),
        ("protocol", "TCP".into()),
    ])
}

fn probe(path: &str, period: u64, failures: u64) -> Node {
    let get = map([("path", path.into()), ("port", u64::from(PROBES_PORT).into())]);
    map([
        ("httpGet", get),
        ("periodSeconds", period.into()),
        ("failureThreshold", failures.into()),
    ])
}
