//! arpc: parses, wires and runs.

use anyhow::Context;
use arp_common::logging::{self, LogFormat};
use arp_common::service::{self, Pulses};
use arp_common::settings::{ConfigError, EXIT_USAGE, with_causes};
use arp_sessions::Leaving;
use arpc::config::{Cli, Config, Mode, Public, Settings};
use arpc::edge_tls::EdgeTls;
use arpc::forward::Forward;
use arpc::link::{Dialer, Handler, Link};
use arpc::local::LocalService;
use arpc::serving::CommandMode;
use arpc::standing::{Fixed, Standing};
use arpc::tokens::{self, Names};
use arpc::tunnel::daemon as daemon_tunnel;
use arpc::tunnel_settings::Source;
use arpc::{banner, config, identity};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before anything is parsed or made: there is one for each session, and what it touches it keeps.
    if std::env::args_os().skip(1).eq(["session-host"]) {
        return arp_sessions::host::host_main();
    }
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("arpc: {}", with_causes(e.as_ref()));
            code_of(&e)
        }
    }
}

fn code_of(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        ExitCode::from(EXIT_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = match &cli.config {
        Some(path) => Settings::from_file(path)?,
        None => Settings::default(),
    };
    let mut settings = cli.settings.or(file);
    let data_dir = config::data_dir(settings.data_dir.clone());
    if let Some(command) = cli.command {
        let tunnels = Source::new(&settings);
        return Ok(command.run(&data_dir, settings.client_id.as_deref(), &tunnels));
    }
    if settings.client_id.is_none() {
        // A check makes nothing.
        let unknown = cli.check_config && !identity::has_client_id(&data_dir);
        settings.client_id = Some(if unknown {
            "unknown".to_owned()
        } else {
            identity::client_id(&data_dir)?
        });
    }
    let config = Arc::new(Config::new(settings)?);
    if cli.check_config {
        config.try_files()?;
        println!("arpc: the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    // Made before anything else is in the data directory, also where this start does not need it: an older one
    // without it keeps the id that it had.
    let _ = identity::client_id(&config.data_dir);
    let _guard = start_logging(config.log_format)?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served: anyhow::Result<()> = runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        banner::hello(&config);
        write_card(&config);
        if config.plaintext {
            tracing::warn!("--plaintext: whoever is on the way to the relay can read and change everything");
        }
        let dialer = Dialer::new(&config)?;
        let names = Names::load(
            &config.data_dir,
            &config.client_id,
            config.tokens.clone(),
            config.id_token,
        )?;
        let of_services = config.services.iter().map(|s| s.token.clone()).collect();
        let names = Arc::new(names.with_services(of_services));
        let e2e = dialer.e2e()?;
        let fingerprint = dialer.fingerprint();
        let edge_tls = match &config.tls {
            Some(files) => Some(Arc::new(EdgeTls::load(files.clone())?)),
            None => None,
        };
        if let Some(tls) = edge_tls.clone() {
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(tls.watch()).await });
        }
        let whole = |forward| with_services(forward, &config).with_e2e(e2e).with_tls(edge_tls);
        let mut command = None;
        let handler = match &config.mode {
            Mode::Tcp { host, port } => Handler::Tcp(whole(main_service(host, *port, &config))),
            Mode::Services => Handler::Tcp(whole(Forward::default())),
            Mode::Command(settings) => {
                let mode = CommandMode::start((**settings).clone(), names.clone()).await?;
                command = Some(mode.clone());
                // They are asked for their versions, which takes seconds; the link does not wait for it.
                let (asked, stop, format) = (mode.clone(), stop.clone(), config.log_format);
                tokio::spawn(async move {
                    stop.run_until_cancelled(async { banner::agents(&asked.agents().await, format) })
                        .await
                });
                Handler::Command(mode, whole(Forward::default()))
            }
        };
        let leaving = Arc::new(std::sync::OnceLock::new());
        if let Some(mode) = command.clone() {
            let (leaving, stop) = (leaving.clone(), stop.clone());
            tokio::spawn(async move {
                let asked = mode.asked_to_stop().await;
                tracing::info!("`arpc stop` was given");
                let _ = leaving.set(asked);
                stop.cancel();
            });
        }
        let standing = Arc::new(Standing::new(fixed(&config)));
        let mut first = true;
        let link = Link::new(
            config.clone(),
            dialer,
            names.clone(),
            Arc::new(handler),
            standing.clone(),
        );
        let side = stop.child_token();
        let local = tokio::spawn(local(config.clone(), names.clone(), standing, side.clone()));
        let tunnel = daemon_tunnel::run(&config, &names, command.as_ref(), stop.clone());
        let mut pulses = Pulses::default();
        let linking = pulses.add("the link to the relay");
        let watchdog = tokio::spawn(pulses.watch(side.clone()));
        // Not only when it is registered: a relay that is away for an hour is no reason to start this anew.
        service::ready(if config.relay {
            "looking for the relay"
        } else {
            "serving"
        });
        let linked = linking.along(async {
            if !config.relay {
                let stopped = stop.clone().cancelled_owned();
                return tokio::select! {
                    () = names.without_relay() => Ok(()),
                    () = stopped => Ok(()),
                };
            }
            let registered = |public: &Public| {
                if let Some(mode) = &command {
                    mode.told_public_url(public.url.as_deref());
                }
                service::status("registered with the relay");
                if std::mem::take(&mut first) {
                    banner::registered(&config, &names, public, fingerprint);
                }
            };
            let linked = link.run(stop.clone(), registered).await;
            stop.cancel();
            linked
        });
        let (served, tunnelled) = tokio::join!(linked, tunnel);
        side.cancel();
        let _ = local.await;
        let _ = watchdog.await;
        if let Some(mode) = command {
            // A signal ends arpc alone: its sessions run on, and the next one finds them.
            let leaving = leaving.get().copied().unwrap_or(Leaving::RunOn);
            mode.shutdown(leaving).await;
        }
        served?;
        tunnelled?;
        Ok(())
    });
    match served {
        Err(e) if config.log_format == LogFormat::Json => {
            tracing::error!("{}", with_causes(e.as_ref()));
            Ok(code_of(&e))
        }
        served => served.map(|()| ExitCode::SUCCESS),
    }
}

