//! Connections that end at ourselves: a part of the admin endpoint, for whom policy let in. To all that comes before and
//! after they are connections as any: the relay has a socket pair in place of one to an application, and the other end of
//! it goes to whoever serves the endpoint.

use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::authorize::Permit;
use crate::config::settings::OwnPages;
use crate::record::{Ending, Reason};
use crate::sys::stream::Stream;

/// Connections that wait to be served; one more is refused.
const QUEUE: usize = 64;

/// A connection that was let in, to be served.
#[derive(Debug)]
pub struct Visitor {
    /// What it may see.
    pub pages: OwnPages,
    /// Our end, non-blocking.
    pub stream: UnixStream,
}

/// The way to whoever serves them.
#[derive(Debug, Default)]
pub struct OwnEndpoint(OnceLock<mpsc::Sender<Visitor>>);

impl OwnEndpoint {
    /// The connections that come from now on; `None` when somebody takes them already.
    pub fn visitors(&self) -> Option<mpsc::Receiver<Visitor>> {
        let (sender, receiver) = mpsc::channel(QUEUE);
        self.0.set(sender).is_ok().then_some(receiver)
    }

    /// Connects to ourselves: as to an application, not without a permit.
    pub(super) fn connect(&self, _permit: &Permit, pages: OwnPages) -> Result<Stream, Ending> {
        let failed = |why: &str| Ending::with(Reason::ConnectFailed, format!("the admin endpoint {why}"));
        let pair = || -> std::io::Result<(Stream, UnixStream)> {
            let (plain, ours) = UnixStream::pair()?;
            plain.set_nonblocking(true)?;
            ours.set_nonblocking(true)?;
            Ok((Stream::Unix(tokio::net::UnixStream::from_std(plain)?), ours))
        };
        let (plain, stream) = pair().map_err(|e| failed(&format!("cannot be reached: {e}")))?;
        let visitors = self.0.get().ok_or_else(|| failed("is not served"))?;
        match visitors.try_send(Visitor { pages, stream }) {
            Ok(()) => Ok(plain),
            Err(TrySendError::Full(_)) => Err(failed("has too many callers")),
            Err(TrySendError::Closed(_)) => Err(failed("has ended")),
        }
    }
}
