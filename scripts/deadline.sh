#!/usr/bin/env bash
# Runs a test program, and kills it if it has not ended after a time: a test that hangs is named
# and fails, and the suites behind it still run. `./test.sh` runs each suite like this:
#
#     scripts/deadline.sh SECONDS PROGRAM ARGUMENT...
#
# The program takes this process's place, so its signals, parent and terminal are what cargo gave
# it. A process that is not its child watches it.
set -euo pipefail
seconds=$1
shift
program=$$

# What the threads of the program, and of the processes that it started, are waiting for.
show() {
    local process=$1 child thread
    [ -r "/proc/$process/cmdline" ] || return 0
    printf '\n%s: %s\n' "$process" "$(tr '\0' ' ' <"/proc/$process/cmdline" 2>/dev/null | cut -c 1-300)"
    for thread in "/proc/$process/task/"*; do
        printf '    %-16s %s %s\n' "$(cat "$thread/comm" 2>/dev/null)" \
            "$(awk '/^State/ { print $2 }' "$thread/status" 2>/dev/null)" \
            "$(cat "$thread/wchan" 2>/dev/null)"
    done
    for child in $(cat "/proc/$process/task/"*/children 2>/dev/null); do
        show "$child"
    done
}

watch() {
    local outcome=0
    timeout "$seconds" tail --pid="$program" -f /dev/null || outcome=$?
    [ "$outcome" -eq 124 ] || return 0
    echo
    echo "deadline.sh: not ended after $seconds seconds, and killed. A test that has started and not ended is named above."
    show "$program"
    kill -KILL "$program"
}

# Twice in the background, so that the watcher is no child of the program.
(watch >&2 &)
exec "$@"
