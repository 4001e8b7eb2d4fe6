//! An upstream that gets another name, or is taken out: what other files say of it follows.

use crate::files::object::Object;
use crate::files::{self, FileError, balance};
use crate::home::Home;
use crate::service::Service;
use crate::settings;
use serde_json::Value;
use serde_json::value::RawValue;

/// Writes `to` where other files say `from`; without `to`, what they say of it is taken out.
///
/// # Errors
/// When a file cannot be used as it is; it is left alone then.
pub fn carry(home: &Home, service: Service, from: &str, to: Option<&str>) -> Result<(), FileError> {
    in_balance(home, service, from, to)?;
    in_routes(home, service, from, to)?;
    in_settings(home, service, from, to)
}

fn in_balance(home: &Home, service: Service, from: &str, to: Option<&str>) -> Result<(), FileError> {
    let path = home.balance();
    let Some(text) = files::read(&path)?.filter(|text| text.contains(from)) else {
        return Ok(());
    };
    let text = balance::edited(&path, &text, service, |own| {
        for (new, old) in [
            ("currentFailures", "current_failures"),
            ("excludedTimestamps", "excluded_timestamps"),
            ("manualDisabledUntil", "manual_disabled_until"),
        ] {
            let field = balance::spelled(own, new, old);
            let Some(mut all) = own.get_as::<Object>(field) else {
                continue;
            };
            let value: Option<Box<RawValue>> = all.get_as(from);
            if let Some(value) = value {
                all.remove(from);
                if let Some(to) = to {
                    all.set(to, &value)?;
                }
                own.set(field, &all)?;
            }
        }
        let field = balance::spelled(own, "excludedConfigs", "excluded_configs");
        let Some(mut names) = own.get_as::<Vec<String>>(field) else {
            return Ok(());
        };
        if names.iter().any(|name| name == from) {
            names.retain(|name| Some(name.as_str()) != to && (to.is_some() || name != from));
            for name in &mut names {
                if let (true, Some(to)) = (name == from, to) {
                    to.clone_into(name);
                }
            }
            own.set(field, &names)?;
        }
        Ok(())
    })?;
    files::write(&path, &text)
}

fn in_routes(home: &Home, service: Service, from: &str, to: Option<&str>) -> Result<(), FileError> {
    let path = home.routes();
    let Some(text) = files::read(&path)?.filter(|text| text.contains(from)) else {
        return Ok(());
    };
    let json = |e: serde_json::Error| FileError::json(&path, &e);
    let mut file = Object::parse(&text).map_err(json)?;
    let mut changed = false;
    for (list, field) in [("configMappings", "config"), ("modelMappings", "source")] {
        let Some(mut services) = file.get_as::<Object>(list) else {
            continue;
        };
        let Some(lines) = services.get_as::<Vec<Object>>(service.name()) else {
            continue;
        };
        let mut kept = Vec::with_capacity(lines.len());
        let mut any = false;
        for mut line in lines {
            let of_upstream =
                field == "config" || line.get_as::<String>("source_type").as_deref() == Some("config");
            if of_upstream && line.get_as::<String>(field).as_deref() == Some(from) {
                any = true;
                let Some(to) = to else { continue };
                line.set(field, &to).map_err(json)?;
            }
            kept.push(line);
        }
        if any {
            services.set(service.name(), &kept).map_err(json)?;
            file.set(list, &services.to_raw(1).map_err(json)?).map_err(json)?;
            changed = true;
        }
    }
    if changed {
        files::write(&path, &(file.to_text(0) + "\n"))?;
    }
    Ok(())
}

fn in_settings(home: &Home, service: Service, from: &str, to: Option<&str>) -> Result<(), FileError> {
    let path = home.settings();
    if !files::read(&path)?.is_some_and(|text| text.contains(from)) {
        return Ok(());
    }
    settings::change(&path, |file| {
        let networks = file
            .get_mut("upstream")
            .and_then(|all| all.get_mut(service.name()))
            .and_then(toml_edit::Item::as_table_like_mut);
        if let Some(networks) = networks
            && let Some(network) = networks.remove(from)
            && let Some(to) = to
        {
            networks.insert(to, network);
        }
        let is_from = |item: Option<&toml_edit::Item>| item.and_then(toml_edit::Item::as_str) == Some(from);
        let routes = file
            .get_mut("route")
            .and_then(toml_edit::Item::as_array_of_tables_mut);
        if let Some(routes) = routes {
            for route in routes.iter_mut() {
                let fits = route
                    .get("service")
                    .is_none_or(|of| of.as_str() == Some(service.name()));
                if fits && is_from(route.get("upstream")) {
                    match to {
                        Some(to) => drop(route.insert("upstream", toml_edit::value(to))),
                        None => drop(route.remove("upstream")),
                    }
                }
            }
            // One that led there and nowhere else leads nowhere now.
            routes.retain(|route| route.contains_key("upstream") || route.contains_key("to"));
        }
        let budgets = file
            .get_mut("budget")
            .and_then(toml_edit::Item::as_array_of_tables_mut);
        if let (Some(budgets), Some(to)) = (budgets, to) {
            for budget in budgets.iter_mut() {
                let per_upstream = budget.get("per").and_then(toml_edit::Item::as_str) == Some("upstream");
                if per_upstream && is_from(budget.get("of")) {
                    budget.insert("of", toml_edit::value(to));
                }
            }
        }
        Ok(())
    })
}

