//! For tests that listen to the log of their own thread.

use std::sync::LazyLock;

use tracing::{Dispatch, Level};

/// Nobody's, and never dropped.
static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| {
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(Level::TRACE)
        .with_writer(std::io::sink);
    Dispatch::new(subscriber.finish())
});

/// Sees that no subscriber is the only one. Of a single one, a line that some other thread comes to first would be let through
/// by what that thread has, which is none, and then nowhere (tracing-core, `callsite::dispatchers`).
pub(crate) fn another_subscriber() {
    LazyLock::force(&ANOTHER);
}
