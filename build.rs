//! Tells the program what it is built for, and has the linker write the id of what it made into it.

#![allow(clippy::print_stdout, reason = "cargo reads a build script's standard output")]

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let of = |name| std::env::var(name).unwrap_or_default();
    println!("cargo::rustc-env=SVIDECAR_TARGET={}", of("TARGET"));
    // A hash of what is linked: the same for the same bytes. Most toolchains write one unasked, of a kind of their own.
    if of("CARGO_CFG_TARGET_OS") == "linux" {
        println!("cargo::rustc-link-arg-bins=-Wl,--build-id=sha1");
    }
}
