//! `doctor`: what is wrong, and what to do about it.

use super::{Failure, Output, told};
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::process;
use arp_gateway::service::Service;
use arp_gateway::setup::{self, Folders};
use serde_json::{Value, json};

/// One thing that was looked at.
struct Check {
    what: String,
    /// Nothing is wrong with it.
    ok: bool,
    message: String,
}

fn check(what: impl Into<String>, ok: bool, message: impl Into<String>) -> Check {
    Check {
        what: what.into(),
        ok,
        message: message.into(),
    }
}

pub(super) fn run(home: &Home, output: Output) -> Result<(), Failure> {
    let mut all = Vec::new();
    let running = process::running(home).map_err(told)?;
    all.push(match &running {
        Some(running) => check("gateway", true, format!("runs (process {})", running.pid)),
        None => check("gateway", false, "does not run; `arpc gateway start` starts it"),
    });
    let live = Live::new(home.clone());
    let faults = live.faults();
    if faults.is_empty() {
        all.push(check(
            "files",
            true,
            format!("all files in {} can be used", home.path().display()),
        ));
    }
    all.extend(faults.into_iter().map(|fault| check("files", false, fault)));
    let folders = Folders::of_user()?;
    for service in Service::ALL {
        let snapshot = live.snapshot(service);
        let upstreams = &snapshot.upstreams.list;
        let goes = setup::is_set(service, &folders);
        let what = service.name();
        match (goes, upstreams.is_empty()) {
            (true, true) => all.push(check(
                what,
                false,
                format!("goes through the gateway, which has no upstream for it: arpc gateway add {service} NAME …"),
            )),
            (true, false) => all.push(check(what, true, "goes through the gateway")),
            (false, _) => all.push(check(
                what,
                true,
                format!("is not set to go through the gateway (arpc gateway setup {service})"),
            )),
        }
        for upstream in upstreams {
            let what = format!("{service} {}", upstream.name);
            let url = &upstream.base_url;
            let host = url.host_str().unwrap_or_default();
            let here = host == "localhost"
                || host
                    .trim_matches(['[', ']'])
                    .parse()
                    .is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
            let ours = running.as_ref().is_some_and(|r| {
                Service::ALL
                    .into_iter()
                    .any(|s| Some(r.address(s).port()) == url.port_or_known_default())
            });
            if here && ours {
                all.push(check(
                    &what,
                    false,
                    "its base_url leads back to the gateway itself",
                ));
            } else if url.scheme() == "http" && !here {
                all.push(check(
                    &what,
                    false,
                    format!("{url} is not encrypted: everybody on the way reads its key"),
                ));
            }
            if upstream.auth_token.is_none() && upstream.api_key.is_none() && !here {
                all.push(check(
                    &what,
                    false,
                    "it has no key; set one with arpc gateway add",
                ));
            }
        }
        permissions(&home.upstreams(service), &mut all);
    }
    variables(&mut all);
    let good = all.iter().all(|check| check.ok);
    if output.json {
        let all: Vec<Value> = all
            .iter()
            .map(|c| json!({"check": c.what, "ok": c.ok, "message": c.message}))
            .collect();
        println!("{}", json!({"ok": good, "checks": all}));
    } else {
        for check in &all {
            println!(
                "{} {:<10} {}",
                if check.ok { "ok   " } else { "WRONG" },
                check.what,
                check.message
            );
        }
    }
    if good {
        Ok(())
    } else {
        Err(Failure("something is wrong; see above".to_owned()))
    }
}

/// Keys are for their owner only.
fn permissions(path: &std::path::Path, all: &mut Vec<Check>) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        if let Ok(meta) = path.metadata()
            && meta.permissions().mode() & 0o077 != 0
        {
            let message = format!("{} can be read by others: chmod 600 it", path.display());
            all.push(check("files", false, message));
        }
    }
    #[cfg(not(unix))]
    let _ = (path, all);
}

/// Variables of this shell that get in the way.
fn variables(all: &mut Vec<Check>) {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let proxy = [
        "HTTP_PROXY",
        "http_proxy",
        "HTTPS_PROXY",
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
    ];
    let past = ["NO_PROXY", "no_proxy"]
        .iter()
        .filter_map(|name| set(name))
        .any(|value| {
            value
                .split(',')
                .any(|host| matches!(host.trim(), "*" | "localhost" | "127.0.0.1"))
        });
    if let Some(name) = proxy.iter().find(|name| set(name).is_some())
        && !past
    {
        let message = format!(
            "{name} is set and sends the agents' requests to this machine elsewhere: NO_PROXY=127.0.0.1,localhost"
        );
        all.push(check("variables", false, message));
    }
    for name in ["ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL"] {
        if set(name).is_some() {
            let message = format!(
                "{name} is set in this shell; Claude Code's settings.json goes before it where it says the same"
            );
            all.push(check("variables", true, message));
        }
    }
}