/// What `arpc status` tells that does not change.
fn fixed(config: &Config) -> Fixed {
    let server = &config.server;
    Fixed {
        version: arpc::VERSION.to_owned(),
        pid: std::process::id(),
        relay: config
            .relay
            .then(|| format!("{}:{}", server.host, server.control_port)),
        serves: match &config.mode {
            Mode::Tcp { host, port } => format!("{host}:{port}"),
            Mode::Services => "its services, by their own tokens".to_owned(),
            Mode::Command(_) => "the agents of this machine".to_owned(),
        },
    }
}

/// The service of all names that have none of their own.
fn main_service(host: &str, port: u16, config: &Config) -> Forward {
    let service = LocalService::new(host, port).with_proxy_protocol(config.proxy_protocol);
    Forward::new(service.with_tls(config.ends_tls))
}

/// Adds the services that have names of their own, and the gate in front of all.
fn with_services(forward: Forward, config: &Config) -> Forward {
    let services = config.services.iter();
    services
        .fold(forward, |forward, s| {
            let service = LocalService::new(s.host.as_str(), s.port).with_proxy_protocol(s.proxy_protocol);
            forward.with_service(s.token.clone(), service.with_tls(s.ends_tls))
        })
        .with_gate(config.gate.clone())
}

/// So that scripts find the client id.
fn write_card(config: &Config) {
    let written = match directories::BaseDirs::new() {
        Some(dirs) => identity::write_card(dirs.home_dir(), &config.client_id),
        None => Ok(()),
    };
    if let Err(e) = written {
        tracing::warn!("scripts will not find the client id: {e}");
    }
}

/// What runs beside the link: tokens expire, and can be changed by `arpc tokens`.
async fn local(config: Arc<Config>, names: Arc<Names>, standing: Arc<Standing>, stop: CancellationToken) {
    let socket = tokens::local::serve(
        &config.data_dir,
        &config.client_id,
        names.clone(),
        standing,
        stop.clone(),
    );
    let socket = async {
        if let Err(e) = socket.await {
            tracing::warn!("`arpc tokens` and `arpc status` will not work: {e}");
        }
    };
    tokio::join!(socket, names.expire(stop));
}

/// Logs to the terminal and to a daily file; where no file can be had, says so and goes on.
fn start_logging(format: LogFormat) -> anyhow::Result<Option<impl Drop>> {
    let dirs = directories::BaseDirs::new().map(|d| d.data_local_dir().join("arpc").join("logs"));
    let fallback = PathBuf::from("arpc/logs");
    for dir in dirs.iter().chain([&fallback]) {
        if let Ok(guard) = logging::init(format, Some((dir, "arpc.log"))) {
            return Ok(guard);
        }
    }
    let guard = logging::init(format, None).context("cannot start logging")?;
    let tried: Vec<&Path> = dirs
        .iter()
        .map(PathBuf::as_path)
        .chain([fallback.as_path()])
        .collect();
    tracing::warn!("cannot write log files in {tried:?}; logging to the terminal alone");
    Ok(guard)
}
