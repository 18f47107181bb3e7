#!/usr/bin/env python3
"""Writes THIRD-PARTY-LICENSES: the licences of all code that is compiled into the server.

    scripts/licences.py            writes the file
    scripts/licences.py --check    fails if the file differs from what it would write

Both also test how the script reads licence expressions (SPDX).

The script reads what cargo has downloaded, so it needs no network after a build. Build programs and the crates of
the tests are not in the file, because they are not distributed.
"""

import json
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
FILE = ROOT / "THIRD-PARTY-LICENSES"
# Licences that only require their text to be included; a crate under another one needs a decision.
ALLOWED = {
    "0BSD", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib",
    "CDLA-Permissive-2.0", "BSL-1.0", "CC0-1.0",
}  # fmt: skip
# Crates with a licence file but without a licence name: the name, which was read from the file.
NAMED = {"webpki": "ISC"}
IS_LICENCE = re.compile(r"^(licen[cs]e|copying|copyright|notice|unlicense)", re.IGNORECASE)
HEAD = """\
The server is under the licence in the file LICENSE. It is compiled from its own sources and from those listed
here, whose authors ask that these texts go with every copy. scripts/licences.py writes this file.

SQLite, which is in libsqlite3-sys, is in the public domain. The web client has no code of others. The texts of
what comes with the compiler are first; those of the packages follow.
"""
# Code that comes with the compiler, and its file in packaging/licences.
COMPILED_IN = {
    "the standard library of Rust": "rust.txt",
    "musl 1.2.5 (in static programs)": "musl.txt",
    "libunwind of LLVM (in static programs)": "llvm.txt",
}


def metadata():
    command = ["cargo", "metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"]
    # Try without the network first: after a build everything is there.
    for offline in (["--offline"], []):
        done = subprocess.run(command + offline, cwd=ROOT, capture_output=True, text=True, timeout=300)
        if done.returncode == 0:
            return json.loads(done.stdout)
    sys.exit(f"licences.py: cargo metadata fails: {done.stderr.strip()}")


def shipped(data):
    """The packages that are compiled into the server, except those of the workspace."""
    nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
    packages = {package["id"]: package for package in data["packages"]}
    is_macro = lambda package: any("proc-macro" in target["kind"] for target in package["targets"])
    (start,) = (id for id in data["workspace_members"] if packages[id]["name"] == "raybox")
    seen, waiting = set(), [start]
    while waiting:
        id = waiting.pop()
        # A macro runs in the compiler and is not part of the program.
        if id in seen or is_macro(packages[id]):
            continue
        seen.add(id)
        for dependency in nodes[id]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    members = set(data["workspace_members"])
    return sorted((packages[id] for id in seen - members), key=lambda package: (package["name"], package["version"]))


def parsed(expression):
    """An SPDX expression as a tree: a name, or "AND" or "OR" with its parts. A slash is an old form of OR."""
    tokens = re.findall(r"[()/]|[^\s()/]+", expression)

    def take():
        if not tokens:
            raise ValueError(f"{expression!r} ends too early")
        return tokens.pop(0)

    def single():
        token = take()
        if token == "(":
            inner = choice()
            if take() != ")":
                raise ValueError(f"{expression!r} lacks a )")
            return inner
        if token in (")", "/", "AND", "OR", "WITH"):
            raise ValueError(f"{expression!r} has {token} where a name is expected")
        # An exception only permits more, so it is ignored.
        if tokens[:1] == ["WITH"]:
            del tokens[:1]
            take()
        return token

    def joined(word, words, part):
        parts = [part()]
        while tokens and tokens[0] in words:
            del tokens[:1]
            parts.append(part())
        return (word, parts) if len(parts) > 1 else parts[0]

    # AND binds stronger than OR.
    choice = lambda: joined("OR", ("OR", "/"), lambda: joined("AND", ("AND",), single))
    tree = choice()
    if tokens:
        raise ValueError(f"{expression!r} goes on with {tokens[0]}")
    return tree


