#!/usr/bin/env bash
# Measures the cost of a message in instructions, which depends neither on the machine's speed nor on
# other programs:
#
#     scripts/instructions.sh                           fails if a message costs over 5 % more than recorded
#     scripts/instructions.sh chat group                only these scenarios
#     scripts/instructions.sh --runs 5                  plays each five times, and shows the spread
#     scripts/instructions.sh --update "REASON" chat    records the present figure, and why it has changed
#
# The script builds the release binary, and installs valgrind if it is missing and the user may do
# that. Then scripts/instructions.py plays fixed sessions to the real server under callgrind. The
# figures are in raybench/instructions.txt.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

fail() {
    echo "instructions.sh: $*" >&2
    exit 2
}

# The help needs no build and no installation.
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
