<<<<<<< HEAD
//! arpc, the edge agent of arp.
//! Parses, wires and runs.

use arp_sessions::Leaving;
use arpc::command::{CommandConfig, CommandMode};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The edge agent of arp: command mode on a loopback listener.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Args {
    #[command(subcommand)]
    command: Option<arpc::cli::Command>,
    /// Serve the API on this loopback address, without a relay.
    #[arg(long, default_value = "127.0.0.1:9020")]
    listen: SocketAddr,
    /// The token that visitors have to give.
    #[arg(long, default_value = "local")]
    client_id: String,
    /// Where sessions are kept.
    #[arg(long, env = "ARPC_DATA_DIR", default_value = "./arpc-data")]
    data_dir: PathBuf,
    /// Allow sessions that ask nothing.
    #[arg(long)]
    allow_bypass: bool,
    /// Where an agent is, as `executor=path`.
    #[arg(long)]
    agent_path: Vec<String>,
    /// Ports that may be reached by /proxy.
    #[arg(long, value_delimiter = ',')]
    proxy_ports: Vec<u16>,
    /// Start the MCP server.
    #[arg(long)]
    enable_mcp: bool,
    /// Port of the MCP server.
    #[arg(long, default_value_t = 9021)]
    mcp_port: u16,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(command) = args.command {
        return command.run(&args.data_dir);
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("arpc cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(serve(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
=======
//! arpc: parses, wires and runs.

use anyhow::Context;
use arp_common::logging;
use arp_common::settings::{ConfigError, EXIT_USAGE};
use arpc::banner;
use arpc::config::{Cli, Config, Mode, Settings};
use arpc::forward::Forward;
use arpc::link::{Handler, Link};
use clap::Parser;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match start(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("arpc: {e:#}");
            if e.is::<ConfigError>() {
                ExitCode::from(EXIT_USAGE)
            } else {
                ExitCode::FAILURE
            }
>>>>>>> agents
        }
    }
}

<<<<<<< HEAD
async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = CommandConfig::new(std::path::absolute(args.data_dir)?, args.client_id.clone());
    config.listen = Some(args.listen);
    config.allow_bypass = args.allow_bypass;
    config.proxy_ports = args.proxy_ports;
    config.mcp = args
        .enable_mcp
        .then_some(arpc::command::McpConfig { port: args.mcp_port });
    for pair in &args.agent_path {
        let (executor, path) = pair.split_once('=').ok_or("--agent-path is executor=path")?;
        config
            .agent_paths
            .insert(executor.to_owned(), PathBuf::from(path));
    }
    let mode = CommandMode::start(config).await?;
    if let Some(at) = mode.listening() {
        println!("http://{at}/?token={}", args.client_id);
    }
    stop_signal().await?;
    mode.shutdown(Leaving::Park).await;
    Ok(())
}

#[cfg(unix)]
async fn stop_signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed,
    }
}

#[cfg(not(unix))]
async fn stop_signal() -> std::io::Result<()> {
    tokio::signal::ctrl_c().await
=======
fn start(cli: Cli) -> anyhow::Result<()> {
    let file = match &cli.config {
        Some(path) => Settings::from_file(path)?,
        None => Settings::default(),
    };
    let config = Arc::new(Config::new(cli.settings.or(file))?);
    if cli.check_config {
        println!("arpc: the configuration is good");
        return Ok(());
    }
    let _guard = start_logging()?;
    arp_common::net::raise_file_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let stop = arp_common::shutdown::on_signal()?;
        banner::hello(&config);
        let handler = match &config.mode {
            Mode::Tcp { host, port } => Handler::Tcp(Forward::new(host, *port)),
            Mode::Command => anyhow::bail!("command mode is not part of this build"),
        };
        let mut first = true;
        let link = Link::new(config.clone(), Arc::new(handler));
        link.run(stop, |public| {
            if std::mem::take(&mut first) {
                banner::registered(&config, public, !cli.no_qr);
            } else {
                tracing::info!("registered again with the relay");
            }
        })
        .await?;
        Ok(())
    })
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
>>>>>>> agents
}
