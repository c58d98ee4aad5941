//! The allocator's own thread.

use tikv_jemalloc_ctl::background_thread;

/// Starts the thread by which the allocator gives free memory back to the system, also while nothing allocates.
///
/// It is not started with the process (`.cargo/config.toml`): a thread that runs before the process is confined would not
/// be confined, and shares all memory with those that are.
///
/// # Errors
/// The allocator's, in its words.
pub fn give_back_in_the_background() -> std::io::Result<()> {
    background_thread::write(true).map_err(|error| std::io::Error::other(error.to_string()))
}
