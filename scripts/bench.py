"""Measures arp and rathole in turns; see bench.sh, which starts this and says what it needs."""

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

BIN, RATHOLE = os.environ["BIN"], os.environ["RATHOLE"]
ROUNDS, SECONDS = int(os.environ["ROUNDS"]), int(os.environ["SECONDS_EACH"])
CROWD = int(os.environ["CROWD"])
CONNECTIONS, TICK = 64, os.sysconf("SC_CLK_TCK")
HOME = tempfile.mkdtemp(prefix="arp-bench-")
running = []


def main():
    origin = nginx(free_port())
    subjects = {"arp": arp(origin), "rathole": rathole(origin)}
    figures = {}

    def note(what, name, value):
        figures.setdefault(what, {}).setdefault(name, []).append(value)

    for name, (pids, _) in subjects.items():
        for which, rss in zip(("relay", "edge"), map(rss_mb, pids)):
            note(f"RSS idle, {which} (MB)", name, rss)
    for at in range(ROUNDS):
        # Each round begins with the other one, so that what comes second is not always the same.
        order = list(subjects.items())[:: 1 if at % 2 == 0 else -1]
        for kind, headers in (("keep-alive", []), ("Connection: close", ["-H", "Connection: close"])):
            for name, (pids, url) in order:
                rate, cpu = load(url, pids, headers)
                note(f"{kind}: requests/s", name, rate)
                note(f"{kind}: CPU per request (µs)", name, cpu)
        for name, (pids, url) in order:
            rate, cpu = download(url, pids)
            note("1 GiB download (MB/s)", name, rate)
            note("1 GiB download: CPU (s)", name, cpu)
        print(f"round {at + 1} of {ROUNDS} done", file=sys.stderr)
    for name, (pids, _) in subjects.items():
        for which, rss in zip(("relay", "edge"), map(rss_mb, pids)):
            note(f"RSS after the load, {which} (MB)", name, rss)

    for name, start in (("arp", arp), ("rathole", rathole)):
        pids, url = start(origin)
        requests(url, 100_000)
        for which, rss in zip(("relay", "edge"), map(rss_mb, pids)):
            note(f"RSS after 100,000 requests, {which} (MB)", name, rss)
    table(figures)
    crowd()


def table(figures):
    print(f"| {CONNECTIONS} connections, medians of {ROUNDS} | arp | rathole 0.5 | ratio |")
    print("|---|---:|---:|---:|")
    for what, by_name in figures.items():
        arp_is, other = (statistics.median(by_name[name]) for name in ("arp", "rathole"))
        ratio = f"{arp_is / other:.2f}" if other else ""
        print(f"| {what} | {arp_is:,.1f} | {other:,.1f} | {ratio} |")


def crowd():
    """Memory of a relay with many idle edges. Of rathole there is no such figure: it has one service a port."""
    relay, ports = arps("--max-clients", str(CROWD + 10))
    before = rss_mb(relay)
    edges = start([f"{BIN}/arp-crowd", "127.0.0.1", ports[0], ports[1], str(CROWD)], piped=True)
    while "ready" not in (line := edges.stdout.readline()):
        if not line:
            sys.exit("arp-crowd ended")
    tunnels = settled(lambda: len(os.listdir(f"/proc/{relay}/fd")))
    after = rss_mb(relay)
    print(f"\n| idle edges | connections held by the relay | RSS of the relay (MB) | per edge (kB) |")
    print("|---:|---:|---:|---:|")
    print(f"| 0 | | {before:.1f} | |")
    print(f"| {CROWD:,} | {tunnels:,} | {after:.1f} | {(after - before) * 1000 / CROWD:.1f} |")


# What is measured


def load(url, pids, headers):
    """Requests a second, and µs of CPU of both daemons a request."""
    before = cpu_of(pids)
    wrk = ["wrk", "-t", "2", "-c", str(CONNECTIONS), "-d", f"{SECONDS}s", *headers, url]
    told = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    done, rate = int(re.search(r"(\d+) requests in", told)[1]), float(re.search(r"Requests/sec:\s+([\d.]+)", told)[1])
    if bad := re.search(r"(Non-2xx.*|Socket errors.*)", told):
        print(f"{url}: {bad[1]}", file=sys.stderr)
    return rate, (cpu_of(pids) - before) * 1e6 / done


def download(url, pids):
    """MB a second, and seconds of CPU of both daemons."""
    before = cpu_of(pids)
    curl = ["curl", "-sf", "-o", "/dev/null", "-w", "%{speed_download} %{size_download}", url.replace("/?", "/big?")]
    speed, size = subprocess.run(curl, check=True, capture_output=True, text=True).stdout.split()
    assert int(size) == 1 << 30, f"{size} bytes came"
    return float(speed) / 1e6, cpu_of(pids) - before


