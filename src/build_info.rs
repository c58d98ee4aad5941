//! What this binary was built from: for `--version`, and for the metric `svidecar_build_info`.
//!
//! Everything in it is fixed when it is built, so that the same sources give the same bytes: there is no date. The
//! commit is what the build was told (`SVIDECAR_COMMIT`): asking git would tell of a tree that may have been changed
//! since. The build id is the linker's hash of what it linked, which only the finished file can tell.

mod elf;

use std::fs::File;
use std::io::Read;
use std::sync::OnceLock;

use data_encoding::HEXLOWER;

/// The version, as in `Cargo.toml`.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The commit that the build was told of.
pub const COMMIT: &str = match option_env!("SVIDECAR_COMMIT") {
    Some(commit) if !commit.is_empty() => commit,
    _ => UNKNOWN,
};
/// The cargo features that were asked for.
pub const FEATURES: &str = if FIPS { "fips" } else { "default" };
/// Whether cryptography is AWS-LC's FIPS module (`docs/fips.md`).
pub const FIPS: bool = cfg!(feature = "fips");
/// The target triple.
pub const TARGET: &str = env!("SVIDECAR_TARGET");
/// Whether the C library is in the binary.
pub const LINKAGE: &str = if cfg!(target_feature = "crt-static") {
    "static"
} else {
    "dynamic"
};
const UNKNOWN: &str = "unknown";

/// Of our own file: the ELF header, the program headers and the notes, which linkers put right behind.
const HEAD: u64 = 4096;

/// The build id (`NT_GNU_BUILD_ID`) of the running program, in hexadecimal; `unknown` where the file cannot be read or has
/// none. Reads the file at the first call: one that comes before the process confines itself. Blocking.
#[must_use]
pub fn build_id() -> &'static str {
    static ID: OnceLock<String> = OnceLock::new();
    ID.get_or_init(|| {
        let mut head = Vec::new();
        // The file that was started, even where another one has its name by now (an upgrade).
        let read = File::open("/proc/self/exe").and_then(|file| file.take(HEAD).read_to_end(&mut head));
        let id = read.ok().and_then(|_| elf::build_id(&head));
        id.map_or_else(|| UNKNOWN.to_owned(), |id| HEXLOWER.encode(id))
    })
}

/// The TLS provider, and the version of the library it calls.
#[must_use]
pub fn tls_provider() -> String {
    let fips = if FIPS { " FIPS" } else { "" };
    format!("aws-lc-rs, AWS-LC{fips} {}", aws_lc_rs::awslc_version())
}

/// What `--version` prints behind the program's name.
#[must_use]
pub fn long_version() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    TEXT.get_or_init(|| {
        let fips = if FIPS { "yes" } else { "no" };
        let (provider, id) = (tls_provider(), build_id());
        format!(
            "{VERSION}\n\
             commit:    {COMMIT}\n\
             features:  {FEATURES}\n\
             tls:       rustls on {provider}\n\
             fips:      {fips}\n\
             target:    {TARGET}, {LINKAGE}\n\
             build id:  {id}"
        )
    })
}

/// The labels of `svidecar_build_info`: one value each for the life of the process.
#[must_use]
pub fn labels() -> Vec<(&'static str, String)> {
    vec![
        ("version", VERSION.to_owned()),
        ("commit", COMMIT.to_owned()),
        ("features", FEATURES.to_owned()),
        ("tls", tls_provider()),
        ("fips", FIPS.to_string()),
        ("target", TARGET.to_owned()),
        ("build_id", build_id().to_owned()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_build_tells_what_it_is() {
        let text = long_version();
        assert!(text.starts_with(VERSION), "{text}");
        for (line, (name, value)) in text.lines().skip(1).zip(labels().into_iter().skip(1)) {
            // Labels and lines are the same facts in one order; `fips` alone is said in words.
            let value = match value.as_str() {
                "true" => "yes",
                "false" => "no",
                other => other,
            };
            assert!(line.contains(value), "{name}: {line}");
        }
        assert_eq!(text.lines().count(), labels().len());
    }

    #[test]
    fn the_running_program_has_a_build_id() {
        // This one was linked by the same toolchain. 16 bytes or more, or the linker was told otherwise.
        let id = build_id();
        assert!(
            id.len() >= 16 && id.bytes().all(|b| b.is_ascii_hexdigit()),
            "{id}"
        );
    }
}
