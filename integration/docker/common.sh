# What the scripts of this folder share. They set `suite` (what is skipped is called by it), `patience` (the seconds after
# which every wait ends by itself) and `scratch` (a folder) before they call what needs these.
# shellcheck shell=bash disable=SC2154

say() { printf '== %s\n' "$*"; }
skip() {
    printf 'SKIPPED: %s: %s\n' "$suite" "$*" >&2
    exit 0
}
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# Skips where no Docker Engine answers.
need_docker() {
    command -v docker >/dev/null || skip 'no docker on PATH'
    docker info >/dev/null 2>&1 || skip 'no Docker Engine answers'
}

# Nothing but the binary will be in the image, so neither is the loader that it would ask for.
need_static() {
    if head -c 4096 "$1" | LC_ALL=C grep -a '/lib[^ ]*/ld-' >/dev/null; then
        fail "$1 is not static: it cannot run in an image made of it alone"
    fi
}

# eventually WHAT COMMAND...: tries the command twice a second until it succeeds.
eventually() {
    local what=$1 deadline=$((SECONDS + patience))
    shift
    until "$@" >"$scratch/last" 2>&1; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            tail -n 5 "$scratch/last" >&2
            fail "not within $patience s: $what"
        fi
        sleep 0.5
    done
    say "$what"
}
