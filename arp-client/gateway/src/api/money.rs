//! Budgets and prices.

use super::{Answer, Api, ApiError, Call, ok};
use crate::activity::now_ms;
use crate::service::Service;
use crate::settings;
use crate::usage::budgets::{Budget, day_of};
use crate::usage::prices::{self, Price};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;

pub(super) fn budgets(api: &Arc<Api>) -> Answer {
    let settings = api.gateway.snapshot(Service::Claude).settings;
    let today = day_of(now_ms());
    let all: Vec<Value> = settings
        .budget
        .iter()
        .map(|budget| {
            let spent = api.gateway.spent().of(budget, &today, None, None);
            json!({
                "name": budget.name, "per": budget.per, "of": budget.of, "usd": budget.usd, "then": budget.then,
                "spent": spent, "reached": spent >= budget.usd,
            })
        })
        .collect();
    ok(&json!({"type": "gateway_budgets", "budgets": all}))
}

pub(super) fn put_budgets(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        budgets: Vec<Budget>,
    }
    // What `GET` adds to a budget is none of it.
    let mut given: Value = call.json()?;
    if let Some(all) = given.get_mut("budgets").and_then(Value::as_array_mut) {
        for budget in all.iter_mut().filter_map(Value::as_object_mut) {
            budget.remove("spent");
            budget.remove("reached");
        }
    }
    let given: Given =
        serde_json::from_value(given).map_err(|e| ApiError::invalid(format!("the body: {e}")))?;
    if let Some(fault) = given.budgets.iter().find_map(Budget::fault) {
        return Err(ApiError::invalid(fault));
    }
    settings::change(&api.gateway.live().home().settings(), |file| {
        let mut list = toml_edit::ArrayOfTables::new();
        for budget in &given.budgets {
            list.push(settings::table(budget)?);
        }
        if list.is_empty() {
            file.remove("budget");
        } else {
            file.insert("budget", toml_edit::Item::ArrayOfTables(list));
        }
        Ok(())
    })?;
    budgets(api)
}

pub(super) fn put_prices(api: &Arc<Api>, call: &Call) -> Answer {
    #[derive(Deserialize)]
    struct Given {
        own: BTreeMap<String, Price>,
    }
    let given: Given = call.json()?;
    if let Some((model, fault)) = given
        .own
        .iter()
        .find_map(|(model, price)| Some((model, price.fault()?)))
    {
        return Err(ApiError::invalid(format!("{model:?}: {fault}")));
    }
    if given.own.keys().any(|model| model.trim().is_empty()) {
        return Err(ApiError::invalid("a price is of a model: name one, or a pattern"));
    }
    settings::change(&api.gateway.live().home().settings(), |file| {
        let mut table = toml_edit::Table::new();
        table.set_implicit(true);
        for (model, price) in &given.own {
            table.insert(model, toml_edit::Item::Table(settings::table(price)?));
        }
        if table.is_empty() {
            file.remove("price");
        } else {
            file.insert("price", toml_edit::Item::Table(table));
        }
        Ok(())
    })?;
    prices(api)
}

pub(super) fn prices(api: &Arc<Api>) -> Answer {
    let settings = api.gateway.snapshot(Service::Claude).settings;
    let all: Vec<Value> = prices::all(&settings.prices)
        .map(|(model, price, own)| {
            json!({
                "model": model, "input": price.input, "output": price.output,
                "cache_read": price.cache_read.unwrap_or(price.input / 10.0),
                "cache_write": price.cache_write.unwrap_or(price.input), "own": own,
            })
        })
        .collect();
    ok(&json!({"type": "gateway_prices", "source": prices::SOURCE, "dated": prices::DATED, "prices": all}))
}
