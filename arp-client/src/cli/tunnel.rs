//! `arpc tunnel …`.
//!
//! Exit codes: 0 good, 1 failed or unhealthy, 2 wrong settings, 3 nothing runs, 4 it runs but is not connected now,
//! 5 one runs already.

mod detach;
mod show;

use crate::tunnel::control::{self, Ask};
use crate::tunnel::{self, DEFAULT, Instance, Open, OpenError, agent, place};
use crate::tunnel_settings::Source;
use arp_common::logging;
use arp_common::settings::EXIT_USAGE;
use arp_tunnels::config::Overrides;
use arp_tunnels::{Target, TunnelConfig, availability};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use show::Show;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Nothing runs.
const NOT_RUNNING: u8 = 3;
/// It runs, but is not connected now.
const NOT_CONNECTED: u8 = 4;
/// One runs already.
const ALREADY: u8 = 5;
/// Time for an answer of the running one; a look at its health takes a while.
const ANSWER: Duration = Duration::from_secs(40);

/// What to do with tunnels.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Give a local port, or the agents of this machine, a public URL.
    Start(Start),
    /// Show how it stands (exit code 0 connected, 3 not running, 4 not connected now).
    Status(Which),
    /// End it.
    Stop(Which),
    /// Look at its health now (exit code 0 healthy, 1 unhealthy, 3 not running, 4 not connected now).
    Health(Which),
    /// List the tunnels that run, and the backends that can be used here.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A tunnel to start.
#[derive(Debug, Args)]
pub struct Start {
    /// auto, cloudflare, tailscale, ngrok, bore, custom, arp [default: as configured, else auto].
    #[arg(long, short, value_name = "BACKEND")]
    backend: Option<String>,
    /// Port to expose [default: as configured; else the agents of a running `arpc --command-mode`, else 3000].
    #[arg(long, value_name = "PORT")]
    local_port: Option<u16>,
    /// Host of that port [default: 127.0.0.1].
    #[arg(long, value_name = "HOST")]
    local_addr: Option<String>,
    /// Go to the background once it is up.
    #[arg(long, short)]
    detach: bool,
    /// Do not draw the QR code.
    #[arg(long)]
    no_qr: bool,
    /// Print each change as a line of JSON.
    #[arg(long)]
    json: bool,
    /// Name, to have several at a time.
    #[arg(long, value_name = "NAME", default_value = DEFAULT)]
    name: String,
    /// It is the one in the background.
    #[arg(long, hide = true)]
    background: bool,
}

/// Which tunnel.
#[derive(Debug, Args)]
pub struct Which {
    /// Its name.
    #[arg(long, value_name = "NAME", default_value = DEFAULT)]
    name: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Show all that is kept of its program's output.
    #[arg(long)]
    log: bool,
}

/// What the subcommand works on.
pub(super) struct Context<'a> {
    pub(super) data_dir: &'a Path,
    pub(super) client_id: &'a str,
    pub(super) source: &'a Source,
}

/// Carries it out, and gives the exit code. Call it before any runtime or thread is made.
pub(super) fn run(action: Action, context: &Context<'_>) -> u8 {
    if let Action::Start(start) = &action
        && start.background
    {
        detach::leave_terminal();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.to_string()),
    };
    let code = runtime.block_on(async {
        match action {
            Action::Start(options) if !place::is_name(&options.name) => usage_name(&options.name),
            Action::Status(which) | Action::Stop(which) | Action::Health(which)
                if !place::is_name(&which.name) =>
            {
                usage_name(&which.name)
            }
            Action::Start(options) => start(options, context).await,
            Action::Status(which) => status(&which, context).await,
            Action::Stop(which) => stop(&which, context).await,
            Action::Health(which) => health(&which, context).await,
            Action::List { json } => list(json, context).await,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn fail(why: &str) -> u8 {
    eprintln!("arpc: {why}");
    1
}

fn usage_name(name: &str) -> u8 {
    eprintln!("arpc: --name {name}: up to 32 letters, digits, - and _");
    EXIT_USAGE
}

async fn start(options: Start, context: &Context<'_>) -> u8 {
    let overrides = Overrides {
        backend: options.backend.clone(),
        local_host: options.local_addr.clone(),
        local_port: options.local_port,
    };
    let config = match context.source.read(&overrides) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("arpc: {fault}");
            }
            return EXIT_USAGE;
        }
    };
    if config.backend == arp_tunnels::Backend::None {
        eprintln!("arpc: the tunnel's backend is \"none\": there is nothing to start; give --backend");
        return EXIT_USAGE;
    }
    let show = Show::new(options.json, !options.no_qr);
    let dir = tunnel::dir(context.data_dir, &options.name);
    if place::is_taken(&dir) {
        return already(&dir, &show).await;
    }
    if options.detach && !options.background {
        return detach::start(&dir, &show).await;
    }
    if options.background || std::env::var_os("RUST_LOG").is_some() {
        let _ = logging::init(logging::LogFormat::Text, None);
    }
    serve(config, &options.name, context, &show).await
}

