"""Instructions of relay and edge for a request, as callgrind counts them. See bench.sh, which starts this and says what it
needs. The figure hardly depends on what else the machine does, so a change of one in a hundred shows."""

import glob
import os
import re
import subprocess
from collections import Counter

import bench
from bench import BASE, BIN, HOME, RATHOLE, SECONDS, arp, nginx, free_port, rathole, requests

TOP = int(os.environ.get("TOP", "0"))
DAEMONS = ("relay", "edge")


def main():
    origin = nginx(free_port())
    subjects = {"arp": lambda: arp(origin, of=counted(BIN)), "arp, link with TLS": lambda: arp(origin, True, of=counted(BIN))}
    if BASE:
        subjects["before"] = lambda: arp(origin, of=counted(BASE))
    if RATHOLE:
        bench.RATHOLE = f"{counted(os.path.dirname(RATHOLE))}/{os.path.basename(RATHOLE)}"
        subjects["rathole"] = lambda: rathole(origin)
    print("| instructions a request, 16 connections | relay | edge |\n|---|---:|---:|")
    where = []
    for name, start in subjects.items():
        pids, url = start()
        requests(url, 500)
        for pid in pids:
            control("--zero", pid)
        wrk = ["wrk", "-t", "1", "-c", "16", "-d", f"{SECONDS}s", url]
        told = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
        done = int(re.search(r"(\d+) requests in", told)[1])
        spent = [read(pid) for pid in pids]
        print(f"| {name} | {' | '.join(f'{sum(of.values()) / done:,.0f}' for of in spent)} |", flush=True)
        where += [(f"{name}, {daemon}", of, done) for daemon, of in zip(DAEMONS, spent)]
    for name, of, done in where if TOP else ():
        print(f"\n{name}:")
        for function, cost in of.most_common(TOP):
            print(f"{cost / done:8,.0f}  {re.sub('::h[0-9a-f]{16}', '', function)[:120]}")


def counted(place):
    """A directory of the same programs, which run under callgrind."""
    beside = f"{HOME}/counted-{abs(hash(place))}"
    os.makedirs(beside, exist_ok=True)
    for program in os.listdir(place):
        path = f"{place}/{program}"
        if os.path.isfile(path) and os.access(path, os.X_OK):
            with open(f"{beside}/{program}", "w") as script:
                script.write(f'#!/bin/sh\nexec valgrind -q --tool=callgrind --callgrind-out-file={HOME}/callgrind.%p "{path}" "$@"\n')
            os.chmod(f"{beside}/{program}", 0o755)
    return beside


def control(what, pid):
    subprocess.run(["callgrind_control", what, str(pid)], check=True, capture_output=True)


def read(pid):
    """What was spent in each function since the counts were zeroed. callgrind's own format: lines of a position and a
    cost, and behind `calls=` one line whose cost was spent in what is called."""
    control("--dump", pid)
    names, spent, function, called = {}, Counter(), "", False
    newest = max(glob.glob(f"{HOME}/callgrind.{pid}.*"), key=os.path.getmtime)
    with open(newest, errors="replace") as lines:
        for line in lines:
            if named := re.match(r"c?fn=\((\d+)\)(?: (.*))?", line):
                if named[2]:
                    names[named[1]] = named[2]
                if line.startswith("fn="):
                    function = names.get(named[1], named[1])
            elif line.startswith("calls="):
                called = True
            elif re.match(r"[+*\d-]", line) and len(parts := line.split()) > 1:
                if not called:
                    spent[function] += int(parts[-1])
                called = False
    return spent


if __name__ == "__main__":
    bench.run(main)
