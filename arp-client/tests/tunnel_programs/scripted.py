#!/usr/bin/env python3
"""Stands in for cloudflared, tailscale, ngrok and commands of one's own, which cannot be had in a test: prints what
was captured from the real ones, serves their readiness endpoints, and fails as they fail. Which program it is, its
name says; what it does, SCRIPT in its environment; what it was called with, it notes in CALLS."""

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time

NAME = os.path.basename(sys.argv[0])
ARGS = sys.argv[1:]
SCRIPT = os.environ.get("SCRIPT", "")
PLACE = os.environ["CALLS"]


def say(text, to=sys.stderr):
    print(text, file=to, flush=True)


def note(**more):
    secrets = {k: v for k, v in os.environ.items() if "TOKEN" in k or "SECRET" in k}
    line = json.dumps({"name": NAME, "args": ARGS, "pid": os.getpid(), "secrets": secrets, **more})
    with open(os.path.join(PLACE, "calls"), "a") as file:
        file.write(line + "\n")


def count():
    with open(os.path.join(PLACE, "calls")) as file:
        return sum(json.loads(line)["name"] == NAME for line in file)


def after(flag):
    if flag in ARGS:
        return ARGS[ARGS.index(flag) + 1]
    return next((a.split("=", 1)[1] for a in ARGS if a.startswith(flag + "=")), None)


def serve(address, answers):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status, body = answers(self.path)
            body = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    host, port = address.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def forever():
    while True:
        time.sleep(3600)


def cloudflared():
    protocol = after("--protocol")
    if SCRIPT == "bad-token":
        say("Provided Tunnel token is not valid.\nSee 'cloudflared tunnel run --help'.")
        sys.exit(1)
    if SCRIPT == "rate-limited":
        say("2026-11-20T09:12:01Z INF Requesting new quick Tunnel on trycloudflare.com...")
        say("failed to unmarshal quick Tunnel: invalid character 'e' looking for beginning of value")
        sys.exit(1)
    connected = not (SCRIPT == "udp-blocked" and protocol == "quic")
    host = f"quiet-lamp-{count()}.trycloudflare.com"
    service = os.environ.get("SERVICE", "")
    rules = [{"hostname": "agent.example.com", "service": service}, {"service": "http_status:404"}]

    def answers(path):
        if path == "/ready":
            return (200 if connected else 503), {"status": 200, "readyConnections": int(connected)}
        if path == "/config" and service:
            return 200, {"version": 1, "config": {"ingress": rules}}
        return 404, {}

    serve(after("--metrics"), answers)
    if "--url" in ARGS:
        say("2026-11-20T09:12:01Z INF Thank you for trying Cloudflare Tunnel (https://www.cloudflare.com/website-terms/)")
        say("2026-11-20T09:12:01Z INF Requesting new quick Tunnel on trycloudflare.com...")
        say("2026-11-20T09:12:03Z INF |  Your quick Tunnel has been created! Visit it at (it may take some time to be reachable):  |")
        say(f"2026-11-20T09:12:03Z INF |  https://{host}     |")
    if connected:
        say("2026-11-20T09:12:04Z INF Registered tunnel connection connIndex=0 location=fra03 protocol=quic")
    else:
        say('2026-11-20T09:12:09Z ERR Failed to dial a quic connection error="timeout: no recent network activity"')
    forever()


def ngrok():
    if SCRIPT == "bad-token":
        say('{"err":"authentication failed: The authtoken is invalid.\\r\\n\\r\\nERR_NGROK_107\\r\\n","lvl":"eror","msg":"session closing"}', sys.stdout)
        say("ERROR:  ERR_NGROK_107")
        sys.exit(1)
    web = next(line.split()[-1] for name in [a for i, a in enumerate(ARGS) if ARGS[i - 1] == "--config"]
               for line in open(name) if "web_addr" in line)
    url = after("--url") or "https://ab12.ngrok-free.app"
    serve(web, lambda path: (200, {"tunnels": [{"name": "command_line", "public_url": url, "proto": "https"}]}))
    say('{"lvl":"info","msg":"client session established","obj":"tunnels.session"}', sys.stdout)
    say(json.dumps({"addr": "http://" + ARGS[1], "lvl": "info", "msg": "started tunnel", "url": url}), sys.stdout)
    forever()


def tailscale():
    state = os.path.join(PLACE, "tailscale-serve")
    if ARGS[:2] == ["status", "--json"]:
        backend = {"logged-out": "NeedsLogin"}.get(SCRIPT, "Running")
        print(json.dumps({"BackendState": backend, "Self": {"DNSName": "box.tail1234.ts.net.", "Online": True}}))
        sys.exit(backend != "Running")
    if ARGS[1:] == ["status", "--json"]:
        print(open(state).read() if os.path.exists(state) else "{}")
        return
    port = after("--https")
    if ARGS[-1] == "off":
        os.remove(state)
        return
    if SCRIPT == "not-enabled":
        say("Funnel is not enabled on your tailnet.\nTo enable, visit:\n\n    https://login.tailscale.com/f/funnel?node=n1\n", sys.stdout)
        forever()
    key = f"box.tail1234.ts.net:{port}"
    with open(state, "w") as file:
        json.dump({"Web": {key: {"Handlers": {"/": {"Proxy": ARGS[-1]}}}}, "AllowFunnel": {key: True}}, file)
    print("Available on the internet:\n\nhttps://box.tail1234.ts.net/\n|-- proxy " + ARGS[-1])
    print("\nFunnel started and running in the background.")


def custom():
    """The address is this machine's own front: as if the whole way through a service were there."""
    url = f"http://127.0.0.1:{ARGS[0]}"
    if SCRIPT == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if SCRIPT == "dies":
        say("fatal: no such luck")
        sys.exit(7)
    if SCRIPT == "slow":
        forever()
    if SCRIPT == "forks":
        # One child in the group, one in a session of its own, and one that outlives its parent.
        subprocess.Popen(["sleep", "3600"])
        subprocess.Popen(["sleep", "3600"], start_new_session=True)
        subprocess.run(["sh", "-c", "setsid sleep 3600 >/dev/null 2>&1 &"])
        note(children=True)
    if SCRIPT == "moves" and count() == 1:
        say(f"at {url}")
        while not os.path.exists(os.path.join(PLACE, "move")):
            time.sleep(0.02)
        say(f"at http://localhost:{ARGS[0]}")
        forever()
    if SCRIPT == "stranger":
        url = os.environ["STRANGER"]
    say(f"\x1b[32mat\x1b[0m {url} with {os.environ.get('MY_TOKEN', 'nothing')}")
    if SCRIPT == "flood":
        line = "x" * 200
        while True:
            print(line, flush=False)
    forever()


note()
{"cloudflared": cloudflared, "ngrok": ngrok, "tailscale": tailscale}.get(NAME, custom)()
