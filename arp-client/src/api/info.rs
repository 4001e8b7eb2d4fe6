//! `/api/health` and `/api/info`: is it up, and what is there.

use super::request::{Call, MAX_BODY};
use super::{Answer, State, ok};
use crate::command::{AgentState, Via};
use arp_agents::driver::PermissionMode;
use arp_sessions::AgentSource;
use serde_json::{Value, json};
use std::sync::Arc;

const VERSION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn health(state: &Arc<State>) -> Answer {
    ok(&json!({
        "type": "health",
        "status": "ok",
        "version": VERSION,
        "uptime_secs": state.started.elapsed().as_secs(),
        "live_sessions": state.sessions.live(),
    }))
}

pub(super) async fn info(state: &Arc<State>, call: &Call) -> Answer {
    let config = &state.config;
    // Where the client id is a token it never ends, and is not for those whose own token does.
    let (_, id_token) = state.names.current();
    let client_id = (!id_token || call.peer.via == Via::Local).then_some(&config.client_id);
    let agents: Vec<Value> = state
        .agents
        .all()
        .await
        .iter()
        .map(|agent| agent_json(agent, config.allow_bypass))
        .collect();
    ok(&json!({
        "type": "info",
        "version": VERSION,
        "host_name": host_name(),
        "os": std::env::consts::OS,
        "arch": std::env::consts::ARCH,
        "edge_id": state.edge_id,
        "client_id": client_id,
        "home_dir": std::env::home_dir(),
        "agents": agents,
        "fs_enabled": config.enable_fs,
        "mcp_enabled": config.mcp.is_some(),
        "allow_bypass": config.allow_bypass,
        "edge_key_required": config.edge_key.is_some(),
        "proxy_ports": config.proxy_ports,
        "gateway": state.gateway.is_some(),
        "tunnel": state.tunnel.get().map(|view| crate::tunnel::report::public(&view.borrow())),
        "defaults": {
            "executor": state.agents.default_executor(),
            "project_path": config.default_path,
            "permission_mode": PermissionMode::Default,
        },
        "limits": {
            "max_live_sessions": config.max_live,
            "max_body_bytes": MAX_BODY,
            "approval_timeout_secs": config.approval_timeout.map(|timeout| timeout.as_secs()),
            "park_after_secs": config.park_after.map(|after| after.as_secs()),
        },
    }))
}

fn agent_json(state: &AgentState, allow_bypass: bool) -> Value {
    let agent = &state.agent;
    let can = agent.capabilities();
    let modes: Vec<PermissionMode> = can
        .permission_modes
        .iter()
        .copied()
        .filter(|mode| allow_bypass || *mode != PermissionMode::BypassPermissions)
        .collect();
    let found = state.found.as_ref().ok();
    json!({
        "executor": agent.id(),
        "name": agent.display_name(),
        "found": found.is_some(),
        "version": found.and_then(|found| found.version).map(|version| version.to_string()),
        "path": found.map(|found| &found.path),
        "problem": state.found.as_ref().err().map(ToString::to_string),
        "capabilities": {
            "approvals": true,
            "token_deltas": true,
            "interrupt": true,
            "model": can.model,
            "resume": can.resume,
            "resume_last": can.resume_last || can.resume,
            "fork": can.fork,
            "set_model": can.change_model,
            "set_permission_mode": can.permission_modes.len() > 1,
            "allowed_tools": can.allowed_tools,
            "edit_input": can.edit_input,
            "deny_message": can.deny_message,
            "history": matches!(agent.id(), "claude" | "codex" | "gemini"),
        },
        "permission_modes": modes,
        "models": suggested_models(agent.id()),
    })
}

/// Names that work for most; any other may be given.
fn suggested_models(executor: &str) -> &'static [&'static str] {
    match executor {
        "claude" => &["opus", "sonnet", "haiku"],
        "gemini" => &["gemini-2.5-pro", "gemini-2.5-flash"],
        _ => &[],
    }
}

fn host_name() -> Option<String> {
    #[cfg(unix)]
    let name = rustix::system::uname()
        .nodename()
        .to_str()
        .ok()
        .map(str::to_owned);
    #[cfg(not(unix))]
    let name = std::env::var("COMPUTERNAME").ok();
    name
}
