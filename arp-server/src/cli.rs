//! What `arps` does besides serving: tell its fingerprint and how a running relay does, list clients, forget,
//! disconnect and ban them.

use crate::admin::ask::{AskError, ask, segment};
use crate::admin::shape::{BanLists, ClientRow, Status};
use crate::config::{Cli, Settings};
use crate::data;
use crate::reload::Reloaded;
use crate::store::{Binding, Db, Forget, StoreError};
use arp_common::selfdoc::{self, Papers};
use arp_common::settings::duration;
use arp_common::tls::IdentityError;
use arp_common::update::{Plan, UpdateError, Updated};
use clap::{Args, Subcommand};
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Things to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Action {
    /// Show how the running relay does: edge agents, tunnels, traffic, refusals.
    ///
    /// Exit codes: 0 it serves; 1 it stops, or cannot be asked; 3 no relay runs with this data directory.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Have the running relay read its settings again: limits, keys, certificates, bans. Nobody is disconnected.
    ///
    /// It reads the file of --config anew, and the files that are named there. What is wrong is said, and nothing
    /// changes then.
    Reload,
    /// Fetch the newest release, verify it, and put it in this program's place; a service that runs is restarted.
    ///
    /// The one before is kept beside it (arps.old), and put back when the new one does not serve. ARP_BASE_URL says
    /// where releases lie.
    Update {
        /// This release (v0.2.0) and not the newest.
        #[arg(long, value_name = "VERSION")]
        release: Option<String>,
        /// Command that restarts the relay [default: systemctl restart arps, if it runs so].
        #[arg(long, value_name = "COMMAND")]
        restart: Option<String>,
    },
    /// Completions, manual pages, an example of the settings.
    #[command(flatten)]
    Papers(Papers),
    /// Print the fingerprint of the relay's key, for `arpc --server-fingerprint`.
    Fingerprint,
    /// List the clients that this relay knows and who is online, or free the names of some.
    Clients {
        /// What to do; lists them by default.
        #[command(subcommand)]
        action: Option<Clients>,
    },
}

/// What to do with known clients.
#[derive(Debug, Clone, Subcommand)]
pub enum Clients {
    /// List them, those seen last first.
    List,
    /// Free clients' names, so that edge agents with other keys can have them.
    ///
    /// A running relay need not be stopped. Clients that are online stay so until they leave.
    #[command(
        after_help = "Examples:\n  arps clients forget demo\n  arps clients forget 'ci-*' --older-than 30d\n  arps clients forget --never-used --older-than 7d --dry-run"
    )]
    Forget(ForgetArgs),
    /// Disconnect a client that is online. It comes back by itself.
    Kick {
        /// Its id.
        client: String,
    },
    /// Ban edge agents: they are disconnected, and refused from now on.
    #[command(
        after_help = "Examples:\n  arps clients ban demo                 a client, by its id and its key\n  arps clients ban 203.0.113.0/24       whoever comes from there\n  arps clients ban SHA256:...           whoever holds this key (arps clients shows it)"
    )]
    Ban {
        /// A client's id, a key's fingerprint, an address or a network.
        who: String,
    },
    /// End a ban.
    Unban {
        /// As `arps clients bans` shows it.
        who: String,
    },
    /// List bans.
    Bans,
}

