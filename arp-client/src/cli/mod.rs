//! Subcommands: what `arpc` does besides running as a daemon. Those that need the daemon talk to it over its
//! local socket, which only this user can open.

mod client;
mod connect;
mod gateway;
mod mcp;
mod render;
mod service;
mod sessions;
mod status;
mod stop;
mod tunnel;
mod update;

use crate::config::{Cli, Settings};
use crate::identity;
use crate::tokens;
use crate::trust::KnownRelays;
use crate::tunnel_settings::Source;
use arp_common::ids::ClientId;
use arp_common::selfdoc::{self, Papers};
use clap::{CommandFactory, Subcommand};
use std::path::Path;
use std::process::ExitCode;

/// What `arpc` does besides running as a daemon.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List, start, follow and answer the sessions of the running arpc.
    Sessions {
        /// What to do; lists them by default.
        #[command(subcommand)]
        action: Option<sessions::Action>,
    },
    /// Run arpc as a service of this user.
    Service {
        /// What to do.
        #[command(subcommand)]
        action: service::Action,
    },
    /// Fetch the newest release, verify it, and put it in this program's place; a service that runs is restarted.
    ///
    /// The one before is kept beside it (arpc.old), and put back when the new one does not come up. Sessions run on.
    /// ARP_BASE_URL says where releases lie.
    Update(update::Options),
    /// Completions, manual pages, an example of the settings.
    #[command(flatten)]
    Papers(Papers),
    /// Show how the running arpc does: its relay, its public URL, its tunnels.
    ///
    /// Exit codes: 0 it is registered (or needs no relay); 1 it is not, or cannot be asked; 3 no arpc runs.
    Status {
        /// As JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Stop the running arpc. Its sessions run on, and the next arpc finds them.
    Stop {
        /// Also end the agents: running turns are cut, and the next message resumes the sessions.
        #[arg(long)]
        park: bool,
    },
    /// Serve MCP on standard input and output for an agent (needs a running arpc with --enable-mcp).
    Mcp(mcp::Options),
    /// Reach a TCP service behind another edge agent: on standard input and output, or on a local port.
    Connect(connect::Options),
    /// Accept another key of a relay at the next contact (host, or host:port).
    ForgetServer {
        /// Address of the relay, as given with --server-addr.
        address: String,
    },
    /// List, add and revoke the tokens of the running arpc.
    Tokens {
        /// What to do; lists them by default.
        #[command(subcommand)]
        action: Option<tokens::local::Action>,
    },
    /// A public URL without a server of your own: Cloudflare, Tailscale, ngrok, bore, or a command of yours.
    Tunnel {
        /// What to do.
        #[command(subcommand)]
        action: tunnel::Action,
    },
    /// Guard a tunnel's program (started by arpc itself).
    #[command(hide = true, name = crate::tunnel::GUARD)]
    TunnelGuard {
        /// Become the program that follows, and end with this process.
        #[arg(long)]
        parent: Option<u32>,
        /// The program and its arguments.
        #[arg(last = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// The gateway in front of the agents' model APIs: start it, and say which upstreams it uses.
    Gateway {
        /// What to do.
        #[command(subcommand)]
        action: gateway::Action,
    },
    /// Own one agent process (started by arpc itself).
    #[command(hide = true)]
    SessionHost,
}

/// The program that runs the gateway on its usual ports.
pub(crate) fn gateway_program() -> std::io::Result<Vec<std::ffi::OsString>> {
    gateway::program([])
}

impl Command {
    /// Carries it out. Call it before any runtime or thread is made. `data_dir` and `client_id` are those of
    /// the daemon (without an id it is the one of this machine); `tunnels` says where the settings of tunnels are.
    #[must_use]
    pub fn run(self, data_dir: &Path, client_id: Option<&str>, tunnels: &Source) -> ExitCode {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
        let done = match self {
            Self::SessionHost => return arp_sessions::host::host_main(),
            Self::TunnelGuard { parent, command } => {
                return match parent {
                    Some(parent) => arp_tunnels::exec_main(parent, &command),
                    None => arp_tunnels::guard_main(),
                };
            }
            Self::Tunnel { action } => {
                let id = client_id.map_or_else(|| identity::client_id(data_dir), |id| Ok(id.to_owned()));
                match id {
                    Ok(id) => {
                        let context = tunnel::Context {
                            data_dir,
                            client_id: &id,
                            source: tunnels,
                        };
                        return ExitCode::from(tunnel::run(action, &context));
                    }
                    Err(error) => Err(Failure::from(error)),
                }
            }
            Self::Papers(papers) => {
                let (command, keys) = (Cli::command(), Settings::examples());
                selfdoc::write(&papers, command, &keys, &mut std::io::stdout()).map_err(Failure::from)
            }
            Self::Service { action } => match service::run(&action) {
                Ok(code) => return ExitCode::from(code),
                Err(error) => Err(error),
            },
            Self::Update(options) => runtime()
                .map_err(Failure::from)
                .and_then(|runtime| runtime.block_on(meant(data_dir, client_id)))
                .and_then(|id| update::run(&options, data_dir, &id)),
            Self::Status { json } => {
                let shown = runtime().map_err(Failure::from).and_then(|runtime| {
                    runtime.block_on(async {
                        let id = meant(data_dir, client_id).await?;
                        Ok(status::run(json, data_dir, &id).await)
                    })
                });
                match shown {
                    Ok(code) => return ExitCode::from(code),
                    Err(error) => Err(error),
                }
            }
            Self::Sessions { action } => runtime()
                .map_err(Failure::from)
                .and_then(|runtime| runtime.block_on(sessions::run(action.unwrap_or_default(), data_dir))),
            Self::Gateway { action } => gateway::run(action),
            Self::Stop { park } => runtime()
                .map_err(Failure::from)
                .and_then(|runtime| runtime.block_on(stop::run(park, data_dir))),
            Self::Connect(options) => return ExitCode::from(connect::run(&options)),
            Self::ForgetServer { address } => forget_server(&address, data_dir),
            Self::Tokens { action } => runtime().map_err(Failure::from).and_then(|runtime| {
                let action = action.unwrap_or(tokens::local::Action::List);
                runtime.block_on(change_tokens(&action, data_dir, client_id))
            }),
            Self::Mcp(options) => runtime()
                .map_err(Failure::from)
                .and_then(|runtime| runtime.block_on(mcp::run(&options, data_dir))),
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure(why)) => {
                eprintln!("arpc: {why}");
                ExitCode::FAILURE
            }
        }
    }
}

