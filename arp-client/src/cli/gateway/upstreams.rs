//! Upstreams from the command line.

use super::{Failure, Output, told};
use arp_gateway::api::probe;
use arp_gateway::clients::Clients;
use arp_gateway::files::upstreams::{Change, change};
use arp_gateway::home::Home;
use arp_gateway::live::Live;
use arp_gateway::names;
use arp_gateway::service::Service;
use arp_gateway::usage::prices;
use arp_gateway::usage::store::Usage;
use clap::Args;
use serde_json::{Value, json};

/// An upstream, or what is to change of one.
#[derive(Debug, Args)]
pub struct Add {
    /// claude, codex or gemini.
    service: Service,
    /// Its name.
    name: String,
    /// Where it is, for example https://api.anthropic.com
    #[arg(long)]
    base_url: Option<String>,
    /// Key that is sent as `Authorization: Bearer`. Read from the variable CLP_TOKEN where that is set, so that it
    /// does not stand in the shell's history.
    #[arg(long, env = "CLP_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Key that is sent as `x-api-key` (Gemini: `x-goog-api-key`).
    #[arg(long, env = "CLP_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Its place in the order: the highest is asked first.
    #[arg(long)]
    weight: Option<f64>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn add(home: &Home, add: &Add) -> Result<(), Failure> {
    let put = Change::Put {
        name: &add.name,
        base_url: add.base_url.as_deref(),
        auth_token: add.token.as_deref(),
        api_key: add.api_key.as_deref(),
        weight: add.weight,
    };
    let path = home.upstreams(add.service);
    change(&path, &put).map_err(told)?;
    let words = format!("{} is in {}", add.name, path.display());
    add.output.say(
        words,
        || json!({"service": add.service.name(), "name": add.name, "file": path}),
    );
    Ok(())
}

pub(super) fn activate(home: &Home, service: Service, name: &str, output: Output) -> Result<(), Failure> {
    change(&home.upstreams(service), &Change::Activate(name)).map_err(told)?;
    output.say(
        format!("{service} uses {name} from the next request on"),
        || json!({"service": service.name(), "active": name}),
    );
    Ok(())
}

pub(super) fn rename(
    home: &Home,
    service: Service,
    from: &str,
    to: &str,
    output: Output,
) -> Result<(), Failure> {
    let to = to.trim();
    change(&home.upstreams(service), &Change::Rename { from, to }).map_err(told)?;
    names::carry(home, service, from, Some(to)).map_err(told)?;
    if home.usage().exists() {
        let (usage, _) = Usage::open(&home.usage()).map_err(told)?;
        usage.rename(service, from, to);
        usage.flush();
    }
    output.say(
        format!("{from} is called {to} now"),
        || json!({"service": service.name(), "from": from, "name": to}),
    );
    Ok(())
}

pub(super) fn remove(home: &Home, service: Service, name: &str, output: Output) -> Result<(), Failure> {
    change(&home.upstreams(service), &Change::Remove(name)).map_err(told)?;
    names::carry(home, service, name, None).map_err(told)?;
    output.say(
        format!("{name} is out"),
        || json!({"service": service.name(), "removed": name}),
    );
    Ok(())
}

pub(super) fn list(home: &Home, service: Option<Service>, output: Output) -> Result<(), Failure> {
    let services = service.map_or_else(|| Service::ALL.to_vec(), |service| vec![service]);
    let live = Live::new(home.clone());
    let mut all = Vec::new();
    for service in services {
        let upstreams = live.snapshot(service).upstreams;
        let active = upstreams.active().map(|u| u.name.clone());
        if !output.json {
            println!("{service}:");
            if upstreams.list.is_empty() {
                println!("  none; add one: arpc gateway add {service} NAME --base-url https://…");
            }
        }
        for upstream in &upstreams.list {
            let is_active = active.as_ref() == Some(&upstream.name);
            let url = upstream.base_url.as_str().trim_end_matches('/');
            if output.json {
                all.push(json!({
                    "service": service.name(), "name": &*upstream.name, "base_url": url, "weight": upstream.weight,
                    "active": is_active, "has_token": upstream.auth_token.is_some(),
                    "has_key": upstream.api_key.is_some(),
                }));
            } else {
                let mark = if is_active { '*' } else { ' ' };
                println!("{mark} {:<20} {url}  weight {}", upstream.name, upstream.weight);
            }
        }
    }
    if output.json {
        println!("{}", Value::from(all));
    }
    for fault in live.faults() {
        eprintln!("fault: {fault}");
    }
    Ok(())
}

pub(super) fn test(
    home: &Home,
    name: &str,
    service: Option<Service>,
    model: Option<&str>,
    output: Output,
) -> Result<(), Failure> {
    let live = Live::new(home.clone());
    let services = Service::ALL
        .into_iter()
        .filter(|s| service.is_none_or(|wanted| wanted == *s));
    let found: Vec<_> = services
        .filter_map(|service| {
            let snapshot = live.snapshot(service);
            let upstream = snapshot.upstreams.get(name)?.clone();
            Some((
                service,
                upstream,
                snapshot.settings.network(service, name).clone(),
            ))
        })
        .collect();
    if found.is_empty() {
        return Err(Failure(format!(
            "there is no upstream {name:?}; `arpc gateway list` says which there are"
        )));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let clients = Clients::default();
    let mut all = Vec::new();
    let mut good = true;
    for (service, upstream, network) in found {
        let tested = runtime.block_on(probe::test(&clients, service, &upstream, &network, model));
        good &= tested.ok;
        if output.json {
            all.push(json!({
                "service": service.name(), "name": name, "ok": tested.ok, "status": tested.status,
                "millis": tested.millis, "model": tested.model, "message": tested.message,
            }));
        } else {
            println!(
                "{service} {name}: {} ({} ms, model {})",
                tested.message, tested.millis, tested.model
            );
        }
    }
    if output.json {
        println!("{}", Value::from(all));
    }
    if good {
        Ok(())
    } else {
        Err(Failure("the test failed".to_owned()))
    }
}

pub(super) fn prices(home: &Home, output: Output) -> Result<(), Failure> {
    let settings = Live::new(home.clone()).snapshot(Service::Claude).settings;
    let all: Vec<_> = prices::all(&settings.prices).collect();
    if output.json {
        let all: Vec<Value> = all
            .iter()
            .map(|(model, price, own)| json!({"model": model, "price": price, "own": own}))
            .collect();
        println!(
            "{}",
            json!({"dated": prices::DATED, "source": prices::SOURCE, "prices": all})
        );
        return Ok(());
    }
    println!(
        "dollars for a million tokens; {}, {}",
        prices::SOURCE,
        prices::DATED
    );
    println!(
        "{:<26} {:>8} {:>8} {:>10} {:>11}",
        "model", "input", "output", "cache read", "cache write"
    );
    for (model, price, own) in all {
        let read = price.cache_read.unwrap_or(price.input / 10.0);
        let write = price.cache_write.unwrap_or(price.input);
        let mark = if own { "  yours" } else { "" };
        println!(
            "{model:<26} {:>8} {:>8} {read:>10} {write:>11}{mark}",
            price.input, price.output
        );
    }
    println!(
        "\nYour own go before, in {}:",
        super::Home::settings(home).display()
    );
    println!("  [price.\"glm-*\"]\n  input = 0.6\n  output = 2.2");
    Ok(())
}
