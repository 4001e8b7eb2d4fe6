//! `arpc gateway …` (and `clp …`): the model gateway's process, its upstreams, and how they stand.

use super::Failure;
use arp_gateway::files::upstreams::{Change, Upstreams, change};
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::process::{self, Listen, Running};
use arp_gateway::secret::Secret;
use arp_gateway::service::Service;
use clap::{Args, Subcommand};
use serde_json::json;
use std::net::IpAddr;

/// What to do with the gateway.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Start the gateway in the background; returns when its ports answer.
    Start(Ports),
    /// Stop it; requests under way may end.
    Stop,
    /// Stop it, if it runs, and start it anew.
    Restart(Ports),
    /// Does it run, where, and how do the upstreams stand?
    Status {
        /// For programs.
        #[arg(long)]
        json: bool,
    },
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
        /// For programs.
        #[arg(long)]
        json: bool,
    },
    /// Make an upstream the active one: it counts from the next request, no agent needs a restart.
    Active {
        /// claude, codex or gemini.
        service: Service,
        /// Its name.
        name: String,
    },
    /// Add an upstream, or change one that is there.
    Add {
        /// claude, codex or gemini.
        service: Service,
        /// Its name.
        name: String,
        /// Where it is, for example https://api.anthropic.com
        #[arg(long)]
        base_url: Option<String>,
        /// Key that is sent as `Authorization: Bearer`. Read from the variable CLP_TOKEN where that is set, so that it
        /// does not stand in the shell's history.
        #[arg(long, env = "CLP_TOKEN", hide_env_values = true)]
        token: Option<String>,
        /// Key that is sent as `x-api-key` (Gemini: `x-goog-api-key`).
        #[arg(long, env = "CLP_API_KEY", hide_env_values = true)]
        api_key: Option<String>,
        /// Its place in the order: the highest is asked first.
        #[arg(long)]
        weight: Option<f64>,
    },
    /// Take an upstream out.
    Remove {
        /// claude, codex or gemini.
        service: Service,
        /// Its name.
        name: String,
    },
}

/// Where the gateway listens.
#[derive(Debug, Args, Clone)]
pub struct Ports {
    /// Address of all its ports. Others than this machine need CLP_PROXY_KEY.
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
}

impl Ports {
    fn listen(&self) -> Listen {
        let key = std::env::var("CLP_PROXY_KEY").ok().filter(|key| !key.is_empty());
        Listen {
            host: self.host,
            ports: [self.claude_port, self.codex_port, self.gemini_port],
            key: key.map(Secret::new),
        }
    }

    fn arguments(&self) -> [String; 8] {
        [
            "--host".to_owned(),
            self.host.to_string(),
            "--claude-port".to_owned(),
            self.claude_port.to_string(),
            "--codex-port".to_owned(),
            self.codex_port.to_string(),
            "--gemini-port".to_owned(),
            self.gemini_port.to_string(),
        ]
    }
}

/// Carries it out.
pub(super) fn run(action: Action) -> Result<(), Failure> {
    let home = Home::of_user()?;
    match action {
        Action::Start(ports) => start(&home, &ports),
        Action::Run { ports, detach: true } => start(&home, &ports),
        Action::Run { ports, detach: false } => foreground(home, &ports),
        Action::Stop => {
            let pid = process::stop(&home).map_err(told)?;
            println!("stopped (process {pid})");
            Ok(())
        }
        Action::Restart(ports) => {
            match process::stop(&home) {
                Ok(_) | Err(process::ProcessError::NotRunning) => {}
                Err(e) => return Err(told(e)),
            }
            start(&home, &ports)
        }
        Action::Status { json } => status(&home, json),
        Action::List { service, json } => list(&home, service, json),
        Action::Active { service, name } => {
            change(&home.upstreams(service), &Change::Activate(&name)).map_err(told)?;
            println!("{service} uses {name} from the next request on");
            Ok(())
        }
        Action::Add {
            service,
            name,
            base_url,
            token,
            api_key,
            weight,
        } => {
            let put = Change::Put {
                name: &name,
                base_url: base_url.as_deref(),
                auth_token: token.as_deref(),
                api_key: api_key.as_deref(),
                weight,
            };
            change(&home.upstreams(service), &put).map_err(told)?;
            println!("{name} is in {}", home.upstreams(service).display());
            Ok(())
        }
        Action::Remove { service, name } => {
            change(&home.upstreams(service), &Change::Remove(&name)).map_err(told)?;
            println!("{name} is out");
            Ok(())
        }
    }
}

