//! The `svidecar` program. All of it is in the library; see [`svidecar::cli`].

/// The system's allocator keeps the memory of connections that are gone and cannot use the holes that idle ones leave
/// (ARCHITECTURE.md, "Memory"). It serves C code, too. Its settings are in `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    svidecar::cli::main()
}
