#!/usr/bin/env bash
# Makes the image of deploy/Dockerfile of a static binary that is there already, and holds it to what it promises:
# small, one file in it, no other user than 65532, healthy by itself, names resolve, a drain on SIGTERM.
#
#   image.sh BINARY
#
# Everything that runs is that one binary, three times: the Workload API for development, a sidecar that serves a part of
# its admin endpoint over mutual TLS, and a sidecar that calls it by its container's name.
# Exit 0 when all held, or with "SKIPPED: ..." when this machine cannot run it; 1 when something did not hold.
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
readonly root
readonly most_bytes=12500000
# Every wait below ends by itself after this many seconds.
readonly patience=60
readonly suite='docker image'
# shellcheck source=integration/docker/common.sh
. "$root/integration/docker/common.sh"

binary=$(readlink -f "${1:?image.sh needs the static binary}")
need_docker
need_static "$binary"

readonly name=svidecar-image-test-$$
readonly image=$name:local
scratch=$(mktemp -d)
take_down() {
    local status=$?
    trap - EXIT
    for container in orders storefront agent; do
        if [ "$status" != 0 ] && docker inspect "$name-$container" >/dev/null 2>&1; then
            say "what $container said last"
            docker logs --tail 20 "$name-$container" 2>&1 || true
        fi
        docker rm --force --volumes "$name-$container" >/dev/null 2>&1 || true
    done
    docker network rm "$name" >/dev/null 2>&1 || true
    docker image rm --force "$image" >/dev/null 2>&1 || true
    rm -rf "$scratch"
    exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

equal() { [ "$2" = "$3" ] || fail "$1: '$2' in place of '$3'"; }
inspected() { docker inspect --format "$2" "$1"; }

say 'the image, of the binary alone'
mkdir "$scratch/context"
cp "$binary" "$scratch/context/svidecar"
docker build --quiet --tag "$image" --file "$root/deploy/Dockerfile" --target local "$scratch/context" \
    >"$scratch/build.log" 2>&1 || { cat "$scratch/build.log"; fail 'docker build'; }
bytes=$(inspected "$image" '{{.Size}}')
say "it has $bytes bytes"
[ "$bytes" -le "$most_bytes" ] || fail "the image has $bytes bytes, more than $most_bytes"
equal 'its user' "$(inspected "$image" '{{.Config.User}}')" 65532:65532
equal 'its health check' "$(inspected "$image" '{{json .Config.Healthcheck.Test}}')" '["CMD","/svidecar","healthcheck"]'
equal 'its entry point' "$(inspected "$image" '{{json .Config.Entrypoint}}')" '["/svidecar"]'

# The files that a container of it has, but for the empty ones that Docker mounts over.
docker create --name "$name-agent" "$image" >/dev/null
files=$(docker export "$name-agent" | tar --list --verbose | awk '$1 ~ /^-/ && $3 > 0 { print $NF }')
docker rm "$name-agent" >/dev/null
equal 'the files in it' "$files" svidecar
for shell in /bin/sh /bin/bash /busybox/sh; do
    if docker run --rm --name "$name-agent" --entrypoint "$shell" "$image" -c true >/dev/null 2>&1; then
        fail "there is a $shell in it"
    fi
done

say 'two sidecars, as locked down as Docker can'
docker network create "$name" >/dev/null
mkdir "$scratch/agent" "$scratch/orders" "$scratch/orders/policy" "$scratch/storefront"
# The socket's folder, which the containers' user must be able to write.
chmod 777 "$scratch/agent"
cat >"$scratch/orders/svidecar.yaml" <<'END'
identity: { svid: "spiffe://example.org/orders" }
policy: { path: policy/ }
inbound:
  - { name: health, listen: "0.0.0.0:8443", serve: admin }
limits: { drain_timeout: 20s }
admin: { listen: "127.0.0.1:15000" }
END
cat >"$scratch/orders/policy/orders.yaml" <<'END'
rules:
  - { name: storefront-may-look, action: allow, from: ["spiffe://example.org/storefront"] }
END
# The name is that of the other container, which only the network's own resolver knows.
cat >"$scratch/storefront/svidecar.yaml" <<END
identity: { svid: "spiffe://example.org/storefront" }
outbound:
  - name: to-orders
    listen: 0.0.0.0:9001
    allow_remote_clients: true
    connect: $name-orders:8443
    peer: ["spiffe://example.org/orders"]
admin: { listen: "127.0.0.1:15000" }
END
chmod -R go+rX "$scratch" && chmod 755 "$scratch"

locked=(--read-only --cap-drop ALL --security-opt no-new-privileges --network "$name")
docker run --detach --name "$name-agent" "${locked[@]}" --volume "$scratch/agent:/agent" --no-healthcheck "$image" \
    workload-api --socket /agent/agent.sock --mode 666 --trust-domain example.org \
    --id spiffe://example.org/orders --id spiffe://example.org/storefront >/dev/null
for sidecar in orders storefront; do
    docker run --detach --name "$name-$sidecar" "${locked[@]}" --publish 127.0.0.1::9001 \
        --volume "$scratch/agent:/agent:ro" --volume "$scratch/$sidecar:/etc/svidecar:ro" \
        --env SPIFFE_ENDPOINT_SOCKET=unix:///agent/agent.sock "$image" >/dev/null
done
healthy() { [ "$(inspected "$name-$1" '{{.State.Health.Status}}')" = healthy ]; }
eventually 'orders is healthy, says its own health check' healthy orders
eventually 'storefront is healthy, says its own health check' healthy storefront
equal 'the user that runs' "$(docker top "$name-orders" -o pid,uid | awk "NR == 2 { print \$2 }")" 65532

# Through the first sidecar, by name to the second, and to what that one serves.
eventually 'names resolve: storefront calls orders by the name of its container, over mutual TLS' \
    docker exec "$name-storefront" /svidecar healthcheck --admin 127.0.0.1:9001

say 'SIGTERM with a connection open'
address=$(docker port "$name-storefront" 9001/tcp | head -n 1)
exec 3<>"/dev/tcp/${address%:*}/${address##*:}"
# Half a request: the connection stays open, and waits for the rest.
printf 'GET /livez HTTP/1.1\r\nHost: 127.0.0.1\r\n' >&3
is_open() { docker exec "$name-orders" /svidecar status --json | grep -E '"open": ?1,'; }
eventually 'orders has the connection' is_open
docker stop --time 30 "$name-orders" >/dev/null &
stopping=$!
drains() { docker logs "$name-orders" 2>&1 | grep -F 'shutting down: no new connections'; }
eventually 'orders drains' drains
[ "$(inspected "$name-orders" '{{.State.Running}}')" = true ] || fail 'it did not wait for its connection'
printf '\r\n' >&3
IFS=' ' read -r -t 20 -u 3 _ status _ || fail 'no answer while it drains'
equal 'the answer while it drains' "$status" 200
exec 3>&-
wait "$stopping"
equal 'the exit code' "$(inspected "$name-orders" '{{.State.ExitCode}}')" 0

say 'all of it held'
