//! Identity from PEM files that something else renews: cert-manager's CSI driver, spiffe-helper, a mounted secret.
//!
//! Owns reading them and noticing that they changed. Files are looked at twice a second by what their paths resolve to
//! (device, inode, size, time of change), which sees a file written in place, a file renamed over, and the swap of a
//! symbolic link anywhere in the path (Kubernetes' `..data`), where inotify misses the last. What changed is read, and
//! handed on when its content differs. A certificate and a key that do not belong together are looked at again for
//! two seconds before that is said: renewing two files is never one step.
//!
//! A foreign bundle's file that is missing or unreadable leaves the last good bundle in force; an empty one takes the
//! trust domain's authorities away.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::Instant;
use zeroize::Zeroizing;

use super::update::{Answer, Offer, belongs_together};
use crate::config::settings::IdentityFiles;
use crate::spiffe::svid::check_leaf;

/// How often the files are looked at.
pub const LOOK: Duration = Duration::from_millis(500);
/// How long a half-written pair is looked at again before it is handed on as it is.
pub const SETTLE: Duration = Duration::from_secs(2);
/// The largest file that is read, in bytes.
pub const MAX_FILE: u64 = 8 * 1024 * 1024;

/// Why the files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("cannot read `{}`: {source}{}", path.display(), advice(source))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is a folder, a pipe or a device.
    #[error("cannot read `{}`: it is no regular file", .0.display())]
    NotAFile(PathBuf),
    /// It is too large to be what it should be.
    #[error("cannot read `{}`: it is larger than {MAX_FILE} bytes", .0.display())]
    TooLarge(PathBuf),
    /// It is no PEM.
    #[error("cannot read `{}`: {why}; expected PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The file of our own bundle cannot be read.
    #[error("{0}")]
    Bundle(String),
    /// No bundle for our own trust domain.
    #[error(
        "there is no bundle for our own trust domain `{0}`: name its file under `identity.files.bundles`"
    )]
    NoOwnBundle(String),
}

/// Where the files' own permissions may show nothing.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            " (if its permissions are good, it is the sandbox: a folder that was not there, or that no link led to, when the \
             process started takes a restart)"
        }
        _ => "",
    }
}

/// What the files held when they were last read; equal when nothing that matters changed.
#[derive(PartialEq, Eq)]
struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
    /// Or why the file cannot be read: only our own must be there for the rest to be of use.
    bundles: BTreeMap<PathBuf, Result<Vec<u8>, String>>,
}

/// Where the paths lead: device, inode, size, change and modification time of each file.
type Traces = Vec<Option<(u64, u64, u64, i64, i64, i64, i64)>>;

/// Reads the files now and whenever they change, and hands `take` what they hold, until it answers `false`. The
/// present content is always handed over first. An error is handed over once, until the files change again.
pub async fn follow<F>(paths: IdentityFiles, mut take: impl FnMut(Result<Answer, FileError>) -> F)
where
    F: Future<Output = bool>,
{
    let mut seen: Option<Traces> = None;
    let mut given: Option<Contents> = None;
    let mut unsettled: Option<Instant> = None;
    loop {
        let Some(traces) = blocking(&paths, traces).await else {
            return;
        };
        if seen.as_ref() != Some(&traces) || unsettled.is_some() {
            let Some(contents) = blocking(&paths, read).await else {
                return;
            };
            let whole = contents.as_ref().is_ok_and(pair_is_whole);
            let since = *unsettled.get_or_insert_with(Instant::now);
            if whole || since.elapsed() >= SETTLE {
                // Remembered as it was before reading: a change in between is seen the next time.
                seen = Some(traces);
                unsettled = None;
                let told = match contents {
                    Ok(contents) if given.as_ref() == Some(&contents) => true,
                    Ok(contents) => {
                        let answer = answer(&paths, &contents);
                        given = Some(contents);
                        take(answer).await
                    }
                    Err(error) => {
                        given = None;
                        take(Err(error)).await
                    }
                };
                if !told {
                    return;
                }
            }
        }
        tokio::time::sleep(if unsettled.is_some() { LOOK / 5 } else { LOOK }).await;
    }
}

