"""Measures arp and rathole in turns; see bench.sh, which starts this and says what it needs."""

import glob
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

BIN, BASE, RATHOLE = os.environ["BIN"], os.environ.get("BASE"), os.environ["RATHOLE"]
ROUNDS, SECONDS = int(os.environ["ROUNDS"]), int(os.environ["SECONDS_EACH"])
CROWD, HANDSHAKES = int(os.environ["CROWD"]), 300
MODE = os.environ["MODE"]
CONNECTIONS, TICK = 64, os.sysconf("SC_CLK_TCK")
HOME = tempfile.mkdtemp(prefix="arp-bench-")
running = []


def main():
    origin = nginx(free_port())
    if MODE == "links":
        return links(origin)
    if MODE == "quick":
        return quick(origin)
    if MODE == "raw":
        return raw(origin)
    subjects = {"arp": arp(origin), "rathole": rathole(origin)}
    figures = {}
    note_rss(figures, subjects, "idle")
    rounds(figures, subjects)
    note_rss(figures, subjects, "after the load")
    for name, start in (("arp", arp), ("rathole", rathole)):
        pids, url = start(origin)
        requests(url, 100_000)
        note_rss(figures, {name: (pids, url)}, "after 100,000 requests")
    table(figures, {"arp": "arp", "rathole": "rathole 0.5"}, [("arp", "rathole")])
    crowd()


def quick(origin):
    """The ratios that matter, in two minutes: beside an older build (BASE) and rathole, of which either may be missing."""
    subjects = {"arp": arp(origin), "arp TLS": arp(origin, tls=True)}
    ratios = [("arp TLS", "arp")]
    if BASE:
        subjects |= {"before": arp(origin, of=BASE), "before TLS": arp(origin, tls=True, of=BASE)}
        ratios += [("arp", "before"), ("arp TLS", "before TLS")]
    if RATHOLE:
        subjects["rathole"] = rathole(origin)
        ratios += [("arp", "rathole"), ("arp TLS", "rathole")]
    figures = {}
    for _, url in subjects.values():
        requests(url, 1)
    rounds(figures, subjects, alone=True)
    note_rss(figures, subjects, "after the load")
    table(figures, {name: name for name in subjects}, ratios)


def links(origin):
    """What the security of the link costs: TLS beside plain, and beside rathole's noise and its plain."""
    subjects = {
        "arp": arp(origin, tls=True),
        "arp plain": arp(origin),
        "rathole noise": rathole(origin, noise=True),
        "rathole plain": rathole(origin),
    }
    figures = {}
    note_rss(figures, subjects, "idle")
    rounds(figures, subjects)
    note_rss(figures, subjects, "after the load")
    names = {"arp": "arp (TLS)", "arp plain": "arp plain", "rathole noise": "rathole noise", "rathole plain": "rathole plain"}
    table(figures, names, [("arp", "arp plain"), ("arp", "rathole noise"), ("rathole noise", "rathole plain")])
    idle_tunnels(origin)
    handshakes()


def raw(origin):
    """Other protocols than HTTP: Redis, PostgreSQL and bulk, by a token, by a port of their own, and by rathole's ports."""
    redis, postgres = redis_server(), postgres_server()
    services = {"web": origin, "cache": redis, "db": postgres}
    by_port = arp_ports(services)
    subjects = {"arp by token": by_port[0], "arp by port": by_port[1]}
    ratios = []
    if RATHOLE:
        subjects["rathole"] = rathole_ports(services)
        ratios = [("arp by token", "rathole"), ("arp by port", "rathole")]
    figures = {}
    everybody = list(subjects.items())
    for at in range(ROUNDS):
        order = everybody[at % len(everybody) :] + everybody[: at % len(everybody)]
        for name, (pids, at_port) in order:
            before = cpu_of(pids)
            rate, p50 = redis_load(at_port["cache"], name == "arp by token")
            note(figures, "redis-benchmark, 50 clients, GET: requests/s", name, rate)
            note(figures, "redis-benchmark, 50 clients, GET: p50 (µs)", name, p50)
            note(figures, "redis-benchmark: CPU per request (µs)", name, (cpu_of(pids) - before) * 1e6 / REDIS)
        for name, (_, at_port) in order:
            _, p50 = redis_load(at_port["cache"], name == "arp by token", clients=1, n=REDIS // 10)
            note(figures, "redis-benchmark, one client: p50 (µs)", name, p50)
        for name, (_, at_port) in order:
            rate, latency = pgbench(at_port["db"], name == "arp by token")
            note(figures, "pgbench -S, 8 clients: transactions/s", name, rate)
            note(figures, "pgbench -S, 8 clients: latency (µs)", name, latency)
        for name, (pids, at_port) in order:
            before = cpu_of(pids)
            note(figures, "1 GiB in one stream (MB/s)", name, stream(at_port["web"], name == "arp by token"))
            note(figures, "1 GiB in one stream: CPU (s)", name, cpu_of(pids) - before)
        print(f"round {at + 1} of {ROUNDS} done", file=sys.stderr)
    note_rss(figures, subjects, "after the load")
    table(figures, {name: name for name in subjects}, ratios)


REDIS = 200_000


def redis_load(port, token, clients=50, n=REDIS):
    """Requests a second, and the median latency in µs."""
    who = ["-a", "?token=cache"] if token else []
    command = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), *who, "-t", "get", "-c", str(clients), "-n", str(n), "--csv"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip().splitlines()[-1]
    fields = [field.strip('"') for field in told.split(",")]
    return float(fields[1]), float(fields[4]) * 1000


