//! Pod Security Standards, profile "restricted" (kubernetes.io/docs/concepts/security/pod-security-standards), rule by rule, the
//! "baseline" that it includes among them.

use serde_json::{Value, json};

/// What a container must hold to, beside its pod.
type Rule = fn(pod: &Value, container: &Value) -> bool;

const VOLUME_TYPES: &[&str] = &[
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const SYSCTLS: &[&str] = &[
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];
const SELINUX_TYPES: &[&str] = &[
    "",
    "container_t",
    "container_init_t",
    "container_kvm_t",
    "container_engine_t",
];

/// Either absent, or one of these.
fn absent_or(value: &Value, good: &[&str]) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| good.contains(&text))
}

fn not_true(value: &Value) -> bool {
    value.is_null() || value == false
}

fn all(list: &Value, good: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_none_or(|items| items.iter().all(good))
}

/// Both security contexts.
fn both(pod: &Value, container: &Value, good: impl Fn(&Value) -> bool) -> bool {
    good(&pod["securityContext"]) && good(&container["securityContext"])
}

/// The container's setting, or the pod's where it has none.
fn effective<'v>(pod: &'v Value, container: &'v Value, field: &str) -> &'v Value {
    match &container["securityContext"][field] {
        Value::Null => &pod["securityContext"][field],
        own => own,
    }
}

const RULES: &[(&str, Rule)] = &[
    ("HostProcess", |pod, c| {
        both(pod, c, |s| not_true(&s["windowsOptions"]["hostProcess"]))
    }),
    ("Host Namespaces", |pod, _| {
        ["hostNetwork", "hostPID", "hostIPC"]
            .iter()
            .all(|field| not_true(&pod[field]))
    }),
    ("Privileged Containers", |_, c| {
        not_true(&c["securityContext"]["privileged"])
    }),
    ("Host Ports", |_, c| {
        all(&c["ports"], |port| {
            port["hostPort"].is_null() || port["hostPort"] == 0
        })
    }),
    ("Host Probes / Lifecycle Hooks", |_, c| {
        let handlers = [
            "/startupProbe",
            "/livenessProbe",
            "/readinessProbe",
            "/lifecycle/postStart",
            "/lifecycle/preStop",
        ];
        let fields = handlers
            .iter()
            .flat_map(|at| [format!("{at}/httpGet/host"), format!("{at}/tcpSocket/host")]);
        fields
            .filter_map(|field| c.pointer(&field))
            .all(|host| absent_or(host, &[""]))
    }),
    ("AppArmor", |pod, c| {
        both(pod, c, |s| {
            absent_or(&s["appArmorProfile"]["type"], &["RuntimeDefault", "Localhost"])
        })
    }),
    ("SELinux", |pod, c| {
        both(pod, c, |s| {
            let options = &s["seLinuxOptions"];
            absent_or(&options["type"], SELINUX_TYPES)
                && absent_or(&options["user"], &[""])
                && absent_or(&options["role"], &[""])
        })
    }),
    ("/proc Mount Type", |_, c| {
        absent_or(&c["securityContext"]["procMount"], &["Default"])
    }),
    ("Sysctls", |pod, _| {
        all(&pod["securityContext"]["sysctls"], |sysctl| {
            SYSCTLS.contains(&sysctl["name"].as_str().unwrap())
        })
    }),
    // HostPath volumes among them.
    ("Volume Types", |pod, _| {
        all(&pod["volumes"], |volume| {
            VOLUME_TYPES.iter().any(|kind| !volume[kind].is_null())
        })
    }),
    ("Privilege Escalation", |_, c| {
        c["securityContext"]["allowPrivilegeEscalation"] == false
    }),
    ("Capabilities", |_, c| {
        let capabilities = &c["securityContext"]["capabilities"];
        let drops_all = capabilities["drop"]
            .as_array()
            .is_some_and(|drop| drop.iter().any(|name| name == "ALL"));
        drops_all && all(&capabilities["add"], |name| name == "NET_BIND_SERVICE")
    }),
    ("Running as Non-root", |pod, c| {
        effective(pod, c, "runAsNonRoot") == true
    }),
    ("Running as Non-root user", |pod, c| {
        effective(pod, c, "runAsUser") != 0
    }),
    ("Seccomp", |pod, c| {
        let kind = &effective(pod, c, "seccompProfile")["type"];
        kind == "RuntimeDefault" || kind == "Localhost"
    }),
];

