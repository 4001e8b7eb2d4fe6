"""Measures the model gateway and its peers in turns; see bench-gateway.sh, which starts this and says what it needs."""

import asyncio
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import threading
import time

from bench_gateway_subjects import HOME, SSE, NoAnswer, Subject, free_port, gateway, peers, redacting, stop, upstream, wait_for

ROUNDS, SECONDS, STREAMS = int(os.environ["ROUNDS"]), float(os.environ["SECONDS_EACH"]), int(os.environ["STREAMS"])
MILLION, MILLION_SECONDS = int(os.environ["MILLION"]), float(os.environ["MILLION_SECONDS"])
PATH, SMALL, LARGE, HIDDEN = "/v1/messages", "1 kB", "200 kB", "200 kB with 20 secrets"
# How many at a time: enough to keep all cores busy, few enough that slow ones finish some in time.
AT_A_TIME = {SMALL: 32, LARGE: 8}
# Longest time for one answer, and for all streams together.
PATIENCE, CROWD_PATIENCE = 20, 30


def prompt(size, secrets=0):
    """A request of the Messages API of about so many bytes, with so many mail addresses and keys in it."""
    lines, length, number = [], 160, 0
    while length < size:
        lines.append("The quick brown fox jumps over the lazy dog, line %d.\n" % number)
        length += len(lines[-1]) + 1
        number += 1
    for n in range(secrets):
        secret = "write to someone%d@corp.example\n" % n if n % 2 else "use sk-ant-api03-%s\n" % ("%08x" % (n * 2654435761 % 2**32) * 6)
        lines[len(lines) * n // secrets] = secret
    return json.dumps({"model": "claude-x", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": "".join(lines)}]})


BODIES = {SMALL: prompt(1_000), LARGE: prompt(200_000), HIDDEN: prompt(200_000, 20)}


def say(text):
    print("%s %s" % (time.strftime("%H:%M:%S"), text), file=sys.stderr, flush=True)


def micros(text):
    number, unit = re.match(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


def wrk(subject, label, connections, seconds=SECONDS):
    body = BODIES[label]
    script = os.path.join(HOME, "post-%s.lua" % label.replace(" ", "-"))
    if not os.path.exists(script):
        with open(script, "w") as f:
            f.write("wrk.method = 'POST'\nwrk.body = [==[%s]==]\nwrk.headers['content-type'] = 'application/json'\n" % body)
    extra = [part for name, value in {"anthropic-version": "2023-06-01", **subject.headers}.items() for part in ("-H", "%s: %s" % (name, value))]
    seconds = max(1, round(seconds))
    args = ["wrk", "-t%d" % min(2, connections), "-c%d" % connections, "-d%ds" % seconds, "--timeout", "%ds" % PATIENCE, "--latency", "-s", script, *extra]
    try:
        run = subprocess.run([*args, "http://127.0.0.1:%d%s" % (subject.port, PATH)], capture_output=True, text=True, timeout=seconds + 2 * PATIENCE)
    except subprocess.TimeoutExpired:
        raise NoAnswer("wrk did not come to an end") from None
    out = run.stdout
    count = re.search(r"(\d+) requests in", out)
    if run.returncode or not count:
        raise NoAnswer((run.stderr or out).strip().splitlines()[-1] if (run.stderr or out).strip() else "wrk failed")
    count = int(count.group(1))
    if not count:
        raise NoAnswer("no request was finished in %d s" % seconds)
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if errors:
        raise NoAnswer("%s of %d requests failed" % (errors.group(1), count))
    return {
        "p50": micros(re.search(r"(?m)^\s+50%\s+(\S+)", out).group(1)),
        "p99": micros(re.search(r"(?m)^\s+99%\s+(\S+)", out).group(1)),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
        "count": count,
    }


def request(subject, body):
    lines = ["POST %s HTTP/1.1" % PATH, "Host: 127.0.0.1:%d" % subject.port, "Content-Type: application/json", "anthropic-version: 2023-06-01", "Content-Length: %d" % len(body)]
    lines += ["%s: %s" % pair for pair in subject.headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def is_whole(got):
    """Is this answer's last event there?"""
    return re.search(rb'"message_stop"\s*}', got[-600:]) is not None


def first_event(subject, label, seconds, patience=PATIENCE):
    """Microseconds to the first event of an answer, one request after the other on one connection: the median."""
    data, out = request(subject, BODIES[label]), []
    try:
        with socket.create_connection(("127.0.0.1", subject.port), patience) as s:
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end = time.time() + seconds
            while not out or (len(out) < 500 and time.time() < end):
                begun = time.perf_counter_ns()
                s.sendall(data)
                got, first = b"", None
                # The last event, and the end of a chunked body.
                while not is_whole(got) or (b"chunked" in got.lower() and not got.endswith(b"0\r\n\r\n")):
                    piece = s.recv(65536)
                    if not piece:
                        raise NoAnswer("it closed the connection in the middle of an answer: %r" % got[:80])
                    got += piece
                    if first is None and b"data: " in got:
                        first = time.perf_counter_ns()
                out.append((first - begun) / 1e3)
    except OSError as e:
        raise NoAnswer(str(e)) from None
    return statistics.median(out)


class SlowUpstream(threading.Thread):
    """Streams of as many events and with such a gap as the prompt says; each carries the time when it was written."""

    def __init__(self):
        super().__init__(daemon=True)
        self.port = free_port()

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        async def each(reader, writer):
            async def say_chunk(text):
                writer.write(b"%x\r\n%s\r\n" % (len(text), text.encode()))
                await writer.drain()

            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: (\d+)", head.lower())
                    body = await reader.readexactly(int(length.group(1))) if length else b""
                    gap, events = re.search(rb"gap=([\d.]+) events=(\d+)", body).groups()
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                    for event in SSE[:2]:
                        await say_chunk(event)
                    for _ in range(int(events)):
                        await asyncio.sleep(float(gap))
                        await say_chunk(SSE[2].replace("word ", "t=%.6f " % time.perf_counter()))
                    for event in SSE[-3:]:
                        await say_chunk(event)
                    writer.write(b"0\r\n\r\n")
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError, AttributeError):
                writer.close()

        server = await asyncio.start_server(each, "127.0.0.1", self.port, backlog=4096)
        async with server:
            await server.serve_forever()


async def streams(subject, gap, events, count):
    """Runs so many streams at once: how many came whole, and the delay of each event on its way (ms)."""
    text = "gap=%g events=%d" % (gap, events)
    body = json.dumps({"model": "claude-x", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": text}]})
    data, delays, whole = request(subject, body), [], 0

    async def one():
        nonlocal whole
        reader, writer = await asyncio.open_connection("127.0.0.1", subject.port)
        try:
            writer.write(data)
            got = b""
            while not is_whole(got):
                piece = await reader.read(65536)
                if not piece:
                    return
                now = time.perf_counter()
                got += piece
                end = 0
                for event in re.finditer(rb"t=(\d+\.\d{6}) ", got):
                    delays.append((now - float(event.group(1))) * 1e3)
                    end = event.end()
                got = got[end:]
            whole += 1
        finally:
            writer.close()

    tasks = [asyncio.ensure_future(one()) for _ in range(count)]
    _, late = await asyncio.wait(tasks, timeout=CROWD_PATIENCE)
    for task in late:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return whole, delays


def q(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def table(title, names, rows):
    print("\n| %s | %s |" % (title, " | ".join(names)))
    print("|---|" + "---:|" * len(names))
    for what, cells in rows.items():
        print("| %s | %s |" % (what, " | ".join(cells.get(name, "") for name in names)))
    print(flush=True)


class Figures:
    """Values by what and by whom; whoever gave no answer is noted, and not asked the same again."""

    def __init__(self, subjects):
        self.names = [subject.name for subject in subjects]
        self.values = {}
        self.missing = {("at all", subject.name): subject.why for subject in subjects if subject.why}

    def note(self, what, subject, value):
        self.values.setdefault(what, {}).setdefault(subject.name, []).append(value)

    def measure(self, what, subject, run):
        """What `run` gives for this subject, or None where it gives no answer."""
        if (what, subject.name) in self.missing:
            return None
        try:
            return None if subject.why else run()
        except NoAnswer as e:
            self.missing[what, subject.name] = str(e)
            say("%s, %s: no answer: %s" % (subject.name, what, e))
            return None

    def print_missing(self):
        for (what, name), why in self.missing.items():
            print("- %s, %s: no answer: %s" % (name, what, why), flush=True)


def settle(subject):
    """Waits until it rests: what it still works on would slow down the next one."""
    end = time.time() + PATIENCE
    while subject.pid and time.time() < end:
        before = subject.cpu()
        time.sleep(0.2)
        if subject.cpu() - before <= 0.02:
            return


def load(subjects):
    """Latency, first events, requests a second, CPU and memory."""
    figures = Figures(subjects)
    for subject in subjects:
        # So that each has done what it does once only. Whoever does not even answer now is not asked again.
        if figures.measure("the first request", subject, lambda: first_event(subject, SMALL, 1, 3 * PATIENCE)) is None:
            subject.why = subject.why or figures.missing["the first request", subject.name]
        elif subject.pid:
            figures.note("RSS after a warm-up (MB)", subject, subject.rss())
    for number in range(ROUNDS):
        say("round %d of %d" % (number + 1, ROUNDS))
        # Each round begins with another one.
        turn = subjects[number % len(subjects) :] + subjects[: number % len(subjects)]
        for label in (SMALL, LARGE):
            for subject in turn:
                before, each = subject.cpu(), None
                alone = figures.measure(label + ", one at a time", subject, lambda: wrk(subject, label, 1))
                if alone:
                    each = (subject.cpu() - before) / alone["count"]
                    figures.note(label + ", one at a time: p50 (µs)", subject, alone["p50"])
                    figures.note(label + ", one at a time: p99 (µs)", subject, alone["p99"])
                first = figures.measure(label + ", first event", subject, lambda: first_event(subject, label, SECONDS / 2))
                if first:
                    figures.note(label + ": first event, median (µs)", subject, first)
                connections = AT_A_TIME[label]
                what = "%s, %d at a time" % (label, connections)
                before = subject.cpu()
                crowd = figures.measure(what, subject, lambda: wrk(subject, label, connections))
                spent = subject.cpu() - before
                settle(subject)
                if crowd:
                    figures.note(what + ": requests/s", subject, crowd["rps"])
                # What was begun and not finished is work, too: of those that finish few, one at a time tells more.
                if crowd and crowd["count"] >= 10 * connections:
                    each = spent / crowd["count"]
                if subject.pid and each is not None:
                    figures.note(label + ": CPU per request (µs)", subject, each * 1e6)
        for subject in turn:
            if subject.name.startswith("arp"):
                alone = figures.measure(HIDDEN + ", one at a time", subject, lambda: wrk(subject, HIDDEN, 1))
                if alone:
                    figures.note(HIDDEN + ", one at a time: p50 (µs)", subject, alone["p50"])
                    figures.note(HIDDEN + ", one at a time: p99 (µs)", subject, alone["p99"])
    for subject in subjects:
        if subject.pid and not subject.why:
            figures.note("RSS after the load (MB)", subject, subject.rss())
    shown = {}
    medians = {what: {name: statistics.median(values) for name, values in by.items()} for what, by in figures.values.items()}
    for what, by in medians.items():
        shown[what] = {name: "{:,.1f}".format(value) for name, value in by.items()}
        if "upstream" in by and ("p50" in what or "p99" in what or "first event" in what):
            shown["added: " + what] = {name: "{:+,.1f}".format(value - by["upstream"]) for name, value in by.items() if name != "upstream"}
    table("medians of %d rounds" % ROUNDS, figures.names, shown)
    redaction = {}
    for label in (LARGE, HIDDEN):
        by = medians.get(label + ", one at a time: p50 (µs)", {})
        if "arp" in by and "arp, redaction" in by:
            redaction[label] = {"p50 (µs)": "{:+,.1f}".format(by["arp, redaction"] - by["arp"])}
    table("what redaction with eight presets adds", ["p50 (µs)"], redaction)
    figures.print_missing()


def crowd(subjects, gap, events, count):
    """Delay of events and jitter, with so many streams at once; memory and CPU."""
    rows, figures = {}, Figures(subjects)
    for subject in subjects:
        most, done = [0.0], threading.Event()

        def watch():
            while subject.pid and not done.wait(0.2):
                most[0] = max(most[0], subject.rss())

        def run():
            whole, delays = asyncio.run(streams(subject, gap, events, count))
            if not whole:
                raise NoAnswer("no stream of %d came whole in %d s" % (count, CROWD_PATIENCE))
            return whole, delays

        watcher = threading.Thread(target=watch)
        watcher.start()
        before = subject.cpu()
        came = figures.measure("%d streams" % count, subject, run)
        done.set()
        watcher.join()
        settle(subject)
        if not came:
            rows.setdefault("came whole", {})[subject.name] = "no answer"
            continue
        whole, delays = came
        rows.setdefault("came whole", {})[subject.name] = str(whole)
        if delays:
            for part, name in ((0.5, "p50"), (0.99, "p99"), (1, "longest")):
                rows.setdefault("delay of an event, %s (ms)" % name, {})[subject.name] = "%.2f" % q(delays, part)
            rows.setdefault("jitter, p99 - p50 (ms)", {})[subject.name] = "%.2f" % (q(delays, 0.99) - q(delays, 0.5))
        if subject.pid:
            rows.setdefault("most RSS (MB)", {})[subject.name] = "%.1f" % most[0]
            rows.setdefault("CPU (s)", {})[subject.name] = "%.2f" % (subject.cpu() - before)
    table("%d streams at once, %d events each, one every %d ms" % (count, events, gap * 1000), figures.names, rows)
    figures.print_missing()


def main():
    begun = time.time()
    say("starting")
    to = upstream()
    arp = gateway(to.port)
    load([to, arp, redacting(to.port), *peers(to.port)])
    say("streams, few and fast")
    origin = SlowUpstream()
    origin.start()
    wait_for(origin.port)
    slow = [Subject("upstream", origin.port), gateway(origin.port), *peers(origin.port)]
    crowd(slow, 0.02, 50, 10)
    say("streams, many and slow")
    crowd(slow, 0.5, 10, STREAMS)
    say("many requests")
    asked, since = 0, time.time()
    try:
        while asked < MILLION and time.time() - since < MILLION_SECONDS:
            asked += wrk(arp, SMALL, 32, min(10, MILLION_SECONDS))["count"]
        print("arp after {:,} requests more: {:.1f} MB resident".format(asked, arp.rss()))
    except NoAnswer as e:
        print("arp after {:,} requests more: no answer: {}".format(asked, e))
    say("%d s in all" % (time.time() - begun))


try:
    main()
finally:
    stop()