/// Off the thread that also hears signals: a network file system may not answer. None after a panic, which ends the
/// feed; the caller starts a new one.
async fn blocking<T: Send + 'static>(
    paths: &IdentityFiles,
    work: impl FnOnce(&IdentityFiles) -> T + Send + 'static,
) -> Option<T> {
    let paths = paths.clone();
    tokio::task::spawn_blocking(move || work(&paths)).await.ok()
}

fn traces(paths: &IdentityFiles) -> Traces {
    let all = [&paths.certificate, &paths.key]
        .into_iter()
        .chain(paths.bundles.values());
    all.map(|path| {
        let found = std::fs::metadata(path).ok()?;
        Some((
            found.dev(),
            found.ino(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.ctime(),
            found.ctime_nsec(),
        ))
    })
    .collect()
}

fn read(paths: &IdentityFiles) -> Result<Contents, FileError> {
    let certificate = read_file(&paths.certificate)?;
    let key = Zeroizing::new(read_file(&paths.key)?);
    let bundles = paths
        .bundles
        .values()
        .map(|path| (path.clone(), read_file(path).map_err(|e| e.to_string())))
        .collect();
    Ok(Contents {
        certificate,
        key,
        bundles,
    })
}

fn read_file(path: &Path) -> Result<Vec<u8>, FileError> {
    use std::io::Read as _;
    let failed = |source| FileError::Io {
        path: path.to_owned(),
        source,
    };
    // Asked before opening: to open a pipe waits for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(FileError::NotAFile(path.to_owned()));
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    // The whole capacity at once: a buffer that grows leaves copies of a key behind.
    let mut bytes = Vec::with_capacity(
        usize::try_from(size.min(MAX_FILE))
            .unwrap_or_default()
            .saturating_add(1),
    );
    file.take(MAX_FILE.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > MAX_FILE) {
        return Err(FileError::TooLarge(path.to_owned()));
    }
    Ok(bytes)
}

/// Whether certificate and key can be read and belong together. Everything else about them is for the update's check.
fn pair_is_whole(contents: &Contents) -> bool {
    let leaf = CertificateDer::pem_slice_iter(&contents.certificate).next();
    match (leaf, PrivateKeyDer::from_pem_slice(&contents.key)) {
        (Some(Ok(leaf)), Ok(key)) => belongs_together(&leaf, &Zeroizing::new(key)),
        _ => false,
    }
}

fn answer(paths: &IdentityFiles, contents: &Contents) -> Result<Answer, FileError> {
    let chain = certificates(&paths.certificate, &contents.certificate)?;
    let own = chain
        .first()
        .and_then(|leaf| check_leaf(leaf).ok())
        .map(|leaf| leaf.id.trust_domain().clone());
    let mut bundle = None;
    let mut federated = BTreeMap::new();
    for (trust_domain, path) in &paths.bundles {
        let der = match contents.bundles.get(path) {
            Some(Ok(pem)) => certificates(path, pem).map(|certificates| concatenated(&certificates)),
            Some(Err(why)) => Err(FileError::Bundle(why.clone())),
            None => continue,
        };
        if own.as_ref() == Some(trust_domain) {
            bundle = Some(der?);
        } else {
            // What cannot be read of a foreign bundle must reach the check as such, and must not stop our own rotation.
            federated.insert(
                trust_domain.to_string(),
                der.unwrap_or_else(|e| e.to_string().into_bytes()),
            );
        }
    }
    if let (None, Some(own)) = (&bundle, &own) {
        return Err(FileError::NoOwnBundle(own.to_string()));
    }
    let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|e| FileError::Pem {
        path: paths.key.clone(),
        why: e.to_string(),
    })?;
    let offer = Offer {
        spiffe_id: None,
        chain: concatenated(&chain),
        key: Some(Zeroizing::new(key)),
        bundle: bundle.unwrap_or_default(),
        hint: String::new(),
    };
    Ok(Answer {
        svids: vec![offer],
        federated,
    })
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, FileError> {
    CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|e| FileError::Pem {
            path: path.to_owned(),
            why: e.to_string(),
        })
}

fn concatenated(certificates: &[CertificateDer<'_>]) -> Vec<u8> {
    certificates.iter().flat_map(|der| der.iter().copied()).collect()
}
