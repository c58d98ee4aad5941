//! The threads that move bytes: each runs its own single-threaded runtime, so that a connection never leaves the
//! thread that accepted it and nothing on its path is shared between threads but counters and snapshots.
//!
//! Every worker accepts from a copy of every listening socket. The set of listeners is a value that is published; a
//! worker compares it with what it runs, so listeners come and go while connections stay.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use crate::connection::live::Live;
use crate::connection::{self, ListenerContext, Worker};
use crate::lifecycle::drain::DrainWatch;
use crate::listener::{Acceptor, Waiting};
use crate::sys::bind::Listening;
use crate::upstream::resolve::{Resolver, System};

/// How soon a worker that could not copy a listener's socket tries again.
const AGAIN: Duration = Duration::from_millis(100);

/// A listener that is bound.
#[derive(Debug)]
pub struct BoundListener {
    /// What its connections need.
    pub context: Arc<ListenerContext>,
    /// Its socket, until it is closed.
    socket: Mutex<Option<Listening>>,
    /// Tells it from a later listener of the same name.
    id: u64,
    /// The listener whose socket this one has a copy of and whose place it takes.
    replaces: Option<u64>,
    /// Subscribed to by those who accept from it.
    accepting: watch::Sender<()>,
}

impl BoundListener {
    /// A listener with its socket.
    #[must_use]
    pub fn new(context: ListenerContext, socket: Listening) -> Self {
        static NEXT_ID: AtomicU64 = AtomicU64::new(0);
        Self {
            context: Arc::new(context),
            socket: Mutex::new(Some(socket)),
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            replaces: None,
            accepting: watch::Sender::new(()),
        }
    }

    /// Another descriptor of its socket.
    ///
    /// # Errors
    /// When it is closed, and the system's.
    pub fn copy(&self) -> io::Result<Listening> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = || io::Error::new(io::ErrorKind::NotConnected, "the listener is closed");
        socket.as_ref().ok_or_else(closed)?.try_clone()
    }

    /// Closes its socket, for all who still know the listener; workers that accept from it have copies of their own.
    pub fn close(&self) {
        *self.socket.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// As one that takes the place of `before`, of whose socket it has a copy: what waits in their queue when `before` leaves
    /// the set is accepted by this one.
    #[must_use]
    pub fn in_place_of(mut self, before: &Self) -> Self {
        self.replaces = Some(before.id);
        self
    }

    /// Resolves when no worker accepts from it any more, once it has left the set.
    pub fn left(&self) -> impl Future<Output = ()> + Send + use<> {
        let accepting = self.accepting.clone();
        async move { accepting.closed().await }
    }
}

/// The listeners that workers accept from.
pub type ListenerSet = Arc<[Arc<BoundListener>]>;

/// Publishes the listeners that the workers accept from.
#[derive(Clone, Debug)]
pub struct Publisher(watch::Sender<ListenerSet>);

impl Publisher {
    /// Publishes the listeners to accept from. Connections of listeners that are left out live on.
    pub fn publish(&self, set: ListenerSet) {
        // `send_replace` keeps the value even when every worker is gone.
        self.0.send_replace(set);
    }
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    listeners: Publisher,
    threads: Vec<JoinHandle<()>>,
    stop: Vec<oneshot::Sender<()>>,
    ended: Arc<Notify>,
}

/// Says that a worker's thread ended, in order or by a panic.
struct SayEnded(Arc<Notify>);

impl Drop for SayEnded {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Workers {
    /// Starts `count` workers, which accept from no listener yet and resolve names as `names` says.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(count: usize, live: &Arc<Live>, drain: &DrainWatch, names: &System) -> io::Result<Self> {
        let (listeners, _) = watch::channel::<ListenerSet>(Arc::new([]));
        let mut threads = Vec::with_capacity(count);
        let mut stop = Vec::with_capacity(count);
        let ended = Arc::new(Notify::new());
        for number in 0..count {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let worker = Arc::new(Worker {
                live: live.clone(),
                resolver: Resolver::of(names.clone()),
                drain: drain.clone(),
            });
            let set = listeners.subscribe();
            let (stop_sender, stopped) = oneshot::channel();
            stop.push(stop_sender);
            let say_ended = SayEnded(ended.clone());
            threads.push(
                std::thread::Builder::new()
                    .name(format!("worker-{number}"))
                    .spawn(move || {
                        let _say_ended = say_ended;
                        runtime.block_on(async {
                            tokio::select! {
                                () = follow(worker, set) => {}
                                _ = stopped => {}
                            }
                        });
                    })?,
            );
        }
        Ok(Self {
            listeners: Publisher(listeners),
            threads,
            stop,
            ended,
        })
    }

