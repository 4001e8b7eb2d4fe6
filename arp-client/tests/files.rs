//! Files over the API: as their users ask for them, and never beyond what the owner opened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use support::Edge;
use tempfile::TempDir;

/// A home with a project in which the owner worked with Claude.
struct Owner {
    home: TempDir,
    project: PathBuf,
}

impl Owner {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let real = home.path().canonicalize().unwrap();
        let project = real.join("app");
        std::fs::create_dir_all(project.join("src")).unwrap();
        std::fs::write(project.join("src/main.rs"), "fn main() {}\n").unwrap();
        std::fs::write(project.join("a b+c.txt"), "spaces\n").unwrap();
        let owner = Self { home, project };
        owner.worked("11111111-1111-4111-8111-111111111111", &owner.project);
        owner
    }

    /// What Claude leaves of a session.
    fn worked(&self, id: &str, directory: &Path) {
        let name: String = directory
            .to_str()
            .unwrap()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let kept = self.home.path().join(".claude/projects").join(name);
        std::fs::create_dir_all(&kept).unwrap();
        let line = json!({
            "type": "user", "sessionId": id, "cwd": directory, "uuid": id, "parentUuid": null,
            "timestamp": "2026-01-01T10:00:00.000Z", "version": "2.1.0",
            "message": {"role": "user", "content": "hello"},
        });
        std::fs::write(kept.join(format!("{id}.jsonl")), format!("{line}\n")).unwrap();
    }

    async fn edge(&self, more: &[&str]) -> Edge {
        let claude = format!(
            "--agent-path=claude={}",
            support::example("scripted_claude").display()
        );
        let mut arguments = vec![claude, "--enable-fs".to_owned()];
        arguments.extend(more.iter().map(|argument| (*argument).to_owned()));
        let environment: Vec<(OsString, OsString)> = vec![("HOME".into(), self.home.path().into())];
        Edge::launch(arguments, environment).await
    }
}

