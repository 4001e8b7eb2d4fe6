//! `/api/openapi.json`: the table of [`super::router`] described for machines.
//!
//! Each operation is described in one arm of [`about`], so that an endpoint without a description does not
//! compile; a test checks that document and table have the same paths and methods.

mod schemas;

use super::router::{Op, ROUTES};
use super::{Answer, ok};
use schemas::{answer_schemas, reference};
use serde_json::{Map, Value, json};

pub(super) fn serve() -> Answer {
    ok(&document())
}

/// What there is to say of an operation.
struct About {
    id: &'static str,
    summary: &'static str,
    /// Query parameters: name, type, meaning.
    query: &'static [(&'static str, &'static str, &'static str)],
    /// Schema of the request's body, and must there be one?
    body: Option<(&'static str, bool)>,
    /// Success: status, schema, and can it be a stream of events too?
    answers: &'static [(&'static str, &'static str)],
    stream: bool,
    errors: &'static [&'static str],
}

const PAGE: [(&str, &str, &str); 2] = [
    ("limit", "integer", "How many at most"),
    ("offset", "integer", "How many to leave out"),
];

const fn plain(
    id: &'static str,
    summary: &'static str,
    schema: &'static [(&'static str, &'static str)],
) -> About {
    About {
        id,
        summary,
        query: &[],
        body: None,
        answers: schema,
        stream: false,
        errors: &[],
    }
}

