//! What the process gives up of what its user may do (capabilities(7), prctl(2)).

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities, set_no_new_privs,
};

/// No program that is executed later has more rights than this process: the condition for all that follows.
///
/// # Errors
/// The system's.
pub(super) fn no_new() -> std::io::Result<()> {
    Ok(set_no_new_privs(true)?)
}

/// Gives up every capability of this thread, and of those that it starts later, for good.
///
/// # Errors
/// The system's, or that some are left.
pub(super) fn drop_capabilities() -> std::io::Result<()> {
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // The last one that this kernel knows lies before; or we have none that matters, and can get none either.
            Err(Errno::INVAL | Errno::PERM) => break,
            Err(error) => return Err(error.into()),
        }
    }
    match clear_ambient_capability_set() {
        // A kernel older than 4.3 has no such set.
        Ok(()) | Err(Errno::INVAL) => {}
        Err(error) => return Err(error.into()),
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    set_capabilities(None, none)?;
    if capabilities(None)? == none {
        Ok(())
    } else {
        Err(std::io::Error::other("some are left"))
    }
}
