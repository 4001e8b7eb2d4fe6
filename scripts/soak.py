"""See soak.sh."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import small_origin

BIN, MINUTES, EDGES = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
started = []
home = tempfile.mkdtemp(prefix="arp-soak-")


def start(*command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               env={**os.environ, "HOME": home})
    started.append(process)
    sink = []

    def read():
        for line in process.stdout:
            sink.append(line.rstrip())
    threading.Thread(target=read, daemon=True).start()
    return process, sink


def wait(sink, pattern, patience=180):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        for line in sink:
            if re.search(pattern, line):
                return line
        time.sleep(0.05)
    sys.exit(f"no {pattern} in:\n" + "\n".join(sink[-20:]))


def relay(*ports):
    flags = [f for name, port in zip(("control", "proxy", "public"), ports) for f in (f"--{name}-port", port)]
    return start(f"{BIN}/arps", "--bind", "127.0.0.1", "--admin-port", "0", "--max-new-names-per-ip", "0",
                 "--data-dir", f"{home}/relay", *flags)


class Visitor(threading.Thread):
    """Comes ten times a second, by a connection of its own each time."""

    def __init__(self, url):
        super().__init__(daemon=True)
        self.url, self.times, self.failed, self.over = url, [], [], threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            began = time.monotonic()
            try:
                with urllib.request.urlopen(self.url, timeout=30) as answer:
                    assert answer.read() == b"ok"
                self.times.append(time.monotonic() - began)
            except Exception as e:  # noqa: BLE001  all that can go wrong is told
                self.failed.append(str(e))

    def told(self):
        """What came of it since it was asked last."""
        times, failed = sorted(self.times), self.failed
        self.times, self.failed = [], []
        if not times:
            return f"none, {len(failed)} failed"
        at = lambda part: 1000 * times[min(int(part * len(times)), len(times) - 1)]
        why = f" ({failed[0]})" if failed else ""
        return f"{len(times)}, {at(0.5):.0f} / {at(0.99):.0f} / {at(1):.0f} ms, {len(failed)} failed{why}"


def status():
    told = subprocess.run([f"{BIN}/arps", "status", "--json", "--data-dir", f"{home}/relay"], capture_output=True, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else None


def row(at):
    s = status()
    if s is None:
        sys.exit("the relay does not answer; it said:\n" + "\n".join(said[-20:]))
    asked = visitor.told() if visitor else "-"
    print(f"| {at} | {s['edges']['online']} | {s['tunnels']['idle']} | {s['memory'] / 1e6:.1f} | {s['cpu']:.1f} | "
          f"{s['descriptors']} | {asked} |", flush=True)


visitor = None
origin = small_origin.serve()
try:
    process, said = relay("0", "0", "0")
    up = wait(said, "is up")
    ports = [re.search(rf"{name} \S+:(\d+)", up).group(1) for name in ("control", "proxy", "public")]
    print("| at | edges | idle tunnels | memory, MB | processor, s | descriptors | requests since, 50 / 99 / 100 % |\n"
          "|---|---|---|---|---|---|---|")
    row("start")
    _, crowd = start(f"{BIN}/arp-crowd", "127.0.0.1", ports[0], ports[1], str(EDGES), "--returning")
    wait(crowd, "^ready")
    edge, edge_said = start(f"{BIN}/arpc", "--server-addr", "127.0.0.1", "--control-port", ports[0], "--proxy-port", ports[1],
                            "--client-id", "demo", "--local-port", str(origin), "--data-dir", f"{home}/edge")
    wait(edge_said, "^Registered")
    row("all here")
    visitor = Visitor(f"http://127.0.0.1:{ports[2]}/?token=demo")
    visitor.start()
    end = time.monotonic() + 60 * MINUTES
    minute = 0
    while time.monotonic() < end:
        time.sleep(min(60, max(0, end - time.monotonic())))
        minute += 1
        row(f"{minute} min")
    process.send_signal(signal.SIGKILL)
    process.wait()
    process, said = relay(*ports)
    wait(said, "is up")
    back = wait(crowd, "are back")
    # The visitor's next ones are those of a relay that is there again.
    row("killed, all back")
    time.sleep(min(10, 60 * MINUTES))
    row("a moment later")
    print(back)
finally:
    if visitor:
        visitor.over.set()
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(home, ignore_errors=True)
