#!/usr/bin/env python3
"""Runs the tests of all packages, two suites at a time.

    scripts/suites.py

`cargo test` runs one suite (test program) after the other. Most suites mostly wait, for leases that end and servers that
restart. So two run at a time here: one of those that need the processor, and one of the others. ./test.sh without
arguments calls this script when it has started what they need.

The output of a suite is shown when the suite has ended. A suite that fails or hangs does not stop the others. The exit
status is 1 if one has failed.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A suite that has not ended after this time has hung. The longest takes three to four minutes.
SECONDS_MAX = 900
# The suites that need most of the processor. They run one after the other.
BUSY = ["chaos", "raybox", "browser", "level2", "cluster"]


class Suite:
    """A test program."""

    def __init__(self, artifact):
        self.name = artifact["target"]["name"]
        self.program = artifact["executable"]
        self.manifest = pathlib.Path(artifact["manifest_path"])
        self.title = f"{self.name} ({pathlib.Path(artifact['target']['src_path']).relative_to(ROOT)})"
        self.status = None
        self.seconds = 0.0

    def run(self):
        """Runs the suite; its output."""
        begin = time.monotonic()
        with tempfile.TemporaryFile() as output:
            # The folder and the variable are those that cargo would set.
            self.status = subprocess.run(
                [ROOT / "scripts" / "deadline.sh", str(SECONDS_MAX), self.program],
                cwd=self.manifest.parent,
                env=os.environ | {"CARGO_MANIFEST_DIR": str(self.manifest.parent)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
            self.seconds = time.monotonic() - begin
            output.seek(0)
            return output.read()


def build():
    """Builds all suites; cargo shows its errors."""
    command = ["cargo", "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=False)
    if built.returncode != 0:
        sys.exit("suites.py: the tests do not compile")
    artifacts = (json.loads(line) for line in built.stdout.splitlines())
    return [Suite(one) for one in artifacts if one["reason"] == "compiler-artifact" and one["profile"]["test"] and one["executable"]]


def run_all(suites):
    with concurrent.futures.ThreadPoolExecutor(1) as busy, concurrent.futures.ThreadPoolExecutor(1) as others:
        running = {(busy if suite.name in BUSY else others).submit(suite.run): suite for suite in suites}
        try:
            for done in concurrent.futures.as_completed(running):
                suite = running[done]
                outcome = "passed" if suite.status == 0 else "FAILED"
                sys.stdout.buffer.write(f"\n     Suite {suite.title}\n".encode() + done.result())
                print(f"suites.py: {suite.title} {outcome} after {suite.seconds:.0f} s", flush=True)
        except BaseException:
            # After Ctrl-C, which ends the suites as well, no further ones begin.
            for pool in busy, others:
                pool.shutdown(wait=False, cancel_futures=True)
            raise


def main():
    if len(sys.argv) > 1:
        sys.exit("usage: scripts/suites.py, without arguments")
    suites = build()
    names = {suite.name for suite in suites}
    if unknown := [name for name in BUSY if name not in names]:
        sys.exit(f"suites.py: correct BUSY, there is no suite {', '.join(unknown)}")
    run_all(suites)
    documented = subprocess.run(["cargo", "test", "--workspace", "--doc"], cwd=ROOT, check=False)
    failed = [suite.title for suite in suites if suite.status != 0]
    if documented.returncode != 0:
        failed.append("the examples in the documentation")
    if failed:
        sys.exit("suites.py: failed:\n    " + "\n    ".join(failed))
    print(f"suites.py: {len(suites)} suites and the examples in the documentation passed")


if __name__ == "__main__":
    main()
