#!/usr/bin/env bash
# Writes the bills of materials of a release: what can be linked into it by Cargo.lock, whatever the features and the
# platform (the FIPS module and Windows' crates among it), with versions, sources and licences. What is linked into one
# binary is in that binary: docs/release.md.
#
#   sbom.sh DIR      DIR/svidecar.spdx.json (SPDX 2.3) and DIR/svidecar.cdx.json (CycloneDX 1.6)
#
# Needs cargo-sbom (`cargo install --locked cargo-sbom@0.10.0`). The list in the binary itself is cargo-auditable's.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd -P)
mkdir -p "${1:?sbom.sh needs a folder}"
out=$(cd "$1" && pwd -P)
cd "$root"
cargo sbom --version >/dev/null 2>&1 || {
    printf 'FAILED: no cargo-sbom: `cargo install --locked cargo-sbom@0.10.0`\n' >&2
    exit 1
}
cargo sbom --cargo-package svidecar --output-format spdx_json_2_3 >"$out/svidecar.spdx.json"
cargo sbom --cargo-package svidecar --output-format cyclone_dx_json_1_6 >"$out/svidecar.cdx.json"
ls -l "$out"/svidecar.*.json
