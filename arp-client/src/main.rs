//! arpc: parses, wires and runs.

use anyhow::Context;
use arp_common::logging;
use arp_common::settings::{ConfigError, EXIT_USAGE};
use arp_sessions::Leaving;
use arpc::command::CommandMode;
use arpc::config::{Cli, Config, Mode, Settings};
use arpc::forward::Forward;
use arpc::link::{Dialer, Handler, Link};
use arpc::tokens::{self, Names};
use arpc::{banner, config, identity};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("arpc: {e:#}");
            if e.is::<ConfigError>() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

fn start(cli: Cli) -> anyhow::Result<ExitCode> {
    let file = match &cli.config {
        Some(path) => Settings::from_file(path)?,
        None => Settings::default(),
    };
    let settings = cli.settings.or(file);
    if let Some(command) = cli.command {
        let id = settings.client_id.unwrap_or_else(identity::derived_client_id);
        return Ok(command.run(&config::data_dir(settings.data_dir), &id));
    }
    let config = Arc::new(Config::new(settings)?);
    if cli.check_config {
        println!("arpc: the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    let _guard = start_logging()?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        banner::hello(&config);
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
        let names = Arc::new(names);
        let mut command = None;
        let handler = match &config.mode {
            Mode::Tcp { host, port } => {
                Handler::Tcp(Forward::new(host, *port).with_gate(config.gate.clone()))
            }
            Mode::Command(settings) => {
                let mode = CommandMode::start((**settings).clone()).await?;
                command = Some(mode.clone());
                Handler::Command(mode)
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
        let mut first = true;
        let link = Link::new(config.clone(), dialer, names.clone(), Arc::new(handler));
        let side = stop.child_token();
        let local = tokio::spawn(local(config.clone(), names.clone(), side.clone()));
        let served = link
            .run(stop, |public| {
                if std::mem::take(&mut first) {
                    banner::registered(&config, &names, public, !cli.no_qr);
                } else {
                    tracing::info!("registered again with the relay");
                }
            })
            .await;
        side.cancel();
        let _ = local.await;
        if let Some(mode) = command {
            // A signal ends arpc alone: its sessions run on, and the next one finds them.
            let leaving = leaving.get().copied().unwrap_or(Leaving::RunOn);
            mode.shutdown(leaving).await;
        }
        served?;
        Ok(ExitCode::SUCCESS)
    })
}

/// What runs beside the link: tokens expire, and can be changed by `arpc tokens`.
async fn local(config: Arc<Config>, names: Arc<Names>, stop: CancellationToken) {
    let socket = tokens::local::serve(&config.data_dir, &config.client_id, names.clone(), stop.clone());
    let socket = async {
        if let Err(e) = socket.await {
            tracing::warn!("`arpc tokens` will not work: {e}");
        }
    };
    tokio::join!(socket, names.expire(stop));
}

/// Logs to the terminal and to a daily file; where no file can be had, says so and goes on.
fn start_logging() -> anyhow::Result<Option<impl Drop>> {
    let dirs = directories::BaseDirs::new().map(|d| d.data_local_dir().join("arpc").join("logs"));
    let fallback = PathBuf::from("arpc/logs");
    for dir in dirs.iter().chain([&fallback]) {
        if let Ok(guard) = logging::init(Some((dir, "arpc.log"))) {
            return Ok(guard);
        }
    }
    let guard = logging::init(None).context("cannot start logging")?;
    let tried: Vec<&Path> = dirs
        .iter()
        .map(PathBuf::as_path)
        .chain([fallback.as_path()])
        .collect();
    tracing::warn!("cannot write log files in {tried:?}; logging to the terminal alone");
    Ok(guard)
}
