//! The MCP server with clients that are not ours: the official TypeScript SDK, and real Claude Code and Codex.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use arp_testkit::cli::{self, Home};
use arp_testkit::model_api::ModelApi;
use arp_testkit::{in_path, skip};
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use support::{Edge, PATIENCE};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const MCP: [&str; 2] = ["--enable-mcp", "--mcp-port=0"];

/// Where the client of `tests/mcp` is, if it is installed.
fn sdk() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mcp");
    let sdk = "node_modules/@modelcontextprotocol/sdk";
    let there = directory.join(sdk).is_dir() && in_path("node").is_some();
    (there || skip("tests/mcp needs Node.js 20 and `npm ci --prefix tests/mcp`"))
        .then(|| directory.join("client.js"))
}

async fn decide(edge: &Edge, approval: &Value, decision: Value) {
    let path = format!("/api/approvals/{}", approval["id"].as_str().unwrap());
    let (status, answer) = edge.post(&path, decision).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

async fn until_nobody_asks(edge: &Edge) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while edge.get("/api/approvals").await.1["approvals"] != json!([]) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("the approval goes");
}

async fn until_two_ask(edge: &Edge) -> Vec<Value> {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let listed = edge.get("/api/approvals").await.1["approvals"]
                .as_array()
                .unwrap()
                .clone();
            if listed.len() == 2 {
                return listed;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.expect("both ask")
}

/// What the client says next: what it waits for.
async fn heard(lines: &mut Lines<BufReader<ChildStdout>>, child: &mut Child) -> String {
    let next = tokio::time::timeout(PATIENCE * 3, lines.next_line()).await;
    match next.expect("the client goes on").unwrap() {
        Some(line) => line,
        None => {
            let mut words = String::new();
            let stderr = child.stderr.as_mut().unwrap();
            tokio::io::AsyncReadExt::read_to_string(stderr, &mut words)
                .await
                .unwrap();
            panic!("the client failed: {words}");
        }
    }
}

/// All tools, and approvals allowed with changed input, denied, and given up by the one who asked.
async fn goes_through_everything(edge: &Edge, arguments: &[&str], session: Option<&str>) {
    let Some(script) = sdk() else { return };
    let mut child = Command::new("node")
        .arg(script)
        .args(arguments)
        .env("PROJECT", edge.project())
        .env("CLAUDE_CODE_SESSION_ID", "the-asking-one")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();

    assert_eq!(heard(&mut lines, &mut child).await, "allow");
    let asked = edge.until_any_asked().await;
    assert_eq!(
        (&asked["title"], &asked["source"], &asked["can_edit"]),
        (&json!("touch a"), &json!("mcp"), &json!(true))
    );
    assert_eq!(asked["agent_session_id"].as_str(), session);
    decide(
        edge,
        &asked,
        json!({"decision": "allow", "updated_input": {"command": "touch b"}}),
    )
    .await;

    assert_eq!(heard(&mut lines, &mut child).await, "deny");
    let asked = edge.until_any_asked().await;
    decide(
        edge,
        &asked,
        json!({"decision": "deny", "message": "not on my phone"}),
    )
    .await;

    // Two wait at once, and the later one is answered first.
    assert_eq!(heard(&mut lines, &mut child).await, "two");
    let two = until_two_ask(edge).await;
    let titled = |title: &str| two.iter().find(|asked| asked["title"] == title).unwrap();
    decide(
        edge,
        titled("touch 2"),
        json!({"decision": "deny", "message": "only one"}),
    )
    .await;
    decide(edge, titled("touch 1"), json!({"decision": "allow"})).await;

    assert_eq!(heard(&mut lines, &mut child).await, "void");
    edge.until_any_asked().await;
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"stop\n").await.unwrap();
    until_nobody_asks(edge).await;

    assert_eq!(heard(&mut lines, &mut child).await, "done");
    drop(input);
    assert!(child.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_uses_every_tool_over_http() {
    let edge = Edge::start_with(&MCP).await;
    let token = std::fs::read_to_string(edge.root.path().join("data/mcp.token")).unwrap();
    let url = format!("http://127.0.0.1:{}/mcp", edge.mcp_port());
    goes_through_everything(&edge, &["http", &url, token.trim()], Some("the-asking-one")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_sdk_uses_every_tool_over_standard_input_and_output() {
    let edge = Edge::start_with(&MCP).await;
    let program = std::path::Path::new(support::ARPC);
    let data = edge.root.path().join("data");
    let arguments = [
        "stdio",
        program.to_str().unwrap(),
        "--data-dir",
        data.to_str().unwrap(),
        "mcp",
    ];
    goes_through_everything(&edge, &arguments, Some("the-asking-one")).await;
}

/// The answer of somebody quick must not overtake the first sign of life: a client drops what comes after its answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_sign_of_life_goes_out_before_anybody_can_decide() {
    let edge = Edge::start_with(&MCP).await;
    let socket = edge.root.path().join("data/mcp");
    let (read, mut write) = tokio::io::split(arp_sessions::ipc::connect(&socket).await.unwrap());
    let mut lines = BufReader::new(read).lines();
    let client = json!({"name": "raw", "version": "1"});
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    for message in [
        json!({}),
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
    ] {
        write.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }
    assert!(lines.next_line().await.unwrap().unwrap().contains("serverInfo"));
    for n in 1..=40 {
        let arguments = json!({"tool_name": "Bash", "input": {"command": "touch a"}});
        let params =
            json!({"name": "approval_prompt", "arguments": arguments, "_meta": {"progressToken": n}});
        let call = json!({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params});
        write.write_all(format!("{call}\n").as_bytes()).await.unwrap();
        let decided = async {
            let asked = edge.until_any_asked().await;
            decide(&edge, &asked, json!({"decision": "allow"})).await;
        };
        let told = async {
            let mut alive = false;
            loop {
                let line = lines.next_line().await.unwrap().expect("the server goes on");
                let message: Value = serde_json::from_str(&line).unwrap();
                if message["id"] == n {
                    return alive;
                }
                alive |= message["params"]["progressToken"] == n;
            }
        };
        let both = tokio::time::timeout(PATIENCE, async { tokio::join!(decided, told) });
        assert!(
            both.await.expect("it is answered").1,
            "call {n} got no sign of life"
        );
    }
}

/// The rest of what an HTTP body says, up to the answer with this number.
async fn answer_to(mut response: reqwest::Response, id: u64) -> Value {
    let mut text = String::new();
    while let Some(piece) = response.chunk().await.expect("the stream goes on") {
        text.push_str(std::str::from_utf8(&piece).unwrap());
        let lines = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let mut messages = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if let Some(answer) = messages.find(|message| message["id"] == id) {
            return answer;
        }
    }
    panic!("no answer in {text}");
}

/// Who gives no token for progress hears nothing but comments meanwhile, and is answered all the same, by both ways in.
/// `ARP_LONG_WAIT=3540` lets that hour pass that the documentation speaks of (and that an approval has by default).
#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_without_a_progress_token_is_answered_whenever_somebody_decides() {
    let wait = std::env::var("ARP_LONG_WAIT").map_or(0, |text| text.parse().unwrap());
    let wait = Duration::from_secs(wait);
    let edge = Edge::start_with(&MCP).await;
    let input = json!({"tool_name": "Bash", "input": {"command": "touch by-socket"}});
    let socket = edge.root.path().join("data/mcp");
    let (read, mut write) = tokio::io::split(arp_sessions::ipc::connect(&socket).await.unwrap());
    for message in calling(None, "approval_prompt", &input) {
        write.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }
    let mut lines = BufReader::new(read).lines();
    let by_socket = edge.until_any_asked().await;

    let config = printed_config(&edge, true);
    let server = &config["mcpServers"]["arp"];
    let post = |session: Option<&str>, message: Value| {
        let mut request = arp_testkit::client::client()
            .post(server["url"].as_str().unwrap())
            .header(
                "authorization",
                server["headers"]["Authorization"].as_str().unwrap(),
            )
            .header("accept", "application/json, text/event-stream")
            .json(&message);
        if let Some(session) = session {
            request = request.header("mcp-session-id", session);
        }
        async move { request.send().await.unwrap().error_for_status().unwrap() }
    };
    let input = json!({"tool_name": "Bash", "input": {"command": "touch by-http"}});
    let mut messages = calling(None, "approval_prompt", &input).into_iter().skip(1);
    let mut next = || messages.next().unwrap();
    let begun = post(None, next()).await;
    let session = begun.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    answer_to(begun, 0).await;
    post(Some(&session), next()).await;
    let call = next();
    let answered = async { answer_to(post(Some(&session), call).await, 1).await };
    let decided = async {
        let both = until_two_ask(&edge).await;
        // Real time: what must not run out are the clocks of all that is between the two.
        tokio::time::sleep(wait).await;
        assert!(both.iter().any(|approval| approval["id"] == by_socket["id"]));
        for approval in &both {
            decide(&edge, approval, json!({"decision": "allow"})).await;
        }
    };
    let both = async { tokio::join!(answered, decided).0 };
    let by_http = tokio::time::timeout(wait + PATIENCE, both)
        .await
        .expect("an answer");
    let allowed = |text: &str, command: &str| {
        let answer: Value = serde_json::from_str(text).unwrap();
        assert_eq!(answer["behavior"], "allow");
        assert_eq!(answer["updatedInput"]["command"], command);
    };
    allowed(
        by_http["result"]["content"][0]["text"].as_str().unwrap(),
        "touch by-http",
    );
    let answered = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the server goes on");
            if let Some(answer) = answer_in(&line) {
                return answer;
            }
        }
    };
    allowed(
        &tokio::time::timeout(PATIENCE, answered).await.expect("an answer"),
        "touch by-socket",
    );
}

