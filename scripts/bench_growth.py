"""What becomes of the relay's costs as it grows: clients, connections, requests on one connection, a far edge. See
bench.sh, which starts this and says what it needs."""

import asyncio
import os
import re
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import bench
from bench import BIN, HOME, ROUNDS, SECONDS, arps, arp, answers, cpu_of, nginx, free_port, rss_mb, start

# Of the delaying middle box: half of a round trip.
DELAY = 0.020
# A client with one tunnel is two of the relay's open files.
MOST = min(10_000, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1_000) // 2)
CLIENTS, IDLE = (1, 1_000, MOST), (0, 1_000, 5_000)


def main():
    origin = nginx(free_port())
    http2(origin)
    connections(origin)
    clients(origin)
    far(origin)
    memory(origin)


def http2(origin):
    """One HTTP/2 connection with 64 streams, beside 64 connections of HTTP/1.1, both as h2load makes them."""
    pids, url = arp(origin)
    ways = {"HTTP/1.1, 64 connections": ["--h1", "-c", "64"], "HTTP/2, one connection, 64 streams": ["-c", "1", "-m", "64"]}
    figures = {}
    for _ in range(ROUNDS):
        for name, flags in ways.items():
            before = cpu_of(pids)
            told = subprocess.run(["h2load", *flags, "-D", str(SECONDS), url], check=True, capture_output=True, text=True).stdout
            done = int(re.search(r"(\d+) succeeded", told)[1])
            bench.note(figures, name, "rate", float(re.search(r"([\d.]+) req/s", told)[1]))
            bench.note(figures, name, "cpu", (cpu_of(pids) - before) * 1e6 / done)
    print(f"\n| h2load, medians of {ROUNDS} | requests/s | CPU per request (µs) | requests/s, ratio |\n|---|---:|---:|---:|")
    first = None
    for name, of in figures.items():
        rate, cpu = statistics.median(of["rate"]), statistics.median(of["cpu"])
        first = first or rate
        print(f"| {name} | {rate:,.0f} | {cpu:.1f} | {rate / first:.2f} |", flush=True)


def connections(origin):
    """CPU of a request while others who asked once keep their connections: few or many."""
    pids, url = arp(origin, False, "--max-conns-per-ip", "20000", "--max-conns", "20000")
    costs = {n: [] for n in IDLE}
    for _ in range(ROUNDS):
        for n in IDLE:
            held = [idle_visitor(url) for _ in range(n)]
            costs[n].append(cost(url, pids, 64))
            for one in held:
                one.close()
    growth("visitors' connections besides the 64 that ask", costs)


def idle_visitor(url):
    """A connection on which one request was answered."""
    host, path = re.match(r"http://([^/]+)(.*)", url).groups()
    name, port = host.split(":")
    one = socket.create_connection((name, int(port)), 30)
    one.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert one.recv(4096).startswith(b"HTTP/1.1 200")
    return one


def clients(origin):
    """CPU of a request while few or many clients are registered, each with its own relay. Those others cost something
    by themselves (heartbeats); that is measured before, and not part of the figure."""
    subjects = {}
    for n in CLIENTS:
        pids, url = arp(origin, False, "--pool-size", "1", "--max-clients", str(n + 10), "--max-edges-per-ip", str(n + 10))
        if n > 1:
            crowd(pids[0], n - 1)
        subjects[n] = (pids, url)
    costs = {n: [] for n in CLIENTS}
    for _ in range(ROUNDS):
        for n, (pids, url) in subjects.items():
            idle = cpu_of(pids)
            time.sleep(SECONDS)
            idle = cpu_of(pids) - idle
            costs[n].append(cost(url, pids, 64, idle))
    growth("registered clients", costs)
    print("\n| registered clients, a tunnel each | RSS of the relay (MB) |\n|---:|---:|")
    for n, (pids, _) in subjects.items():
        print(f"| {n:,} | {rss_mb(pids[0]):.1f} |", flush=True)


def crowd(relay, n):
    """Registers more clients with the relay of this process."""
    with open(f"/proc/{relay}/cmdline", "rb") as told:
        flags = told.read().decode().split("\0")
    control, proxy = (flags[flags.index(name) + 1] for name in ("--control-port", "--proxy-port"))
    edges = start([f"{BIN}/arp-crowd", "127.0.0.1", control, proxy, str(n)], piped=True)
    while "ready" not in (line := edges.stdout.readline()):
        if not line:
            sys.exit("arp-crowd ended")
    bench.settled(lambda: len(os.listdir(f"/proc/{relay}/fd")))


