//! `arpc tokens` and `arpc status`: ask the running daemon over a socket that only this user can open. One line of
//! JSON each way.

use super::{Added, Kept, Names, now, stem};
use crate::standing::{self, Standing};
use arp_common::ids::{ClientId, Token};
use arp_common::private;
use arp_common::settings::duration;
use clap::Subcommand;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Longest line, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// Sockets of one directory that are looked at.
const MAX_SOCKETS: usize = 64;
/// Time for one question and its answer.
const TIME: Duration = Duration::from_secs(20);

/// What can be done with the tokens of a running arpc.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Add a token by which visitors reach this edge agent.
    Add {
        /// The token; a random one by default.
        token: Option<String>,
        /// Time after which it ends (90s, 30m, 12h, 7d); never by default.
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List all tokens.
    List,
    /// Take a token back: any that `arpc tokens` lists, the client id and those of the configuration too.
    ///
    /// Exchanges under way are finished. One of the configuration stays revoked until `arpc tokens add` lets it in
    /// again.
    Revoke {
        /// The token.
        token: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Add(Added),
    List,
    Revoke(String),
    Status,
}

/// Why the running arpc could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// There is none.
    #[error(
        "no arpc with this client id runs here for this user; start it, or give its --client-id or --data-dir"
    )]
    NotRunning,
    /// It broke off.
    #[error("the running arpc does not answer: {0}")]
    Broken(io::Error),
    /// It took too long.
    #[error("the running arpc does not answer")]
    Silent,
    /// It cannot be known which one is meant.
    #[error("{0} arpc run here, each with a client id of its own; say which one by --client-id")]
    Several(usize),
    /// It says no.
    #[error("{0}")]
    Refused(String),
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Told {
    error: Option<String>,
    #[serde(default)]
    configured: Vec<Token>,
    #[serde(flatten)]
    kept: Kept,
    #[serde(default)]
    id_token: bool,
    /// Who answers; an earlier version does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_id: Option<ClientId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<standing::Told>,
}

async fn answer(names: &Names, standing: &Standing, line: &[u8]) -> Told {
    let mut status = None;
    let done = match serde_json::from_slice(line) {
        Ok(Ask::Add(new)) => names.add(new).await.map_err(|e| e.to_string()),
        Ok(Ask::Revoke(token)) => names.revoke(&token).await.map_err(|e| e.to_string()),
        Ok(Ask::List) => Ok(()),
        Ok(Ask::Status) => {
            status = Some(standing.told());
            Ok(())
        }
        Err(_) => Err("not a question that this arpc knows; is it of another version?".into()),
    };
    let (configured, kept) = names.list();
    Told {
        error: done.err(),
        configured,
        kept,
        id_token: names.id_token,
        client_id: Some(names.id.clone()),
        status,
    }
}

fn socket(dir: &Path, id: &ClientId) -> PathBuf {
    dir.join(stem(id)).with_extension("sock")
}

/// Answers questions about tokens until `stop`.
///
/// # Errors
/// If the socket cannot be opened, or another arpc with the same client id has it.
pub async fn serve(
    dir: &Path,
    id: &ClientId,
    names: Arc<Names>,
    standing: Arc<Standing>,
    stop: CancellationToken,
) -> io::Result<()> {
    private::create_dir(dir)?;
    let path = socket(dir, id);
    if arp_local::connect(&path).await.is_ok() {
        let text = "another arpc with this client id runs here; `arpc tokens` speaks with that one";
        return Err(io::Error::new(io::ErrorKind::AddrInUse, text));
    }
    let listener = arp_local::Listener::bind(&path)?;
    let mut asked = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            Some(_) = asked.join_next() => {}
            accepted = listener.accept() => {
                let stream = accepted?;
                let (names, standing) = (names.clone(), standing.clone());
                asked.spawn(async move {
                    let _ = tokio::time::timeout(TIME, exchange(stream, &names, &standing)).await;
                });
            }
        }
    }
}

async fn exchange(stream: arp_local::Stream, names: &Names, standing: &Standing) -> io::Result<()> {
    let (rd, mut wr) = stream.into_split();
    let mut line = Vec::new();
    BufReader::new(rd.take(MAX_LINE))
        .read_until(b'\n', &mut line)
        .await?;
    let mut told = serde_json::to_vec(&answer(names, standing, &line).await).map_err(io::Error::other)?;
    told.push(b'\n');
    wr.write_all(&told).await
}

async fn ask(dir: &Path, id: &ClientId, question: &Ask) -> Result<Told, AskError> {
    ask_at(&socket(dir, id), question).await
}

