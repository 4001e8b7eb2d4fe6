"""See bench-restart.sh."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import small_origin

BIN, RESTARTS, EDGES, CONNECTIONS = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
EVERY = 4


def lines(process, sink):
    def read():
        for line in process.stdout:
            sink.append(line.rstrip())
    threading.Thread(target=read, daemon=True).start()


def wait(sink, pattern, count=1, patience=60):
    end = time.monotonic() + patience
    while time.monotonic() < end:
        found = [l for l in sink if re.search(pattern, l)]
        if len(found) >= count:
            return found[count - 1]
        time.sleep(0.05)
    sys.exit(f"no {pattern} in:\n" + "\n".join(sink))


def start(*command, **kwargs):
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kwargs)
    started.append(process)
    sink = []
    lines(process, sink)
    return process, sink


started = []
home = tempfile.mkdtemp(prefix="arp-restart-")
here = os.path.dirname(os.path.abspath(__file__))
origin = small_origin.serve()
try:
    relay, said = start(sys.executable, f"{here}/service-manager.py", f"{BIN}/arps", "--bind", "127.0.0.1",
                        "--control-port", "0", "--proxy-port", "0", "--public-port", "0", "--admin-port", "0",
                        "--max-new-names-per-ip", "0", "--data-dir", f"{home}/relay")
    up = wait(said, "is up")
    control, proxy, public = (re.search(rf"{name} \S+:(\d+)", up).group(1) for name in ("control", "proxy", "public"))
    edge, edge_said = start(f"{BIN}/arpc", "--server-addr", "127.0.0.1", "--control-port", control, "--proxy-port", proxy,
                            "--client-id", "demo", "--local-port", str(origin), "--data-dir", f"{home}/edge",
                            env={**os.environ, "HOME": home})
    wait(edge_said, "^Registered")
    crowd_said = []
    if EDGES:
        _, crowd_said = start(f"{BIN}/arp-crowd", "127.0.0.1", control, proxy, str(EDGES), "--returning")
        wait(crowd_said, "^ready", patience=120)
    url = f"http://127.0.0.1:{public}/?token=demo"
    subprocess.run(["curl", "-fsS", "-o", "/dev/null", url], check=True)
    # Time-outs of wrk are answers that took longer; they are lost only if they never came.
    wrk = subprocess.Popen(["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{(RESTARTS + 1) * EVERY}s", "--timeout", "20s", "--latency",
                            url], stdout=subprocess.PIPE, text=True)
    for n in range(RESTARTS):
        time.sleep(EVERY)
        began = time.monotonic()
        relay.send_signal(signal.SIGHUP)
        wait(said, "is up", n + 2)
        print(f"restart {n + 1}: the relay serves again after {1000 * (time.monotonic() - began):.0f} ms")
    out = wrk.communicate()[0]
    print(out)
    if EDGES:
        time.sleep(1)
        print("\n".join(l for l in crowd_said if "are back" in l))
finally:
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
    shutil.rmtree(home, ignore_errors=True)