def requests(url, n):
    done = 0
    while done < n:
        wrk = ["wrk", "-t", "2", "-c", str(CONNECTIONS), "-d", "2s", url]
        told = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
        done += int(re.search(r"(\d+) requests in", told)[1])


def cpu_of(pids):
    """Seconds of CPU, of user and kernel, that processes have used."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def rss_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1]) * 1024 / 1e6


# What is started


def start(command, piped=False):
    out = subprocess.PIPE if piped else subprocess.DEVNULL
    env = {k: v for k, v in os.environ.items() if not k.startswith(("ARPS_", "ARPC_"))} | {"HOME": HOME}
    process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, text=True, env=env)
    running.append(process)
    return process


def nginx(port):
    with open(f"{HOME}/big", "wb") as big:
        big.truncate(1 << 30)
    temp = "".join(f"{k}_temp_path {HOME}/{k};" for k in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    with open(f"{HOME}/nginx.conf", "w") as conf:
        conf.write(
            f"daemon off; worker_processes 1; pid {HOME}/pid; error_log /dev/null; worker_rlimit_nofile 65536;"
            f"{'user root;' if os.geteuid() == 0 else ''}"
            "events { worker_connections 16384; } http { access_log off; sendfile on; tcp_nodelay on;"
            f"keepalive_requests 1000000000; keepalive_timeout 300s; {temp}"
            f"server {{ listen 127.0.0.1:{port} backlog=4096; root {HOME};"
            "location = / { return 200 'fifty bytes of text, which is what an answer holds\\n'; } } }\n"
        )
    start(["nginx", "-p", HOME, "-e", "/dev/null", "-c", f"{HOME}/nginx.conf"])
    answers(f"http://127.0.0.1:{port}/")
    return port


def arps(*flags):
    ports = [str(free_port()) for _ in range(3)]
    named = zip(("--control-port", "--proxy-port", "--public-port"), ports)
    flags = ["--bind", "127.0.0.1", "--allow-plaintext", "--data-dir", tempfile.mkdtemp(dir=HOME), *flags]
    relay = start([f"{BIN}/arps", *(x for p in named for x in p), *flags])
    listens(ports[0])
    return relay.pid, ports


def arp(origin):
    relay, (control, proxy, public) = arps()
    link = ["--server-addr", "127.0.0.1", "--control-port", control, "--proxy-port", proxy, "--plaintext"]
    link += ["--data-dir", tempfile.mkdtemp(dir=HOME)]
    edge = start([f"{BIN}/arpc", *link, "--client-id", "demo", "--local-port", str(origin)])
    url = f"http://127.0.0.1:{public}/?token=demo"
    answers(url)
    return (relay, edge.pid), url


def rathole(origin):
    control, public = free_port(), free_port()
    # A running one reads its file again when it changes: each has its own.
    server_file, client_file = (f"{HOME}/{kind}-{control}.toml" for kind in ("server", "client"))
    common = 'default_token = "bench"\n'
    with open(server_file, "w") as file:
        file.write(f'[server]\nbind_addr = "127.0.0.1:{control}"\n{common}')
        file.write(f'[server.services.web]\nbind_addr = "127.0.0.1:{public}"\nnodelay = true\n')
    with open(client_file, "w") as file:
        file.write(f'[client]\nremote_addr = "127.0.0.1:{control}"\n{common}')
        file.write(f'[client.services.web]\nlocal_addr = "127.0.0.1:{origin}"\nnodelay = true\n')
    server = start([RATHOLE, "--server", server_file])
    listens(control)
    client = start([RATHOLE, "--client", client_file])
    url = f"http://127.0.0.1:{public}/?x=demo"
    answers(url)
    return (server.pid, client.pid), url


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def listens(port):
    patiently(lambda: socket.create_connection(("127.0.0.1", int(port)), 1).close())


def answers(url):
    patiently(lambda: urllib.request.urlopen(url, timeout=5).read())


def patiently(attempt):
    end = time.monotonic() + 30
    while True:
        try:
            return attempt()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def settled(count):
    """Waits until a figure stays as it is for three seconds."""
    last, since = count(), time.monotonic()
    while time.monotonic() - since < 3:
        time.sleep(0.2)
        if (now := count()) != last:
            last, since = now, time.monotonic()
    return last


if __name__ == "__main__":
    try:
        main()
    finally:
        for process in reversed(running):
            # Gently: a killed nginx leaves its worker behind.
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(HOME)