/// The client id of the arpc that a command means which names none: this machine's `own` if such a one runs, else that
/// of the only one that runs with this data directory. A service is often started with an id of its choice.
///
/// # Errors
/// [`AskError::Several`] if more than one runs, none of which has `own`.
pub async fn meant(dir: &Path, own: ClientId) -> Result<ClientId, AskError> {
    if ask(dir, &own, &Ask::List).await.is_ok() {
        return Ok(own);
    }
    let mut running = Vec::new();
    for path in sockets(dir) {
        // What does not answer was left behind by one that was killed.
        if let Ok(Told {
            client_id: Some(id), ..
        }) = ask_at(&path, &Ask::List).await
        {
            running.push(id);
        }
    }
    match running.len() {
        0 => Ok(own),
        1 => Ok(running.remove(0)),
        several => Err(AskError::Several(several)),
    }
}

/// The sockets of all arpc that run with this data directory, or did.
fn sockets(dir: &Path) -> Vec<PathBuf> {
    let is_one = |path: &PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        name.starts_with("tokens-") && name.ends_with(".sock")
    };
    let found = std::fs::read_dir(dir).into_iter().flatten();
    let found = found.filter_map(|entry| Some(entry.ok()?.path()));
    found.filter(is_one).take(MAX_SOCKETS).collect()
}

async fn ask_at(socket: &Path, question: &Ask) -> Result<Told, AskError> {
    let talk = async {
        let mut stream = arp_local::connect(socket).await?;
        let mut line = serde_json::to_vec(question).map_err(io::Error::other)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        stream.shutdown().await?;
        let mut told = Vec::new();
        stream.take(MAX_LINE).read_to_end(&mut told).await?;
        serde_json::from_slice(&told).map_err(io::Error::other)
    };
    match tokio::time::timeout(TIME, talk).await {
        Ok(Ok(told)) => Ok(told),
        Ok(Err(e))
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Err(AskError::NotRunning)
        }
        Ok(Err(e)) => Err(AskError::Broken(e)),
        Err(_) => Err(AskError::Silent),
    }
}

/// How the running daemon does.
///
/// # Errors
/// See [`AskError`].
pub async fn status(dir: &Path, id: &ClientId) -> Result<standing::Told, AskError> {
    let told = ask(dir, id, &Ask::Status).await?;
    if let Some(error) = told.error {
        return Err(AskError::Refused(error));
    }
    told.status
        .ok_or_else(|| AskError::Refused("it does not tell; is it of another version?".to_owned()))
}

/// Does it, and gives what is to be printed.
///
/// # Errors
/// Why not, for people.
pub async fn run(action: &Action, dir: &Path, id: &ClientId) -> Result<String, String> {
    let question = match action {
        Action::List => Ask::List,
        Action::Revoke { token } => Ask::Revoke(token.clone()),
        Action::Add { token, expires } => {
            let token = token
                .clone()
                .unwrap_or_else(|| format!("{:032x}", rand::random::<u128>()));
            Ask::Add(Added {
                token: token.parse().map_err(|e| format!("a token {e}"))?,
                expires: expires
                    .as_deref()
                    .map(duration)
                    .transpose()?
                    .map(|s| now().saturating_add(s)),
            })
        }
    };
    let told = ask(dir, id, &question).await.map_err(|e| e.to_string())?;
    if let Some(error) = told.error {
        return Err(error);
    }
    Ok(match question {
        Ask::Add(new) => format!("{}\n", new.token.as_str()),
        Ask::Revoke(_) => "revoked\n".to_owned(),
        Ask::List | Ask::Status => list(id, &told),
    })
}

fn list(id: &ClientId, told: &Told) -> String {
    let mut text = String::new();
    let mut named = |name: &str, from: &str| {
        let revoked = if told.kept.has_revoked(name) {
            ", revoked"
        } else {
            ""
        };
        text.push_str(&format!("{name}  ({from}{revoked})\n"));
    };
    if told.id_token {
        named(id.as_str(), "client id");
    }
    for token in &told.configured {
        named(token.as_str(), "configuration");
    }
    let now = now();
    for Added { token, expires } in &told.kept.added {
        let until = match expires.map(|e| e.saturating_sub(now)) {
            None => "does not expire".to_owned(),
            Some(s) if s >= 86_400 => format!("expires in {} d {} h", s / 86_400, s % 86_400 / 3600),
            Some(s) if s >= 3600 => format!("expires in {} h {} min", s / 3600, s % 3600 / 60),
            Some(s) => format!("expires in {} min {} s", s / 60, s % 60),
        };
        text.push_str(&format!("{}  ({until})\n", token.as_str()));
    }
    if text.is_empty() {
        text.push_str("there is no token: nobody can come in; `arpc tokens add` makes one\n");
    }
    text
}
