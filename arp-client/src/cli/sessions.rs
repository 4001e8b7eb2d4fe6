//! `arpc sessions …`.

use super::client::Client;
use super::{Failure, render};
use clap::{Args, Subcommand};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokio::io::{AsyncBufReadExt, BufReader};

/// What to do with sessions.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// List sessions, newest first.
    List {
        /// Only those that have a process.
        #[arg(long)]
        live: bool,
        /// At most so many.
        #[arg(long, value_name = "N", default_value_t = LISTED)]
        limit: u32,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Show a session and what waits in it.
    Show {
        /// Its id, or the agent's own.
        id: String,
        /// Print the API's JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print what happens in a session until it ends.
    Follow {
        /// Its id, or the agent's own.
        id: String,
        /// Only what happens from now on.
        #[arg(long)]
        new: bool,
        /// Print events as JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Start a session.
    Start(Start),
    /// Send a session a message, and follow it until its turn is over; one that has ended is resumed.
    Send {
        /// Its id, or the agent's own.
        id: String,
        /// What to say.
        text: String,
        /// Do not stay to follow it.
        #[arg(short, long)]
        detach: bool,
    },
    /// Allow what an agent asks for.
    Approve {
        /// The approval's id, or the id of a session in which one waits.
        id: String,
        /// For the rest of the session.
        #[arg(long)]
        for_session: bool,
    },
    /// Deny what an agent asks for.
    Deny {
        /// The approval's id, or the id of a session in which one waits.
        id: String,
        /// Why; the agent is told.
        reason: Option<String>,
    },
    /// End a session's process; its history stays.
    Cancel {
        /// Its id, or the agent's own.
        id: String,
    },
    /// Follow a session and talk to it: each line is a message; /approve [ID], /deny REASON, /interrupt, /cancel.
    Attach {
        /// Its id, or the agent's own.
        id: String,
    },
}

/// Sessions that are listed where nobody says how many.
const LISTED: u32 = 20;

impl Default for Action {
    fn default() -> Self {
        Self::List {
            live: false,
            limit: LISTED,
            json: false,
        }
    }
}

/// A session to start.
#[derive(Debug, Args)]
pub struct Start {
    /// What the agent shall do.
    prompt: String,
    /// claude, codex, gemini, or another that is configured.
    #[arg(short, long)]
    executor: Option<String>,
    /// Directory to work in; this one if it is not given.
    #[arg(short, long)]
    project: Option<PathBuf>,
    /// Model.
    #[arg(short, long)]
    model: Option<String>,
    /// default, acceptEdits, plan or bypassPermissions.
    #[arg(long)]
    permission_mode: Option<String>,
    /// Go on with this session.
    #[arg(long)]
    resume: Option<String>,
    /// Do not stay to follow it; print its id.
    #[arg(short, long)]
    detach: bool,
}

pub(super) async fn run(action: Action, data_dir: &Path) -> Result<(), Failure> {
    let client = Client::new(data_dir);
    match action {
        Action::List { live, limit, json } => {
            let status = if live { "&status=live" } else { "" };
            let listed = client
                .get(&format!("/api/sessions?limit={limit}{status}"))
                .await?;
            if json {
                println!("{listed}");
                return Ok(());
            }
            let sessions = listed["sessions"].as_array().map_or(&[][..], Vec::as_slice);
            for session in sessions {
                println!("{}", render::line(session));
            }
            let more = listed["total"]
                .as_u64()
                .unwrap_or(0)
                .saturating_sub(sessions.len() as u64);
            match (sessions.is_empty(), more) {
                (true, _) if live => eprintln!("no session is live; without --live all are listed"),
                (true, _) => eprintln!("there are no sessions yet; `arpc sessions start \"…\"` starts one"),
                (false, 0) => {}
                (false, more) => eprintln!("and {more} older; --limit shows more"),
            }
            Ok(())
        }
        Action::Show { id, json } => {
            let shown = client.get(&format!("{}?lines=none", path(&id))).await?;
            if json {
                println!("{shown}");
            } else {
                print!("{}", render::details(&shown["session"]));
            }
            Ok(())
        }
        Action::Follow { id, new, json } => follow(&client, &id, new, json, "end").await,
        Action::Start(start) => begin(&client, start).await,
        Action::Send { id, text, detach } => send(&client, &id, &text, detach).await,
        Action::Approve { id, for_session } => {
            decide(
                &client,
                &id,
                &json!({"decision": "allow", "for_session": for_session}),
            )
            .await
        }
        Action::Deny { id, reason } => {
            decide(&client, &id, &json!({"decision": "deny", "message": reason})).await
        }
        Action::Cancel { id } => {
            client.post(&format!("{}/cancel", path(&id)), &json!({})).await?;
            println!("cancelled");
            Ok(())
        }
        Action::Attach { id } => attach(&client, &id).await,
    }
}

/// The path of a session.
fn path(id: &str) -> String {
    format!("/api/sessions/{}", utf8_percent_encode(id, NON_ALPHANUMERIC))
}

async fn begin(client: &Client, start: Start) -> Result<(), Failure> {
    let project = std::path::absolute(start.project.unwrap_or_else(|| PathBuf::from(".")))?;
    let started = client
        .post(
            "/api/sessions",
            &json!({
                "prompt": start.prompt,
                "executor": start.executor,
                "project_path": project,
                "model": start.model,
                "permission_mode": start.permission_mode,
                "resume": start.resume,
            }),
        )
        .await?;
    let id = started["session_id"].as_str().unwrap_or_default();
    if start.detach {
        println!("{id}");
        return Ok(());
    }
    eprintln!("session {id}");
    follow(client, id, false, false, "turn").await
}

async fn send(client: &Client, id: &str, text: &str, detach: bool) -> Result<(), Failure> {
    // Where its events end now: what follows is the answer.
    let shown = client.get(&format!("{}?lines=none", path(id))).await?;
    let seen = shown["session"]["last_seq"].as_u64();
    client
        .post(&format!("{}/messages", path(id)), &json!({"text": text}))
        .await?;
    if detach {
        return Ok(());
    }
    let since = seen.map_or_else(|| "latest".to_owned(), |seq| seq.to_string());
    follow_from(client, id, &format!("&since={since}"), false, "turn").await
}

async fn follow(client: &Client, id: &str, new: bool, json: bool, until: &str) -> Result<(), Failure> {
    let since = if new { "&since=latest" } else { "" };
    follow_from(client, id, since, json, until).await
}

async fn follow_from(client: &Client, id: &str, since: &str, json: bool, until: &str) -> Result<(), Failure> {
    let mut events = client
        .follow(&format!("{}?format=events&until={until}{since}", path(id)))
        .await?;
    let mut writer = render::Writer::default();
    while let Some(event) = events.next().await? {
        let kind = event["type"].as_str().unwrap_or_default();
        if kind == "completion" {
            if event["success"] == true {
                return Ok(());
            }
            let status = event["status"].as_str().unwrap_or("failed");
            return Err(Failure(match event["error"].as_str() {
                Some(why) => why.to_owned(),
                None => format!("the session ended as {status}"),
            }));
        }
        if json && event["seq"].is_u64() && kind != "caught_up" {
            println!("{event}");
        } else if !json {
            writer.event(&event)?;
        }
    }
    Err(Failure("arpc broke off".into()))
}

/// Decides the approval of this id, or the only one that waits in the session of this id.
async fn decide(client: &Client, id: &str, decision: &Value) -> Result<(), Failure> {
    let listed = client.get("/api/approvals").await?;
    let waiting: Vec<&Value> = listed["approvals"].as_array().into_iter().flatten().collect();
    let fits = |approval: &&&Value| {
        ["id", "session_id", "agent_session_id"]
            .iter()
            .any(|name| approval[*name].as_str() == Some(id))
    };
    let mut fitting = waiting.iter().filter(fits);
    let approval = match (fitting.next(), fitting.next()) {
        (Some(approval), None) => approval["id"].as_str().unwrap_or_default(),
        (Some(_), Some(_)) => {
            return Err(Failure(
                "several approvals wait there; name one, `arpc sessions show` lists them".into(),
            ));
        }
        (None, _) => id,
    };
    let place = format!(
        "/api/approvals/{}",
        utf8_percent_encode(approval, NON_ALPHANUMERIC)
    );
    let resolved = client.post(&place, decision).await?;
    println!("{}", resolved["outcome"].as_str().unwrap_or_default());
    Ok(())
}

async fn attach(client: &Client, id: &str) -> Result<(), Failure> {
    let id = client.get(&format!("{}?lines=none", path(id))).await?["session_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let mut events = Some(
        client
            .follow(&format!("{}?format=events&tail=200", path(&id)))
            .await?,
    );
    let mut seen = 0;
    let mut writer = render::Writer::default();
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        let event = async {
            match &mut events {
                Some(events) => events.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            event = event => match event? {
                Some(event) if event["type"] == "completion" => {
                    println!("== the session has ended; a message resumes it");
                    events = None;
                }
                Some(event) => {
                    seen = event["seq"].as_u64().unwrap_or(seen);
                    writer.event(&event)?;
                }
                None => return Err(Failure("arpc broke off".into())),
            },
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(()) };
                if let Err(Failure(why)) = said(client, &id, line.trim()).await {
                    eprintln!("arpc: {why}");
                } else {
                    // It may have resumed a session that had ended: its stream begins again where it ended.
                    events = Some(client.follow(&format!("{}?format=events&since={seen}", path(&id))).await?);
                }
            }
        }
    }
}

async fn said(client: &Client, id: &str, line: &str) -> Result<(), Failure> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    match word {
        "" => Ok(()),
        "/approve" => {
            let which = if rest.is_empty() { id } else { rest };
            decide(client, which, &json!({"decision": "allow"})).await
        }
        "/deny" => decide(client, id, &json!({"decision": "deny", "message": rest})).await,
        "/interrupt" | "/cancel" => {
            client.post(&format!("{}{word}", path(id)), &json!({})).await?;
            Ok(())
        }
        _ => {
            client
                .post(&format!("{}/messages", path(id)), &json!({"text": line}))
                .await?;
            Ok(())
        }
    }
}
