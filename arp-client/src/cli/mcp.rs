//! `arpc mcp`: the daemon's MCP server on standard input and output.

use super::Failure;
use crate::mcp::{Caller, socket, token_file};
use arp_sessions::ipc;
use clap::Args;
use serde_json::json;
use std::path::Path;
use tokio::io::AsyncWriteExt;

/// Options of `arpc mcp`.
#[derive(Debug, Args)]
pub struct Options {
    /// Print a configuration for `claude --mcp-config`, and end. With a port: for the HTTP server there.
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "0")]
    print_config: Option<u16>,
}

pub(super) async fn run(options: &Options, data_dir: &Path) -> Result<(), Failure> {
    if let Some(port) = options.print_config {
        return print_config(port, data_dir);
    }
    let stream = ipc::connect(&socket(data_dir)).await.map_err(|error| {
        Failure(format!(
            "no arpc runs with this data directory and --enable-mcp ({error}); start it with \
             `arpc --command-mode --enable-mcp`"
        ))
    })?;
    let (mut from, mut to) = tokio::io::split(stream);
    // Claude tells its MCP servers which session they serve.
    let variable = |name: &str| std::env::var(name).ok();
    let caller = Caller {
        executor: None,
        session: variable("CLAUDE_CODE_SESSION_ID"),
        project: variable("CLAUDE_PROJECT_DIR"),
        proven: None,
    };
    to.write_all(format!("{}\n", serde_json::to_string(&caller)?).as_bytes())
        .await?;
    let (mut input, mut output) = (tokio::io::stdin(), tokio::io::stdout());
    let up = async {
        tokio::io::copy(&mut input, &mut to).await?;
        to.shutdown().await
    };
    let down = tokio::io::copy(&mut from, &mut output);
    // The daemon's end is the end; the agent's end lets what is under way finish.
    tokio::pin!(up, down);
    let mut open = true;
    loop {
        tokio::select! {
            ended = &mut up, if open => {
                ended?;
                open = false;
            }
            ended = &mut down => {
                ended?;
                return Ok(());
            }
        }
    }
}

fn print_config(port: u16, data_dir: &Path) -> Result<(), Failure> {
    let server = if port == 0 {
        let program = std::env::current_exe()?;
        json!({"command": program, "args": ["mcp"], "env": {"ARPC_DATA_DIR": data_dir}})
    } else {
        let file = token_file(data_dir);
        let token = std::fs::read_to_string(&file).map_err(|error| {
            Failure(format!(
                "there is no token in {} yet ({error}); start arpc with --enable-mcp",
                file.display()
            ))
        })?;
        json!({
            "type": "http",
            "url": format!("http://127.0.0.1:{port}/mcp"),
            "headers": {"Authorization": format!("Bearer {}", token.trim())},
            "timeout": 3_600_000,
        })
    };
    println!("{}", json!({"mcpServers": {"arp": server}}));
    eprintln!("Use it with: claude --mcp-config FILE --permission-prompt-tool mcp__arp__approval_prompt");
    Ok(())
}
