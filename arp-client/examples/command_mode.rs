//! Command mode by itself, without a relay: the API on a loopback listener, and the subcommands.
//!
//! The black-box tests run this; `cargo run --example command_mode` is the quickest way to try the API.

use arp_sessions::Leaving;
use arpc::command::{CommandConfig, CommandMode};
use clap::Parser;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

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
    /// The binary of an agent, or a directory of such.
    #[arg(long)]
    command_path: Option<PathBuf>,
    /// Where an agent is, as `executor=path`.
    #[arg(long)]
    agent_path: Vec<String>,
    /// Ports that may be reached by /proxy.
    #[arg(long, value_delimiter = ',')]
    proxy_ports: Vec<u16>,
    /// A second secret that every request needs.
    #[arg(long)]
    edge_key: Option<String>,
    /// Origins of other sites whose pages may use the API.
    #[arg(long, value_delimiter = ',')]
    allowed_origins: Vec<String>,
    /// Serve files.
    #[arg(long)]
    enable_fs: bool,
    /// Directories that may be served.
    #[arg(long)]
    fs_root: Vec<PathBuf>,
    /// An approval that nobody answers is denied after this many seconds.
    #[arg(long)]
    approval_timeout: Option<u64>,
    /// An idle session is parked after this many seconds.
    #[arg(long)]
    park_after: Option<u64>,
    /// Agents that may be alive at once.
    #[arg(long)]
    max_live: Option<usize>,
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
        return command.run(&args.data_dir, &args.client_id);
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
        }
    }
}

async fn serve(args: Args) -> Result<(), Box<dyn std::error::Error>> {
    let mut config = CommandConfig::new(std::path::absolute(args.data_dir)?, args.client_id.clone());
    config.listen = Some(args.listen);
    config.allow_bypass = args.allow_bypass;
    config.proxy_ports = args.proxy_ports;
    config.command_path = args.command_path;
    config.edge_key = args.edge_key;
    config.allowed_origins = args.allowed_origins;
    config.enable_fs = args.enable_fs;
    config.fs_roots = args.fs_root;
    if let Some(seconds) = args.approval_timeout {
        config.approval_timeout = Some(Duration::from_secs(seconds));
    }
    if let Some(seconds) = args.park_after {
        config.park_after = Some(Duration::from_secs(seconds));
    }
    if let Some(most) = args.max_live {
        config.max_live = most;
    }
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
    if let Some(at) = mode.mcp() {
        println!("http://{at}/mcp");
    }
    let leaving = tokio::select! {
        leaving = mode.asked_to_stop() => leaving,
        stopped = stop_signal() => {
            stopped?;
            Leaving::RunOn
        }
    };
    mode.shutdown(leaving).await;
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
}
