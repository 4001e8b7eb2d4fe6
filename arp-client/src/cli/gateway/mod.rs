//! `arpc gateway …` (and `clp …`): the model gateway's process, its upstreams, and how they stand.

mod agents;
mod doctor;
mod recording;
mod upstreams;

use super::Failure;
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::process::{self, Listen, Running, UI_PORT};
use arp_gateway::secret::Secret;
use arp_gateway::service::Service;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::net::IpAddr;

/// What to do with the gateway.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the gateway in the background; returns when its ports answer.
    Start(Ports),
    /// Stop it; requests under way may end.
    Stop(Output),
    /// Stop it, if it runs, and start it anew.
    Restart(Ports),
    /// Does it run, where, and how do the upstreams stand?
    Status(Output),
    /// Open its page in the browser, or say where it is.
    Ui(Output),
    /// Run it in the foreground; Ctrl-C ends it.
    #[command(alias = "server")]
    Run {
        #[command(flatten)]
        ports: Ports,
        /// Go to the background, as `start` does.
        #[arg(long)]
        detach: bool,
    },
    /// List the upstreams of a service (or of all).
    List {
        /// claude, codex or gemini.
        service: Option<Service>,
        #[command(flatten)]
        output: Output,
    },
    /// Make an upstream the active one: it counts from the next request, no agent needs a restart.
    Active {
        /// claude, codex or gemini.
        service: Service,
        /// Its name.
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Add an upstream, or change one that is there.
    Add(upstreams::Add),
    /// Take an upstream out.
    Remove {
        /// claude, codex or gemini.
        service: Service,
        /// Its name.
        name: String,
        #[command(flatten)]
        output: Output,
    },
    /// Give an upstream another name; routes, exclusions, settings and counts follow.
    Rename {
        /// claude, codex or gemini.
        service: Service,
        /// The name that it has.
        name: String,
        /// The name that it gets.
        new: String,
        #[command(flatten)]
        output: Output,
    },
    /// Ask an upstream for one word: is it there, does it know the key, does it answer?
    Test {
        /// Its name.
        name: String,
        /// Only this service's, where several have one of that name.
        #[arg(long)]
        service: Option<Service>,
        /// The model to ask; a small one without.
        #[arg(long)]
        model: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Put the gateway into an agent's settings: shows the change, keeps a backup, touches nothing else.
    Setup {
        /// claude, codex or gemini.
        agent: Service,
        /// Take it out again.
        #[arg(long)]
        undo: bool,
        /// Only show what would change.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Take over what the agents are set to now as upstreams.
    Import {
        /// Only show what would be taken over.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Look for what is wrong: files, ports, settings of the agents, variables.
    Doctor(Output),
    /// What models cost, by the gateway's table and your own in gateway.toml.
    Prices(Output),
    /// Are bodies of requests and answers kept to be looked at? Switch it on or off, or delete what was kept.
    Recording {
        /// Without it, only says how it stands.
        #[arg(value_enum)]
        switch: Option<recording::Switch>,
        #[command(flatten)]
        output: Output,
    },
    /// What would the filters and the redaction hide? Nothing is sent anywhere.
    DryRun {
        /// A text to look at, `-` for standard input; without it, the requests that were recorded.
        file: Option<std::path::PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

/// How to say it.
#[derive(Debug, Args, Clone, Copy)]
pub struct Output {
    /// For programs: one JSON object (or array) on standard output.
    #[arg(long)]
    json: bool,
}

impl Output {
    /// Says something: in words, or for programs.
    fn say(self, words: impl std::fmt::Display, data: impl FnOnce() -> Value) {
        if self.json {
            println!("{}", data());
        } else {
            println!("{words}");
        }
    }
}

/// Where the gateway listens.
#[derive(Debug, Args, Clone)]
pub struct Ports {
    /// Address of the agents' ports. Others than this machine need CLP_PROXY_KEY.
    #[arg(long, env = "CLP_PROXY_HOST", default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port for Claude Code.
    #[arg(long, env = "CLP_CLAUDE_PORT", default_value_t = Service::Claude.default_port())]
    claude_port: u16,
    /// Port for Codex.
    #[arg(long, env = "CLP_CODEX_PORT", default_value_t = Service::Codex.default_port())]
    codex_port: u16,
    /// Port for Gemini.
    #[arg(long, env = "CLP_GEMINI_PORT", default_value_t = Service::Gemini.default_port())]
    gemini_port: u16,
    /// Address of the page and the API. Others than this machine need CLP_PROXY_KEY.
    #[arg(long, env = "CLP_UI_HOST", default_value = "127.0.0.1")]
    ui_host: IpAddr,
    /// Port of the page and the API.
    #[arg(long, env = "CLP_UI_PORT", default_value_t = UI_PORT)]
    ui_port: u16,
    #[command(flatten)]
    output: Output,
}

impl Ports {
    fn listen(&self) -> Listen {
        let key = std::env::var("CLP_PROXY_KEY").ok().filter(|key| !key.is_empty());
        Listen {
            host: self.host,
            ports: [self.claude_port, self.codex_port, self.gemini_port],
            ui_host: self.ui_host,
            ui_port: self.ui_port,
            key: key.map(Secret::new),
        }
    }

    fn arguments(&self) -> Vec<String> {
        [
            ("--host", self.host.to_string()),
            ("--claude-port", self.claude_port.to_string()),
            ("--codex-port", self.codex_port.to_string()),
            ("--gemini-port", self.gemini_port.to_string()),
            ("--ui-host", self.ui_host.to_string()),
            ("--ui-port", self.ui_port.to_string()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
    }
}

/// Carries it out.
pub(super) fn run(action: Action) -> Result<(), Failure> {
    let home = Home::of_user()?;
    match action {
        Action::Start(ports) | Action::Run { ports, detach: true } => start(&home, &ports),
        Action::Run { ports, detach: false } => foreground(home, &ports),
        Action::Stop(output) => {
            let pid = process::stop(&home).map_err(told)?;
            output.say(format!("stopped (process {pid})"), || json!({"stopped": pid}));
            Ok(())
        }
        Action::Restart(ports) => {
            match process::stop(&home) {
                Ok(_) | Err(process::ProcessError::NotRunning) => {}
                Err(e) => return Err(told(e)),
            }
            start(&home, &ports)
        }
        Action::Status(output) => status(&home, output),
        Action::Ui(output) => ui(&home, output),
        Action::List { service, output } => upstreams::list(&home, service, output),
        Action::Active {
            service,
            name,
            output,
        } => upstreams::activate(&home, service, &name, output),
        Action::Add(add) => upstreams::add(&home, &add),
        Action::Remove {
            service,
            name,
            output,
        } => upstreams::remove(&home, service, &name, output),
        Action::Rename {
            service,
            name,
            new,
            output,
        } => upstreams::rename(&home, service, &name, &new, output),
        Action::Test {
            name,
            service,
            model,
            output,
        } => upstreams::test(&home, &name, service, model.as_deref(), output),
        Action::Setup {
            agent,
            undo,
            dry_run,
            output,
        } => agents::setup(&home, agent, undo, dry_run, output),
        Action::Import { dry_run, output } => agents::import(&home, dry_run, output),
        Action::Doctor(output) => doctor::run(&home, output),
        Action::Prices(output) => upstreams::prices(&home, output),
        Action::Recording { switch, output } => recording::recording(&home, switch, output),
        Action::DryRun { file, output } => recording::dry_run(&home, file.as_deref(), output),
    }
}

fn told(e: impl std::fmt::Display) -> Failure {
    Failure(e.to_string())
}

/// The program that runs the gateway, with its arguments.
pub(crate) fn program(
    arguments: impl IntoIterator<Item = String>,
) -> std::io::Result<Vec<std::ffi::OsString>> {
    let mut program = vec![std::env::current_exe()?.into(), "gateway".into(), "run".into()];
    program.extend(arguments.into_iter().map(Into::into));
    Ok(program)
}

fn start(home: &Home, ports: &Ports) -> Result<(), Failure> {
    let running = process::start(home, &program(ports.arguments())?).map_err(told)?;
    if ports.output.json {
        println!(
            "{}",
            json!({"running": running, "faults": Live::new(home.clone()).faults()})
        );
    } else {
        explain(home, &running);
    }
    Ok(())
}

fn foreground(home: Home, ports: &Ports) -> Result<(), Failure> {
    let _guard = arp_common::logging::init(arp_common::logging::LogFormat::Text, None)?;
    arp_common::net::raise_file_limit();
    // One thread carries more requests than agents make, and no request waits for another thread to wake up. What takes
    // long (a large body that is looked through, files, the database) has threads of its own.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        let ready = |running: &Running| explain(&home, running);
        process::run(
            home.clone(),
            ports.listen(),
            Some(crate::console::respond),
            stop,
            ready,
        )
        .await
        .map_err(told)
    })
}

/// What runs where, and what an agent needs to use it.
fn explain(home: &Home, running: &Running) {
    println!("The gateway runs (process {}):", running.pid);
    for service in Service::ALL {
        println!("  {:<7} http://{}", service.name(), running.address(service));
    }
    println!("  {:<7} http://{}", "page", running.ui);
    let live = Live::new(home.clone());
    for fault in &live.faults() {
        eprintln!("  fault: {fault}");
    }
    let none = Service::ALL
        .into_iter()
        .all(|service| live.snapshot(service).upstreams.list.is_empty());
    if none {
        println!("\nIt has no upstream yet. Add one, for example:");
        println!(
            "\n  CLP_TOKEN=sk-… arpc gateway add claude official --base-url https://api.anthropic.com\n"
        );
        println!("or take over what your agents use now: arpc gateway import\n");
    }
    println!("Claude Code uses it with this in ~/.claude/settings.json (arpc gateway setup claude does it):");
    println!(
        "\n  {{\"env\":{{\"ANTHROPIC_BASE_URL\":\"http://{}\",\"ANTHROPIC_AUTH_TOKEN\":\"-\"}}}}\n",
        running.claude
    );
    println!("Codex with this at the top of ~/.codex/config.toml (arpc gateway setup codex):");
    println!("\n  openai_base_url = \"http://{}/v1\"\n", running.codex);
    println!("Gemini CLI with this in ~/.gemini/.env (arpc gateway setup gemini):");
    println!(
        "\n  GOOGLE_GEMINI_BASE_URL=http://{}\n  GEMINI_API_KEY=-",
        running.gemini
    );
}

fn status(home: &Home, output: Output) -> Result<(), Failure> {
    let running = process::running(home).map_err(told)?;
    let live = Live::new(home.clone());
    if output.json {
        let services: serde_json::Map<_, _> = Service::ALL
            .into_iter()
            .map(|service| {
                let all = live.snapshot(service).upstreams;
                let active = all.active().map(|u| u.name.to_string());
                (
                    service.name().to_owned(),
                    json!({"active": active, "upstreams": all.list.len()}),
                )
            })
            .collect();
        println!(
            "{}",
            json!({"running": running, "services": services, "faults": live.faults()})
        );
    } else {
        match &running {
            Some(running) => {
                println!("runs (process {}, version {})", running.pid, running.version);
                for service in Service::ALL {
                    let all = live.snapshot(service).upstreams;
                    let active = all.active().map_or("no upstream", |u| &u.name);
                    println!(
                        "  {:<7} http://{:<21} {active}",
                        service.name(),
                        running.address(service)
                    );
                }
                println!("  {:<7} http://{}", "page", running.ui);
                println!(
                    "Behind any base URL of its own Claude Code has no context of a million tokens; its tool search \
                     needs ENABLE_TOOL_SEARCH."
                );
            }
            None => println!("does not run; `arpc gateway start` starts it"),
        }
        for fault in live.faults() {
            println!("fault: {fault}");
        }
    }
    match running {
        Some(_) => Ok(()),
        None => Err(Failure("the gateway does not run".to_owned())),
    }
}

fn ui(home: &Home, output: Output) -> Result<(), Failure> {
    let running = process::running(home).map_err(told)?;
    let running = running.ok_or_else(|| told(process::ProcessError::NotRunning))?;
    let mut address = running.ui;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let url = format!("http://{address}/#/gateway//overview");
    if output.json {
        println!("{}", json!({"url": url}));
        return Ok(());
    }
    println!("{url}");
    // Where there is no screen there is no browser either; the address is said above.
    let opener = if cfg!(target_os = "macos") {
        Some("open")
    } else if cfg!(windows) {
        Some("explorer")
    } else {
        let has_screen = ["DISPLAY", "WAYLAND_DISPLAY"]
            .iter()
            .any(|name| std::env::var_os(name).is_some());
        has_screen.then_some("xdg-open")
    };
    if let Some(opener) = opener {
        let opened = std::process::Command::new(opener)
            .arg(&url)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn();
        if opened.is_err() {
            eprintln!("no browser could be opened; open the address by hand");
        }
    }
    Ok(())
}
