//! The buffers of a relay. A connection holds one only while it has something to move; between, they wait in a pool of
//! their thread, so that an idle connection costs none and a busy one allocates none.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

use crate::tls::record::MAX_RECORD;

/// Two records of the most that a peer may send: while one is opened and written on, the next is read.
pub(super) const SIZE: usize = 2 * MAX_RECORD;
/// Buffers that a thread keeps for later: about a megabyte.
const KEPT: usize = 32;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

#[cfg(test)]
thread_local! {
    static TAKEN: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// How many buffers of this thread are in use.
#[cfg(test)]
pub(super) fn taken() -> usize {
    TAKEN.with(std::cell::Cell::get)
}

/// [`SIZE`] bytes, given back to the pool of the thread that drops it.
pub(super) struct Buffer(Box<[u8]>);

impl Buffer {
    pub(super) fn take() -> Self {
        let kept = POOL.try_with(|pool| pool.borrow_mut().pop()).ok().flatten();
        #[cfg(test)]
        TAKEN.with(|taken| taken.set(taken.get() + 1));
        Self(kept.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        #[cfg(test)]
        TAKEN.with(|taken| taken.set(taken.get() - 1));
        let bytes = std::mem::take(&mut self.0);
        // A thread that is ending has no pool any more: the buffer is simply freed.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.len() < KEPT {
                pool.push(bytes);
            }
        });
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}