/// Waits until the histories were read.
async fn until_root(edge: &Edge, directory: &Path) {
    let until = std::time::Instant::now() + support::PATIENCE;
    loop {
        let (_, listed) = edge.get("/api/fs").await;
        let roots = listed["roots"].as_array().unwrap();
        if roots.iter().any(|root| root["path"] == json!(directory)) {
            return;
        }
        assert!(std::time::Instant::now() < until, "{listed}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn fs(edge: &Edge, path: &str, query: &[(&str, &str)]) -> (StatusCode, Value) {
    let encoded = query
        .iter()
        .map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    let query = encoded.collect::<Vec<_>>().join("&");
    support::answer(edge.request(Method::GET, &format!("{path}?{query}"))).await
}

fn code(answer: &(StatusCode, Value)) -> (u16, &str) {
    (answer.0.as_u16(), answer.1["code"].as_str().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_named_by_project_path_and_what_is_below_it_by_path() {
    let owner = Owner::new();
    let edge = owner.edge(&[]).await;
    until_root(&edge, &owner.project).await;
    let project = owner.project.to_str().unwrap();

    for name in ["project_path", "projectPath"] {
        let (status, listed) = fs(&edge, "/api/fs", &[(name, project)]).await;
        assert_eq!(
            (status, &listed["type"]),
            (StatusCode::OK, &json!("directory")),
            "{listed}"
        );
        assert_eq!(listed["project_path"], json!(project));
        for (path, query) in [
            ("/api/fs/src/main.rs", vec![(name, project)]),
            ("/api/fs", vec![(name, project), ("path", "src/main.rs")]),
            ("/api/fs", vec![(name, project), ("path", "/src/../src/main.rs")]),
        ] {
            let (status, file) = fs(&edge, path, &query).await;
            if query.iter().any(|(_, value)| value.contains("..")) {
                assert_eq!(status, StatusCode::FORBIDDEN, "{file}");
                continue;
            }
            assert_eq!(
                (status, &file["content"]),
                (StatusCode::OK, &json!("fn main() {}\n")),
                "{file}"
            );
        }
    }
    // The absolute form, in the path and in the query.
    let absolute = owner.project.join("a b+c.txt");
    let encoded = absolute.to_str().unwrap().replace(' ', "%20").replace('+', "%2B");
    for (path, query) in [
        (format!("/api/fs{encoded}"), vec![]),
        (format!("/api/fs/{encoded}"), vec![]),
        ("/api/fs".to_owned(), vec![("path", absolute.to_str().unwrap())]),
    ] {
        let (status, file) = fs(&edge, &path, &query).await;
        assert_eq!(
            (status, &file["content"]),
            (StatusCode::OK, &json!("spaces\n")),
            "{path} {file}"
        );
    }

    // A session in it: the same three ways.
    let body = json!({"executor": "claude", "prompt": "say x", "project_path": project});
    let (_, started) = edge.post("/api/sessions", body).await;
    let session = format!("/api/sessions/{}/fs", started["session_id"].as_str().unwrap());
    let below = owner.project.join("src");
    for (path, query) in [
        (format!("{session}/src/main.rs"), vec![]),
        (session.replace("/api", "") + "/src/main.rs", vec![]),
        (session.clone(), vec![("path", "src/main.rs")]),
        (
            session.clone(),
            vec![("path", "main.rs"), ("projectPath", below.to_str().unwrap())],
        ),
    ] {
        let (status, file) = fs(&edge, &path, &query).await;
        assert_eq!(
            (status, &file["content"]),
            (StatusCode::OK, &json!("fn main() {}\n")),
            "{path} {file}"
        );
        assert_eq!(file["session_id"], started["session_id"]);
    }
    let outside = [("projectPath", owner.home.path().to_str().unwrap())];
    assert_eq!(code(&fs(&edge, &session, &outside).await), (403, "outside_root"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_understood_is_refused_and_never_ignored() {
    let owner = Owner::new();
    let edge = owner.edge(&[]).await;
    let project = owner.project.to_str().unwrap();
    let body = json!({"executor": "claude", "prompt": "say x", "project_path": project});
    let (_, started) = edge.post("/api/sessions", body).await;
    let session = format!("/api/sessions/{}/fs", started["session_id"].as_str().unwrap());
    for (path, query, refused) in [
        ("/api/fs", vec![("root", "/etc")], (400, "bad_query")),
        ("/api/fs", vec![("Project_Path_", project)], (400, "bad_query")),
        (&session, vec![("file", "src/main.rs")], (400, "bad_query")),
        (
            "/api/fs",
            vec![("path", "/a"), ("path", "/b")],
            (400, "bad_query"),
        ),
        (
            "/api/fs/src",
            vec![("project_path", project), ("path", "src")],
            (400, "bad_query"),
        ),
        (
            "/api/fs",
            vec![("project_path", ""), ("project_path", "/etc")],
            (400, "bad_query"),
        ),
        (
            "/api/fs",
            vec![("project_path", project), ("projectPath", project)],
            (400, "bad_query"),
        ),
        ("/api/fs/src", vec![("project_path", "")], (400, "bad_query")),
        (&session, vec![("projectPath", "")], (400, "bad_query")),
        ("/api/fs", vec![("project_path", "app")], (400, "invalid_path")),
        ("/api/fs", vec![("limit", "many")], (400, "bad_query")),
    ] {
        let answer = fs(&edge, path, &query).await;
        assert_eq!(code(&answer), refused, "{path} {query:?} {}", answer.1);
    }
    // A token beside a token is none of our business.
    assert_eq!(
        fs(&edge, "/api/fs", &[("token", "another")]).await.0,
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_a_visitor_starts_opens_no_directory() {
    let owner = Owner::new();
    let real = owner.home.path().canonicalize().unwrap();
    let secret = real.join("secret");
    std::fs::create_dir(&secret).unwrap();
    std::fs::write(secret.join("key"), "the secret").unwrap();
    std::os::unix::fs::symlink(&secret, owner.project.join("link")).unwrap();
    let mut edge = owner.edge(&[]).await;
    until_root(&edge, &owner.project).await;

    let through_link = owner.project.join("link");
    let around = owner.project.join("../secret");
    for directory in [
        &secret,
        &through_link,
        &around,
        &PathBuf::from("/"),
        &PathBuf::from("/tmp/.."),
    ] {
        let body = json!({"executor": "claude", "prompt": "say x", "project_path": directory});
        let (status, started) = edge.post("/api/sessions", body).await;
        assert_eq!(status, StatusCode::CREATED, "{started}");
        let id = started["session_id"].as_str().unwrap().to_owned();
        edge.until_status(&id, "idle").await;
        // What the agent leaves, as its own word of where it worked.
        let agent_id = edge.view(&id).await["agent_session_id"]
            .as_str()
            .unwrap()
            .to_owned();
        owner.worked(&agent_id, directory);
        owner.worked(&agent_id, &directory.canonicalize().unwrap());
        let (_, known) = edge.get("/api/claude/projects/working-directories").await;
        let known = known["directories"].as_array().unwrap();
        assert!(
            known
                .iter()
                .any(|known| known["path"] == json!(directory.canonicalize().unwrap()))
        );
        let own = fs(&edge, &format!("/api/sessions/{id}/fs/key"), &[]).await;
        assert_eq!(code(&own), (403, "outside_root"), "{directory:?} {}", own.1);
        nothing_is_open(&edge, &owner, &secret).await;
        // Without our record the agent's looks like any other.
        edge.delete(&format!("/api/sessions/{id}?force=true&keep_history=true"))
            .await;
        nothing_is_open(&edge, &owner, &secret).await;
    }
    edge.kill_and_restart();
    until_root(&edge, &owner.project).await;
    nothing_is_open(&edge, &owner, &secret).await;
}

/// Only the project can be read, whatever way is tried.
async fn nothing_is_open(edge: &Edge, owner: &Owner, secret: &Path) {
    let (_, listed) = edge.get("/api/fs").await;
    assert_eq!(listed["roots"].as_array().unwrap().len(), 1, "{listed}");
    let key = secret.join("key");
    let (key, secret, project) = (
        key.to_str().unwrap(),
        secret.to_str().unwrap(),
        owner.project.to_str().unwrap(),
    );
    for query in [
        vec![("path", key)],
        vec![("project_path", secret), ("path", "key")],
        vec![("project_path", project), ("path", "link/key")],
        vec![("project_path", project), ("path", "../secret/key")],
        vec![("project_path", "/"), ("path", "etc/passwd")],
        vec![("project_path", "/tmp/.."), ("path", "etc/passwd")],
        vec![("project_path", "~"), ("path", "secret/key")],
        vec![("path", "/etc/passwd")],
        vec![("path", "/proc/self/root/etc/passwd")],
    ] {
        let answer = fs(edge, "/api/fs", &query).await;
        assert_eq!(code(&answer), (403, "outside_root"), "{query:?} {}", answer.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_owner_starts_at_the_machine_is_open() {
    let owner = Owner::new();
    let edge = owner.edge(&[]).await;
    until_root(&edge, &owner.project).await;
    let other = owner.home.path().canonicalize().unwrap().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("f"), "mine").unwrap();
    let run = std::process::Command::new(support::ARPC)
        .arg("--data-dir")
        .arg(edge.root.path().join("data"))
        .args(["--client-id", support::TOKEN, "sessions", "start", "--project"])
        .arg(&other)
        .args(["--executor", "claude", "say x"])
        .output()
        .unwrap();
    assert!(run.status.success(), "{run:?}");
    let file = fs(&edge, "/api/fs", &[("path", other.join("f").to_str().unwrap())]).await;
    assert_eq!(file.1["content"], "mine", "{}", file.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_that_the_owner_names_are_all_there_are() {
    let owner = Owner::new();
    let named = tempfile::tempdir().unwrap();
    let named_path = named.path().canonicalize().unwrap();
    std::fs::write(named_path.join("f"), "named").unwrap();
    let edge = owner
        .edge(&[&format!("--fs-root={}", named_path.display())])
        .await;
    let (_, listed) = edge.get("/api/fs").await;
    assert_eq!(listed["roots"].as_array().unwrap().len(), 1, "{listed}");
    let file = fs(
        &edge,
        "/api/fs",
        &[("path", named_path.join("f").to_str().unwrap())],
    )
    .await;
    assert_eq!(file.1["content"], "named", "{}", file.1);
    let project = fs(
        &edge,
        "/api/fs",
        &[("project_path", owner.project.to_str().unwrap())],
    )
    .await;
    assert_eq!(code(&project), (403, "outside_root"));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_and_tokens_of_arpc_are_read_by_nobody() {
    let owner = Owner::new();
    let edge = owner
        .edge(&["--fs-root=/tmp", "--enable-mcp", "--mcp-port=0"])
        .await;
    let data = edge.root.path().join("data");
    assert!(data.join("mcp.token").exists() && data.join("edge-key.pem").exists());
    let link = owner.project.join("link");
    std::os::unix::fs::symlink(&data, &link).unwrap();
    for path in [
        data.join("mcp.token"),
        data.join("edge-key.pem"),
        data,
        link.join("mcp.token"),
    ] {
        let told = fs(&edge, "/api/fs", &[("path", path.to_str().unwrap())]).await;
        assert_eq!(code(&told), (403, "hidden"), "{path:?} {}", told.1);
    }
}
