#!/usr/bin/env bash
# Runs all tests. Arguments are passed on to `cargo test`:
#
#     ./test.sh                       everything
#     ./test.sh --release             the same on an optimised build
#     ./test.sh --test offline        one suite
#
# The default is the dev profile: only there overflow and the invariants of buffers, timers and sessions are checked
# after every change, and from a cold cache it compiles in a fraction of the time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

fail() {
    echo "test.sh: $*" >&2
    exit 1
}

# apt_install PROGRAM PACKAGE: installs PACKAGE where PROGRAM is missing and we may.
apt_install() {
    local program=$1 package=$2 become=()
    type -P "$program" >/dev/null && return
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || fail "$program is needed: install it (Debian: apt-get install $package)"
        become=(sudo)
    fi
    command -v apt-get >/dev/null || fail "$program is needed: install it (Debian: apt-get install $package)"
    echo "test.sh: installing $package, which the tests need"
    "${become[@]}" apt-get update -qq || echo "test.sh: apt-get update failed, trying with what is known" >&2
    DEBIAN_FRONTEND=noninteractive "${become[@]}" apt-get install -y -qq --no-install-recommends "$package" ||
        fail "cannot install $package: install it yourself"
    type -P "$program" >/dev/null || fail "$package is installed but $program is not found"
}

# ---- What the tests need ----

command -v cargo >/dev/null || fail "cargo is needed: install Rust 1.95 or later with rustup"
apt_install cc gcc            # compiles the embedded SQLite
apt_install python3 python3   # plays the recorded exchanges of tests/conformance
apt_install kill procps
apt_install prlimit util-linux

# ---- The tests ----

# Every suite runs even when one fails; cargo names the failed ones at the end.
cargo test --workspace --no-fail-fast "$@" || fail "tests failed, see above"
echo "test.sh: all tests passed"