/// Which clients to forget.
#[derive(Debug, Clone, Args)]
pub struct ForgetArgs {
    /// A client's id, one of its further tokens, or a pattern (`ci-*`, `demo-?`; put it in quotes). Everybody that
    /// the options describe if there is none.
    #[arg(value_name = "NAME", required_unless_present_any = ["older_than", "never_used"])]
    names: Vec<String>,
    /// Only clients that have not been here for so long (12h, 30d, 8w).
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,
    /// Only clients that no visitor ever came for.
    #[arg(long)]
    never_used: bool,
    /// Only say whose names would be freed.
    #[arg(long)]
    dry_run: bool,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ActionError {
    /// The data directory.
    #[error(transparent)]
    File(#[from] std::io::Error),
    /// The key.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is none, and one that is made here would be out of the relay's reach.
    #[error("the relay of {0} has no key yet; start it once (as its own user)")]
    NoKey(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The running relay.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// A newer version.
    #[error(transparent)]
    Update(#[from] UpdateError),
    /// It stops.
    #[error("the relay is stopping: it lets exchanges finish and takes no new ones")]
    Stopping,
    /// Nobody fits.
    #[error("no client fits; `arps clients` lists those that there are")]
    Nobody,
    /// An age that is none.
    #[error("--older-than {0}")]
    Age(String),
}

/// Exit code of `arps status` where no relay runs; init scripts use it so.
pub const EXIT_NOT_RUNNING: u8 = 3;

/// Last seen is kept to the hour; a shorter age would forget clients that are here.
const SHORTEST_AGE: u64 = 2 * 3600;

/// Does it, on the data directory of a relay that may be running, and gives what is to be printed.
///
/// # Errors
/// See [`ActionError`].
pub fn run(action: &Action, dir: &Path) -> Result<String, ActionError> {
    match action {
        Action::Fingerprint => {
            if !data::may_make_key(dir) {
                return Err(ActionError::NoKey(dir.display().to_string()));
            }
            Ok(format!("{}\n", data::identity(dir)?.fingerprint()))
        }
        Action::Reload => {
            let done: Reloaded = read(&ask(dir, "POST", "/api/reload")?)?;
            Ok(reloaded(&done))
        }
        Action::Update { release, restart } => update(dir, release.as_deref(), restart.as_deref()),
        Action::Papers(papers) => {
            use clap::CommandFactory;
            let mut text = Vec::new();
            selfdoc::write(papers, Cli::command(), &Settings::examples(), &mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        }
        Action::Status { json } => show_status(dir, *json),
        Action::Clients { action } => match action {
            None | Some(Clients::List) => {
                let known = open(dir)?.map_or_else(|| Ok(Vec::new()), |db| db.bindings(usize::MAX))?;
                Ok(list(&known, online(dir)?))
            }
            Some(Clients::Kick { client }) => told(ask(
                dir,
                "POST",
                &format!("/api/clients/{}/kick", segment(client)),
            )?),
            Some(Clients::Ban { who }) => ban(dir, who),
            Some(Clients::Unban { who }) => told(ask(dir, "DELETE", &format!("/api/bans/{}", segment(who)))?),
            Some(Clients::Bans) => {
                let lists: BanLists = read(&ask(dir, "GET", "/api/bans")?)?;
                let given = lists.given.iter().map(|b| format!("{b}\n"));
                let set = lists.settings.iter().map(|b| format!("{b}  (by the settings)\n"));
                let text: String = given.chain(set).collect();
                Ok(if text.is_empty() {
                    "nobody is banned\n".to_owned()
                } else {
                    text
                })
            }
            Some(Clients::Forget(what)) => forget(what, dir),
        },
    }
}

/// Who is online; none if no relay runs that could be asked.
fn online(dir: &Path) -> Result<Option<Vec<ClientRow>>, ActionError> {
    match ask(dir, "GET", "/api/clients") {
        Ok(text) => {
            let mut rows: Vec<ClientRow> = read(&text)?;
            rows.retain(|r| r.online);
            Ok(Some(rows))
        }
        // What is on file can be shown without it.
        Err(_) => Ok(None),
    }
}

fn read<T: serde::de::DeserializeOwned>(text: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(text).map_err(|e| {
        AskError::Broken(format!(
            "{e}; is the running relay of another version? Restart it"
        ))
    })
}

/// What the relay says that it has done.
fn told(text: Vec<u8>) -> Result<String, ActionError> {
    #[derive(serde::Deserialize)]
    struct Done {
        message: String,
    }
    let done: Done = read(&text)?;
    Ok(done.message + "\n")
}

/// A client that is known is banned by its key, too; somebody else just as written.
fn ban(dir: &Path, who: &str) -> Result<String, ActionError> {
    match ask(dir, "POST", &format!("/api/clients/{}/ban", segment(who))) {
        Err(AskError::Refused(404, _)) => told(ask(dir, "PUT", &format!("/api/bans/{}", segment(who)))?),
        other => told(other?),
    }
}

fn show_status(dir: &Path, json: bool) -> Result<String, ActionError> {
    let text = ask(dir, "GET", "/api/status")?;
    let status: Status = read(&text)?;
    if json {
        // It says itself whether it serves.
        return Ok(String::from_utf8_lossy(&text).into_owned() + "\n");
    }
    if !status.serving {
        return Err(ActionError::Stopping);
    }
    Ok(in_words(&status))
}

/// How long a new relay may take until it serves.
const COMES_UP: Duration = Duration::from_secs(60);

fn update(dir: &Path, release: Option<&str>, restart: Option<&str>) -> Result<String, ActionError> {
    let plan = Plan::new("arps", crate::TARGET, crate::RELEASES, release)?;
    let version = match plan.install()? {
        Updated::Same(version) => return Ok(format!("{version} is the newest\n")),
        Updated::To(version) => version,
    };
    let by_systemd = restart.is_none() && shell("systemctl is-active --quiet arps").is_ok();
    let Some(restart) = restart.or(by_systemd.then_some("systemctl restart arps")) else {
        return Ok(format!("{version} is in place; start the relay anew to use it\n"));
    };
    let before = serving(dir);
    let is_up = || match serving(dir) {
        Some(now) => Some(now) != before,
        // One that could not be asked before either, as its data are elsewhere: systemd waits until it is ready.
        None => before.is_none() && by_systemd,
    };
    plan.restart(|| shell(restart), is_up, COMES_UP)?;
    Ok(format!(
        "{version} serves now; the one before is {}\n",
        plan.old().display()
    ))
}

/// The process of the relay that serves, whatever its version is: nothing else of its status is read.
fn serving(dir: &Path) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Serving {
        serving: bool,
        pid: u32,
    }
    let status: Serving = read(&ask(dir, "GET", "/api/status").ok()?).ok()?;
    status.serving.then_some(status.pid)
}

/// Runs a command line of the operator's.
fn shell(command: &str) -> Result<(), String> {
    let done = std::process::Command::new("sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .output();
    let done = done.map_err(|e| format!("{command}: {e}"))?;
    if done.status.success() {
        return Ok(());
    }
    Err(format!(
        "{command}: {}; {}",
        done.status,
        String::from_utf8_lossy(&done.stderr).trim()
    ))
}

fn reloaded(done: &Reloaded) -> String {
    let mut text = match &done.changed[..] {
        [] => "read again; nothing has changed\n".to_owned(),
        changed => format!("in use now: {}\n", changed.join(", ")),
    };
    if !done.after_restart.is_empty() {
        let _ = writeln!(text, "only after a restart: {}", done.after_restart.join(", "));
    }
    text
}

fn in_words(s: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<13} {value}");
    };
    line(
        "arps",
        format!("{}, up {}, process {}", s.version, ago(s.uptime), s.pid),
    );
    line(
        "ports",
        format!("control {}, proxy {}, public {}", s.control, s.proxy, s.public),
    );
    line(
        "admin",
        s.admin
            .as_ref()
            .map_or_else(|| "closed".to_owned(), |a| format!("http://{a}/")),
    );
    line("key", s.fingerprint.clone());
    line(
        "edge agents",
        format!("{} online, {} known", s.edges.online, s.edges.known),
    );
    let t = &s.tunnels;
    line(
        "tunnels",
        format!("{} idle, {} in use, {} requests wait", t.idle, t.used, t.waiting),
    );
    let c = &s.checkouts;
    line(
        "checkouts",
        format!(
            "{} at once, {} after waiting, {} in vain, {} offline, {} too many",
            c.hit, c.miss, c.timeout, c.offline, c.busy
        ),
    );
    line(
        "traffic",
        format!(
            "{} requests, {} in, {} out",
            s.requests,
            bytes(s.bytes_in),
            bytes(s.bytes_out)
        ),
    );
    line("visitors", format!("{} connections", s.visitors));
    let f = &s.failed;
    line(
        "handshakes",
        format!(
            "failed: {} control, {} proxy, {} public",
            f.control, f.proxy, f.public
        ),
    );
    for r in &s.refused {
        line("refused", format!("{} {}: {}", r.what, r.code, r.count));
    }
    if let (Some(memory), Some(descriptors)) = (s.memory, s.descriptors) {
        line(
            "process",
            format!("{} of memory, {descriptors} descriptors", bytes(memory)),
        );
    }
    if !s.store_writable {
        line(
            "STORE",
            "CANNOT BE WRITTEN TO: new names are refused; the log says why".to_owned(),
        );
    }
    text
}

/// A number of bytes, to the unit that matters.
fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let (mut value, mut unit) = (n as f64, 0);
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// The store, if there is one; it is not made here, or the relay would take it for its own.
fn open(dir: &Path) -> Result<Option<Db>, StoreError> {
    let path = data::store_file(dir);
    if !data::used_before(dir) && !path.exists() {
        return Ok(None);
    }
    Db::open(&path, true).map(Some)
}

fn forget(what: &ForgetArgs, dir: &Path) -> Result<String, ActionError> {
    let age = what.older_than.as_deref().map(duration).transpose();
    let older_than = match age.map_err(ActionError::Age)? {
        Some(age) if age < SHORTEST_AGE => {
            return Err(ActionError::Age("must be at least 2h".to_owned()));
        }
        age => age.map(|age| i64::try_from(age).unwrap_or(i64::MAX)),
    };
    let criteria = Forget {
        patterns: what.names.clone(),
        older_than,
        never_used: what.never_used,
    };
    let mut db = open(dir)?.ok_or(ActionError::Nobody)?;
    let names = if what.dry_run {
        db.would_forget(&criteria)?
    } else {
        db.forget(&criteria)?
    };
    if names.is_empty() {
        return Err(ActionError::Nobody);
    }
    let mut text = names.iter().fold(String::new(), |text, name| text + name + "\n");
    let _ = if what.dry_run {
        writeln!(text, "{} name(s) would be forgotten", names.len())
    } else {
        writeln!(
            text,
            "forgot {} name(s); the next edge agent that registers them has them",
            names.len()
        )
    };
    Ok(text)
}

/// `online` is `None` where no relay runs that could be asked.
fn list(clients: &[Binding], online: Option<Vec<ClientRow>>) -> String {
    let running = online.is_some();
    let mut online = online.unwrap_or_default();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let mut rows = Vec::new();
    for c in clients {
        let key = c.key.to_string();
        let here = online
            .iter()
            .position(|o| o.id == c.client.as_str() && o.key.as_ref() == Some(&key))
            .map(|at| online.swap_remove(at));
        let (state, last) = match &here {
            Some(here) => (
                format!("online {}", ago(here.since.unwrap_or(0))),
                "now".to_owned(),
            ),
            None if running => ("offline".to_owned(), ago_since(now, c.last_seen)),
            None => ("?".to_owned(), ago_since(now, c.last_seen)),
        };
        rows.push(Row {
            client: c.client.as_str().to_owned(),
            state,
            names: c.names,
            first: ago_since(now, c.first_seen),
            last,
            used: c.used,
            about: about(here.as_ref()),
            key,
        });
    }
    // Those without a key are bound to none: they are known only while they are here.
    for o in online {
        rows.push(Row {
            client: o.id.clone(),
            state: format!("online {}", ago(o.since.unwrap_or(0))),
            names: o.names,
            first: "-".to_owned(),
            last: "now".to_owned(),
            used: true,
            key: o.key.clone().unwrap_or_else(|| "none (plaintext)".to_owned()),
            about: about(Some(&o)),
        });
    }
    let mut text = if rows.is_empty() {
        "no client is known yet\n".to_owned()
    } else {
        table(&rows)
    };
    if !running && cfg!(unix) {
        text.push_str("(no relay runs with this data directory now: nobody is online)\n");
    }
    text
}

struct Row {
    client: String,
    state: String,
    names: usize,
    first: String,
    last: String,
    used: bool,
    about: String,
    key: String,
}

fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<34} {:<14} {:>5} {:>8} {:>8} {:>4}  {:<44} KEY",
        "CLIENT", "STATE", "NAMES", "FIRST", "LAST", "USED", "FROM"
    );
    for r in rows {
        let used = if r.used { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "{:<34} {:<14} {:>5} {:>8} {:>8} {used:>4}  {:<44} {}",
            r.client, r.state, r.names, r.first, r.last, r.about, r.key
        );
    }
    text
}

fn about(online: Option<&ClientRow>) -> String {
    let Some(online) = online else {
        return "-".to_owned();
    };
    // What an edge calls itself is its own choice.
    let agent = online.agent.as_deref().unwrap_or("version 1");
    let agent: String = agent.escape_debug().take(24).collect();
    format!("{} ({agent})", online.peer.as_deref().unwrap_or("-"))
}

fn ago_since(now: i64, then: i64) -> String {
    ago(u64::try_from(now.saturating_sub(then)).unwrap_or(0))
}

/// A time that has passed, to the unit that matters.
fn ago(secs: u64) -> String {
    match secs {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..86_400 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}
