//! The `svidecar` program. All of it is in the library; see [`svidecar::cli`].

fn main() -> std::process::ExitCode {
    svidecar::cli::main()
}
