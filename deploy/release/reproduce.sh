#!/usr/bin/env bash
# Builds the release twice, from two folders with two cargo homes, and compares: the bytes must be the same.
# Takes no path with blanks (jemalloc's configure refuses them), two builds of profile `dist`, and a few gigabytes in DIR.
#
#   reproduce.sh [--fips] [DIR]   DIR is where it builds; a new folder in TMPDIR by default, removed if the bytes are the same
#   reproduce.sh --with FILE [--fips] [DIR]
#                                 builds once and compares with a released binary
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd -P)
released=''
features=()
if [ "${1-}" = --with ]; then
    released=$(readlink -f "${2:?--with needs the released binary}")
    shift 2
fi
if [ "${1-}" = --fips ]; then
    features=(--fips)
    shift
fi
case ${1-} in
-*)
    sed -n '2,8s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
'') work=$(mktemp -d) && made=yes ;;
*) mkdir -p "$1" && work=$(cd "$1" && pwd -P) && made='' ;;
esac

# The sources as git has them, so that nothing else can be in a build. Both get the commit told in the same words.
SVIDECAR_COMMIT=$(git -C "$root" rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git -C "$root" log -1 --format=%ct)
export SVIDECAR_COMMIT SOURCE_DATE_EPOCH
# What the image's Dockerfile lets into its build, and nothing else: the first build shows that it is enough.
mapfile -t context < <(sed -n 's/^!//p' "$root/deploy/Dockerfile.dockerignore" | grep -vx svidecar)
build() {
    local sources=$1 target=$2 out=$3
    shift 3
    mkdir -p "$sources"
    git -C "$root" archive HEAD "$@" | tar --extract --directory "$sources"
    printf '== building in %s\n' "$sources"
    CARGO_TARGET_DIR=$target "$sources/deploy/release/build.sh" "${features[@]}" "$out"
}

build "$work/one" "$work/one/target" "$work/first" "${context[@]/#/:(glob)}"
if [ -n "$released" ]; then
    other=$released
else
    # Another place for everything, of another length: sources, target, and cargo's home with its registry.
    home=$work/another/home/of/cargo
    mkdir -p "$home"
    from=${CARGO_HOME:-$HOME/.cargo}
    for part in registry config.toml; do
        if [ -e "$from/$part" ]; then
            cp --recursive --link "$from/$part" "$home/" 2>/dev/null || cp --recursive "$from/$part" "$home/"
        fi
    done
    PATH=${from}/bin:$PATH CARGO_HOME=$home build "$work/a-second-place" "$work/built-elsewhere" "$work/second"
    other=$work/second/svidecar
fi

if cmp "$work/first/svidecar" "$other"; then
    printf '== the same bytes: %s\n' "$(sha256sum "$other" | cut -d ' ' -f 1)"
    [ -z "$made" ] || rm -rf "$work"
    exit 0
fi
cat >&2 <<END
FAILED: the bytes differ. Both are kept:
  $work/first/svidecar
  $other
Which part differs:      for f in BOTH; do readelf --wide --sections \$f; done
Paths that came along:   strings -n 8 FILE | grep -F -e '$work' -e "\$HOME"
All of it, readably:     diffoscope $work/first/svidecar '$other'
Compare svidecar.buildinfo first: other tools make other bytes.
END
exit 1
