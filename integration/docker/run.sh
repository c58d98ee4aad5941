#!/usr/bin/env bash
# Brings the compose example up on this machine's Docker, looks whether it does what it says, and takes it down.
#
#   run.sh                      with the images that compose.yaml names, pulled or built as compose does it
#   run.sh --local-images DIR   where no image can be pulled: makes images of the static binaries in DIR
#                               (spire-server, spire-agent, svidecar, app) under the names in compose.yaml;
#                               `app` is built from ../go when DIR has none. They are removed at the end.
#
# Exit 0 when all held, or with "SKIPPED: ..." when this machine cannot run it; 1 when something did not hold.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
readonly here
# Every wait below ends by itself after this many seconds.
readonly patience=90
# Short-lived, so that a rotation comes while we look: SPIRE renews an SVID at half its life.
readonly svid_ttl=60
readonly spire_version=1.15.3
readonly suite='docker example'
# shellcheck source=integration/docker/common.sh
. "$here/common.sh"

local_images=''
case ${1-} in
'') ;;
--local-images) local_images=$(cd "${2:?--local-images needs a folder}" && pwd) ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac

need_docker
if docker compose version >/dev/null 2>&1; then
    compose_command=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose_command=(docker-compose)
else
    skip 'neither docker compose nor docker-compose'
fi
# A project name of its own: a copy that somebody else keeps running here is left alone.
readonly project=svidecar-example-$$
compose() { "${compose_command[@]}" --project-name "$project" --file "$here/compose.yaml" "$@"; }

made_images=()
scratch=$(mktemp -d)
made_bootstrap=''
is_up=''

