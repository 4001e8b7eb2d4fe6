//! `setup` and `import`: the agents' own settings.

use super::{Failure, Output, told};
use arp_gateway::files::upstreams::{Change, change};
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::process;
use arp_gateway::service::Service;
use arp_gateway::setup::{self, Edit, Folders, import::candidates};
use serde_json::{Value, json};
use std::net::{Ipv4Addr, SocketAddr};

/// Where the gateway is for an agent of this machine: where it runs, else where it would.
fn address(home: &Home, service: Service) -> Result<SocketAddr, Failure> {
    let running = process::running(home).map_err(told)?;
    let mut address = running.map_or_else(
        || SocketAddr::from((Ipv4Addr::LOCALHOST, service.default_port())),
        |running| running.address(service),
    );
    if address.ip().is_unspecified() {
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(address)
}

pub(super) fn setup(
    home: &Home,
    agent: Service,
    undo: bool,
    dry_run: bool,
    output: Output,
) -> Result<(), Failure> {
    let folders = Folders::of_user()?;
    let edits = if undo {
        setup::undo(agent, &folders)
    } else {
        setup::plan(agent, &folders, address(home, agent)?)
    };
    let edits = edits.map_err(told)?;
    if !output.json {
        for edit in &edits {
            print!("{}", difference(edit));
        }
    }
    if !dry_run {
        setup::apply(&edits, undo).map_err(told)?;
    }
    let files: Vec<Value> = edits
        .iter()
        .map(|edit| json!({"file": edit.path, "backup": setup::backup_of(&edit.path)}))
        .collect();
    let words = match (edits.is_empty(), dry_run, undo) {
        (true, _, false) => format!("{agent} goes through the gateway already; nothing was changed"),
        (true, _, true) => format!("{agent} does not go through the gateway; nothing was changed"),
        (false, true, _) => "nothing was changed (--dry-run)".to_owned(),
        (false, false, false) => format!(
            "{agent} goes through the gateway from its next start; the files as they were are kept beside them \
             (….before-gateway); arpc gateway setup {agent} --undo takes it back"
        ),
        (false, false, true) => format!("{agent} is as it was before the gateway"),
    };
    output.say(words, || {
        json!({"agent": agent.name(), "undo": undo, "changed": !dry_run && !edits.is_empty(), "files": files})
    });
    if !undo && !output.json && Live::new(home.clone()).snapshot(agent).upstreams.list.is_empty() {
        eprintln!(
            "The gateway has no upstream for {agent} yet: arpc gateway import takes over what {agent} used before, \
             arpc gateway add {agent} NAME --base-url https://… adds one."
        );
    }
    Ok(())
}

/// A file's change, as `diff -u` shows it. Lines that hold keys show that there is one.
fn difference(edit: &Edit) -> String {
    let (before, after) = (
        edit.before.as_deref().unwrap_or_default(),
        edit.after.as_deref().unwrap_or_default(),
    );
    let mut out = format!("{}:\n", edit.path.display());
    for change in similar::TextDiff::from_lines(before, after).iter_all_changes() {
        let sign = match change.tag() {
            similar::ChangeTag::Equal => continue,
            similar::ChangeTag::Delete => '-',
            similar::ChangeTag::Insert => '+',
        };
        out.push_str(&format!("  {sign} {}\n", hidden(change.value().trim_end())));
    }
    out
}

/// The line, with what stands behind a key's name hidden.
fn hidden(line: &str) -> String {
    let upper = line.to_uppercase();
    let named = ["TOKEN", "API_KEY", "SECRET"]
        .iter()
        .filter_map(|name| upper.find(name))
        .min();
    let Some(at) = named else { return line.to_owned() };
    match line.get(at..).and_then(|rest| rest.find([':', '='])) {
        Some(sign) => {
            let (head, value) = line.split_at(at + sign + 1);
            let bare = value.trim().trim_matches([',', '"', '\'', '}']);
            if bare.len() > 1 {
                format!("{head} …")
            } else {
                line.to_owned()
            }
        }
        None => line.to_owned(),
    }
}

pub(super) fn import(home: &Home, dry_run: bool, output: Output) -> Result<(), Failure> {
    let found = candidates(&Folders::of_user()?);
    let live = Live::new(home.clone());
    let mut all = Vec::new();
    for candidate in &found {
        let service = candidate.service;
        let upstreams = live.snapshot(service).upstreams;
        let url = arp_gateway::files::upstreams::base_url(&candidate.base_url).map_err(Failure)?;
        let known = upstreams.list.iter().any(|upstream| {
            upstream.base_url == url
                && upstream.auth_token == candidate.auth_token
                && upstream.api_key == candidate.api_key
        });
        // Another one of this name is not replaced.
        let name = match upstreams.get(&candidate.name) {
            Some(_) if !known => format!("{} (imported)", candidate.name),
            _ => candidate.name.clone(),
        };
        if !known && !dry_run {
            let path = home.upstreams(service);
            let put = Change::Put {
                name: &name,
                base_url: Some(&candidate.base_url),
                auth_token: candidate.auth_token.as_ref().map(|key| key.expose()),
                api_key: candidate.api_key.as_ref().map(|key| key.expose()),
                weight: None,
            };
            change(&path, &put).map_err(told)?;
            if candidate.active && upstreams.list.is_empty() {
                change(&path, &Change::Activate(&name)).map_err(told)?;
            }
        }
        if !output.json {
            let word = if known { "is there already" } else { "is new" };
            println!("{service} {name}: {} {word}", candidate.base_url);
        }
        all.push(
            json!({"service": service.name(), "name": name, "base_url": candidate.base_url, "new": !known}),
        );
    }
    if output.json {
        println!("{}", json!({"upstreams": all, "written": !dry_run}));
    } else if found.is_empty() {
        println!(
            "nothing to take over: neither Claude Code's settings.json nor Codex' config.toml and auth.json nor Gemini \
             CLI's .env has an upstream with a key"
        );
    } else if dry_run {
        println!("nothing was written (--dry-run)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_shown_without_keys() {
        let edit = Edit {
            path: "/x/settings.json".into(),
            before: Some("{\n  \"ANTHROPIC_AUTH_TOKEN\": \"sk-secret\",\n  \"a\": 1\n}\n".into()),
            after: Some("{\n  \"ANTHROPIC_AUTH_TOKEN\": \"-\",\n  \"a\": 1\n}\n".into()),
        };
        let shown = difference(&edit);
        assert!(
            !shown.contains("sk-secret") && shown.contains("+   \"ANTHROPIC_AUTH_TOKEN\": \"-\","),
            "{shown}"
        );
        assert!(!shown.contains("\"a\""), "{shown}");
    }
}
