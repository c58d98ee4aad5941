//! What a deny list hits, and what is refused.
