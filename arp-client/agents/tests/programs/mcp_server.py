"""A small MCP server over stdio, for tests: a tool that echoes, and one that asks its user to fill in a form."""

import json
import sys

TOOLS = [
    {"name": "echo", "description": "echo", "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}},
    {"name": "fill", "description": "ask for a name and an age", "inputSchema": {"type": "object", "properties": {}}},
]
FORM = {"type": "object", "required": ["name"],
        "properties": {"name": {"type": "string", "description": "Your name?"}, "age": {"type": "integer"}}}


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def call(name, arguments):
    if name == "echo":
        return "echo: " + arguments["text"]
    send({"id": "form-1", "method": "elicitation/create", "params": {"message": "Who are you?", "requestedSchema": FORM}})
    for line in sys.stdin:
        message = json.loads(line)
        if message.get("id") == "form-1":
            return json.dumps(message.get("result"), sort_keys=True)
    return "nobody answered"


for line in sys.stdin:
    message = json.loads(line)
    method, params = message.get("method"), message.get("params") or {}
    if "id" not in message:
        continue
    if method == "initialize":
        result = {"protocolVersion": params["protocolVersion"], "capabilities": {"tools": {}},
                  "serverInfo": {"name": "tester", "version": "1"}}
    elif method == "tools/list":
        result = {"tools": TOOLS}
    elif method == "tools/call":
        result = {"content": [{"type": "text", "text": call(params["name"], params.get("arguments") or {})}]}
    else:
        send({"id": message["id"], "error": {"code": -32601, "message": "no such method"}})
        continue
    send({"id": message["id"], "result": result})