def cost(url, pids, connections, idle=0.0):
    """µs of CPU of both daemons a request."""
    before = cpu_of(pids)
    wrk = ["wrk", "-t", str(min(2, connections)), "-c", str(connections), "-d", f"{SECONDS}s", url]
    told = subprocess.run(wrk, check=True, capture_output=True, text=True).stdout
    if bad := re.search(r"(Non-2xx.*|Socket errors.*)", told):
        print(f"{connections} connections: {bad[1]}", file=sys.stderr)
    return (cpu_of(pids) - before - idle) * 1e6 / int(re.search(r"(\d+) requests in", told)[1])


def growth(of_what, costs):
    print(f"\n| {of_what} | CPU per request (µs), median of {ROUNDS} | beside the first |\n|---:|---:|---:|")
    medians = {n: statistics.median(of) for n, of in costs.items()}
    base = next(iter(medians.values()))
    for n, median in medians.items():
        print(f"| {n:,} | {median:.1f} | {median / base:.2f} |", flush=True)


# An edge far away


def middle(port):
    """Passes a port on, each byte later by half a round trip; answers the port in front."""
    front = free_port()

    async def carry(rd, wr, loop):
        late = asyncio.Queue()

        async def write():
            while (piece := await late.get()) is not None:
                at, data = piece
                await asyncio.sleep(max(0, at - loop.time()))
                wr.write(data)
                await wr.drain()
            wr.close()

        writing = loop.create_task(write())
        try:
            while data := await rd.read(1 << 16):
                late.put_nowait((loop.time() + DELAY, data))
        except OSError:
            pass
        late.put_nowait(None)
        try:
            await writing
        except OSError:
            pass

    async def serve():
        loop = asyncio.get_running_loop()

        async def visit(rd, wr):
            # The way of a SYN and its answer.
            await asyncio.sleep(2 * DELAY)
            far_rd, far_wr = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(carry(rd, far_wr, loop), carry(far_rd, wr, loop))

        server = await asyncio.start_server(visit, "127.0.0.1", front, backlog=4096)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()
    bench.listens(front)
    return str(front)


def far_edge(origin, tls):
    """A relay, and an edge behind the middle box."""
    relay, (control, proxy, public) = arps("--max-conns-per-ip", "20000")
    link = ["--server-addr", "127.0.0.1", "--control-port", middle(int(control)), "--proxy-port", middle(int(proxy))]
    link += ["--data-dir", tempfile.mkdtemp(dir=HOME), *([] if tls else ["--plaintext"])]
    edge = start([f"{BIN}/arpc", *link, "--client-id", "demo", "--local-port", str(origin)])
    url = f"http://127.0.0.1:{public}/?token=demo"
    answers(url)
    return (relay, edge.pid), url


def far(origin):
    """Requests one at a time with pauses, and a thousand at once to an edge that served nobody yet."""
    print(f"\n| edge {2 * DELAY * 1000:.0f} ms away, TLS | p50 (ms) | p99 (ms) | most (ms) | failed |\n|---|---:|---:|---:|---:|")
    _, url = far_edge(origin, True)
    burst(url, 64)
    for method, body in (("GET", []), ("POST", ["-d", "x=1"])):
        times = []
        for _ in range(8):
            time.sleep(3)
            curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{time_total}", *body, url]
            times.append(float(subprocess.run(curl, check=True, capture_output=True, text=True).stdout) * 1000)
        row(f"{method}, one every 3 s, a connection each", times, 0)
    for tls in (True, False):
        _, url = far_edge(origin, tls)
        times, failed = burst(url, 1_000)
        row(f"1,000 first requests at once, {'TLS' if tls else 'plain'}", times, failed)


def burst(url, n):
    """Milliseconds of each of so many requests that begin at once, and how many failed."""
    log = f"{HOME}/burst"
    subprocess.run(["h2load", "--h1", "-n", str(n), "-c", str(n), "-t", "1", f"--log-file={log}", url], check=True, capture_output=True)
    with open(log) as lines:
        told = [line.split() for line in lines]
    os.unlink(log)
    return [int(took) / 1000 for _, status, took in told if status == "200"], n - sum(status == "200" for _, status, _ in told)


def row(name, times, failed):
    times.sort()
    print(f"| {name} | {times[len(times) // 2]:.1f} | {times[len(times) * 99 // 100]:.1f} | {times[-1]:.1f} | {failed} |", flush=True)


def memory(origin):
    pids, url = arp(origin)
    bench.requests(url, 1_000_000)
    relay, edge = map(rss_mb, pids)
    print(f"\n| after a million requests | RSS (MB) |\n|---|---:|\n| relay | {relay:.1f} |\n| edge | {edge:.1f} |")


if __name__ == "__main__":
    bench.run(main)