def allowed(tree):
    """Whether the licence is allowed: one of the alternatives, or all required parts."""
    if isinstance(tree, str):
        return tree in ALLOWED
    word, parts = tree
    return (any if word == "OR" else all)(allowed(part) for part in parts)


def may_be_mit(tree):
    """Whether MIT alone may be chosen for the whole package."""
    return tree == "MIT" or (tree[0] == "OR" and "MIT" in tree[1])


def test_expressions():
    for expression, is_allowed, is_mit in (
        ("MIT", True, True),
        ("MIT/Apache-2.0", True, True),
        ("GPL-3.0 OR MIT", True, True),
        ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", True, True),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", True, False),
        ("(MIT OR Apache-2.0) AND GPL-3.0", False, False),
        ("GPL-3.0 AND (MIT OR Apache-2.0)", False, False),
        ("GPL-3.0 AND MIT OR ISC", True, False),
        ("Apache-2.0 AND ISC", True, False),
        ("GPL-3.0", False, False),
    ):
        tree = parsed(expression)
        assert (allowed(tree), may_be_mit(tree)) == (is_allowed, is_mit), expression
    for wrong in ("", "(MIT", "MIT)", "MIT OR", "AND MIT", "MIT ISC"):
        try:
            parsed(wrong)
        except ValueError:
            continue
        raise AssertionError(f"{wrong!r} is taken for an expression")


def texts(package, tree):
    """The licence files of a package: only MIT if it may be chosen, and those of foreign parts in folders."""
    folder = pathlib.Path(package["manifest_path"]).parent
    found = sorted(file for file in folder.rglob("*") if file.is_file() and IS_LICENCE.match(file.name))
    foreign = [file for file in found if file.parent != folder]
    files = [file for file in found if file.parent == folder]
    mit = [file for file in files if re.fullmatch(r"licen[cs]e[-_.]mit(\..*)?", file.name, re.IGNORECASE)]
    if may_be_mit(tree) and mit:
        files = mit + [file for file in files if file.name.lower().startswith("notice")]
    return [tidy(file) for file in files + foreign]


def tidy(file):
    text = file.read_text(encoding="utf-8", errors="replace").replace("\r\n", "\n").strip("\n")
    return "\n".join(line.rstrip() for line in text.split("\n"))


def written():
    packages, groups, without = shipped(metadata()), {}, []
    for package in packages:
        name = f"{package['name']} {package['version']}"
        package["license"] = package["license"] or NAMED.get(package["name"])
        tree = parsed(package["license"] or "nothing")
        if not allowed(tree):
            sys.exit(f"licences.py: {name} is under {package['license']}: is that acceptable? Then add it to ALLOWED")
        found = texts(package, tree)
        for text in found:
            groups.setdefault(text, []).append(name)
        if not found:
            authors = ", ".join(package["authors"]) or "its authors"
            without.append(f"{name}: {package['license']}, by {authors}, {package['repository'] or ''}".rstrip(", "))
    rule = "=" * 78
    parts = [HEAD, "Packages\n\n" + "\n".join(f"    {p['name']} {p['version']}: {p['license']}" for p in packages) + "\n"]
    if without:
        parts.append("Packages that name their licence and have no text of it\n\n" + "\n".join(f"    {w}" for w in without) + "\n")
    for name, file in COMPILED_IN.items():
        parts.append(f"{rule}\n{name}\n{rule}\n\n{tidy(ROOT / 'packaging/licences' / file)}\n")
    for text, names in sorted(groups.items(), key=lambda group: group[1]):
        parts.append(f"{rule}\n" + ", ".join(names) + f"\n{rule}\n\n{text}\n")
    return "\n".join(parts)


def main():
    test_expressions()
    text = written()
    if sys.argv[1:] == ["--check"]:
        if not FILE.exists() or FILE.read_text(encoding="utf-8") != text:
            sys.exit("licences.py: THIRD-PARTY-LICENSES does not fit Cargo.lock: run scripts/licences.py")
    elif sys.argv[1:]:
        sys.exit(__doc__)
    else:
        FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
