#!/usr/bin/env python3
"""Changes one line of the server at a time and looks whether a test fails.

    scripts/mutants.py                 every change of scripts/mutants.txt
    scripts/mutants.py outbox          those of the files whose path contains "outbox"
    scripts/mutants.py outbox:14       the one that begins in line 14 of the list
    scripts/mutants.py --check         only whether the list still fits the sources
    SIM_SEEDS=1000 scripts/mutants.py  with this number of seeds of the simulation for each change, 0 for none

It works on a copy of the sources in target/mutants, which is built there: some minutes the first time. A change that
no test notices survives. Each survivor needs a test that kills it, or a reason in the list why no test can notice it.
The exit status is 1 if a change survives without such a reason, or if one that has a reason is noticed after all. Those
that the list marks as open are known to survive, and wait for a test.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "scripts" / "mutants.txt"
COPY = ROOT / "target" / "mutants"
# A change may make a loop endless, which a test that runs for this long shows, in seconds.
LONGEST_TEST = 240
# Seeds of the simulation that each change has to get past, after the unit tests.
SEEDS = os.environ.get("SIM_SEEDS", "200")


class Mutant:
    """One change: lines of a file, and what replaces them."""

    def __init__(self, file, tests, line):
        self.file, self.tests, self.line = file, tests, line
        self.old, self.new, self.equivalent, self.open = [], [], "", ""

    def apply(self, text):
        """The file's text with the change, or None unless the old lines stand in it exactly once before its tests."""
        code, mark, tests = text.partition("#[cfg(test)]\nmod tests")
        lines = code.split("\n")
        stripped = [line.strip() for line in lines]
        count = len(self.old)
        places = [at for at in range(len(lines) - count + 1) if stripped[at:at + count] == self.old]
        if len(places) != 1:
            return None
        lines[places[0]:places[0] + count] = self.new
        return "\n".join(lines) + mark + tests

    def __str__(self):
        return f"{self.file}: - {' '.join(self.old)} + {' '.join(self.new)}"


def read_list():
    mutants, file, tests, current = [], None, [], None
    for number, line in enumerate(LIST.read_text().splitlines(), 1):
        sign, rest = line[:1], line[1:].strip()
        if sign == "#" or not line.strip():
            current = None
        elif sign == "@":
            file, *tests = rest.split()
            current = None
        elif sign in "-+=?" and file:
            if current is None:
                current = Mutant(file, tests, number)
                mutants.append(current)
            if sign == "-":
                current.old.append(rest)
            elif sign == "+":
                current.new.append(rest)
            elif sign == "?":
                current.open = f"{current.open} {rest}".strip()
            else:
                current.equivalent = f"{current.equivalent} {rest}".strip()
        else:
            sys.exit(f"mutants: {LIST.name}, line {number}: begin it with one of # @ - + = ?")
    stale = [mutant for mutant in mutants if not mutant.old or mutant.apply((ROOT / mutant.file).read_text()) is None]
    for mutant in stale:
        print(f"mutants: {LIST.name}, line {mutant.line}: these lines must stand in {mutant.file} exactly once: {mutant}")
    if stale:
        sys.exit(1)
    return mutants


def make_copy():
    """Copies the sources that Git knows, with their times, so that Cargo rebuilds only what has changed."""
    COPY.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    names = set(filter(None, map(os.fsdecode, files.split(b"\0"))))
    # A file that was renamed since the last copy would still be built.
    for folder, folders, files in os.walk(COPY):
        if pathlib.Path(folder) == COPY and "target" in folders:
            folders.remove("target")
        for file in (pathlib.Path(folder, file) for file in files):
            if str(file.relative_to(COPY)) not in names:
                file.unlink()
    for name in sorted(names):
        source, target = ROOT / name, COPY / name
        if not source.is_file():
            target.unlink(missing_ok=True)
        elif not target.is_file() or source.read_bytes() != target.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def build():
    """The path of the unit tests' program, or None if the sources do not compile."""
    command = ["cargo", "test", "-q", "--lib", "--no-run", "--message-format=json"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(COPY / "target")}
    run = subprocess.run(command, cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         text=True)
    if run.returncode != 0:
        return None
    for line in run.stdout.splitlines():
        artifact = json.loads(line)
        if artifact.get("executable") and artifact["target"]["name"] == "raybox":
            return artifact["executable"]
    return None


def passes(program, filters, seeds):
    environment = os.environ | {"SIM_SEEDS": seeds, "RUST_BACKTRACE": "0"}
    try:
        run = subprocess.run([program, *filters], cwd=COPY, env=environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, timeout=LONGEST_TEST)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def outcome(mutant):
    path = COPY / mutant.file
    unchanged = path.read_text()
    path.write_text(mutant.apply(unchanged))
    try:
        program = build()
        if program is None:
            return "does not compile"
        if not passes(program, mutant.tests, SEEDS):
            return "killed by unit tests"
        if SEEDS != "0" and not passes(program, ["simulation::whatever"], SEEDS):
            return "killed by the simulation"
        return "survives"
    finally:
        path.write_text(unchanged)


def chosen(mutants, argument):
    part, _, line = argument.partition(":")
    return [mutant for mutant in mutants if part in mutant.file and line in ("", str(mutant.line))]


def main():
    arguments = sys.argv[1:]
    mutants = read_list()
    if "--check" in arguments:
        print(f"mutants: {len(mutants)} changes fit the sources")
        return
    if arguments:
        mutants = [mutant for argument in arguments for mutant in chosen(mutants, argument)]
    make_copy()
    program = build()
    if program is None or not passes(program, sorted({test for mutant in mutants for test in mutant.tests}), SEEDS):
        sys.exit("mutants: the tests must pass before anything is changed")
    wrong = 0
    for number, mutant in enumerate(mutants, 1):
        began = time.monotonic()
        result = outcome(mutant)
        is_right = result.startswith("killed") != bool(mutant.equivalent) or (result == "survives" and mutant.open)
        is_right = is_right and result != "does not compile"
        wrong += not is_right
        note = f" (equivalent: {mutant.equivalent})" if mutant.equivalent else ""
        note = f" (open: {mutant.open})" if mutant.open else note
        print(f"{number}/{len(mutants)} {'ok' if is_right else 'WRONG'}: {result}, {time.monotonic() - began:.0f} s: "
              f"{LIST.name}:{mutant.line} {mutant}{note}", flush=True)
    print(f"mutants: {len(mutants)} changes, {wrong} to look at")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