fn told(e: impl std::fmt::Display) -> Failure {
    Failure(e.to_string())
}

fn start(home: &Home, ports: &Ports) -> Result<(), Failure> {
    let own = std::env::current_exe()?;
    let mut program = vec![own.into(), "gateway".into(), "run".into()];
    program.extend(ports.arguments().map(Into::into));
    let running = process::start(home, &program).map_err(told)?;
    explain(home, &running);
    Ok(())
}

fn foreground(home: Home, ports: &Ports) -> Result<(), Failure> {
    let _guard = arp_common::logging::init(arp_common::logging::LogFormat::Text, None)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        let ready = |running: &Running| explain(&home, running);
        process::run(home.clone(), ports.listen(), stop, ready)
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
    let faults = Live::new(home.clone()).faults();
    for fault in &faults {
        eprintln!("  fault: {fault}");
    }
    let none = Service::ALL
        .into_iter()
        .all(|s| upstreams(home, s).list.is_empty());
    if none {
        println!("\nIt has no upstream yet. Add one, for example:");
        println!(
            "\n  CLP_TOKEN=sk-… arpc gateway add claude official --base-url https://api.anthropic.com\n"
        );
    }
    println!("Claude Code uses it with this in ~/.claude/settings.json:");
    println!(
        "\n  {{\"env\":{{\"ANTHROPIC_BASE_URL\":\"http://{}\",\"ANTHROPIC_AUTH_TOKEN\":\"-\"}}}}\n",
        running.claude
    );
    println!("Codex with this at the top of ~/.codex/config.toml:");
    println!("\n  openai_base_url = \"http://{}/v1\"\n", running.codex);
    println!("Gemini CLI with this in ~/.gemini/.env:");
    println!(
        "\n  GOOGLE_GEMINI_BASE_URL=http://{}\n  GEMINI_API_KEY=-",
        running.gemini
    );
}

fn upstreams(home: &Home, service: Service) -> std::sync::Arc<Upstreams> {
    Live::new(home.clone()).snapshot(service).upstreams
}

fn status(home: &Home, json: bool) -> Result<(), Failure> {
    let running = process::running(home).map_err(told)?;
    let live = Live::new(home.clone());
    if json {
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

fn list(home: &Home, service: Option<Service>, json: bool) -> Result<(), Failure> {
    let services = service.map_or_else(|| Service::ALL.to_vec(), |service| vec![service]);
    let live = Live::new(home.clone());
    let mut all = Vec::new();
    for service in services {
        let upstreams = live.snapshot(service).upstreams;
        let active = upstreams.active().map(|u| u.name.clone());
        if !json {
            println!("{service}:");
            if upstreams.list.is_empty() {
                println!("  none; add one: arpc gateway add {service} NAME --base-url https://…");
            }
        }
        for upstream in &upstreams.list {
            let is_active = active.as_ref() == Some(&upstream.name);
            if json {
                all.push(json!({
                    "service": service.name(), "name": &*upstream.name, "base_url": upstream.base_url.as_str(),
                    "weight": upstream.weight, "active": is_active,
                }));
            } else {
                let mark = if is_active { '*' } else { ' ' };
                let url = upstream.base_url.as_str().trim_end_matches('/');
                println!("{mark} {:<20} {url}  weight {}", upstream.name, upstream.weight);
            }
        }
    }
    if json {
        println!("{}", serde_json::Value::from(all));
    }
    for fault in live.faults() {
        eprintln!("fault: {fault}");
    }
    Ok(())
}
