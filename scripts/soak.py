"""See soak.sh."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time

BIN, MINUTES, EDGES = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
started = []
home = tempfile.mkdtemp(prefix="arp-soak-")


def start(*command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
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


def status():
    told = subprocess.run([f"{BIN}/arps", "status", "--json", "--data-dir", f"{home}/relay"], capture_output=True, text=True)
    return json.loads(told.stdout) if told.returncode == 0 else None


def row(at):
    s = status()
    print(f"| {at} | {s['edges']['online']} | {s['tunnels']['idle']} | {s['memory'] / 1e6:.1f} | {s['cpu']:.1f} | {s['descriptors']} |",
          flush=True)


try:
    process, said = relay("0", "0", "0")
    up = wait(said, "is up")
    ports = [re.search(rf"{name} \S+:(\d+)", up).group(1) for name in ("control", "proxy", "public")]
    print("| at | edges | idle tunnels | memory, MB | processor, s | descriptors |\n|---|---|---|---|---|---|")
    row("start")
    _, crowd = start(f"{BIN}/arp-crowd", "127.0.0.1", ports[0], ports[1], str(EDGES), "--returning")
    wait(crowd, "^ready")
    row("all here")
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
    print(wait(crowd, "are back"))
    row("after the kill")
finally:
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
