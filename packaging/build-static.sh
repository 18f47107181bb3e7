#!/usr/bin/env bash
# Builds the server as a program that needs no libraries, and prints its path. It needs, once:
#
#     rustup target add x86_64-unknown-linux-musl
#     apt-get install musl-tools
#
# `PROFILE=dev packaging/build-static.sh` builds it without optimisation.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "build-static.sh: $*" >&2
    exit 1
}

target=x86_64-unknown-linux-musl
profile=${PROFILE:-release}
type -P musl-gcc >/dev/null || fail "musl-gcc is needed, for SQLite and ring: apt-get install musl-tools"
[ -d "$(rustc --print target-libdir --target "$target")" ] || fail "needed: rustup target add $target"

CC_x86_64_unknown_linux_musl=musl-gcc cargo build --profile "$profile" --locked --target "$target" --bin server >&2
folder=$profile
[ "$profile" != dev ] || folder=debug
program=${CARGO_TARGET_DIR:-target}/$target/$folder/server
# Without this the package would lack its dependency on glibc.
! grep -aq 'GLIBC_2\.' "$program" || fail "$program needs glibc"
"$program" --version >&2 || fail "$program does not run"
echo "$program"
