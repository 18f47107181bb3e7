#!/usr/bin/env bash
# Fuzzes the code that parses bytes from outside:
#
#     scripts/fuzz.sh                     every target of fuzz/ for a minute
#     scripts/fuzz.sh 600 framing         one target for ten minutes
#     scripts/fuzz.sh --within 120        every target, all of them within two minutes
#     scripts/fuzz.sh --build             builds the targets and runs none
#
# The targets are those of `cargo fuzz`. This script builds them with the same flags except for the
# sanitizer, so it needs neither `cargo fuzz` nor a nightly toolchain, only a C++ compiler for
# libFuzzer. The instrumentation is a pass of LLVM that every toolchain has. The address sanitizer
# needs a nightly toolchain, and would find little because `unsafe` is denied. If both are
# installed, `cargo +nightly fuzz run framing` works as well.
#
# Without a C++ compiler (or with FUZZ_WITHOUT=libfuzzer) the same checks run for the same time on
# the corpus with random edits; the output says so. `cargo test` also checks each file of a corpus.
#
# Findings are stored in fuzz/artifacts, and inputs with new coverage in target/fuzz-corpus, not in
# the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

all=()
for file in fuzz/fuzz_targets/*.rs; do
    name=${file##*/}
    all+=("${name%.rs}")
done

builds_only= is_within=
case ${1:-} in
    --build) builds_only=1 && shift ;;
    --within) is_within=1 && shift ;;
esac
seconds=${1:-60}
targets=("${@:2}")
[ "${#targets[@]}" -gt 0 ] || targets=("${all[@]}")
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "usage: scripts/fuzz.sh [--build | --within] [SECONDS] [TARGET...]" >&2; exit 2; }
for target in "${targets[@]}"; do
    [ -e "fuzz/fuzz_targets/$target.rs" ] || { echo "fuzz.sh: no target $target; there are ${all[*]}" >&2; exit 2; }
done

# The time of each target, if this number of targets runs at once and SECONDS is the time of all.
share() {
    [ -n "$is_within" ] || return 0
    local rounds=$(((${#targets[@]} + $1 - 1) / $1))
    seconds=$((seconds / rounds))
    [ "$seconds" -gt 0 ] || { echo "fuzz.sh: $rounds rounds do not fit in that time" >&2; exit 2; }
}

# ---- With libFuzzer ----

build_targets() {
    local flags
    flags="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    flags+=" -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
    flags+=" -Cllvm-args=-sanitizer-coverage-trace-compares -Cdebug-assertions -Coverflow-checks -Ccodegen-units=1"
    # The flags do not apply to build scripts, because --target is given.
    RUSTFLAGS=$flags cargo build --manifest-path fuzz/Cargo.toml --release --bins --target "$triple"
}

# Runs one target per core at a time; each stops at the first finding.
with_libfuzzer() {
    local failed=0 running=0 target
    share "$(nproc)"
    echo "fuzz.sh: libFuzzer, $seconds s each: ${targets[*]}"
    for target in "${targets[@]}"; do
        if [ "$running" -ge "$(nproc)" ]; then
            wait -n || failed=1
            running=$((running - 1))
        fi
        fuzz_one "$target" &
        running=$((running + 1))
    done
    while [ "$running" -gt 0 ]; do
        wait -n || failed=1
        running=$((running - 1))
    done
    return "$failed"
}

fuzz_one() {
    local target=$1 found=target/fuzz-corpus/$1 log
    log=target/fuzz-$target.log
    mkdir -p "$found" fuzz/artifacts
    # One input may take at most 10 s and 1 GiB.
    if "fuzz/target/$triple/release/$target" "$found" "fuzz/corpus/$target" -max_total_time="$seconds" -timeout=10 \
        -rss_limit_mb=1024 -artifact_prefix="fuzz/artifacts/$target-" -print_final_stats=1 >"$log" 2>&1; then
        echo "fuzz.sh: $target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") inputs, nothing found"
    else
        echo "fuzz.sh: $target FAILED" >&2
        tail -n 60 "$log" >&2
        return 1
    fi
}

# ---- Without ----

without_libfuzzer() {
    local end package target
    share 1
    echo "fuzz.sh: no libFuzzer: property tests on edited corpora, $seconds s each: ${targets[*]}"
    for target in "${targets[@]}"; do
        package=raybox
        case $target in opening | proxy_header | websocket) package=net ;; esac
        end=$((SECONDS + seconds))
        while [ "$SECONDS" -lt "$end" ]; do
            PROPTEST_CASES=2000 cargo test --quiet -p "$package" --lib -- --exact "fuzzing::tests::$target" || return 1
        done
    done
}

triple=$(rustc -vV | sed -n 's/^host: //p')
if [ "${FUZZ_WITHOUT:-}" = libfuzzer ]; then
    [ -n "$builds_only" ] || without_libfuzzer
elif ! type -P "${CXX:-c++}" >/dev/null; then
    echo "fuzz.sh: there is no C++ compiler, which libFuzzer needs (Debian: apt-get install g++)" >&2
    [ -n "$builds_only" ] || without_libfuzzer
else
    build_targets
    [ -n "$builds_only" ] || with_libfuzzer
fi
