//! `arpc sessions …` as a person uses it, against a running edge over its local socket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "it is a test"
)]

mod support;

use std::path::Path;
use std::process::Stdio;
use support::{Edge, PATIENCE};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

fn arpc(data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_arpc"));
    command
        .arg("--data-dir")
        .arg(data)
        .arg("sessions")
        .args(arguments)
        .kill_on_drop(true);
    command
}

/// Runs it to its end: did it succeed, what did it print, what did it complain of?
async fn run(edge: &Edge, arguments: &[&str]) -> (bool, String, String) {
    let data = edge.root.path().join("data");
    let ended = tokio::time::timeout(PATIENCE, arpc(&data, arguments).output()).await;
    let ended = ended.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (ended.status.success(), text(ended.stdout), text(ended.stderr))
}

/// One that runs on, and is talked to.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Running {
    fn start(edge: &Edge, arguments: &[&str]) -> Self {
        let mut child = arpc(&edge.root.path().join("data"), arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    async fn until(&mut self, part: &str) -> String {
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("{part:?} did not come")).unwrap();
            let line = line.unwrap_or_else(|| panic!("it ended before {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    async fn say(&mut self, line: &str) {
        let input = self.input.as_mut().unwrap();
        input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// Ends its input; did it succeed?
    async fn end(mut self) -> bool {
        drop(self.input.take());
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").unwrap().success()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_started_listed_shown_followed_answered_and_cancelled() {
    let edge = Edge::start().await;
    let project = edge.project();
    let project = project.to_str().unwrap();
    let (good, out, told) = run(&edge, &["list"]).await;
    assert!(
        good && out.is_empty() && told.contains("arpc sessions start"),
        "{told}"
    );

    let (good, out, told) = run(&edge, &["start", "say hello", "--project", project]).await;
    assert!(good && told.starts_with("session "), "{out} {told}");
    for part in ["> say hello", "hello\n", "-- completed"] {
        assert!(out.contains(part), "{part:?} in {out}");
    }

    let (good, id, _) = run(&edge, &["start", "--detach", "ask touch a", "-p", project]).await;
    let id = id.trim();
    assert!(good && id.len() == 36, "{id}");
    edge.until_asked(id).await;
    let (_, out, _) = run(&edge, &["list", "--live"]).await;
    let line = out.lines().find(|line| line.contains(id)).unwrap();
    assert!(line.contains("waiting") && line.contains("ask touch a"), "{out}");
    assert_eq!(out.lines().count(), 2);
    let (_, out, told) = run(&edge, &["list", "--limit", "1"]).await;
    assert!(out.lines().count() == 1 && told.contains("and 1 older"), "{told}");
    let (_, out, _) = run(&edge, &["show", id]).await;
    assert!(
        out.contains("? Bash: touch a") && out.contains("arpc sessions approve"),
        "{out}"
    );
    let (good, out, _) = run(&edge, &["show", id, "--json"]).await;
    let shown: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert!(good && shown["session"]["pending_approvals"] == 1);

    let mut follower = Running::start(&edge, &["follow", id]);
    follower.until("? Bash: touch a").await;
    let (good, out, _) = run(&edge, &["approve", id]).await;
    assert_eq!((good, out.trim()), (true, "allowed"));
    follower.until("allowed").await;
    follower.until("-- completed").await;
    edge.until_status(id, "idle").await;
    edge.say(id, "ask touch b").await;
    edge.until_asked(id).await;
    let (good, out, _) = run(&edge, &["deny", id, "not today"]).await;
    assert_eq!((good, out.trim()), (true, "denied"));
    follower.until("not today").await;
    let (good, out, _) = run(&edge, &["cancel", id]).await;
    assert_eq!((good, out.trim()), (true, "cancelled"));
    follower.until("== cancelled").await;
    follower.end().await;
    assert_eq!(edge.view(id).await["status"], "cancelled");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_sent_and_its_answer_followed() {
    let edge = Edge::start().await;
    let id = edge.session("say one").await;
    edge.until_status(&id, "idle").await;
    let (good, out, told) = run(&edge, &["send", &id, "say two"]).await;
    assert!(good, "{told}");
    assert!(out.contains("> say two") && out.contains("-- completed"), "{out}");
    assert!(
        !out.contains("> say one"),
        "what was before is not repeated: {out}"
    );
    let (good, out, _) = run(&edge, &["send", &id, "say three", "--detach"]).await;
    assert!(good && out.is_empty(), "{out}");
    edge.until_status(&id, "idle").await;
    // Cancelled, it is resumed by a message.
    assert!(run(&edge, &["cancel", &id]).await.0);
    let (good, out, told) = run(&edge, &["send", &id, "say four"]).await;
    assert!(good && out.contains("> say four"), "{out} {told}");
    // Without a word more they are listed.
    let (good, out, _) = run(&edge, &[]).await;
    assert!(good && out.contains(&id), "{out}");
    let (good, _, told) = run(&edge, &["send", "nobody", "hello"]).await;
    assert!(!good && told.contains("nobody"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_attached_talks_answers_interrupts_and_resumes() {
    let edge = Edge::start().await;
    let id = edge.session("say one").await;
    edge.until_status(&id, "idle").await;
    let mut attached = Running::start(&edge, &["attach", &id]);
    attached.until("> say one").await;
    attached.until("-- completed").await;
    attached.say("ask touch a").await;
    attached.until("? Bash: touch a").await;
    attached.say("/approve").await;
    attached.until("-- completed").await;
    attached.say("ask touch b").await;
    attached.until("? Bash: touch b").await;
    attached.say("/deny never").await;
    attached.until("never").await;
    attached.until("-- completed").await;
    attached.say("hold").await;
    attached.until("> hold").await;
    attached.say("/interrupt").await;
    attached.until("-- interrupted").await;
    attached.say("/cancel").await;
    attached.until("a message resumes it").await;
    attached.say("say back").await;
    attached.until("> say back").await;
    attached.until("-- completed").await;
    assert!(attached.end().await);
    assert_eq!(
        edge.view(&id).await["status"],
        "idle",
        "who detaches ends nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_told_with_what_to_do() {
    let edge = Edge::start().await;
    let project = edge.project();
    for (arguments, part) in [
        (&["show", "nobody"][..], "nobody"),
        (&["approve", "nobody"], "nobody"),
        (&["cancel", "nobody"], "nobody"),
        (&["follow", "nobody"], "nobody"),
        (&["attach", "nobody"], "nobody"),
        (
            &["start", "say x", "-p", "/no/such/directory"],
            "/no/such/directory",
        ),
        (&["start", "say x", "-e", "nobody"], "nobody"),
        (
            &[
                "start",
                "x",
                "-p",
                project.to_str().unwrap(),
                "--permission-mode",
                "bypassPermissions",
            ],
            "--allow-bypass",
        ),
    ] {
        let (good, out, told) = run(&edge, arguments).await;
        assert!(!good && out.is_empty(), "{arguments:?}: {out}");
        assert!(
            told.starts_with("arpc: ") && told.contains(part),
            "{arguments:?}: {told}"
        );
        assert_eq!(told.lines().count(), 1, "{told}");
    }
    let nobody = tempfile::tempdir().unwrap();
    let ended = arpc(nobody.path(), &["list"]).output().await.unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(
        !ended.status.success() && told.contains("arpc --command-mode"),
        "{told}"
    );
}
