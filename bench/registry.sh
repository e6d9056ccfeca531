#!/bin/bash
# registry.sh CORTEND REGISTRY [SHIM]: how long a cold pull of 300 MB in five layers takes from a registry on this
# machine, beside the price of inflating and hashing the same bytes on two cores, and the daemon's memory meanwhile.
#
# REGISTRY is the distribution registry's program (Debian: docker-registry). Runs in namespaces of its own; needs root.
set -eu
if [ "${1:-}" != --inside ]; then
    exec unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$0" --inside "$@"
fi
shift
cortend=$1 registry=$2
shim=${3:-$(dirname "$cortend")/corten-shim}
ip link set lo up
place=$(mktemp -d "${TMPDIR:-/tmp}/corten-bench.XXXXXX")
trap 'kill $(jobs -p) 2>/dev/null || true; wait || true; rm -rf "$place"' EXIT
mkdir -p "$place/reg" "$place/tree"
cat > "$place/reg.yml" <<Y
version: 0.1
log: {level: error, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $place/reg}}
http: {addr: "127.0.0.1:5000"}
Y
"$registry" serve "$place/reg.yml" > "$place/reg.log" 2>&1 &
socket=$place/d.sock
api() { curl -sS --unix-socket "$socket" "$@"; }
start() {
    "$cortend" -H "unix://$socket" --data-root "$place/data" --exec-root "$place/run" --pidfile "$place/pid" \
        --cgroup-parent /corten-bench --shim "$shim" --bridge none > "$place/log" 2>&1 &
    daemon=$!
    until api http://x/_ping > /dev/null 2>&1; do sleep 0.05; done
}
stop() { kill "$daemon"; wait "$daemon" || true; }

# Five layers of the machine's own programs and libraries, about 300 MB when they are unpacked.
find /usr/bin /usr/sbin /usr/lib -xdev -type f -size -20M -print0 2>/dev/null | sort -z > "$place/all"
python3 - "$place" <<'P'
import os, sys
place = sys.argv[1]
names = open(f"{place}/all", "rb").read().split(b"\0")
number, size = 1, 0
out = open(f"{place}/list1", "wb")
for name in filter(None, names):
    size += os.path.getsize(name)
    out.write(name + b"\0")
    if size > 60_000_000:
        number, size = number + 1, 0
        if number > 5: break
        out = open(f"{place}/list{number}", "wb")
P
digests='' layers='' plain=0
for number in 1 2 3 4 5; do
    tar --null -T "$place/list$number" -cf "$place/$number.tar" 2>/dev/null
    gzip -6 -n -k "$place/$number.tar"
    digest=sha256:$(sha256sum "$place/$number.tar.gz" | cut -d' ' -f1)
    size=$(stat -c %s "$place/$number.tar.gz")
    plain=$((plain + $(stat -c %s "$place/$number.tar")))
    digests="$digests${digests:+,}\"sha256:$(sha256sum "$place/$number.tar" | cut -d' ' -f1)\""
    layers="$layers${layers:+,}{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar+gzip\",\"digest\":\"$digest\",\"size\":$size}"
done
put() { # file digest
    location=$(curl -sS -D - -o /dev/null -X POST http://127.0.0.1:5000/v2/bench/blobs/uploads/ | tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    curl -sS -o /dev/null -X PUT -H 'Content-Type: application/octet-stream' --data-binary "@$1" "$location&digest=$2"
}
printf '{"architecture":"%s","os":"linux","config":{},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$(uname -m | sed 's/x86_64/amd64/;s/aarch64/arm64/')" "$digests" > "$place/config"
config=sha256:$(sha256sum "$place/config" | cut -d' ' -f1)
until curl -sS -o /dev/null http://127.0.0.1:5000/v2/ 2>/dev/null; do sleep 0.1; done
put "$place/config" "$config"
for number in 1 2 3 4 5; do put "$place/$number.tar.gz" "sha256:$(sha256sum "$place/$number.tar.gz" | cut -d' ' -f1)"; done
printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"%s","size":%s},"layers":[%s]}' \
    "$config" "$(stat -c %s "$place/config")" "$layers" > "$place/manifest"
curl -sS -o /dev/null -X PUT -H 'Content-Type: application/vnd.oci.image.manifest.v1+json' \
    --data-binary "@$place/manifest" http://127.0.0.1:5000/v2/bench/manifests/1

echo "five layers, $((plain / 1000000)) MB unpacked, $(cat "$place"/*.tar.gz | wc -c | awk '{print int($1/1000000)}') MB compressed"
now() { date +%s.%N; }
spent() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f s", b - a }'; }
# The price: both digests and the decompression of every layer, two at a time.
price() {
    ls "$place"/*.tar.gz | xargs -P 2 -I{} sh -c 'sha256sum < {} > /dev/null; gzip -dc < {} | sha256sum > /dev/null'
}
for round in 1 2 3; do
    from=$(now); taskset -c 0,1 bash -c "$(declare -f price); place=$place price"; to=$(now)
    echo "inflate and hash on two cores: $(spent "$from" "$to")"
    start
    from=$(now)
    taskset -apc "${CPUS:-0,1}" "$daemon" > /dev/null
    api -X POST "http://x/images/create?fromImage=127.0.0.1:5000/bench&tag=1" > "$place/said"
    to=$(now)
    grep -q 'Downloaded newer image' "$place/said" || { tail -3 "$place/said"; exit 1; }
    echo "cold pull on the same two cores: $(spent "$from" "$to"), daemon's peak $(awk '/VmHWM/ {print int($2/1024)}' "/proc/$daemon/status") MB"
    from=$(now)
    api -X POST "http://x/images/create?fromImage=127.0.0.1:5000/bench&tag=1" > "$place/said"
    echo "pull of what is there: $(spent "$from" "$(now)")"
    stop
    rm -rf "$place/data" "$place/run"
done
