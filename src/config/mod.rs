//! The config file: read, checked, turned into [`settings::Settings`].

pub mod settings;
