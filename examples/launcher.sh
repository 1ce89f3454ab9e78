# Sourced by examples with their name: builds gangway, makes an empty $work and
# starts a launcher for this machine that ends with the script.
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
name=$1
fail() { echo "$name: $*" >&2; exit 1; }
make -C "$root" -s build
work=$root/.cache/$name
rm -rf "$work"
mkdir -p "$work"
data=$(mktemp -d "/tmp/gw-$name.XXXXXX")
export PATH=$root/bin:$PATH GANGWAY_LAUNCHER=unix:$data/launcher.sock
gangway up --data "$data" >"$work/launcher.log" 2>&1 &
launcher=$!
cleanup() { kill $launcher 2>/dev/null || true; wait $launcher 2>/dev/null || true; rm -rf "$data"; }
trap cleanup EXIT
for _ in $(seq 100); do
	gangway status >/dev/null 2>&1 && break
	kill -0 $launcher 2>/dev/null || fail "the launcher ended: $(tail -3 "$work/launcher.log")"
	sleep 0.1
done