/// The one upstream that only got another name between two states of a file, and that name.
#[must_use]
pub fn renamed(before: &Object, after: &Object) -> Option<(String, String)> {
    let names = |of: &Object, other: &Object| -> Vec<String> {
        of.iter()
            .filter(|(name, _)| other.get(name).is_none())
            .map(|(name, _)| name.to_owned())
            .collect()
    };
    let (gone, new) = (names(before, after), names(after, before));
    let ([gone], [new]) = (gone.as_slice(), new.as_slice()) else {
        return None;
    };
    let url = |of: &Object, name: &str| of.get_as::<Object>(name)?.get_as::<Value>("base_url");
    let same = url(before, gone)? == url(after, new)?;
    same.then(|| (gone.clone(), new.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::balance::Balance;
    use crate::files::routes::Routes;
    use crate::settings::Settings;

    #[test]
    fn every_file_follows_a_new_name_and_forgets_one_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::at(dir.path());
        home.create().unwrap();
        let lb = r#"{"mode":"weight-based","mine":1.0,"services":{
            "claude":{"currentFailures":{"a":2,"b":1},"excludedConfigs":["a","b"],"excludedTimestamps":{"a":5.5},
                      "manualDisabledUntil":{"a":"2999-01-01"}},
            "codex":{"currentFailures":{"a":7}}}}"#;
        let router = r#"{"mode":"config-mapping","x": 1.50,"modelMappings":{"claude":[
            {"source":"a","target":"m","source_type":"config"},{"source":"a","target":"n","source_type":"model"}]},
            "configMappings":{"claude":[{"model":"m1","config":"a"},{"model":"m2","config":"b"}],"codex":[{"model":"m3","config":"a"}]}}"#;
        let toml = "# mine\n[upstream.claude.a]\nproxy = \"none\"\n[[route]]\nservice = \"claude\"\nupstream = \"a\"\n\
                    [[route]]\nservice = \"codex\"\nupstream = \"a\"\n[[budget]]\nname = \"x\"\nper = \"upstream\"\nof = \"a\"\nusd = 1\n";
        std::fs::write(home.balance(), lb).unwrap();
        std::fs::write(home.routes(), router).unwrap();
        std::fs::write(home.settings(), toml).unwrap();

        let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
        carry(&home, Service::Claude, "a", Some("new")).unwrap();
        let balance = Balance::parse(&home.balance(), &read(&home.balance())).unwrap();
        let claude = balance.of(Service::Claude);
        assert_eq!(claude.disabled_until["new"], "2999-01-01");
        assert_eq!(claude.excluded["new"], 5.5);
        assert!(!claude.excluded.contains_key("a") && claude.excluded.contains_key("b"));
        assert!(
            read(&home.balance()).contains("\"mine\": 1.0") && read(&home.balance()).contains("{\"a\":7}")
        );
        let routes = read(&home.routes());
        let parsed = Routes::parse(&home.routes(), &routes).unwrap();
        assert_eq!(parsed.of(Service::Claude).upstream_for("m1"), Some("new"));
        assert_eq!(parsed.of(Service::Codex).upstream_for("m3"), Some("a"));
        assert!(
            routes.contains(r#""source":"new","target":"m""#)
                && routes.contains(r#""source":"a","target":"n""#)
        );
        let settings = Settings::parse(&home.settings(), &read(&home.settings())).unwrap();
        assert_eq!(
            settings.network(Service::Claude, "new").proxy.as_deref(),
            Some("none")
        );
        assert_eq!(
            (
                settings.route[0].upstream.as_deref(),
                settings.route[1].upstream.as_deref()
            ),
            (Some("new"), Some("a"))
        );
        assert_eq!(settings.budget[0].of.as_deref(), Some("new"));
        assert!(read(&home.settings()).starts_with("# mine\n"));

        carry(&home, Service::Claude, "new", None).unwrap();
        let balance = Balance::parse(&home.balance(), &read(&home.balance())).unwrap();
        assert!(balance.of(Service::Claude).disabled_until.is_empty());
        assert!(!read(&home.routes()).contains("new"));
        let settings = Settings::parse(&home.settings(), &read(&home.settings())).unwrap();
        assert_eq!((settings.route.len(), settings.budget.len()), (1, 1));
        // Files that are not there stay so.
        let empty = Home::at(dir.path().join("empty"));
        carry(&empty, Service::Claude, "a", Some("b")).unwrap();
        assert!(!empty.balance().exists());
    }

    #[test]
    fn a_new_name_is_told_from_another_upstream() {
        let of = |text: &str| Object::parse(text).unwrap();
        let before = of(r#"{"a":{"base_url":"http://x"},"b":{"base_url":"http://y"}}"#);
        let after = of(r#"{"n":{"base_url":"http://x"},"b":{"base_url":"http://y"}}"#);
        assert_eq!(renamed(&before, &after), Some(("a".into(), "n".into())));
        assert_eq!(
            renamed(&before, &of(r#"{"n":{"base_url":"http://z"},"b":{}}"#)),
            None
        );
        assert_eq!(renamed(&before, &of(r#"{"b":{"base_url":"http://y"}}"#)), None);
    }
}
