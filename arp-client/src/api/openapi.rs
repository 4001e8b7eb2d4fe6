//! `/api/openapi.json`: the table of [`super::router`] described for machines.
//!
//! Each operation is described in one arm of [`operations::about`], so that an endpoint without a description does not
//! compile; a test checks that document and table have the same paths and methods.

mod operations;
mod schemas;

use super::router::ROUTES;
use super::{Answer, ok};
use operations::{About, about};
use schemas::{answer_schemas, reference};
use serde_json::{Map, Value, json};

pub(super) fn serve() -> Answer {
    ok(&document())
}

/// The document.
fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = route.path.replace("{*", "{");
        let operation = operation(&about(route.op), route.path);
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[route.method.to_lowercase()] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "arpc command mode",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Sessions of coding agents on this machine. docs/api.md tells the whole contract.",
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}, {"tokenQuery": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {"type": "apiKey", "in": "header", "name": "X-ARP-Token"},
                "tokenQuery": {"type": "apiKey", "in": "query", "name": "token"},
            },
            "schemas": answer_schemas(),
        },
    })
}

fn operation(about: &About, path: &str) -> Value {
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| {
            let name = name.trim_start_matches('*');
            let schema = match name {
                "agent" => json!({"enum": ["claude", "codex", "gemini"]}),
                _ => json!({"type": "string", "minLength": 1}),
            };
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    for (name, kind, meaning) in about.query {
        let mut schema = json!({"type": kind});
        if *kind == "integer" {
            schema["minimum"] = json!(0);
        }
        parameters.push(json!({"name": name, "in": "query", "description": meaning, "schema": schema}));
    }
    let mut responses = Map::new();
    for (status, schema) in about.answers {
        let content = if schema.is_empty() {
            json!({})
        } else {
            json!({"application/json": {"schema": reference(schema)}})
        };
        responses.insert(
            (*status).to_owned(),
            json!({"description": "Done", "content": content}),
        );
    }
    if about.stream {
        for status in ["200", "201"] {
            let known = responses.contains_key(status);
            if !known && (status == "201" || !responses.is_empty()) {
                continue;
            }
            let answer = responses
                .entry(status)
                .or_insert_with(|| json!({"description": "A stream", "content": {}}));
            answer["content"]["text/event-stream"] = json!({"schema": {}});
        }
    }
    // These may come of any request.
    for status in about.errors.iter().chain(&["401", "403", "500"]) {
        let content = json!({"application/json": {"schema": reference("Error")}});
        responses.insert(
            (*status).to_owned(),
            json!({"description": "Refused", "content": content}),
        );
    }
    if about.body.is_some() {
        for status in ["408", "413", "415"] {
            let content = json!({"application/json": {"schema": reference("Error")}});
            responses.insert(
                status.to_owned(),
                json!({"description": "Refused", "content": content}),
            );
        }
    }
    let mut operation = json!({
        "operationId": about.id,
        "summary": about.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some((schema, required)) = about.body {
        operation["requestBody"] =
            json!({"required": required, "content": {"application/json": {"schema": reference(schema)}}});
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_document_has_every_endpoint_and_no_other() {
        let document = document();
        let described: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(move |method| (path.clone(), method.to_uppercase()))
            })
            .collect();
        let served: BTreeSet<(String, String)> = ROUTES
            .iter()
            .map(|route| (route.path.replace("{*", "{"), route.method.to_owned()))
            .collect();
        assert_eq!(described, served);
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_operation_has_its_own_id() {
        let document = document();
        let mut ids = BTreeSet::new();
        for route in ROUTES {
            let path = route.path.replace("{*", "{");
            let operation = &document["paths"][&path][route.method.to_lowercase()];
            let id = (about(route.op).id, path.clone());
            assert!(ids.insert(id), "{path} twice");
            assert!(!operation["responses"].as_object().unwrap().is_empty());
        }
        let text = document.to_string();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn the_documentation_names_every_endpoint() {
        let text = include_str!("../../../docs/api.md");
        for route in ROUTES {
            let path = route.path.replace("{*", "{").replace("{approval_id}", "{id}");
            assert!(text.contains(&path), "{path} is not in docs/api.md");
        }
    }
}
