//! The settings that only command mode has: from flags, environment and file to a [`CommandConfig`].

use crate::command::{CommandConfig, McpConfig};
use crate::defaults as d;
use crate::settings::{self, Settings};
use arp_common::ids::ClientId;
use std::path::PathBuf;
use std::time::Duration;

/// Names of the flags for command mode that were given.
pub(crate) fn given(s: &Settings) -> impl Iterator<Item = &'static str> {
    let on = |flag: Option<bool>| flag == Some(true);
    [
        ("command-path", s.command_path.is_some()),
        ("agent-path", s.agent_path.is_some()),
        ("enable-mcp", on(s.enable_mcp)),
        ("mcp-port", s.mcp_port.is_some()),
        ("gateway", on(s.gateway)),
        ("enable-fs", on(s.enable_fs)),
        ("fs-root", s.fs_root.is_some()),
        ("proxy-ports", s.proxy_ports.is_some()),
        ("allow-bypass", on(s.allow_bypass)),
        ("listen", s.listen.is_some()),
    ]
    .into_iter()
    .filter(|(_, given)| *given)
    .map(|(name, _)| name)
}

/// Reads the settings of command mode. Faults are added to `faults`; `None` if there are any.
pub(crate) fn read(s: &Settings, id: &ClientId, faults: &mut Vec<String>) -> Option<CommandConfig> {
    let before = faults.len();
    let data_dir = settings::data_dir(s.data_dir.clone());
    let data_dir = std::path::absolute(&data_dir).unwrap_or(data_dir);
    let mut config = CommandConfig::new(data_dir, id.as_str().to_owned());
    config.edge_key = s.edge_key.clone();
    config.listen = s.listen;
    config.allowed_hosts = s.allowed_host.clone().unwrap_or_default();
    config.allowed_origins = s.allowed_origin.clone().unwrap_or_default();
    config.allow_bypass = s.allow_bypass.unwrap_or(false);
    config.gateway = s.gateway.unwrap_or(false);
    config.enable_fs = s.enable_fs.unwrap_or(false);
    config.fs_roots = s.fs_root.clone().unwrap_or_default();
    if !config.fs_roots.is_empty() && !config.enable_fs {
        faults.push("--fs-root only goes with --enable-fs".into());
    }
    config.proxy_ports = s.proxy_ports.clone().unwrap_or_default();
    let mcp_port = s.mcp_port.unwrap_or(d::MCP_PORT);
    config.mcp = s
        .enable_mcp
        .unwrap_or(false)
        .then_some(McpConfig { port: mcp_port });
    if s.mcp_port.is_some() && config.mcp.is_none() {
        faults.push("--mcp-port only goes with --enable-mcp".into());
    }
    if let Some(path) = &s.command_path {
        config.agent_paths.insert("claude".into(), path.clone());
    }
    for pair in s.agent_path.iter().flatten() {
        match pair.split_once('=') {
            Some((executor, path)) if !executor.is_empty() && !path.is_empty() => {
                config
                    .agent_paths
                    .insert(executor.to_lowercase(), PathBuf::from(path));
            }
            _ => faults.push(format!(
                "--agent-path {pair}: write it as EXECUTOR=FILE, such as codex=/opt/codex"
            )),
        }
    }
    for (executor, path) in &config.agent_paths {
        if !path.is_file() {
            faults.push(format!(
                "the program of {executor} is not at {}: check --command-path, --agent-path",
                path.display()
            ));
        }
    }
    config.acp_agents = s.acp.clone().unwrap_or_default();
    config.default_executor = s.default_executor.clone();
    match s.max_sessions {
        Some(0) => faults.push("--max-sessions must be at least 1".into()),
        Some(n) => config.max_live = n,
        None => {}
    }
    let seconds = |given: Option<u64>, default: Option<Duration>| match given {
        Some(0) => None,
        Some(secs) => Some(Duration::from_secs(secs)),
        None => default,
    };
    config.approval_timeout = seconds(s.approval_timeout, config.approval_timeout);
    config.park_after = seconds(s.park_after, config.park_after);
    match s.keep_days {
        Some(0) => config.keep_for = Duration::MAX,
        Some(days) => config.keep_for = Duration::from_secs(days.saturating_mul(24 * 3600)),
        None => {}
    }
    if let Some(gb) = s.keep_gb {
        config.keep_bytes = gb.saturating_mul(1 << 30);
    }
    if let Err(wrong) = config.check() {
        faults.extend(wrong.lines().map(str::to_owned));
    }
    (faults.len() == before).then_some(config)
}