/// The rules that a pod breaks, each with the container.
pub(super) fn violations(pod: &Value) -> Vec<String> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let containers = lists.iter().filter_map(|list| pod[list].as_array()).flatten();
    containers
        .flat_map(|container| {
            let broken = RULES.iter().filter(|(_, rule)| !rule(pod, container));
            broken.map(|(name, _)| format!("{}: {name}", container["name"].as_str().unwrap()))
        })
        .collect()
}

#[test]
fn each_rule_finds_what_breaks_it() {
    let context = json!({
        "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true, "runAsUser": 1,
        "seccompProfile": { "type": "RuntimeDefault" },
    });
    let good = json!({
        "securityContext": { "sysctls": [] },
        "containers": [{ "name": "a", "securityContext": context, "ports": [{}], "livenessProbe": { "httpGet": {} } }],
        "volumes": [{ "name": "v", "emptyDir": {} }],
    });
    assert_eq!(violations(&good), Vec::<String>::new());
    let bad: &[(&str, &str, Value)] = &[
        (
            "HostProcess",
            "/securityContext/windowsOptions",
            json!({ "hostProcess": true }),
        ),
        ("Host Namespaces", "/hostNetwork", json!(true)),
        ("Host Namespaces", "/hostPID", json!(true)),
        (
            "Privileged Containers",
            "/containers/0/securityContext/privileged",
            json!(true),
        ),
        ("Host Ports", "/containers/0/ports/0/hostPort", json!(80)),
        (
            "Host Probes / Lifecycle Hooks",
            "/containers/0/livenessProbe/httpGet/host",
            json!("a"),
        ),
        (
            "AppArmor",
            "/securityContext/appArmorProfile",
            json!({ "type": "Unconfined" }),
        ),
        (
            "SELinux",
            "/containers/0/securityContext/seLinuxOptions",
            json!({ "user": "root" }),
        ),
        (
            "/proc Mount Type",
            "/containers/0/securityContext/procMount",
            json!("Unmasked"),
        ),
        (
            "Sysctls",
            "/securityContext/sysctls",
            json!([{ "name": "kernel.msgmax" }]),
        ),
        (
            "Volume Types",
            "/volumes/0",
            json!({ "name": "v", "hostPath": { "path": "/" } }),
        ),
        (
            "Privilege Escalation",
            "/containers/0/securityContext/allowPrivilegeEscalation",
            Value::Null,
        ),
        (
            "Capabilities",
            "/containers/0/securityContext/capabilities/add",
            json!(["NET_ADMIN"]),
        ),
        (
            "Capabilities",
            "/containers/0/securityContext/capabilities/drop",
            json!(["CHOWN"]),
        ),
        (
            "Running as Non-root",
            "/containers/0/securityContext/runAsNonRoot",
            Value::Null,
        ),
        (
            "Running as Non-root user",
            "/containers/0/securityContext/runAsUser",
            json!(0),
        ),
        (
            "Seccomp",
            "/containers/0/securityContext/seccompProfile",
            Value::Null,
        ),
    ];
    for (rule, at, value) in bad {
        let mut pod = good.clone();
        let (parent, field) = at.rsplit_once('/').unwrap();
        match pod.pointer_mut(parent).unwrap() {
            Value::Array(items) => items[field.parse::<usize>().unwrap()] = value.clone(),
            object => object[field] = value.clone(),
        }
        assert_eq!(violations(&pod), [format!("a: {rule}")], "{at}");
    }
    assert!(
        RULES
            .iter()
            .all(|(name, _)| bad.iter().any(|(rule, ..)| rule == name))
    );
}
