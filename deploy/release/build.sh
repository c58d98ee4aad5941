#!/usr/bin/env bash
# Builds the binary that is released: static, profile `dist`, and the same bytes from the same sources and tools, wherever
# they lie. docs/release.md says what "same tools" means.
#
#   build.sh [--fips] [DIR]      DIR gets `svidecar`, and `svidecar.buildinfo`, which names the tools;
#                                target/dist-files by default
#
# CARGO_TARGET_DIR and CARGO_HOME are respected. SVIDECAR_COMMIT names the commit where this is no git work tree, and
# SVIDECAR_BUILD_IMAGE the image, by its digest, that all this runs in.
# Needs cargo-auditable, which writes the list of what is linked into the binary; SVIDECAR_AUDITABLE=no does without.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd -P)
features=()
if [ "${1-}" = --fips ]; then
    features=(--features fips)
    shift
fi
case ${1-} in
-*)
    sed -n '2,10s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
mkdir -p "${1:-$root/target/dist-files}"
out=$(cd "${1:-$root/target/dist-files}" && pwd -P)
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# .cargo/config.toml, which holds jemalloc's settings, is read in this folder only.
cd "$root"
cargo_home=${CARGO_HOME:-$HOME/.cargo}
cargo_home=$(cd "$cargo_home" && pwd -P)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "$CARGO_TARGET_DIR"
CARGO_TARGET_DIR=$(cd "$CARGO_TARGET_DIR" && pwd -P)
target=$(rustc -vV | sed -n 's/^host: //p')

build=(cargo build)
if [ "${SVIDECAR_AUDITABLE-}" != no ]; then
    cargo auditable --version >/dev/null 2>&1 ||
        fail 'no cargo-auditable: `cargo install --locked cargo-auditable@0.7.7`, or SVIDECAR_AUDITABLE=no to do without'
    build=(cargo auditable build)
fi

# A commit that is not what is built would be worse than none.
if [ -z "${SVIDECAR_COMMIT-}" ] && [ "$(git rev-parse --show-toplevel 2>/dev/null || true)" = "$root" ]; then
    SVIDECAR_COMMIT=$(git rev-parse HEAD)
    [ -z "$(git status --porcelain)" ] || SVIDECAR_COMMIT+=-changed
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
fi
export SVIDECAR_COMMIT=${SVIDECAR_COMMIT-}
# Nothing here writes a date; whatever would, writes this one.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-0}

# Where things lie, by names that are the same everywhere: in what rustc writes (places of panics) and what C writes
# (`__FILE__`, in AWS-LC's errors). The last prefix that fits wins, so the more special come last.
flags=(-C target-feature=+crt-static)
c_flags=
for place in "$cargo_home=/cargo" "$root=/svidecar" "$CARGO_TARGET_DIR=/target"; do
    flags+=("--remap-path-prefix=$place")
    c_flags+=" -ffile-prefix-map=$place"
done
# A megabyte less: relative relocations in a bitmap, and one copy of functions that came out the same. Both of lld, which
# rustc brings for this target; the static C library reads the former from 2.36 on (Debian 12).
if [ "$target" = x86_64-unknown-linux-gnu ]; then
    libc=$(ldd --version 2>&1 | sed -n '1s/.* \([0-9]*\.[0-9]*\)$/\1/p')
    # What sorts first is the older of the two.
    [ "$(printf '%s\n' 2.36 "$libc" | sort --version-sort | head -n 1)" = 2.36 ] ||
        fail "the C library here is ${libc:-of no known version}, and releases need glibc 2.36 or later (Debian 12, Ubuntu 24.04): build in the image of docs/release.md"
    # shellcheck disable=SC2054 # The commas are the linker's.
    flags+=(-C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--icf=all)
fi
# Nothing unwinds through C. -O2 is for AWS-LC, where what is quick is assembly, in place of the -O3 that cargo asks for; jemalloc
# gets it, too. -Os was measured (docs/performance.md). The module of a FIPS build is left as its makers compile it.
[ -n "${features[*]-}" ] || c_flags+=' -fno-asynchronous-unwind-tables -O2'
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && printf '%s' "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS CFLAGS="${c_flags# }" CXXFLAGS="${c_flags# }"
unset RUSTFLAGS MALLOC_CONF
export CARGO_INCREMENTAL=0 LC_ALL=C TZ=UTC

"${build[@]}" --locked --profile dist --target "$target" --bin svidecar "${features[@]}"
install -m 755 "$CARGO_TARGET_DIR/$target/dist/svidecar" "$out/svidecar"
"$out/svidecar" -V >/dev/null || fail 'what was built does not run'

{
    printf 'commit:    %s\n' "${SVIDECAR_COMMIT:-unknown}"
    printf 'sha256:    %s\n' "$(sha256sum "$out/svidecar" | cut -d ' ' -f 1)"
    printf 'features:  %s\n' "${features[1]-default}"
    printf 'auditable: %s\n' "$([ "${build[1]}" = auditable ] && cargo auditable --version | tr -d '\n' || echo no)"
    printf 'image:     %s\n' "${SVIDECAR_BUILD_IMAGE:-none}"
    printf 'rustc:     %s\n' "$(rustc --version)"
    printf 'cargo:     %s\n' "$(cargo --version)"
    printf 'cc:        %s\n' "$(cc --version | head -n 1)"
    printf 'libc:      %s\n' "$(ldd --version 2>&1 | head -n 1)"
} >"$out/svidecar.buildinfo"
cat "$out/svidecar.buildinfo"
printf 'bytes:     %s\n' "$(stat -c %s "$out/svidecar")"