fn forget_server(address: &str, data_dir: &Path) -> Result<(), Failure> {
    let known = KnownRelays::new(data_dir);
    match known.forget(address)? {
        0 => Err(Failure(format!(
            "no key of {address} is known; those that are stand in {}",
            known.path().display()
        ))),
        _ => {
            println!("forgotten; the key that {address} shows at the next contact will be pinned");
            Ok(())
        }
    }
}

/// The client id of the daemon that is meant: as given, or this machine's, or that of the only one that runs.
async fn meant(data_dir: &Path, given: Option<&str>) -> Result<ClientId, Failure> {
    let parse = |id: &str| id.parse().map_err(|e| Failure(format!("--client-id {e}")));
    match given {
        Some(id) => parse(id),
        None => {
            let own = parse(&identity::client_id(data_dir)?)?;
            let meant = tokens::local::meant(data_dir, own).await;
            meant.map_err(|e| Failure(e.to_string()))
        }
    }
}

async fn change_tokens(
    action: &tokens::local::Action,
    data_dir: &Path,
    id: Option<&str>,
) -> Result<(), Failure> {
    let id = meant(data_dir, id).await?;
    print!(
        "{}",
        tokens::local::run(action, data_dir, &id).await.map_err(Failure)?
    );
    Ok(())
}

/// Why a subcommand failed, in words.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self(format!("arpc broke off: {error}"))
    }
}

impl From<http::Error> for Failure {
    fn from(error: http::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self(format!("arpc answered what cannot be read: {error}"))
    }
}
