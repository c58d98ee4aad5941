//! What the SPIFFE standards define: IDs, trust domains, patterns over IDs, and the X.509-SVID profile of a
//! certificate. Pure: no socket, no clock, no TLS.

pub mod pattern;
pub mod svid;

pub use ::spiffe::{SpiffeId, TrustDomain};
pub use pattern::IdPattern;
