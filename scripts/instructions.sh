#!/usr/bin/env bash
# The cost of a message in instructions, which does not depend on the machine's speed or on other
# programs:
#
#     scripts/instructions.sh                           fails when one costs over 5 % more than recorded
#     scripts/instructions.sh chat group                these alone
#     scripts/instructions.sh --runs 5                  five times, with the spread
#     scripts/instructions.sh --update "REASON" chat    records the figure of today, and why it has changed
#
# It builds the release binary, installs valgrind if it is missing and the user may, and plays fixed
# sessions to the real server under callgrind: scripts/instructions.py. The figures are in
# raybench/instructions.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "instructions.sh: $*" >&2
    exit 2
}

# For help nothing is built or installed.
case ${1:-} in -h | --help) exec scripts/instructions.py --help ;; esac

. scripts/needs.sh
trap '"${policy_remover[@]}"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

type -P cargo >/dev/null || fail "cargo is needed: install Rust 1.95 or later with rustup"
need cc gcc # compiles the embedded SQLite
need python3 python3
need valgrind valgrind
install_missing
cargo build --release --bin server --target-dir target || fail "the server cannot be built"
scripts/instructions.py "$@"
