//! Who we are: obtains SVIDs and bundles, checks them, and publishes them whole.

pub mod material;
