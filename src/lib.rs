//! svidecar: a zero-trust mTLS sidecar. This library is what the `svidecar` program is made of; ARCHITECTURE.md walks one
//! connection through it.
//!
//! The modules, in the order in which a connection meets them:
//!
//! | plane | module | its part |
//! |---|---|---|
//! | path | [`worker`] | the threads that move bytes, each with its own runtime; the set of listeners |
//! | path | [`listener`] | accepts |
//! | path | [`connection`] | one connection from acceptance to its record; the registry of the open ones and the authority over them |
//! | path | [`proxy_protocol`] | what a load balancer says before TLS, and what an application is told after it |
//! | path | [`tls`] | who is it? handshake, verification, records |
//! | path | [`authorize`] | may it? the only maker of permits |
//! | path | [`upstream`] | to whom? names and dialling |
//! | path | [`forward`] | moves the bytes: between two sockets, or as a stream for a protocol spoken here |
//! | control | [`app`] | builds every part in order and runs the control thread |
//! | control | [`identity`] | who are we? follows the Workload API or files, checks, publishes whole |
//! | control | [`policy`] | rules: read, compiled, evaluated, explained |
//! | control | [`config`] | the config file, checked |
//! | control | [`reload`] | sees that files changed |
//! | control | [`admin`] | what a running sidecar tells over HTTP |
//! | control | [`audit`] | who talked to whom and why, in a log that shows what was done to it |
//! | control | [`lifecycle`] | signals, drain, readiness |
//! | control | [`supervise`] | the parent that holds the sockets and starts the next process beside this one |
//! | control | [`handover`] | sockets from another process, and what a parent and its child tell each other |
//! | ground | [`record`] | what became of a connection: the closed sets of words |
//! | ground | [`redaction`] | what must not leave is taken out of records |
//! | ground | [`telemetry`] | the log, the metrics and the traces made of it |
//! | ground | [`spiffe`] | IDs, patterns, the X.509-SVID profile |
//! | ground | [`yaml`] | a tree with places, and findings that point at them |
//! | ground | [`sandbox`] | what the process can no longer do once it has started |
//! | ground | [`build_info`] | what this binary was built from |
//! | ground | [`clock`], [`sys`] | the time of day; what is asked of the system |
//! | tools | [`workload_api`] | the Workload API's messages, and an embedded server that attests nobody |
//! | tools | [`trial`] | policies tried before they bite: expectations, differences, suggestions |
//! | tools | [`inject`] | the sidecar put into Kubernetes manifests |
//! | tools | [`intercept`] | rules of the packet filter that redirect connections to transparent listeners |
//! | tools | [`cli`] | the commands |

pub mod admin;
pub mod app;
pub mod audit;
pub mod authorize;
pub mod build_info;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod forward;
pub mod handover;
pub mod identity;
pub mod inject;
pub mod intercept;
pub mod lifecycle;
pub mod listener;
pub mod policy;
pub mod proxy_protocol;
pub mod record;
pub mod redaction;
pub mod reload;
pub mod sandbox;
pub mod spiffe;
pub mod supervise;
pub mod sys;
pub mod telemetry;
pub mod tls;
pub mod trial;
pub mod upstream;
pub mod worker;
pub mod workload_api;
pub mod yaml;
