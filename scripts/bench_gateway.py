"""Measures the model gateway and its peers in turns; see bench-gateway.sh, which starts this and says what it needs."""

import asyncio
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

BIN, ROUNDS, SECONDS = os.environ["BIN"], int(os.environ["ROUNDS"]), float(os.environ["SECONDS_EACH"])
STREAMS, LITELLM, PORTKEY = int(os.environ["STREAMS"]), os.environ["LITELLM"], os.environ["PORTKEY"]
TICK, HOME = os.sysconf("SC_CLK_TCK"), tempfile.mkdtemp(prefix="arp-bench-")
PATH = "/v1/messages"
running = []

EVENTS = [
    ("message_start", {"message": {"id": "m", "type": "message", "role": "assistant", "model": "claude-x", "content": [], "usage": {"input_tokens": 11, "output_tokens": 1}}}),
    ("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
    *[("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": "word "}}) for _ in range(10)],
    ("content_block_stop", {"index": 0}),
    ("message_delta", {"delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 11}}),
    ("message_stop", {}),
]
SSE = ["event: %s\ndata: %s\n\n" % (name, json.dumps({"type": name, **data})) for name, data in EVENTS]


def prompt(size):
    """A request of the Messages API of about so many bytes."""
    words = ("The quick brown fox jumps over the lazy dog, line %d.\n" % n for n in range(10**9))
    text = ""
    while len(text) < size - 160:
        text += next(words)
    return json.dumps({"model": "claude-x", "max_tokens": 100, "stream": True, "messages": [{"role": "user", "content": text}]})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spawn(args, env=None):
    log = open(os.path.join(HOME, "log-%d" % len(running)), "w")
    child = subprocess.Popen(args, stdout=log, stderr=log, env={**os.environ, **(env or {})})
    running.append(child)
    return child.pid


def wait_for(port, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


def nginx(port, location):
    """An nginx with one worker and this location."""
    conf = os.path.join(HOME, "nginx-%d.conf" % port)
    with open(conf, "w") as f:
        f.write(
            "worker_processes 1; daemon off; pid %s.pid; error_log stderr crit; worker_rlimit_nofile 65536;\n"
            "events { worker_connections 16384; }\n"
            "http { access_log off; keepalive_requests 100000000; client_max_body_size 0; client_body_buffer_size 1m;\n"
            "client_body_temp_path %s; proxy_temp_path %s;\n%s }\n" % (conf, HOME, HOME, location)
        )
    pid = spawn(["nginx", "-e", "stderr", "-c", conf])
    wait_for(port)
    return pid


def upstream():
    """The whole stream at once, as fast as nginx can."""
    port = free_port()
    body = "".join(SSE).replace("\\", "\\\\").replace('"', '\\"')
    nginx(port, 'server { listen 127.0.0.1:%d backlog=4096; default_type text/event-stream; location / { return 200 "%s"; } }' % (port, body))
    return port


def plain_proxy(to):
    port = free_port()
    pid = nginx(
        port,
        "upstream u { server 127.0.0.1:%d; keepalive 2048; keepalive_requests 100000000; }\n"
        "server { listen 127.0.0.1:%d backlog=4096; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\";\n"
        "proxy_buffering off; proxy_request_buffering on; } }" % (to, port),
    )
    return pid, port, {}


def gateway(to, toml=""):
    home = tempfile.mkdtemp(prefix="clp-", dir=HOME)
    with open(os.path.join(home, "claude.json"), "w") as f:
        json.dump({"a": {"base_url": "http://127.0.0.1:%d" % to, "auth_token": "key"}}, f)
    with open(os.path.join(home, "gateway.toml"), "w") as f:
        f.write(toml)
    port = free_port()
    env = {"CLP_HOME": home, "CLP_CLAUDE_PORT": str(port), "CLP_CODEX_PORT": "0", "CLP_GEMINI_PORT": "0", "CLP_UI_PORT": "0", "RUST_LOG": "warn"}
    pid = spawn([os.path.join(BIN, "arpc"), "gateway", "run"], env)
    wait_for(port)
    return pid, port, {}


def litellm(to):
    conf = os.path.join(HOME, "litellm.yaml")
    with open(conf, "w") as f:
        f.write("model_list:\n  - model_name: claude-x\n    litellm_params: {model: anthropic/claude-x, api_key: key, api_base: \"http://127.0.0.1:%d\"}\n" % to)
    port = free_port()
    pid = spawn([LITELLM, "--config", conf, "--port", str(port), "--host", "127.0.0.1", "--telemetry", "False"], {"LITELLM_LOG": "ERROR"})
    wait_for(port, 120)
    return pid, port, {"Authorization": "Bearer x"}


def portkey(to):
    port = free_port()
    pid = spawn(["node", PORTKEY, "--headless", "--port=%d" % port])
    wait_for(port)
    return pid, port, {"x-portkey-provider": "anthropic", "x-portkey-custom-host": "http://127.0.0.1:%d/v1" % to, "x-api-key": "key"}


def family(pid):
    pids, children = [pid], {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open("/proc/%s/stat" % entry) as f:
                    children.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(entry))
            except OSError:
                pass
    for one in pids:
        pids.extend(children.get(one, []))
    return pids


def cpu(pid):
    total = 0
    for one in family(pid):
        try:
            with open("/proc/%d/stat" % one) as f:
                fields = f.read().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        except OSError:
            pass
    return total / TICK


def rss(pid):
    total = 0
    for one in family(pid):
        try:
            with open("/proc/%d/status" % one) as f:
                total += int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
        except (OSError, AttributeError):
            pass
    return total / 1024


def micros(text):
    number, unit = re.match(r"([\d.]+)(\w+)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6}[unit]


def wrk(port, body, headers, connections, seconds=SECONDS):
    script = os.path.join(HOME, "post-%d.lua" % len(body))
    if not os.path.exists(script):
        with open(script, "w") as f:
            f.write("wrk.method = 'POST'\nwrk.body = [==[%s]==]\nwrk.headers['content-type'] = 'application/json'\n" % body)
    extra = [part for name, value in {"anthropic-version": "2023-06-01", **headers}.items() for part in ("-H", "%s: %s" % (name, value))]
    threads = 1 if connections == 1 else 2
    args = ["wrk", "-t%d" % threads, "-c%d" % connections, "-d%ds" % max(1, round(seconds)), "--latency", "-s", script, *extra, "http://127.0.0.1:%d%s" % (port, PATH)]
    out = subprocess.run(args, capture_output=True, text=True, check=True).stdout
    count = int(re.search(r"(\d+) requests in", out).group(1))
    errors = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    if errors:
        raise SystemExit("%s of %d requests on port %d failed" % (errors.group(1), count, port))
    return {
        "p50": micros(re.search(r"(?m)^\s+50%\s+(\S+)", out).group(1)),
        "p99": micros(re.search(r"(?m)^\s+99%\s+(\S+)", out).group(1)),
        "rps": float(re.search(r"Requests/sec:\s+([\d.]+)", out).group(1)),
        "count": count,
    }


def request(port, body, headers):
    lines = ["POST %s HTTP/1.1" % PATH, "Host: 127.0.0.1:%d" % port, "Content-Type: application/json", "anthropic-version: 2023-06-01", "Content-Length: %d" % len(body)]
    lines += ["%s: %s" % pair for pair in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def first_event(port, body, headers, times):
    """Microseconds to the first event of an answer, one request after the other on one connection."""
    data, out = request(port, body, headers), []
    s = socket.create_connection(("127.0.0.1", port))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(times):
        begun = time.perf_counter_ns()
        s.sendall(data)
        got, first = b"", None
        while b"message_stop\"}" not in got:
            got += s.recv(65536)
            if first is None and b"data: " in got:
                first = time.perf_counter_ns()
        # The end of the chunked body.
        while not got.endswith(b"0\r\n\r\n") and b"chunked" in got:
            got += s.recv(65536)
        out.append((first - begun) / 1e3)
    s.close()
    return out


class SlowUpstream(threading.Thread):
    """Streams whose events come every `gap` seconds."""

    def __init__(self, gap, events):
        super().__init__(daemon=True)
        self.port, self.gap, self.events = free_port(), gap, events

    def run(self):
        asyncio.run(self.serve())

    async def serve(self):
        async def each(reader, writer):
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    length = re.search(rb"content-length: (\d+)", head.lower())
                    if length:
                        await reader.readexactly(int(length.group(1)))
                    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
                    chunks = SSE[:2] + [SSE[2]] * self.events + SSE[-3:]
                    for number, event in enumerate(chunks):
                        if 2 < number < len(chunks) - 3:
                            await asyncio.sleep(self.gap)
                        writer.write(b"%x\r\n%s\r\n" % (len(event), event.encode()))
                        await writer.drain()
                    writer.write(b"0\r\n\r\n")
                    await writer.drain()
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()

        server = await asyncio.start_server(each, "127.0.0.1", self.port, backlog=4096)
        async with server:
            await server.serve_forever()


async def streams(port, headers, gap, count):
    """Runs so many streams at once: how many came whole, and the pauses between their events beyond `gap` (ms)."""
    body, late, whole = prompt(1_000), [], 0

    async def one():
        nonlocal whole
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request(port, body, headers))
        last, got = None, b""
        try:
            while b"message_stop\"}" not in got[-400:]:
                data = await reader.read(65536)
                if not data:
                    return
                now = time.perf_counter()
                if last is not None and b"text_delta" in data and b"text_delta" in got:
                    late.append((now - last - gap) * 1e3)
                if b"text_delta" in data:
                    last = now
                got += data
            whole += 1
        finally:
            writer.close()

    await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    return whole, late


def q(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def table(title, names, rows):
    print("\n| %s | %s |" % (title, " | ".join(names)))
    print("|---|" + "---:|" * len(names))
    for what, cells in rows.items():
        print("| %s | %s |" % (what, " | ".join(cells.get(name, "") for name in names)))
    print(flush=True)


def main():
    to = upstream()
    subjects = {"upstream": (None, to, {}), "arp": gateway(to), "arp, redaction": gateway(to, '[redaction]\npresets = ["api_keys", "private_keys", "tokens", "passwords", "mails", "phones", "id_cards", "bank_cards"]\n'), "nginx": plain_proxy(to)}
    if LITELLM:
        subjects["LiteLLM"] = litellm(to)
    if PORTKEY:
        subjects["Portkey"] = portkey(to)
    names = list(subjects)
    figures = {}

    def note(what, name, value):
        figures.setdefault(what, {}).setdefault(name, []).append(value)

    for name, (pid, port, headers) in subjects.items():
        wrk(port, prompt(1_000), headers, 8, 1)
        if pid:
            note("RSS after a warm-up (MB)", name, rss(pid))
    for _ in range(ROUNDS):
        for size, label in ((1_000, "1 kB"), (200_000, "200 kB")):
            body = prompt(size)
            for name, (pid, port, headers) in subjects.items():
                alone = wrk(port, body, headers, 1)
                note("%s, one at a time: p50 (µs)" % label, name, alone["p50"])
                note("%s, one at a time: p99 (µs)" % label, name, alone["p99"])
                before = cpu(pid) if pid else 0
                crowd = wrk(port, body, headers, 32)
                note("%s, 32 at a time: requests/s" % label, name, crowd["rps"])
                if pid:
                    note("%s, 32 at a time: CPU per request (µs)" % label, name, (cpu(pid) - before) / crowd["count"] * 1e6)
                times = 20 if name in ("LiteLLM", "Portkey") else 200
                note("%s: first event, median (µs)" % label, name, statistics.median(first_event(port, body, headers, times)))
    for name, (pid, port, headers) in subjects.items():
        if pid:
            note("RSS after the load (MB)", name, rss(pid))
    shown = {}
    for what, by in figures.items():
        shown[what] = {name: "{:,.1f}".format(statistics.median(values)) for name, values in by.items()}
        if "p50" in what or "p99" in what or "first event" in what:
            base = statistics.median(by["upstream"])
            shown[what + ", added"] = {name: "{:+,.1f}".format(statistics.median(values) - base) for name, values in by.items() if name != "upstream"}
    table("medians of %d rounds" % ROUNDS, names, shown)

    gap, events = 0.5, 10
    slow = SlowUpstream(gap, events)
    slow.start()
    wait_for(slow.port)
    rows = {}
    crowd = {"upstream": (None, slow.port, {}), "arp": gateway(slow.port), "nginx": plain_proxy(slow.port)}
    for name, (pid, port, headers) in crowd.items():
        most = [0.0]
        done = threading.Event()

        def watch(pid=pid, most=most, done=done):
            while pid and not done.wait(0.2):
                most[0] = max(most[0], rss(pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        before = cpu(pid) if pid else 0
        whole, late = asyncio.run(streams(port, headers, gap, STREAMS))
        done.set()
        watcher.join()
        rows.setdefault("came whole", {})[name] = str(whole)
        rows.setdefault("events later than due, p50 (ms)", {})[name] = "%.1f" % q(late, 0.5)
        rows.setdefault("events later than due, p99 (ms)", {})[name] = "%.1f" % q(late, 0.99)
        if pid:
            rows.setdefault("most RSS (MB)", {})[name] = "%.1f" % most[0]
            rows.setdefault("CPU (s)", {})[name] = "%.2f" % (cpu(pid) - before)
    table("%d streams at once, an event every %d ms" % (STREAMS, gap * 1000), list(crowd), rows)

    pid, port, headers = subjects["arp"]
    begun = time.time()
    asked = 0
    while asked < 1_000_000 and time.time() - begun < float(os.environ.get("MILLION_SECONDS", "120")):
        asked += wrk(port, prompt(1_000), headers, 32, 10)["count"]
    print("arp after {:,} requests more: {:.1f} MB resident".format(asked, rss(pid)))


try:
    main()
finally:
    for child in running:
        child.terminate()
    for child in running:
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
    shutil.rmtree(HOME, ignore_errors=True)
