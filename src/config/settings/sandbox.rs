//! How strictly the process confines itself.

/// How strictly the process confines itself before it serves anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SandboxMode {
    /// In full, or it does not start.
    Strict,
    /// As far as the kernel can, and it says what is missing.
    #[default]
    BestEffort,
    /// Not at all.
    Off,
}

impl SandboxMode {
    /// Every mode, under the word in the config file.
    pub const WORDS: &'static [(&'static str, Self)] = &[
        ("strict", Self::Strict),
        ("best-effort", Self::BestEffort),
        ("off", Self::Off),
    ];

    /// The word in the config file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::BestEffort => "best-effort",
            Self::Off => "off",
        }
    }
}
