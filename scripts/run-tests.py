#!/usr/bin/env python3
"""Runs every test of the workspace, as `cargo test --workspace --no-fail-fast` does, but three test programs at a time.

Some tests wait for a minute of somebody's patience to pass; `cargo test` runs one program after the other and waits
with them. What a program says is shown when it ends. Arguments are names of programs (`mcp`, `nothing_lost`, `arps`
for the unit tests of that crate); none means all, and the documentation's examples besides.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

AT_ONCE = int(os.environ.get("ARP_TEST_PROGRAMS", "3"))
# What never ends is ended; the slowest program needs some four minutes.
PATIENCE = 900
# These take longest, so they begin first.
FIRST = ["nothing_lost", "v1_relay", "real_agents", "mcp", "fairness", "exchange", "tunnel"]


def programs(names):
    """Builds the tests; answers what is to be run as (name, executable, directory)."""
    build = subprocess.run(
        ["cargo", "test", "--workspace", "--locked", "--no-run", "--message-format=json-render-diagnostics"],
        stdout=subprocess.PIPE, text=True, check=False,
    )
    if build.returncode:
        sys.exit(build.returncode)
    found = []
    for line in build.stdout.splitlines():
        told = json.loads(line)
        if told.get("reason") == "compiler-artifact" and told["profile"]["test"] and told["executable"]:
            found.append((told["target"]["name"], told["executable"], Path(told["manifest_path"]).parent))
    unknown = [name for name in names if all(name != found_name for found_name, _, _ in found)]
    if unknown:
        sys.exit(f"no such test program: {' '.join(unknown)}; there are: {' '.join(sorted({name for name, _, _ in found}))}")
    rank = {name: place for place, name in enumerate(FIRST)}
    return sorted((one for one in found if not names or one[0] in names), key=lambda one: rank.get(one[0], len(FIRST)))


def run(program):
    """Runs one test program; answers (name, what went wrong or '')."""
    name, executable, directory = program
    begun = time.monotonic()
    with tempfile.TemporaryFile() as output:
        try:
            status = subprocess.run(
                [executable], cwd=directory, env={**os.environ, "CARGO_MANIFEST_DIR": str(directory)},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False,
            ).returncode
            wrong = f"exit {status}" if status else ""
        except subprocess.TimeoutExpired:
            wrong = f"no end after {PATIENCE} s"
        output.seek(0)
        text = output.read().decode(errors="replace").strip()
    place = directory.name
    print(f"\n-- {place}/{name}: {wrong or 'ok'}, {time.monotonic() - begun:.0f} s\n{text}", flush=True)
    return f"{place}/{name}", wrong


def main():
    names = sys.argv[1:]
    todo = programs(names)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [(name, wrong) for name, wrong in pool.map(run, todo) if wrong]
    if not names and subprocess.run(["cargo", "test", "--workspace", "--locked", "--doc"], check=False).returncode:
        failed.append(("documentation", "see above"))
    for name, wrong in failed:
        print(f"FAILED {name}: {wrong}", file=sys.stderr)
    print(f"{len(todo) - len(failed)} of {len(todo)} test programs passed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
