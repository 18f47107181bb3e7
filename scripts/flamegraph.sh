#!/usr/bin/env bash
# Draws a flame graph that shows where a running server spends its processor time:
#
#     scripts/flamegraph.sh PID [SECONDS] [OUT.svg]     10 s into flamegraph.svg
#
# Build the server with `scripts/flamegraph.sh build`: the profile `profiling` is the release build
# with symbols, line numbers and frame pointers. docs/performance.md explains why the stacks are
# walked by frame pointers.
#
# The script needs perf (Debian: linux-perf) and may need privileges: root, or
# kernel.perf_event_paranoid of at most 1. It builds inferno, which draws the graph, once into
# target/tools.
set -euo pipefail
called_from=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.."

INFERNO=0.12.8
FREQUENCY=997 # samples a second of each running thread; a prime, so that they do not keep step with timers

fail() {
    echo "flamegraph.sh: $*" >&2
    exit 2
}

if [ "${1:-}" = build ]; then
    # The standard library of the toolchain already has frame pointers.
    RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" CFLAGS="${CFLAGS:-} -fno-omit-frame-pointer" \
        cargo build --profile profiling --bin server --target-dir target/flamegraph
    echo "flamegraph.sh: built target/flamegraph/profiling/server"
    exit
fi

pid=${1:-} seconds=${2:-10} out=${3:-flamegraph.svg}
[[ $pid =~ ^[1-9][0-9]*$ && $seconds =~ ^[1-9][0-9]*$ && $# -le 3 ]] ||
    fail "usage: scripts/flamegraph.sh PID [SECONDS] [OUT.svg], or scripts/flamegraph.sh build"
[[ $out == /* ]] || out=$called_from/$out
[ -d "/proc/$pid" ] || fail "there is no process $pid"
type -P perf >/dev/null || fail "perf is missing (Debian: apt-get install linux-perf)"
tools=$PWD/target/tools
if [ "$(cat "$tools/inferno-version" 2>/dev/null)" != "$INFERNO" ]; then
    type -P cargo >/dev/null || fail "cargo is needed once, to build inferno"
    echo "flamegraph.sh: building inferno $INFERNO into target/tools"
    cargo install --quiet --locked --force inferno --version "=$INFERNO" --no-default-features --features cli --root "$tools" ||
        fail "inferno cannot be built"
    echo "$INFERNO" >"$tools/inferno-version"
fi

# The process may have ended during the minutes that the build of inferno takes.
[ -d "/proc/$pid" ] || fail "process $pid has ended meanwhile; start it again, inferno is built now"

data=$(mktemp -d "${TMPDIR:-/tmp}/raybox-flamegraph-XXXXXXXX")
trap 'rm -rf "$data"' EXIT

# Sample by cycles if the processor counts them; most virtual machines only have a clock.
event=cycles
perf record -q -e cycles -o "$data/probe" -- true >/dev/null 2>&1 || event=cpu-clock
echo "flamegraph.sh: $seconds s of process $pid by $event"
perf record -q -e "$event" -F "$FREQUENCY" --call-graph fp -p "$pid" -o "$data/perf" -- sleep "$seconds" 2>"$data/errors" ||
    fail "perf cannot record: $(tail -n 3 "$data/errors") (run as root, or as the server's user with kernel.perf_event_paranoid=1)"
perf script -i "$data/perf" >"$data/stacks" 2>"$data/errors" || fail "perf cannot read what it recorded: $(tail -n 3 "$data/errors")"
"$tools/bin/inferno-collapse-perf" <"$data/stacks" >"$data/folded" || fail "there are no stacks"
[ -s "$data/folded" ] || fail "no samples: the process did nothing in this time"
samples=$(grep -c "^[^[:space:]]" "$data/stacks")
"$tools/bin/inferno-flamegraph" --title "raybox: $samples samples ($event) in $seconds s" --minwidth 0.3 <"$data/folded" >"$data/svg"
mv "$data/svg" "$out"
echo "flamegraph.sh: $samples samples in $out"