/// Runs one in this process, to its end.
async fn serve(config: TunnelConfig, name: &str, context: &Context<'_>, show: &Show) -> u8 {
    let stop = match arp_common::shutdown::on_signal() {
        Ok(stop) => stop,
        Err(error) => return fail(&error.to_string()),
    };
    let agents = config.local_port.is_none() && agent::is_there(context.data_dir).await;
    if agents && config.basic_auth.is_some() {
        eprintln!("arpc: [tunnel] basic_auth is for a local service; for the agents use --edge-key");
        return EXIT_USAGE;
    }
    let target = if agents {
        agent::target(context.data_dir)
    } else {
        Target::Port {
            host: config.local_host.clone(),
            port: config.port(),
        }
    };
    let opened = Instance::open(
        Open {
            config,
            target,
            guarded: agents,
            query: agents.then(|| format!("token={}", context.client_id)),
            name: name.to_owned(),
            data_dir: absolute(context.data_dir),
            client_id: context.client_id.to_owned(),
        },
        stop,
    )
    .await;
    let mut instance = match opened {
        Ok(instance) => instance,
        Err(OpenError::Running(_)) => {
            return already(&tunnel::dir(context.data_dir, name), show).await;
        }
        Err(error) => return fail(&error.to_string()),
    };
    let mut view = instance.handle().watch();
    let about = instance.about().clone();
    let mut shown = show.begin();
    loop {
        let now = view.borrow_and_update().clone();
        shown.show(&about.report(&now));
        tokio::select! {
            changed = view.changed() => if changed.is_err() { break },
            ended = instance.ended() => {
                let last = view.borrow().clone();
                shown.show(&about.report(&last));
                return match ended {
                    Ok(()) => 0,
                    Err(error) => fail(&error.to_string()),
                };
            }
        }
    }
    match instance.ended().await {
        Ok(()) => 0,
        Err(error) => fail(&error.to_string()),
    }
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

async fn already(dir: &Path, show: &Show) -> u8 {
    let report = control::ask_once(dir, Ask::Status, ANSWER)
        .await
        .unwrap_or_default();
    if show.json {
        println!("{report}");
    }
    let url = report["public_url"].as_str().unwrap_or("not connected now");
    eprintln!("arpc: a tunnel runs already ({url}); `arpc tunnel stop` ends it, --name NAME starts another");
    ALREADY
}

/// Asks the running one; says so where none runs.
async fn ask(which: &Which, context: &Context<'_>, question: Ask) -> Result<Value, u8> {
    let dir = tunnel::dir(context.data_dir, &which.name);
    if !place::is_taken(&dir) {
        let crashed = place::crashed(&dir);
        if which.json {
            let pid = crashed.as_ref().map(|note| note.pid);
            println!(
                "{}",
                json!({"type": "tunnel", "name": which.name, "state": "not_running", "crashed_pid": pid})
            );
        }
        match crashed {
            Some(note) => eprintln!(
                "arpc: no tunnel runs. The last one (process {}, {}) ended without a word; its program was ended by \
                 its guard, and what it left is cleared away",
                note.pid, note.backend
            ),
            None => eprintln!("arpc: no tunnel runs; `arpc tunnel start` starts one"),
        }
        return Err(NOT_RUNNING);
    }
    control::ask_once(&dir, question, ANSWER)
        .await
        .map_err(|error| fail(&format!("a tunnel runs, but does not answer: {error}")))
}

async fn status(which: &Which, context: &Context<'_>) -> u8 {
    let report = match ask(which, context, Ask::Status).await {
        Ok(report) => report,
        Err(code) => return code,
    };
    if which.json {
        println!("{report}");
    } else {
        print!("{}", show::status(&report, which.log));
    }
    if report["state"] == "connected" {
        0
    } else {
        NOT_CONNECTED
    }
}

async fn stop(which: &Which, context: &Context<'_>) -> u8 {
    let told = match ask(which, context, Ask::Stop).await {
        Ok(told) => told,
        Err(code) => return code,
    };
    if which.json {
        println!("{told}");
    } else {
        println!("Tunnel stopped.");
    }
    0
}

async fn health(which: &Which, context: &Context<'_>) -> u8 {
    let report = match ask(which, context, Ask::Health).await {
        Ok(report) => report,
        Err(code) => return code,
    };
    if which.json {
        println!(
            "{}",
            json!({"type": "tunnel_health", "state": report["state"], "health": report["health"]})
        );
    } else {
        print!("{}", show::health(&report));
    }
    match (report["state"].as_str(), report["health"]["healthy"].as_bool()) {
        (Some("connected"), Some(true)) => 0,
        (Some("connected"), _) => 1,
        _ => NOT_CONNECTED,
    }
}

async fn list(json: bool, context: &Context<'_>) -> u8 {
    let config = match context.source.read(&Overrides::default()) {
        Ok(config) => config,
        Err(faults) => {
            for fault in faults {
                eprintln!("arpc: {fault}");
            }
            return EXIT_USAGE;
        }
    };
    let mut running = Vec::new();
    for name in place::names(context.data_dir) {
        let dir = tunnel::dir(context.data_dir, &name);
        if place::is_taken(&dir)
            && let Ok(mut report) = control::ask_once(&dir, Ask::Status, ANSWER).await
        {
            if let Some(report) = report.as_object_mut() {
                report.remove("log");
            }
            running.push(report);
        }
    }
    let backends = availability(&config).await;
    if json {
        println!(
            "{}",
            json!({"type": "tunnels", "tunnels": running, "backends": backends})
        );
    } else {
        print!("{}", show::list(&running, &backends));
    }
    0
}

/// Is it up (true), or will it never be (false)?
fn is_settled(report: &Value) -> Option<bool> {
    match report["state"].as_str() {
        Some("connected") => Some(true),
        Some("error" | "stopped") => Some(false),
        _ => None,
    }
}
