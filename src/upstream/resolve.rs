//! Name resolution, by hickory: it reads `/etc/hosts` and `/etc/resolv.conf` itself, where the C library's resolver
//! would load NSS modules that a static binary must not.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use hickory_resolver::config::{ResolveHosts, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::sync::OnceCell;

/// What the system says of how names are resolved: read once, for all workers.
#[derive(Clone, Default)]
pub struct System(Arc<OnceLock<Found>>);

#[derive(Clone)]
struct Found {
    config: ResolverConfig,
    options: ResolverOpts,
    hosts: Arc<Hosts>,
}

impl System {
    /// Reads it now, unless it was read: a process that confines itself may not do so later. Blocking.
    ///
    /// # Errors
    /// `/etc/resolv.conf` cannot be used. It is tried again at the first look-up.
    pub fn read(&self) -> Result<(), ResolveError> {
        self.found().map(drop)
    }

    fn found(&self) -> Result<Found, ResolveError> {
        if let Some(found) = self.0.get() {
            return Ok(found.clone());
        }
        let (config, mut options) =
            system_conf::read_system_conf().map_err(|e| ResolveError::Configuration(e.to_string()))?;
        // It is at hand already.
        options.use_hosts_file = ResolveHosts::Never;
        let found = Found {
            config,
            options,
            hosts: Arc::new(Hosts::from_system().unwrap_or_default()),
        };
        Ok(self.0.get_or_init(|| found).clone())
    }
}

/// Resolves names. One for each worker, as its sockets belong to the worker's runtime.
#[derive(Default)]
pub struct Resolver {
    system: System,
    made: OnceCell<TokioResolver>,
}

/// Why a name did not resolve.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// `/etc/resolv.conf` or `/etc/hosts` can't be used.
    #[error("the system's resolver configuration can't be used: {0}")]
    Configuration(String),
    /// The name has no address, or nobody could say.
    #[error("`{name}` does not resolve: {cause}")]
    Lookup {
        /// The name as configured.
        name: String,
        /// hickory's words.
        cause: String,
    },
}

impl Resolver {
    /// One that resolves as the system does.
    #[must_use]
    pub fn of(system: System) -> Self {
        Self {
            system,
            made: OnceCell::new(),
        }
    }

    /// The addresses of `name`, in the order to try them, never empty.
    ///
    /// # Errors
    /// No usable configuration, no answer, or no address.
    pub async fn lookup(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        // Made at the first use: most sidecars dial addresses.
        let resolver = self
            .made
            .get_or_try_init(|| async {
                let found = self.system.found()?;
                let mut builder =
                    TokioResolver::builder_with_config(found.config, TokioRuntimeProvider::default());
                *builder.options_mut() = found.options;
                let made = builder.build();
                let mut resolver = made.map_err(|e| ResolveError::Configuration(e.to_string()))?;
                resolver.set_hosts(found.hosts);
                Ok::<_, ResolveError>(resolver)
            })
            .await?;
        let failed = |cause: String| ResolveError::Lookup {
            name: name.to_owned(),
            cause,
        };
        let found = resolver
            .lookup_ip(name)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let addresses: Vec<_> = found.iter().map(|ip| SocketAddr::new(ip, port)).collect();
        if addresses.is_empty() {
            Err(failed("no address".to_owned()))
        } else {
            Ok(addresses)
        }
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("System")
    }
}