fn about(op: Op) -> About {
    match op {
        Op::Health => plain("health", "Is it up?", &[("200", "Health")]),
        Op::Info => plain("info", "Versions, agents, limits", &[("200", "Info")]),
        Op::OpenApi => plain("openapi", "This document", &[("200", "Anything")]),
        Op::Login => About {
            body: Some(("Login", true)),
            errors: &["401"],
            ..plain("login", "Give the edge key, get a cookie", &[("200", "Typed")])
        },
        Op::Events => About {
            stream: true,
            ..plain("events", "What happens to sessions and approvals (SSE)", &[])
        },
        Op::EventsWs => About {
            errors: &["426"],
            ..plain("eventsWebSocket", "The same over a WebSocket", &[("101", "")])
        },
        Op::SessionList => About {
            query: &[
                PAGE[0],
                PAGE[1],
                (
                    "status",
                    "string",
                    "States, comma-separated; live: those with a process",
                ),
                ("executor", "string", "Only this agent"),
                ("project_path", "string", "Only this directory"),
                ("q", "string", "Text in title, first message or path"),
            ],
            errors: &["400"],
            ..plain("listSessions", "Sessions, newest first", &[("200", "Sessions")])
        },
        Op::SessionCreate => About {
            query: STREAM,
            body: Some(("NewSession", true)),
            stream: true,
            errors: &["400", "403", "404", "409", "424", "429", "503"],
            ..plain(
                "startSession",
                "Start or resume a session",
                &[("201", "SessionStarted"), ("200", "SessionStarted")],
            )
        },
        Op::SessionGet => About {
            query: &[
                ("from_line", "integer", "First line wanted"),
                ("limit", "integer", "Lines or events at most"),
                ("format", "string", "raw or events"),
                ("since", "string", "With format=events: after this seq"),
                ("tail", "integer", "Streams: the last so many"),
                ("until", "string", "Streams: turn or end"),
                ("lines", "string", "none: without output"),
                ("stream", "boolean", "Answer with the SSE stream"),
            ],
            stream: true,
            errors: &["400", "404"],
            ..plain(
                "getSession",
                "A session with its output",
                &[("200", "SessionPage")],
            )
        },
        Op::SessionPatch => About {
            body: Some(("Change", true)),
            errors: &["400", "403", "404", "409", "503"],
            ..plain(
                "changeSession",
                "Change model, permission mode or title",
                &[("200", "SessionAnswer")],
            )
        },
        Op::SessionDelete => About {
            query: &[
                ("force", "boolean", "Cancel and delete in one"),
                ("keep_history", "boolean", "Keep the agent's own files"),
            ],
            errors: &["400", "404", "409", "503"],
            ..plain(
                "deleteSession",
                "Cancel what runs, delete what does not",
                &[("200", "Typed")],
            )
        },
        Op::SessionEvents => About {
            query: &[
                ("since", "integer", "After this seq"),
                ("before", "string", "Before this seq; latest: the end"),
                ("limit", "integer", "How many at most"),
            ],
            errors: &["400", "404"],
            ..plain("sessionEvents", "A page of events", &[("200", "EventPage")])
        },
        Op::SessionWs => About {
            query: &[
                ("since", "string", "After this seq; latest: new ones only"),
                ("tail", "integer", "The last so many"),
                ("format", "string", "events or raw"),
                ("from_line", "integer", "With format=raw: first line wanted"),
            ],
            errors: &["400", "404", "426"],
            ..plain(
                "sessionWebSocket",
                "Events out; messages, decisions in",
                &[("101", "")],
            )
        },
        Op::MessageCreate => About {
            query: STREAM,
            body: Some(("NewMessage", true)),
            stream: true,
            errors: &["400", "404", "409", "424", "429", "503"],
            ..plain(
                "sendMessage",
                "The next message",
                &[("202", "MessageAccepted"), ("200", "MessageAccepted")],
            )
        },
        Op::MessageDelete => About {
            errors: &["404", "409", "503"],
            ..plain(
                "removeMessage",
                "Take a waiting message back",
                &[("200", "Typed")],
            )
        },
        Op::Interrupt => About {
            body: Some(("Interrupt", false)),
            errors: &["400", "404", "409", "503"],
            ..plain(
                "interruptSession",
                "Stop the turn, keep the session",
                &[("202", "Typed")],
            )
        },
        Op::Cancel => About {
            body: Some(("Nothing", false)),
            errors: &["400", "404", "503"],
            ..plain(
                "cancelSession",
                "End the process, keep the history",
                &[("200", "SessionAnswer")],
            )
        },
        Op::Fork => About {
            query: STREAM,
            body: Some(("NewSession", true)),
            stream: true,
            errors: &["400", "403", "404", "409", "424", "429", "503"],
            ..plain(
                "forkSession",
                "A copy of a session",
                &[("201", "SessionStarted"), ("200", "SessionStarted")],
            )
        },
        Op::ApprovalList => About {
            query: &[("session_id", "string", "Only of this session")],
            ..plain("listApprovals", "Approvals that wait", &[("200", "Approvals")])
        },
        Op::ApprovalGet => About {
            errors: &["404"],
            ..plain("getApproval", "One approval", &[("200", "ApprovalAnswer")])
        },
        Op::ApprovalDecide => About {
            body: Some(("Decision", true)),
            errors: &["400", "404", "409", "503"],
            ..plain("decideApproval", "Allow or deny", &[("200", "Resolution")])
        },
        Op::Fs => About {
            query: FILES,
            errors: FILE_ERRORS,
            ..plain("files", "Roots, a directory or a file", &[("200", "Typed")])
        },
        Op::SessionFs => About {
            query: FILES,
            errors: FILE_ERRORS,
            ..plain(
                "sessionFiles",
                "The same in a session's directory",
                &[("200", "Typed")],
            )
        },
        Op::Projects => About {
            query: &PAGE,
            errors: &["400", "404"],
            ..plain("projects", "Projects in an agent's history", &[("200", "Typed")])
        },
        Op::WorkingDirectories => About {
            errors: &["404"],
            ..plain(
                "workingDirectories",
                "Directories an agent worked in",
                &[("200", "Anything")],
            )
        },
        Op::ProjectSessions => About {
            query: HISTORY,
            errors: &["400", "404"],
            ..plain("projectSessions", "A project's sessions", &[("200", "Typed")])
        },
        Op::HistoryList => About {
            query: HISTORY,
            errors: &["400", "404"],
            ..plain("history", "Sessions in an agent's history", &[("200", "Typed")])
        },
        Op::HistoryGet => About {
            query: &[
                PAGE[0],
                PAGE[1],
                ("format", "string", "raw or events"),
                ("conversation", "boolean", "Raw: without the agent's housekeeping"),
            ],
            errors: &["400", "404", "409"],
            ..plain("readHistory", "A session's lines or events", &[("200", "Typed")])
        },
        Op::HistoryDelete => About {
            query: &[("force", "boolean", "Also when an agent has it open")],
            errors: &["400", "404", "409"],
            ..plain(
                "deleteHistory",
                "Delete a session with all that belongs to it",
                &[("200", "Typed")],
            )
        },
    }
}

const STREAM: &[(&str, &str, &str)] = &[
    ("format", "string", "Streams: raw or events"),
    ("until", "string", "Streams: turn or end"),
];
const FILES: &[(&str, &str, &str)] = &[
    PAGE[0],
    PAGE[1],
    ("start", "integer", "A file: first byte"),
    ("length", "integer", "A file: how many bytes"),
];
const FILE_ERRORS: &[&str] = &["400", "403", "404", "416"];
const HISTORY: &[(&str, &str, &str)] = &[
    PAGE[0],
    PAGE[1],
    ("project_path", "string", "Only this directory"),
];

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
