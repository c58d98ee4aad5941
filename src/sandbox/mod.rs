//! What the process can no longer do once it has started.
//!
//! [`plan`] says what the settings need, and what other settings would need beyond that.

mod links;
pub mod plan;
