//! `arpc gateway …`, as a person and a script use it.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Runs it in this home, with free ports.
fn gateway(home: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arpc"));
    command.arg("gateway").args(arguments).env_clear();
    command
        .env("HOME", home)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default());
    for port in ["CLAUDE", "CODEX", "GEMINI", "UI"] {
        command.env(format!("CLP_{port}_PORT"), "0");
    }
    command.output().unwrap()
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
