#!/usr/bin/env python3
"""Changes one line of the server at a time and checks whether a test fails.

    scripts/mutants.py                 every change of scripts/mutants.txt
    scripts/mutants.py outbox          the changes of files whose path contains "outbox"
    scripts/mutants.py outbox:14       the change that begins in line 14 of the list
    scripts/mutants.py --check         only checks whether the list still fits the sources
    SIM_SEEDS=1000 scripts/mutants.py  plays the simulation with 1000 seeds for each change; 0 plays none

The script works on a copy of the sources in target/mutants. It builds all changes inside functions at once: each
function gets a body for each of its changes, and the variable MUTANT chooses the one that runs. The other changes are
built one by one. A change that no test notices survives. Each survivor needs a test that kills it, or a reason in the
list why no test can notice it. The exit status is 1 if a change survives without such a reason, or if one with a reason
is noticed after all. Changes that the list marks as open are known to survive, and need a test.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIST = ROOT / "scripts" / "mutants.txt"
COPY = ROOT / "target" / "mutants"
# A change may make a loop endless. A test that runs for this many seconds counts as failed.
LONGEST_TEST = 240
# The number of seeds for which the simulation runs on each change, after the unit tests.
SEEDS = os.environ.get("SIM_SEEDS", "200")
TESTS = "#[cfg(test)]\nmod tests"
FUNCTION = re.compile(r"^( *)((?:pub(?:\([a-z: ]+\))? )?(?:const |unsafe )*)fn ")
CHOICE = """
/// Which of the changes runs.
pub(crate) fn mutant() -> usize {
    static CHOSEN: std::sync::LazyLock<usize> =
        std::sync::LazyLock::new(|| std::env::var("MUTANT").map_or(0, |line| line.parse().unwrap()));
    *CHOSEN
}
"""


def indentation(line):
    return len(line) - len(line.lstrip()) if line.strip() else -1


class Mutant:
    """One change: lines of a file, and the lines that replace them."""

    def __init__(self, file, tests, line):
        self.file, self.tests, self.line = file, tests, line
        self.old, self.new, self.equivalent, self.open = [], [], "", ""

    def apply(self, text):
        """The file's text with the change; None unless the old lines occur exactly once before the file's tests."""
        code, mark, tests = text.partition(TESTS)
        lines = code.split("\n")
        at = self.place(lines)
        if at is None:
            return None
        lines[at:at + len(self.old)] = self.new
        return "\n".join(lines) + mark + tests

    def place(self, lines):
        """The index of the old lines; None unless they occur exactly once."""
        stripped = [line.strip() for line in lines]
        count = len(self.old)
        places = [at for at in range(len(lines) - count + 1) if stripped[at:at + count] == self.old]
        return places[0] if len(places) == 1 else None

    def body(self, lines):
        """The first and the last line of the body of the function around the old lines; None if there is no function."""
        at = self.place(lines)
        for begin in range(at - 1, -1, -1):
            header = FUNCTION.match(lines[begin])
            if header and len(header[1]) < indentation(lines[at]):
                same = [line for line in range(begin, len(lines)) if indentation(lines[line]) == len(header[1])]
                opens = next(line for line in same if lines[line].endswith("{"))
                ends = next(line for line in same if line > opens)
                inside = opens < at and at + len(self.old) <= ends and lines[ends].strip() == "}"
                return (opens + 1, ends) if inside and "const" not in header[2] else None
        return None

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
    """Copies the sources that Git knows, unless the copy is equal. Cargo builds a copied file again. An interrupted run
    may have left a change in the copy."""
    COPY.mkdir(parents=True, exist_ok=True)
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
    names = set(filter(None, map(os.fsdecode, files.split(b"\0"))))
    # Remove files that are gone: one that was renamed since the last copy would still be built.
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
            shutil.copyfile(source, target)
            shutil.copymode(source, target)


def build():
    """The path of the unit tests' program, or None, and the compiler's errors as pairs of a file and a line."""
    command = ["cargo", "test", "-q", "--lib", "--no-run", "--message-format=json"]
    environment = os.environ | {"CARGO_TARGET_DIR": str(COPY / "target")}
    run = subprocess.run(command, cwd=COPY, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                         text=True)
    program, errors = None, set()
    for message in map(json.loads, run.stdout.splitlines()):
        if message.get("executable") and message["target"]["name"] == "raybox":
            program = message["executable"]
        elif message["reason"] == "compiler-message" and message["message"]["level"] == "error":
            errors.update((span["file_name"], span["line_start"]) for span in message["message"]["spans"])
    return program if run.returncode == 0 else None, errors


def passes(program, filters, seeds, mutant=0):
    environment = os.environ | {"SIM_SEEDS": seeds, "RUST_BACKTRACE": "0", "MUTANT": str(mutant)}
    try:
        run = subprocess.run([program, *filters], cwd=COPY, env=environment, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, timeout=LONGEST_TEST)
    except subprocess.TimeoutExpired:
        return False
    return run.returncode == 0


def with_choices(text, mutants):
    """The text of a file in which functions have a further body for each of these changes, and the lines of each change
    in the new text."""
    code, mark, tests = text.partition(TESTS)
    lines = code.split("\n")
    by_body = {}
    for mutant in mutants:
        by_body.setdefault(mutant.body(lines), []).append(mutant)
    written, places, at = [], [], 0
    for (begin, end), changes in sorted(by_body.items()):
        written += lines[at:begin] + ["match crate::mutant() {"]
        for mutant in changes:
            place = mutant.place(lines)
            body = lines[begin:place] + mutant.new + lines[place + len(mutant.old):end]
            places.append((len(written) + 1, len(written) + len(body) + 2, mutant))
            written += [f"{mutant.line} => {{", *body, "}"]
        written += ["_ => {", *lines[begin:end], "}", "}"]
        at = end
    return "\n".join(written + lines[at:]) + mark + tests, places


def build_together(mutants):
    """The program with all changes that compile, and the list of these changes. The sources are restored."""
    originals = {file: (COPY / file).read_text() for file in {mutant.file for mutant in mutants} | {"src/lib.rs"}}
    together = [mutant for mutant in mutants if mutant.body(originals[mutant.file].partition(TESTS)[0].split("\n"))]
    try:
        while together:
            places = {}
            for file, text in originals.items():
                text, places[file] = with_choices(text, [mutant for mutant in together if mutant.file == file])
                (COPY / file).write_text(text + (CHOICE if file == "src/lib.rs" else ""))
            program, errors = build()
            if program:
                kept = COPY / "target" / "together"
                shutil.copy2(program, kept)
                return kept, together
            wrong = {mutant.line for file, line in errors for begin, end, mutant in places.get(file, [])
                     if begin <= line <= end}
            if not wrong:
                break
            together = [mutant for mutant in together if mutant.line not in wrong]
        return None, []
    finally:
        for file, text in originals.items():
            (COPY / file).write_text(text)


def judged(program, mutant, choice):
    if not passes(program, mutant.tests, SEEDS, choice):
        return "killed by unit tests"
    if SEEDS != "0" and not passes(program, ["simulation::whatever"], SEEDS, choice):
        return "killed by the simulation"
    return "survives"


def outcome_alone(mutant):
    path = COPY / mutant.file
    unchanged = path.read_text()
    path.write_text(mutant.apply(unchanged))
    try:
        program, _ = build()
        return judged(program, mutant, 0) if program else "does not compile"
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
    program, _ = build()
    if program is None or not passes(program, sorted({test for mutant in mutants for test in mutant.tests}), SEEDS):
        sys.exit("mutants: the tests must pass before anything is changed")
    program, together = build_together(mutants)
    print(f"mutants: {len(together)} of {len(mutants)} are built together", flush=True)
    wrong = 0
    for number, mutant in enumerate(mutants, 1):
        began = time.monotonic()
        result = judged(program, mutant, mutant.line) if mutant in together else outcome_alone(mutant)
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
