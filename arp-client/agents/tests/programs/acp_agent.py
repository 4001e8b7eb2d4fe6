"""A scripted agent of the Agent Client Protocol, version 1, for tests. The prompt says what it does."""

import json
import sys

next_id = 100


def send(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)


def read():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return json.loads(line)


def update(**fields):
    send({"method": "session/update", "params": {"sessionId": "s-1", "update": fields}})


def say(text):
    update(sessionUpdate="agent_message_chunk", content={"type": "text", "text": text})


def ask(method, **params):
    """Asks the client something; anything but the answer is not expected meanwhile, except a cancel."""
    global next_id
    next_id += 1
    send({"id": next_id, "method": method, "params": {"sessionId": "s-1", **params}})
    while True:
        message = read()
        if message.get("id") == next_id and "method" not in message:
            return message


def prompt(text):
    """Runs a turn; gives the reason why it stopped."""
    if text == "plan":
        update(sessionUpdate="plan", entries=[
            {"content": "look", "priority": "high", "status": "completed"},
            {"content": "leap", "priority": "low", "status": "pending"}])
    elif text == "edit":
        call = {"toolCallId": "c-1", "title": "Edit a.txt", "kind": "edit", "status": "pending",
                "rawInput": {"path": "a.txt"},
                "content": [{"type": "diff", "path": "a.txt", "oldText": "one\n", "newText": "two\n"}]}
        update(sessionUpdate="tool_call", **call)
        options = [{"optionId": "yes", "name": "Yes", "kind": "allow_once"},
                   {"optionId": "no", "name": "No", "kind": "reject_once"}]
        outcome = ask("session/request_permission", toolCall={"toolCallId": "c-1"}, options=options)["result"]["outcome"]
        if outcome["outcome"] == "cancelled":
            return "cancelled"
        if outcome["optionId"] == "yes":
            update(sessionUpdate="tool_call_update", toolCallId="c-1", status="in_progress")
            update(sessionUpdate="tool_call_update", toolCallId="c-1", status="completed",
                   rawOutput={"written": 1})
        say("answer: " + outcome["optionId"])
    elif text == "read a file":
        answer = ask("fs/read_text_file", path="/etc/hostname")
        say("refused" if "error" in answer else "given")
    elif text == "wait":
        say("waiting")
        while read().get("method") != "session/cancel":
            pass
        return "cancelled"
    elif text == "refuse":
        return "refusal"
    elif text == "crash":
        print("it went wrong", file=sys.stderr, flush=True)
        sys.exit(3)
    else:
        for word in text.split():
            say(word + " ")
    return "end_turn"


OPTIONS = [
    {"id": "how", "category": "mode", "type": "select", "currentValue": "ask",
     "options": [{"value": "ask", "name": "Ask"}, {"value": "architect", "name": "Architect"}]},
    {"id": "which", "category": "model", "type": "select", "currentValue": "small",
     "options": [{"value": "small", "name": "Small"}, {"value": "large", "name": "Large"}]},
]

version = int(sys.argv[1]) if len(sys.argv) > 1 else 1
loads = "no-load" not in sys.argv[2:]
while True:
    message = read()
    method, params = message.get("method"), message.get("params") or {}
    if method == "initialize":
        result = {"protocolVersion": version, "agentCapabilities": {"loadSession": loads}}
    elif method == "session/new":
        result = {"sessionId": "s-1", "configOptions": OPTIONS}
    elif method == "session/load":
        update(sessionUpdate="user_message_chunk", content={"type": "text", "text": "old question"})
        say("old answer")
        result = {"configOptions": OPTIONS}
    elif method == "session/set_config_option":
        for option in OPTIONS:
            if option["id"] == params["configId"]:
                option["currentValue"] = params["value"]
        result = {"configOptions": OPTIONS}
    elif method == "session/prompt":
        result = {"stopReason": prompt(params["prompt"][0]["text"])}
    elif "id" in message:
        send({"id": message["id"], "error": {"code": -32601, "message": "no such method: " + str(method)}})
        continue
    else:
        continue
    send({"id": message["id"], "result": result})
