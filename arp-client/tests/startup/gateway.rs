//! `arpc gateway …`, as a person and a script use it.

use arp_testkit::client::client;
use arp_testkit::model_api::ModelApi;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn command(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arpc"));
    command.arg("gateway").args(arguments).env_clear();
    command
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for port in ["CLAUDE", "CODEX", "GEMINI", "UI"] {
        command.env(format!("CLP_{port}_PORT"), "0");
    }
    command
}

/// Runs it in this home, with free ports.
fn gateway(home: &Path, arguments: &[&str]) -> Output {
    command(home, arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn json(home: &Path, arguments: &[&str]) -> (bool, Value) {
    let mut arguments = arguments.to_vec();
    arguments.push("--json");
    let output = gateway(home, &arguments);
    let value = serde_json::from_slice(&output.stdout);
    (
        output.status.success(),
        value.unwrap_or_else(|e| panic!("{e}: {}", said(&output))),
    )
}

/// Ends it when the test does, however it does.
struct Stop<'a>(&'a Path);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        gateway(self.0, &["stop"]);
    }
}

#[test]
fn the_gateway_starts_without_any_configuration_and_every_command_speaks_json() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let _stop = Stop(home);
    let first = gateway(home, &["start"]);
    assert!(first.status.success(), "{}", said(&first));
    for word in [
        "It has no upstream yet",
        "ANTHROPIC_BASE_URL",
        "openai_base_url",
        "GOOGLE_GEMINI_BASE_URL",
    ] {
        assert!(said(&first).contains(word), "{word}: {}", said(&first));
    }
    let second = gateway(home, &["start"]);
    assert!(
        !second.status.success() && said(&second).contains("runs already"),
        "{}",
        said(&second)
    );

    let key = [
        "add",
        "claude",
        "official",
        "--base-url",
        "https://api.example",
        "--token",
        "sk-secret",
    ];
    assert_eq!(json(home, &key).1["name"], "official");
    assert_eq!(
        json(
            home,
            &["add", "claude", "other", "--base-url", "http://127.0.0.1:1"]
        )
        .1["name"],
        "other"
    );
    assert_eq!(json(home, &["active", "claude", "other"]).1["active"], "other");
    let (_, list) = json(home, &["list", "claude"]);
    assert_eq!(
        (&list[1]["active"], &list[0]["has_token"]),
        (&true.into(), &true.into()),
        "{list}"
    );
    let (_, status) = json(home, &["status"]);
    assert_eq!(status["services"]["claude"]["active"], "other");
    let page = status["running"]["ui"].as_str().unwrap().to_owned();
    assert!(json(home, &["ui"]).1["url"].as_str().unwrap().contains(&page));
    let (good, tested) = json(home, &["test", "other"]);
    assert_eq!((good, &tested[0]["ok"]), (false, &false.into()), "{tested}");
    let unknown = gateway(home, &["active", "claude", "nobody"]);
    assert!(
        said(&unknown).contains("there are: official, other"),
        "{}",
        said(&unknown)
    );
    assert_eq!(json(home, &["remove", "claude", "other"]).1["removed"], "other");
    assert!(json(home, &["prices"]).1["prices"].as_array().unwrap().len() > 10);
    let (_, checks) = json(home, &["doctor"]);
    assert_eq!(checks["checks"][0]["ok"], true, "{checks}");

    let settings = home.join(".claude/settings.json");
    std::fs::create_dir_all(settings.parent().unwrap()).unwrap();
    let before = "{\n  \"env\": {\n    \"ANTHROPIC_AUTH_TOKEN\": \"sk-old\"\n  }\n}\n";
    std::fs::write(&settings, before).unwrap();
    let (_, found) = json(home, &["import", "--dry-run"]);
    assert_eq!(
        (&found["upstreams"][0]["name"], &found["written"]),
        (&"api.anthropic.com".into(), &false.into())
    );
    let shown = gateway(home, &["setup", "claude", "--dry-run"]);
    assert!(
        said(&shown).contains("ANTHROPIC_BASE_URL") && !said(&shown).contains("sk-old"),
        "{}",
        said(&shown)
    );
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), before);
    assert_eq!(json(home, &["setup", "claude"]).1["changed"], true);
    let claude = status["running"]["claude"].as_str().unwrap();
    assert!(std::fs::read_to_string(&settings).unwrap().contains(claude));
    assert_eq!(json(home, &["setup", "claude", "--undo"]).1["changed"], true);
    assert_eq!(std::fs::read_to_string(&settings).unwrap(), before);

    assert!(json(home, &["restart"]).1["running"]["pid"].is_u64());
    assert!(json(home, &["stop"]).1["stopped"].is_u64());
    let (running, status) = json(home, &["status"]);
    assert!(!running && status["running"].is_null(), "{status}");
    // A gateway that was killed leaves its files behind; the next one starts all the same.
    let state = home.join(".clp/run/gateway.json");
    std::fs::write(&state, r#"{"pid":1,"version":"0","since":0,"claude":"127.0.0.1:1","codex":"127.0.0.1:1","gemini":"127.0.0.1:1","ui":"127.0.0.1:1"}"#).unwrap();
    assert!(json(home, &["start"]).0);
    let log = std::fs::read_to_string(home.join(".clp/run/gateway.log")).unwrap();
    assert!(!log.contains("sk-secret"), "{log}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = gateway(home, &["restart", "--claude-port", &port]);
    assert!(
        !refused.status.success() && said(&refused).contains(&format!("port {port} for claude")),
        "{}",
        said(&refused)
    );
    let open = gateway(home, &["run", "--ui-host", "0.0.0.0"]);
    assert!(said(&open).contains("CLP_PROXY_KEY"), "{}", said(&open));
}

/// A running gateway, as its status says.
async fn ask(running: &Value, content: &str) -> String {
    let body = serde_json::json!({
        "model": "claude-haiku-4-5", "max_tokens": 9, "messages": [{"role": "user", "content": content}],
    });
    let url = format!("http://{}/v1/messages", running["claude"].as_str().unwrap());
    let answer = client().post(url).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_kept_while_recording_is_on_and_a_dry_run_looks_at_them_until_they_are_forgotten() {
    const MAIL: &str = "someone@corp.example";
    let api = ModelApi::start().await;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let _stop = Stop(home);
    // Nothing was ever started here: told as it is.
    let (_, never) = json(home, &["recording"]);
    assert_eq!(
        (&never["on"], &never["kept"]),
        (&false.into(), &0.into()),
        "{never}"
    );
    let nothing = said(&gateway(home, &["dry-run"]));
    assert!(
        nothing.contains("no request is recorded; arpc gateway recording on"),
        "{nothing}"
    );

    json(
        home,
        &[
            "add",
            "claude",
            "first",
            "--base-url",
            &api.url(),
            "--token",
            "sk-secret",
        ],
    );
    let (_, started) = json(home, &["start"]);
    ask(&started["running"], &format!("say before to {MAIL}")).await;
    // Switched on beside the gateway that runs; twice is the same as once.
    for _ in 0..2 {
        let (good, on) = json(home, &["recording", "on"]);
        assert!(good && on["on"] == true, "{on}");
    }
    ask(&started["running"], &format!("say one to {MAIL}")).await;
    ask(
        &started["running"],
        &format!("say two to {MAIL} and a1@corp.example"),
    )
    .await;
    assert_eq!(json(home, &["recording", "off"]).1["on"], false);
    ask(&started["running"], &format!("say after to {MAIL}")).await;
    // What was noted is on the disk when it has stopped.
    assert!(json(home, &["stop"]).0);
    let (_, now) = json(home, &["recording"]);
    assert_eq!((&now["on"], &now["kept"]), (&false.into(), &2.into()), "{now}");
    assert!(now["bytes"].as_u64().unwrap() > 0);
    let words = said(&gateway(home, &["recording"]));
    assert!(words.contains("is off; 2 kept"), "{words}");

    // What the rules in force would hide of them: none yet, then mails.
    let (_, none) = json(home, &["dry-run"]);
    assert_eq!(none["requests"].as_array().unwrap().len(), 2, "{none}");
    assert_eq!(none["found"], serde_json::json!([]));
    let settings = home.join(".clp/gateway.toml");
    let text = std::fs::read_to_string(&settings).unwrap();
    std::fs::write(&settings, format!("{text}\n[redaction]\npresets = [\"mails\"]\n")).unwrap();
    let (_, mails) = json(home, &["dry-run"]);
    assert_eq!(
        (&mails["found"][0]["by"], &mails["found"][0]["count"]),
        (&"mails".into(), &3.into()),
        "{mails}"
    );
    let words = said(&gateway(home, &["dry-run"]));
    assert!(
        words.contains("of 2 recorded requests: would be hidden: mails 3 ×"),
        "{words}"
    );
    assert!(!format!("{mails}{words}").contains("corp.example"), "{words}");

    // Of a text: from a file, from standard input, from a file that is not there.
    let file = home.join("text");
    std::fs::write(&file, format!("to {MAIL}\n")).unwrap();
    let (_, told) = json(home, &["dry-run", file.to_str().unwrap()]);
    assert_eq!(told["found"][0]["count"], 1, "{told}");
    assert!(told["text"].as_str().unwrap().starts_with("to ARPX"), "{told}");
    let mut piped = command(home, &["dry-run", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    piped
        .stdin
        .take()
        .unwrap()
        .write_all(b"to x1@corp.example, no more")
        .unwrap();
    let piped = piped.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&piped.stdout).into_owned();
    assert!(
        out.starts_with("to ARPX") && out.ends_with(", no more\n"),
        "{out}"
    );
    assert!(
        said(&piped).contains("would be hidden: mails 1 ×"),
        "{}",
        said(&piped)
    );
    let gone = gateway(home, &["dry-run", "/no/such/text"]);
    assert!(
        !gone.status.success() && said(&gone).contains("/no/such/text"),
        "{}",
        said(&gone)
    );

    // Forgotten: gone at once, from the file, too; again is no fault.
    for _ in 0..2 {
        let (good, forgotten) = json(home, &["recording", "forget"]);
        assert!(good && forgotten["kept"] == 0, "{forgotten}");
    }
    assert!(said(&gateway(home, &["dry-run"])).contains("no request is recorded"));
    for entry in std::fs::read_dir(home.join(".clp/data")).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        for word in ["say one to", "corp.example", "sk-secret"] {
            assert!(!bytes.windows(word.len()).any(|w| w == word.as_bytes()), "{word}");
        }
    }

    // Rules that cannot be used are told, and nothing is changed in a file that cannot be read.
    std::fs::write(&settings, "[redaction]\npresets = [\"nothing\"]\n").unwrap();
    for arguments in [["dry-run"].as_slice(), &["recording", "on"]] {
        let refused = gateway(home, arguments);
        assert!(
            !refused.status.success() && said(&refused).contains("nothing"),
            "{arguments:?}: {}",
            said(&refused)
        );
    }
}

/// How many requests are counted for which upstream of a running gateway.
async fn counted(running: &Value) -> Vec<(String, u64)> {
    let url = format!(
        "http://{}/api/gateway/usage?by=upstream",
        running["ui"].as_str().unwrap()
    );
    let usage: Value = client().get(url).send().await.unwrap().json().await.unwrap();
    let sums = usage["sums"].as_array().unwrap().iter();
    sums.map(|sum| {
        let name = sum["key"].as_str().unwrap().to_owned();
        (name, sum["requests"].as_u64().unwrap())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_renamed_takes_its_place_its_settings_and_its_counts_along() {
    let api = ModelApi::start().await;
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let _stop = Stop(home);
    json(
        home,
        &[
            "add",
            "claude",
            "old",
            "--base-url",
            &api.url(),
            "--token",
            "sk-secret",
        ],
    );
    json(
        home,
        &["add", "claude", "other", "--base-url", "http://127.0.0.1:1"],
    );
    json(home, &["active", "claude", "old"]);
    let settings = home.join(".clp/gateway.toml");
    std::fs::write(
        &settings,
        "[upstream.claude.old]\nheaders = { X-Team = \"blue\" }\n",
    )
    .unwrap();
    let (_, started) = json(home, &["start"]);
    ask(&started["running"], "say one").await;
    // It is noted after it was answered.
    let noted = async { while counted(&started["running"]).await.is_empty() {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), noted)
        .await
        .unwrap();

    // While the gateway runs: the next request goes to the same upstream.
    let (good, renamed) = json(home, &["rename", "claude", "old", "new name"]);
    assert!(good, "{renamed}");
    assert_eq!(
        (&renamed["from"], &renamed["name"]),
        (&"old".into(), &"new name".into())
    );
    ask(&started["running"], "say two").await;
    assert_eq!(api.requests().len(), 2);
    let team = |n: usize| {
        let headers = api.requests()[n].headers.clone();
        headers
            .into_iter()
            .find(|(name, _)| name == "x-team")
            .map(|(_, value)| value)
    };
    assert_eq!(
        (team(0), team(1)),
        (Some("blue".to_owned()), Some("blue".to_owned()))
    );
    let (_, list) = json(home, &["list", "claude"]);
    let names: Vec<&str> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|u| u["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["new name", "other"], "{list}");
    assert_eq!(
        (&list[0]["active"], &list[0]["has_token"]),
        (&true.into(), &true.into())
    );
    // Stopped, so that all is counted; what the first request has used stands under the new name, too.
    json(home, &["stop"]);
    let (_, started) = json(home, &["start"]);
    assert_eq!(counted(&started["running"]).await, [("new name".to_owned(), 2)]);

    // A name that is taken, one that nobody has, an empty one, another service's: refused, and nothing changes.
    let file = home.join(".clp/claude.json");
    let before = std::fs::read_to_string(&file).unwrap();
    for arguments in [
        ["claude", "new name", "other"],
        ["claude", "old", "x"],
        ["claude", "other", " "],
        ["codex", "other", "x"],
    ] {
        let refused = gateway(home, &[&["rename"], arguments.as_slice()].concat());
        assert!(!refused.status.success(), "{arguments:?}: {}", said(&refused));
        assert!(!said(&refused).contains("sk-secret"));
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap(), before);
}