take_down() {
    local status=$?
    trap - EXIT
    if [ -n "$is_up" ]; then
        if [ "$status" != 0 ]; then
            say 'what the containers said last'
            compose logs --no-color --tail 40 || true
        fi
        say 'taking it down'
        compose down --volumes --remove-orphans --timeout 5 >"$scratch/down.log" 2>&1 || cat "$scratch/down.log"
    fi
    if [ ${#made_images[@]} -gt 0 ]; then
        docker image rm --force "${made_images[@]}" >/dev/null 2>&1 || true
    fi
    if [ -n "$made_bootstrap" ]; then rm -rf "$here/bootstrap"; fi
    rm -rf "$scratch"
    exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# An image that holds one static binary, and folders that its process may write.
#   make_image NAME USER BINARY PATH-IN-IMAGE ENTRYPOINT-JSON [FOLDER...]
make_image() {
    local name=$1 user=$2 binary=$3 path=$4 entrypoint=$5 root
    shift 5
    if docker image inspect "$name" >/dev/null 2>&1; then
        fail "the image $name is here already; remove it or leave --local-images out"
    fi
    need_static "$binary"
    root=$scratch/root
    rm -rf "$root"
    install -D -m 755 "$binary" "$root$path"
    for folder in /tmp "$@"; do install -d -m 755 "$root$folder"; done
    tar --create --directory "$root" --owner="${user%:*}" --group="${user#*:}" . |
        docker import --change "ENTRYPOINT $entrypoint" --change "USER $user" - "$name" >/dev/null
    made_images+=("$name")
}

if [ -n "$local_images" ]; then
    if [ ! -x "$local_images/app" ]; then
        command -v go >/dev/null || skip "no app in $local_images, and no go on PATH to build it"
        (cd "$here/../go" && CGO_ENABLED=0 go build -o "$scratch/app" ./cmd/app)
        app=$scratch/app
    else
        app=$local_images/app
    fi
    for binary in spire-server spire-agent svidecar; do
        [ -x "$local_images/$binary" ] || skip "no $binary in $local_images"
    done
    say "images of the binaries in $local_images"
    # Users, paths and entry points as in SPIRE's own images.
    make_image "ghcr.io/spiffe/spire-server:$spire_version" 1000:1000 "$local_images/spire-server" \
        /opt/spire/bin/spire-server '["/opt/spire/bin/spire-server", "run"]' \
        /etc/spire/server /tmp/spire-server/private /var/lib/spire/server
    make_image "ghcr.io/spiffe/spire-agent:$spire_version" 0:0 "$local_images/spire-agent" \
        /opt/spire/bin/spire-agent '["/opt/spire/bin/spire-agent", "run"]' \
        /etc/spire/agent /run/spire/agent/public /var/lib/spire/agent
    make_image svidecar:local 65532:65532 "$local_images/svidecar" /svidecar '["/svidecar"]'
    make_image svidecar-example-app:local 65532:65532 "$app" /app '["/app"]'
fi

spire_server() { compose exec -T spire-server /opt/spire/bin/spire-server "$@"; }
application() {
    local name=$1
    shift
    compose exec -T "$name" /app "$@"
}
ready() { application "$1" get http://127.0.0.1:15000/readyz; }
# The sidecar of this name wrote a line in which all of these are found.
wrote() {
    local lines
    lines=$(compose logs --no-color "$1-sidecar")
    shift
    for part in "$@"; do
        lines=$(grep -F -- "$part" <<<"$lines") || return 1
    done
}

say 'SPIRE server'
is_up=yes
compose up -d spire-server >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log"; fail 'compose up'; }
eventually 'the SPIRE server is healthy' spire_server healthcheck

say 'SPIRE agent: the bundle it trusts the server by, and a token to join with'
[ ! -e "$here/bootstrap" ] || fail "$here/bootstrap exists already: another run's, or yours"
made_bootstrap=yes
(
    umask 077
    mkdir "$here/bootstrap"
    spire_server bundle show >"$here/bootstrap/bundle.pem"
    spire_server token generate -spiffeID spiffe://example.org/agent |
        sed -n 's/^Token: *//p' | tr -d '\r\n' >"$here/bootstrap/join_token"
)
[ -s "$here/bootstrap/join_token" ] || fail 'no join token'
compose up -d >"$scratch/up.log" 2>&1 || { cat "$scratch/up.log"; fail 'compose up'; }

say 'sidecars before anybody registered them'
eventually 'the sidecar of orders is alive' application orders get http://127.0.0.1:15000/livez
ready orders >/dev/null 2>&1 && fail 'ready without an identity'

for workload in orders storefront reports; do
    spire_server entry create -parentID spiffe://example.org/agent -spiffeID "spiffe://example.org/$workload" \
        -selector "docker:label:org.example.workload:$workload" -x509SVIDTTL "$svid_ttl" >"$scratch/entry.log" ||
        { cat "$scratch/entry.log"; fail "no entry for $workload"; }
done
for workload in orders storefront reports; do
    eventually "the sidecar of $workload got its SVID by the container's label" ready "$workload"
done

say 'allowed: storefront'
answer=$(application storefront ask 127.0.0.1:9001 'one order') || fail 'storefront got no answer'
[ "${answer%$'\r'}" = 'echo one order' ] || fail "storefront got '$answer'"
eventually 'the record at orders names the peer and the rule' wrote orders \
    '"peer_id":"spiffe://example.org/storefront"' '"verdict":"allow"' '"rule":"storefront-places-orders"' \
    '"result":"ok"'

say 'denied: reports, which no rule names'
if application reports ask 127.0.0.1:9001 'one order' >"$scratch/last" 2>&1; then
    fail 'reports was let through'
fi
eventually 'the record at orders says who was denied, and why' wrote orders \
    '"peer_id":"spiffe://example.org/reports"' '"verdict":"deny"' '"reason":"no_allow_rule"'
eventually 'the record at reports says that the other side refused' wrote reports '"reason":"refused_by_peer"'

say 'around the sidecar: no way in'
if application storefront ask orders:8443 'plain text' >"$scratch/last" 2>&1; then
    fail 'plain text got through the TLS listener'
fi
eventually 'the record at orders calls plain text what it is' wrote orders '"reason":"not_tls"'
if application storefront ask orders:8080 'directly' >"$scratch/last" 2>&1; then
    fail 'the application can be reached without its sidecar'
fi

say "rotation: SVIDs live $svid_ttl s, and one connection stays open meanwhile"
application storefront watch-rotation -timeout 150s 127.0.0.1:9001 || fail 'no rotation under an open connection'

say 'all of it held'
