//! What svidecar asks of the operating system, behind owning types. The only place where `unsafe` would be allowed;
//! there is none so far.

pub mod bind;
pub mod limits;
pub mod memory;
pub mod netfilter;
pub mod secret;
pub mod stream;
