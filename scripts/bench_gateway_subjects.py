"""What bench_gateway.py measures: the upstream and all that stands in front of it, each a process of its own."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time

TICK, HOME = os.sysconf("SC_CLK_TCK"), tempfile.mkdtemp(prefix="arp-bench-")
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


class NoAnswer(Exception):
    """A subject did not do what was to be measured; says why."""


class Subject:
    """Something that answers on `port` the way the Messages API does. `why` says why it does not."""

    def __init__(self, name, port, pid=None, headers=None, log=None, seconds=30):
        self.name, self.port, self.pid, self.headers, self.why = name, port, pid, headers or {}, None
        if pid and not wait_for(port, pid, seconds):
            self.why = "it did not start" + last_line(log)

    def family(self):
        """Its process and all below it."""
        pids, children = [self.pid], {}
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

    def cpu(self):
        """Seconds of user and kernel time so far."""
        total = 0
        for one in self.family() if self.pid else []:
            try:
                with open("/proc/%d/stat" % one) as f:
                    fields = f.read().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
            except OSError:
                pass
        return total / TICK

    def rss(self):
        """Resident megabytes."""
        total = 0
        for one in self.family() if self.pid else []:
            try:
                with open("/proc/%d/status" % one) as f:
                    total += int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
            except (OSError, AttributeError):
                pass
        return total / 1024


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def spawn(args, env=None):
    """Starts it; its pid and where its output goes."""
    path = os.path.join(HOME, "log-%d" % len(running))
    with open(path, "w") as log:
        child = subprocess.Popen(args, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=HOME, env={**os.environ, **(env or {})})
    running.append(child)
    return child.pid, path


def last_line(path):
    try:
        with open(path, errors="replace") as f:
            lines = [line.strip() for line in f if line.strip()]
        return ": " + lines[-1][:200] if lines else ""
    except (OSError, TypeError):
        return ""


def wait_for(port, pid=None, seconds=30):
    end = time.time() + seconds
    while time.time() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return True
        except OSError:
            if any(child.pid == pid and child.poll() is not None for child in running):
                return False
            time.sleep(0.1)
    return False


def nginx(name, location):
    """An nginx with one worker; `location` is the http block's content, with %d for the port."""
    port = free_port()
    conf = os.path.join(HOME, "nginx-%d.conf" % port)
    with open(conf, "w") as f:
        f.write(
            "worker_processes 1; daemon off; pid %s.pid; error_log stderr crit; worker_rlimit_nofile 65536;\n"
            "events { worker_connections 16384; }\n"
            "http { access_log off; keepalive_requests 100000000; client_max_body_size 0; client_body_buffer_size 1m;\n"
            "client_body_temp_path %s; proxy_temp_path %s;\n%s }\n" % (conf, HOME, HOME, location % port)
        )
    pid, log = spawn(["nginx", "-e", "stderr", "-c", conf])
    return Subject(name, port, pid, log=log)


def upstream():
    """The whole stream at once, as fast as nginx can, after the whole request was read (the mirror reads it)."""
    body = "".join(SSE).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    server = nginx(
        "upstream",
        "server { listen 127.0.0.1:%%d backlog=4096; default_type text/event-stream; root /nonexistent;\n"
        "location / { mirror /read; error_page 404 405 =200 @answer; }\n"
        "location = /read { internal; return 204; }\n"
        'location @answer { return 200 "%s"; } }' % body,
    )
    server.pid = None  # Its own costs are nobody's figures.
    return server


def plain_proxy(to):
    return nginx(
        "nginx",
        "upstream u { server 127.0.0.1:%d; keepalive 2048; keepalive_requests 100000000; }\n"
        "server { listen 127.0.0.1:%%d backlog=4096; location / { proxy_pass http://u; proxy_http_version 1.1; proxy_set_header Connection \"\";\n"
        "proxy_buffering off; proxy_request_buffering off; } }" % to,
    )


def gateway(to, name="arp", toml=""):
    home = tempfile.mkdtemp(prefix="clp-", dir=HOME)
    with open(os.path.join(home, "claude.json"), "w") as f:
        json.dump({"a": {"base_url": "http://127.0.0.1:%d" % to, "auth_token": "key"}}, f)
    with open(os.path.join(home, "gateway.toml"), "w") as f:
        f.write(toml)
    port = free_port()
    env = {"CLP_HOME": home, "CLP_CLAUDE_PORT": str(port), "CLP_CODEX_PORT": "0", "CLP_GEMINI_PORT": "0", "CLP_UI_PORT": "0", "RUST_LOG": "warn"}
    pid, log = spawn([os.path.join(os.environ["BIN"], "arpc"), "gateway", "run"], env)
    return Subject(name, port, pid, log=log)


def redacting(to):
    presets = ["api_keys", "private_keys", "tokens", "passwords", "mails", "phones", "id_cards", "bank_cards"]
    return gateway(to, "arp, redaction", "[redaction]\npresets = %s\n" % json.dumps(presets))


def litellm(to):
    conf = os.path.join(HOME, "litellm-%d.yaml" % to)
    with open(conf, "w") as f:
        f.write("model_list:\n  - model_name: claude-x\n    litellm_params: {model: anthropic/claude-x, api_key: key, api_base: \"http://127.0.0.1:%d\"}\n" % to)
    port = free_port()
    # It asks nobody else for anything: prices are those that it brings along.
    key = "sk-" + os.urandom(32).hex()
    env = {"LITELLM_MASTER_KEY": key, "LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_PROXY": "*"}
    args = [os.environ["LITELLM"], "--config", conf, "--port", str(port), "--host", "127.0.0.1", "--num_workers", "1", "--telemetry", "False"]
    pid, log = spawn(args, env)
    return Subject("LiteLLM", port, pid, {"Authorization": "Bearer " + key}, log, seconds=180)


def router(to):
    home = tempfile.mkdtemp(prefix="router-", dir=HOME)
    os.mkdir(os.path.join(home, ".claude-code-router"))
    port = free_port()
    provider = {"name": "up", "api_base_url": "http://127.0.0.1:%d/v1/messages" % to, "api_key": "key", "models": ["claude-x"], "transformer": {"use": ["Anthropic"]}}
    conf = {"HOST": "127.0.0.1", "PORT": port, "LOG": False, "API_TIMEOUT_MS": 600000, "NON_INTERACTIVE_MODE": True, "Providers": [provider], "Router": {"default": "up,claude-x"}}
    with open(os.path.join(home, ".claude-code-router", "config.json"), "w") as f:
        json.dump(conf, f)
    pid, log = spawn(["node", os.environ["ROUTER"], "start"], {"HOME": home})
    return Subject("claude-code-router", port, pid, log=log, seconds=60)


def peers(to):
    """Those in front of `to` that are to be measured beside arp."""
    all_ = [plain_proxy(to)]
    if os.environ["LITELLM"] != "no":
        all_.append(litellm(to))
    if os.environ["ROUTER"] != "no":
        all_.append(router(to))
    return all_


def stop():
    for child in running:
        child.terminate()
    for child in running:
        try:
            child.wait(5)
        except subprocess.TimeoutExpired:
            child.kill()
    shutil.rmtree(HOME, ignore_errors=True)
