//! Who we are: obtains SVIDs and bundles, checks them, and publishes them whole.

pub mod files;
pub mod material;
pub mod rotation;
pub mod source;
pub mod update;
pub mod workload_api;
