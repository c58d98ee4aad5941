//! Name resolution, by hickory: it reads `/etc/hosts` and `/etc/resolv.conf` itself, where the C library's resolver
//! would load NSS modules that a static binary must not.

use std::net::SocketAddr;

use hickory_resolver::TokioResolver;
use tokio::sync::OnceCell;

/// Resolves names. One for each worker, as its sockets belong to the worker's runtime.
#[derive(Default)]
pub struct Resolver(OnceCell<TokioResolver>);

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
    /// The addresses of `name`, in the order to try them, never empty.
    ///
    /// # Errors
    /// No usable configuration, no answer, or no address.
    pub async fn lookup(&self, name: &str, port: u16) -> Result<Vec<SocketAddr>, ResolveError> {
        // Read at the first use: most sidecars dial addresses, and starting up must not wait for files.
        let resolver = self
            .0
            .get_or_try_init(|| async {
                TokioResolver::builder_tokio()
                    .and_then(|builder| builder.build())
                    .map_err(|e| ResolveError::Configuration(e.to_string()))
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