def pgbench(port, token):
    """Transactions a second, and the mean latency in µs."""
    who = "bench?token=db" if token else "bench"
    env = os.environ | {"PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
    command = ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", who, "-n", "-S", "-M", "prepared", "-c", "8", "-T", str(SECONDS), "postgres"]
    told = subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout
    return float(re.search(r"tps = ([\d.]+)", told)[1]), float(re.search(r"latency average = ([\d.]+) ms", told)[1]) * 1000


def stream(port, token):
    """MB a second of one GiB on one raw connection."""
    with socket.create_connection(("127.0.0.1", port)) as to:
        begun = time.monotonic()
        to.sendall((b"?token=web\n" if token else b"") + b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        room, got = bytearray(1 << 18), 0
        while n := to.recv_into(room):
            got += n
        assert got > 1 << 30, f"{got} bytes came"
        return got / 1e6 / (time.monotonic() - begun)


def arp_ports(services):
    """Two views of one pair of daemons: all services by their tokens, and by ports of their own."""
    first = free_port()
    ports = {name: first + n for n, name in enumerate(services)}
    relay, (control, proxy, public) = arps("--remote-ports", f"{first}-{first + 9}")
    settings = f"{HOME}/arpc.toml"
    with open(settings, "w") as file:
        for name, port in services.items():
            file.write(f"[services.{name}]\nport = {port}\nremote-port = {ports[name]}\n")
    link = ["--server-addr", "127.0.0.1", "--control-port", control, "--proxy-port", proxy, "--plaintext"]
    edge = start([f"{BIN}/arpc", *link, "--data-dir", tempfile.mkdtemp(dir=HOME), "--config", settings])
    for port in ports.values():
        listens(port)
    pids = (relay, edge.pid)
    return (pids, dict.fromkeys(services, int(public))), (pids, ports)


def rathole_ports(services):
    control = free_port()
    ports = {name: free_port() for name in services}
    server_file, client_file = (f"{HOME}/{kind}-{control}.toml" for kind in ("server", "client"))
    with open(server_file, "w") as file:
        file.write(f'[server]\nbind_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n')
        for name, port in ports.items():
            file.write(f'[server.services.{name}]\nbind_addr = "127.0.0.1:{port}"\nnodelay = true\n')
    with open(client_file, "w") as file:
        file.write(f'[client]\nremote_addr = "127.0.0.1:{control}"\ndefault_token = "bench"\n')
        for name, port in services.items():
            file.write(f'[client.services.{name}]\nlocal_addr = "127.0.0.1:{port}"\nnodelay = true\n')
    server = start([RATHOLE, "--server", server_file])
    listens(control)
    client = start([RATHOLE, "--client", client_file])
    for port in ports.values():
        listens(port)
    return (server.pid, client.pid), ports


def redis_server():
    port = free_port()
    start(["redis-server", "--bind", "127.0.0.1", "--save", "", "--port", str(port), "--dir", HOME])
    listens(port)
    return port


def postgres_server():
    """One that lets everybody in; it refuses to be run by root."""
    port, home = free_port(), tempfile.mkdtemp(prefix="arp-bench-pg-")
    of_all = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    tool = lambda name: next((f"{place}/{name}" for place in reversed(of_all)), name)
    who = []
    if os.geteuid() == 0:
        shutil.chown(home, "postgres")
        who = ["runuser", "-u", "postgres", "--"]
    subprocess.run([*who, tool("initdb"), "-A", "trust", "--no-sync", "-U", "bench", "-D", f"{home}/data"], check=True, capture_output=True)
    off = ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1"]
    start([*who, tool("postgres"), *off, "-p", str(port), "-D", f"{home}/data"])
    listens(port)
    fill = ["pgbench", "-h", "127.0.0.1", "-p", str(port), "-U", "bench", "-i", "-q", "-s", "5", "postgres"]
    patiently(lambda: subprocess.run(fill, check=True, capture_output=True))
    return port


def note(figures, what, name, value):
    figures.setdefault(what, {}).setdefault(name, []).append(value)


def note_rss(figures, subjects, when):
    for name, (pids, _) in subjects.items():
        for which, rss in zip(("relay", "edge"), map(rss_mb, pids)):
            note(figures, f"RSS {when}, {which} (MB)", name, rss)


def rounds(figures, subjects, alone=False):
    everybody = list(subjects.items())
    for at in range(ROUNDS):
        # Each round begins with another one, so that what comes later is not always the same.
        order = everybody[at % len(everybody) :] + everybody[: at % len(everybody)]
        for kind, headers in (("keep-alive", []), ("Connection: close", ["-H", "Connection: close"])):
            for name, (pids, url) in order:
                rate, cpu = load(url, pids, headers)
                note(figures, f"{kind}: requests/s", name, rate)
                note(figures, f"{kind}: CPU per request (µs)", name, cpu)
        for name, (pids, url) in order if alone else ():
            p50, p99 = latency(url)
            note(figures, "one connection: p50 (µs)", name, p50)
            note(figures, "one connection: p99 (µs)", name, p99)
        for name, (pids, url) in order:
            rate, cpu = download(url, pids)
            note(figures, "1 GiB download (MB/s)", name, rate)
            note(figures, "1 GiB download: CPU (s)", name, cpu)
        print(f"round {at + 1} of {ROUNDS} done", file=sys.stderr)


def table(figures, names, ratios):
    """A column for each subject, and one for each ratio of two of them."""
    of = [f"{names[a]} / {names[b]}" if len(ratios) > 1 else "ratio" for a, b in ratios]
    print(f"| {CONNECTIONS} connections, medians of {ROUNDS} | {' | '.join([*names.values(), *of])} |")
    print("|---|" + "---:|" * (len(names) + len(ratios)))
    for what, by_name in figures.items():
        medians = {name: statistics.median(by_name[name]) for name in names}
        cells = [f"{medians[name]:,.1f}" for name in names]
        cells += [f"{medians[a] / medians[b]:.2f}" if medians[b] else "" for a, b in ratios]
        print(f"| {what} | {' | '.join(cells)} |")


def idle_tunnels(origin):
    """Memory of idle tunnels, in both daemons."""
    few, many = 5, 505
    print("\n| 500 idle tunnels | relay (kB a tunnel) | edge (kB a tunnel) |\n|---|---:|---:|")
    for name, tls in (("TLS", True), ("plain", False)):
        held = {}
        for pool in (few, many):
            (relay, edge), _ = arp(origin, tls, "--pool-size", str(pool), "--max-tunnels", "1000")
            tunnels = settled(lambda: len(os.listdir(f"/proc/{relay}/fd")))
            assert tunnels > pool, f"{tunnels} files, {pool} tunnels"
            held[pool] = (rss_mb(relay), rss_mb(edge))
        per = [(b - a) * 1000 / (many - few) for a, b in zip(held[few], held[many])]
        print(f"| {name} | {per[0]:.1f} | {per[1]:.1f} |")


def handshakes():
    relay, ports = arps("--pool-size", "0")
    print()
    sys.stdout.flush()
    subprocess.run([f"{BIN}/arp-handshake", "127.0.0.1", *ports, str(HANDSHAKES), str(relay)], check=True)


def crowd():
    """Memory of a relay with many idle edges. Of rathole there is no such figure: it has one service a port."""
    relay, ports = arps("--max-clients", str(CROWD + 10), "--max-edges-per-ip", str(CROWD + 10))
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


def latency(url):
    """Median and 99th percentile of a request on one connection, in µs."""
    wrk = ["wrk", "-t", "1", "-c", "1", "-d", f"{SECONDS}s", "--latency", url]
    told = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    of_unit = {"us": 1, "ms": 1e3, "s": 1e6}
    found = (re.search(rf"{percent}%\s+([\d.]+)(us|ms|s)", told) for percent in (50, 99))
    return [float(at[1]) * of_unit[at[2]] for at in found]


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


def arps(*flags, of=None):
    ports = [str(free_port()) for _ in range(3)]
    named = zip(("--control-port", "--proxy-port", "--public-port"), ports)
    flags = ["--bind", "127.0.0.1", "--allow-plaintext", "--data-dir", tempfile.mkdtemp(dir=HOME), *flags]
    relay = start([f"{of or BIN}/arps", *(x for p in named for x in p), *flags])
    listens(ports[0])
    return relay.pid, ports


def arp(origin, tls=False, *flags, of=None):
    relay, (control, proxy, public) = arps(*flags, of=of)
    link = ["--server-addr", "127.0.0.1", "--control-port", control, "--proxy-port", proxy]
    link += ["--data-dir", tempfile.mkdtemp(dir=HOME), *([] if tls else ["--plaintext"])]
    edge = start([f"{of or BIN}/arpc", *link, "--client-id", "demo", "--local-port", str(origin)])
    url = f"http://127.0.0.1:{public}/?token=demo"
    answers(url)
    return (relay, edge.pid), url


def rathole(origin, noise=False):
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
    if noise:
        told = subprocess.run([RATHOLE, "--genkey"], check=True, capture_output=True, text=True).stdout.split()
        private, public_key = told[2], told[5]
        kinds = ((server_file, "server", "local_private_key", private), (client_file, "client", "remote_public_key", public_key))
        for path, side, name, key in kinds:
            with open(path, "a") as file:
                file.write(f'[{side}.transport]\ntype = "noise"\n[{side}.transport.noise]\n{name} = "{key}"\n')
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
        except (OSError, subprocess.CalledProcessError):
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


def run(measure):
    """Measures, and ends what was started."""
    try:
        measure()
    finally:
        for process in reversed(running):
            # Gently: a killed nginx leaves its worker behind.
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
        shutil.rmtree(HOME)


if __name__ == "__main__":
    run(main)