/// What a client of the local socket has to say to call one tool, as lines. It says that it is this session.
fn calling(session: Option<&str>, tool: &str, arguments: &Value) -> Vec<Value> {
    let client = json!({"name": "raw", "version": "1"});
    let hello = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    vec![
        json!({"session": session}),
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": hello}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool, "arguments": arguments}}),
    ]
}

/// The text of the answer to that, if this line is it.
fn answer_in(line: &str) -> Option<String> {
    let message: Value = serde_json::from_str(line).ok()?;
    (message["id"] == 1).then(|| {
        message["result"]["content"][0]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    })
}

/// Calls a tool over the local socket.
async fn call(edge: &Edge, session: Option<&str>, tool: &str, arguments: Value) -> String {
    let socket = edge.root.path().join("data/mcp");
    let (read, mut write) = tokio::io::split(arp_sessions::ipc::connect(&socket).await.unwrap());
    for message in calling(session, tool, &arguments) {
        write.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }
    let mut lines = BufReader::new(read).lines();
    let answered = async {
        loop {
            let line = lines.next_line().await.unwrap().expect("the server goes on");
            if let Some(answer) = answer_in(&line) {
                return answer;
            }
        }
    };
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer")
}

/// Starts a session with these further fields.
async fn session(edge: &Edge, prompt: &str, fields: Value) -> Value {
    let mut body = json!({"executor": "claude", "prompt": prompt, "project_path": edge.project()});
    body.as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    let (status, started) = edge.post("/api/sessions", body).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    edge.until_status(started["session_id"].as_str().unwrap(), "idle")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_further_by_a_message_to_a_session_that_may_do_more() {
    let edge = Edge::start_with(&[&MCP[..], &["--allow-bypass"]].concat()).await;
    let in_mode = |mode: &str| json!({"permission_mode": mode});
    let plan = session(&edge, "say x", in_mode("plan")).await;
    let asks = session(&edge, "say x", in_mode("default")).await;
    let edits = session(&edge, "say x", in_mode("acceptEdits")).await;
    let free = session(&edge, "say x", in_mode("bypassPermissions")).await;
    let tool = session(&edge, "say x", json!({"allowed_tools": ["Bash(ls:*)"]})).await;
    let id = |view: &Value| view["id"].as_str().unwrap().to_owned();
    let say = |to: &Value| json!({"session_id": to["id"], "text": "say hello"});
    let refused = |answer: &str| answer.starts_with("bypass_not_allowed: ");

    // Somebody whom the system does not know for one of ours may steer what asks for everything, whatever it says.
    for claim in [None, Some("unknown".to_owned()), Some(id(&free)), Some(id(&tool))] {
        let claim = claim.as_deref();
        for (to, may) in [
            (&plan, true),
            (&asks, true),
            (&edits, false),
            (&free, false),
            (&tool, false),
        ] {
            let answer = call(&edge, claim, "send_message", say(to)).await;
            assert_eq!(!refused(&answer), may, "{claim:?}: {answer}");
        }
    }
    // What it says counts where it takes something away.
    let claim = id(&plan);
    assert!(refused(
        &call(&edge, Some(&claim), "send_message", say(&asks)).await
    ));
    assert!(!refused(
        &call(&edge, Some(&claim), "send_message", say(&plan)).await
    ));
    let started = json!({"prompt": "say x", "executor": "claude", "project_path": edge.project()});
    for (claim, mode) in [
        (Some(&claim), "plan"),
        (Some(&id(&free)), "default"),
        (None, "default"),
    ] {
        let answer = call(&edge, claim.map(String::as_str), "start_session", started.clone()).await;
        let answer: Value = serde_json::from_str(&answer).unwrap_or_else(|_| panic!("{answer}"));
        assert_eq!(answer["session"]["permission_mode"], mode);
    }

    // A session itself, which the system knows, whatever it says in its environment.
    let called = async |from: &Value, claim: &str, to: &Value| {
        let lines: Vec<String> = calling(None, "send_message", &say(to))
            .into_iter()
            .skip(1)
            .map(|line| format!("'{line}'"))
            .collect();
        let (arpc, data) = (support::ARPC, edge.root.path().join("data"));
        let command = format!(
            "run printf '%s\\n' {} | env CLAUDE_CODE_SESSION_ID={claim} ARPC_SESSION={claim} {arpc} --data-dir {} mcp",
            lines.join(" "),
            data.display()
        );
        let from = id(from);
        let before = edge.events(&from).await.len();
        edge.say(&from, &command).await;
        let said = async {
            loop {
                let events = edge.events(&from).await;
                let text = events[before..].iter().find(|event| event["type"] == "text");
                if let Some(answer) = text.and_then(|text| text["text"].as_str()?.lines().find_map(answer_in))
                {
                    return answer;
                }
                assert!(
                    !events[before..].iter().any(|event| event["type"] == "turn_end"),
                    "{:#?}",
                    &events[before..]
                );
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, said).await.expect("an answer")
    };
    assert!(!refused(&called(&free, "nobody", &edits).await));
    assert!(refused(&called(&plan, &id(&free), &asks).await));
    assert!(refused(&called(&edits, &id(&free), &free).await));
    assert!(!refused(&called(&edits, "nobody", &asks).await));
}

/// An edge with an MCP server, and a home whose agents ask a loopback model.
async fn with_home() -> (Edge, Home, ModelApi) {
    let api = ModelApi::bind(0).await.unwrap();
    let home = Home::new(&api);
    let edge = Edge::launch(MCP.map(str::to_owned).into(), home.env().to_vec()).await;
    (edge, home, api)
}

/// The configuration that `arpc mcp --print-config` prints, for HTTP or for standard input and output.
fn printed_config(edge: &Edge, http: bool) -> Value {
    let mut print = std::process::Command::new(std::path::Path::new(support::ARPC));
    print
        .arg("--data-dir")
        .arg(edge.root.path().join("data"))
        .args(["mcp", "--print-config"]);
    if http {
        print.arg(edge.mcp_port().to_string());
    }
    let printed = print.output().unwrap();
    assert!(
        printed.status.success(),
        "{}",
        String::from_utf8_lossy(&printed.stderr)
    );
    serde_json::from_slice(&printed.stdout).unwrap()
}

/// A Claude as somebody starts it in a terminal, who asks through this configuration.
fn terminal_claude(claude: &Path, edge: &Edge, home: &Home, name: &str, config: &Value) -> Child {
    let file = edge.root.path().join(format!("{name}.json"));
    std::fs::write(&file, config.to_string()).unwrap();
    let prompt = format!("run tool: touch {name}.txt");
    Command::new(claude)
        .args([
            "-p",
            &prompt,
            "--output-format",
            "stream-json",
            "--verbose",
            "--mcp-config",
        ])
        .arg(&file)
        .args(["--permission-prompt-tool", "mcp__arp__approval_prompt"])
        .current_dir(home.project())
        .envs(home.env().iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claude_of_the_terminal_is_answered_through_mcp() {
    let Some(claude) = cli::find("claude") else { return };
    let (edge, home, _api) = with_home().await;
    for (way, http) in [("stdio", false), ("http", true)] {
        let config = printed_config(&edge, http);
        let mut running = terminal_claude(&claude, &edge, &home, way, &config);
        let asked = edge.until_any_asked().await;
        assert_eq!(
            (&asked["source"], &asked["tool_name"]),
            (&json!("mcp"), &json!("Bash")),
            "{asked}"
        );
        let changed = json!({"command": format!("touch changed-{way}.txt")});
        decide(
            &edge,
            &asked,
            json!({"decision": "allow", "updated_input": changed}),
        )
        .await;
        assert!(running.wait().await.unwrap().success());
        assert!(home.project().join(format!("changed-{way}.txt")).exists());
    }
}

/// Claude gives a tool of an HTTP server 60 s, unless its answer begins as a stream meanwhile. Nothing else lifts that limit
/// here. That the stream opens at once is enough for this version of Claude: the comments that follow are not tested.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_after_more_than_a_minute_still_counts() {
    let Some(claude) = cli::find("claude") else { return };
    let (edge, home, _api) = with_home().await;
    let mut config = printed_config(&edge, true);
    config["mcpServers"]["arp"]
        .as_object_mut()
        .unwrap()
        .remove("timeout")
        .unwrap();
    let mut running = terminal_claude(&claude, &edge, &home, "late", &config);
    let asked = edge.until_any_asked().await;
    // Real time: the clock that must not run out is Claude's.
    tokio::time::sleep(Duration::from_secs(66)).await;
    decide(&edge, &asked, json!({"decision": "allow"})).await;
    assert!(running.wait().await.unwrap().success());
    assert!(home.project().join("late.txt").exists());
}

/// Makes arp's MCP server known to an agent, as its user would.
fn configure(executor: &str, home: &Home, data: &Path) {
    let program = std::path::Path::new(support::ARPC);
    let server = json!({"command": program, "args": ["--data-dir", data, "mcp"]});
    let (file, content) = match executor {
        "codex" => {
            let file = home.path().join(".codex/config.toml");
            let mut config = std::fs::read_to_string(&file).unwrap();
            config.push_str(&format!(
                "\n[mcp_servers.arp]\ncommand = {program:?}\nargs = [\"--data-dir\", {data:?}, \"mcp\"]\n"
            ));
            (file, config)
        }
        "claude" => {
            let config = json!({"mcpServers": {"arp": server}});
            (home.path().join(".claude.json"), config.to_string())
        }
        _ => {
            let file = home.path().join(".gemini/settings.json");
            let mut config: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
            config["mcpServers"] = json!({"arp": server});
            (file, config.to_string())
        }
    };
    std::fs::write(file, content).unwrap();
}

/// A session of a real agent asks before it uses a tool of an MCP server; here that server is arp's own.
async fn asks_for_an_mcp_tool(executor: &str, call: &str) {
    let Some(binary) = cli::find(executor) else { return };
    let api = ModelApi::bind(0).await.unwrap();
    let home = Home::new(&api);
    let mut arguments: Vec<String> = MCP.map(str::to_owned).into();
    arguments.push(format!("--agent-path={executor}={}", binary.display()));
    let edge = Edge::launch(arguments, home.env().to_vec()).await;
    configure(executor, &home, &edge.root.path().join("data"));
    let mut body = json!({"executor": executor, "prompt": call, "project_path": home.project()});
    if executor == "gemini" {
        body["model"] = json!("gemini-2.5-flash");
    }
    let (status, started) = edge.post("/api/sessions", body).await;
    assert_eq!(status, StatusCode::CREATED, "{started}");
    let id = started["session_id"].as_str().unwrap();
    let asked = edge.until_asked(id).await;
    assert!(asked.to_string().contains("list_sessions"), "{asked}");
    if executor != "gemini" {
        assert_eq!(
            (&asked["kind"], &asked["tool_name"]),
            (&json!("mcp"), &json!("mcp__arp__list_sessions")),
            "{asked}"
        );
    }
    decide(&edge, &asked, json!({"decision": "allow"})).await;
    edge.until_status(id, "idle").await;
    let events = edge.events(id).await;
    let result = events
        .iter()
        .find(|event| event["type"] == "tool_result" && event["is_error"] == false)
        .unwrap_or_else(|| panic!("{events:?}"));
    assert!(result["output"].as_str().unwrap().contains(id), "{result}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claude_session_uses_a_tool_of_mcp_once_it_may() {
    asks_for_an_mcp_tool("claude", "call mcp__arp__list_sessions {}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_codex_session_uses_a_tool_of_mcp_once_it_may() {
    asks_for_an_mcp_tool("codex", "call mcp__arp/list_sessions {}").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gemini_session_uses_a_tool_of_mcp_once_it_may() {
    asks_for_an_mcp_tool("gemini", "call mcp_arp_list_sessions {}").await;
}