    /// Resolves when a worker has ended, which none does by itself: a defect.
    pub async fn one_ended(&self) {
        self.ended.notified().await;
    }

    /// What publishes the listeners to accept from, apart from the workers themselves.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        self.listeners.clone()
    }

    /// See [`Publisher::publish`].
    pub fn publish(&self, set: ListenerSet) {
        self.listeners.publish(set);
    }

    /// Ends the workers and whatever connections they still have.
    pub fn stop(self) {
        for stop in self.stop {
            // A worker that is gone already is what is wanted.
            let _ = stop.send(());
        }
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// Runs the accept loops of the published set.
async fn follow(worker: Arc<Worker>, mut set: watch::Receiver<ListenerSet>) {
    let mut running: HashMap<u64, oneshot::Sender<Waiting>> = HashMap::new();
    loop {
        let wanted = set.borrow_and_update().clone();
        let mut gone: Vec<_> = running
            .extract_if(|id, _| !wanted.iter().any(|listener| listener.id == *id))
            .collect();
        for listener in wanted.iter() {
            running
                .entry(listener.id)
                .or_insert_with(|| accept_from(&worker, listener));
        }
        // Dropping the sender stops the loop, too.
        for (id, stop) in gone.drain(..) {
            if wanted.iter().any(|listener| listener.replaces == Some(id)) {
                let _ = stop.send(Waiting::Leave);
            }
        }
        drop((gone, wanted));
        if set.changed().await.is_err() {
            return;
        }
    }
}

fn accept_from(worker: &Arc<Worker>, listener: &Arc<BoundListener>) -> oneshot::Sender<Waiting> {
    let (running, stopped) = oneshot::channel::<Waiting>();
    let accepting = listener.accepting.subscribe();
    let (worker, listener) = (worker.clone(), listener.clone());
    // A drain waits until what still waits in the queue is accepted.
    let token = worker.drain.token();
    tokio::spawn(async move {
        let context = listener.context.clone();
        let name = context.settings.name.clone();
        let stop = async { stopped.await.unwrap_or(Waiting::Accept) };
        tokio::pin!(stop);
        let copy = || listener.copy().and_then(Acceptor::new);
        let Some(acceptor) = acceptor(&name, copy, stop.as_mut()).await else {
            return;
        };
        // The socket's other copies are the set's, so that it closes when it has left the set.
        drop(listener);
        acceptor
            .run(&name, stop, |stream, addr| {
                tokio::spawn(connection::serve(worker.clone(), context.clone(), stream, addr));
            })
            .await;
        drop((token, accepting));
    });
    running
}

/// The worker's own copy of a listener's socket. That there is no descriptor for it passes, as it does for connections, and
/// is waited out; `None` once the listener is closed or `stop` resolves.
async fn acceptor(
    name: &str,
    copy: impl Fn() -> io::Result<Acceptor>,
    mut stop: Pin<&mut impl Future<Output = Waiting>>,
) -> Option<Acceptor> {
    let mut said = false;
    loop {
        match copy() {
            Ok(acceptor) => {
                if said {
                    tracing::info!(listener = name, "a worker accepts from this listener now");
                }
                return Some(acceptor);
            }
            Err(error) if error.kind() == io::ErrorKind::NotConnected => return None,
            Err(error) if !said => {
                said = true;
                tracing::error!(
                    listener = name, %error,
                    "a worker cannot accept from this listener yet; trying again. If descriptors ran out, raise the limit \
                     of open files"
                );
            }
            Err(_) => {}
        }
        tokio::select! {
            _ = stop.as_mut() => return None,
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

#[cfg(test)]
mod tests;
