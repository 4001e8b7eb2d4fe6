//! The schemas of `/api/openapi.json`. Answers may have more fields than are named here; requests too.

use serde_json::{Map, Value, json};

/// A reference to a schema.
pub(super) fn reference(name: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{name}")})
}

fn object(fields: &[(&str, Value)], required: &[&str]) -> Value {
    let properties: Map<String, Value> = fields
        .iter()
        .map(|(name, schema)| ((*name).to_owned(), schema.clone()))
        .collect();
    json!({"type": "object", "properties": properties, "required": required})
}

fn text() -> Value {
    json!({"type": "string"})
}

fn maybe_text() -> Value {
    json!({"type": ["string", "null"]})
}

fn number() -> Value {
    json!({"type": "integer", "minimum": 0})
}

fn flag() -> Value {
    json!({"type": "boolean"})
}

fn list(of: Value) -> Value {
    json!({"type": "array", "items": of})
}

fn constant(kind: &str) -> Value {
    json!({"const": kind})
}

const MODES: [&str; 4] = ["default", "acceptEdits", "plan", "bypassPermissions"];
const STATUSES: [&str; 8] = [
    "starting",
    "running",
    "waiting",
    "idle",
    "parked",
    "completed",
    "failed",
    "cancelled",
];
const OUTCOMES: [&str; 5] = ["allowed", "allowed_for_session", "denied", "timed_out", "void"];

/// All schemas by name.
pub(super) fn answer_schemas() -> Value {
    let mut all = requests();
    all.extend(answers());
    Value::Object(all)
}

fn requests() -> Map<String, Value> {
    let mode = json!({"enum": MODES});
    let schemas = [
        ("Nothing", json!({"type": "object"})),
        ("Login", object(&[("edge_key", text())], &["edge_key"])),
        (
            "NewSession",
            object(
                &[
                    ("executor", text()),
                    ("prompt", text()),
                    ("project_path", text()),
                    ("model", text()),
                    ("resume", text()),
                    ("resume_last", flag()),
                    ("fork", flag()),
                    ("permission_mode", mode.clone()),
                    ("approval_mode", text()),
                    ("allowed_tools", list(text())),
                    ("title", text()),
                    ("client_id", json!({"type": "string", "maxLength": 200})),
                    ("stream", flag()),
                ],
                &[],
            ),
        ),
        (
            "NewMessage",
            object(
                &[
                    ("text", json!({"type": "string", "minLength": 1})),
                    ("client_id", json!({"type": "string", "maxLength": 200})),
                    ("interrupt", flag()),
                    ("stream", flag()),
                ],
                &["text"],
            ),
        ),
        (
            "Change",
            object(
                &[("model", text()), ("permission_mode", mode), ("title", text())],
                &[],
            ),
        ),
        ("Interrupt", object(&[("clear_queue", flag())], &[])),
        ("Retry", object(&[("client_id", text())], &[])),
        ("Stop", object(&[("park", flag())], &[])),
        (
            "Decision",
            object(
                &[
                    ("decision", json!({"enum": ["allow", "deny"]})),
                    ("for_session", flag()),
                    ("updated_input", json!({})),
                    (
                        "answers",
                        json!({"type": "object", "additionalProperties": {"type": "string"}}),
                    ),
                    ("permission_mode", text()),
                    ("message", text()),
                    ("interrupt", flag()),
                ],
                &["decision"],
            ),
        ),
    ];
    schemas
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

fn answers() -> Map<String, Value> {
    let session = || reference("Session");
    let schemas = [
        ("Anything", json!({"type": "object"})),
        ("Typed", object(&[("type", text())], &["type"])),
        (
            "Error",
            object(
                &[("type", constant("error")), ("code", text()), ("message", text())],
                &["type", "code", "message"],
            ),
        ),
        (
            "Health",
            object(
                &[
                    ("type", constant("health")),
                    ("status", text()),
                    ("version", text()),
                    ("uptime_secs", number()),
                    ("live_sessions", number()),
                ],
                &["type", "status", "version"],
            ),
        ),
        (
            "Info",
            object(
                &[
                    ("type", constant("info")),
                    ("agents", list(json!({"type": "object"}))),
                ],
                &["type", "agents"],
            ),
        ),
        ("Session", session_schema()),
        ("Message", message_schema()),
        ("Approval", approval_schema()),
        (
            "Sessions",
            object(
                &[
                    ("type", constant("sessions")),
                    ("sessions", list(session())),
                    ("total", number()),
                    ("limit", number()),
                    ("offset", number()),
                ],
                &["type", "sessions", "total", "limit", "offset"],
            ),
        ),
        (
            "SessionStarted",
            object(
                &[
                    ("type", constant("session_started")),
                    ("session_id", text()),
                    ("session", session()),
                ],
                &["type", "session_id", "session"],
            ),
        ),
        (
            "SessionAnswer",
            object(
                &[("type", text()), ("session_id", text()), ("session", session())],
                &["type", "session_id", "session"],
            ),
        ),
        (
            "SessionPage",
            object(
                &[
                    ("type", constant("session")),
                    ("session_id", text()),
                    ("session", session()),
                    (
                        "lines",
                        list(object(
                            &[("line", number()), ("at", text()), ("data", text())],
                            &["line", "at", "data"],
                        )),
                    ),
                    ("events", list(reference("Event"))),
                    ("next_line", number()),
                    ("next_since", number()),
                    ("has_more", flag()),
                ],
                &["type", "session_id", "session", "has_more"],
            ),
        ),
        (
            "Event",
            object(
                &[("seq", number()), ("at", text()), ("type", text())],
                &["seq", "at", "type"],
            ),
        ),
        (
            "EventPage",
            object(
                &[
                    ("type", constant("events")),
                    ("session_id", text()),
                    ("events", list(reference("Event"))),
                    ("has_more", flag()),
                ],
                &["type", "session_id", "events", "has_more"],
            ),
        ),
        (
            "MessageAccepted",
            object(
                &[
                    ("type", constant("message_accepted")),
                    ("session_id", text()),
                    ("message", reference("Message")),
                    ("duplicate", flag()),
                ],
                &["type", "session_id", "message", "duplicate"],
            ),
        ),
        (
            "Approvals",
            object(
                &[
                    ("type", constant("approvals")),
                    ("approvals", list(reference("Approval"))),
                ],
                &["type", "approvals"],
            ),
        ),
        (
            "ApprovalAnswer",
            object(
                &[
                    ("type", constant("approval")),
                    ("approval", reference("Approval")),
                    ("files", json!({"type": "array", "items": {"type": "object"}})),
                ],
                &["type", "approval"],
            ),
        ),
        (
            "Resolution",
            object(
                &[
                    ("type", constant("approval_resolved")),
                    ("id", text()),
                    ("session_id", maybe_text()),
                    ("outcome", json!({"enum": OUTCOMES})),
                    ("message", maybe_text()),
                ],
                &["type", "id", "outcome"],
            ),
        ),
    ];
    schemas
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect()
}

fn session_schema() -> Value {
    let maybe_number = || json!({"type": ["integer", "null"]});
    object(
        &[
            ("id", text()),
            ("executor", text()),
            ("agent_session_id", maybe_text()),
            ("title", maybe_text()),
            ("first_message", maybe_text()),
            ("project_path", text()),
            ("model", maybe_text()),
            (
                "models",
                list(object(&[("id", text()), ("name", text())], &["id", "name"])),
            ),
            ("permission_mode", json!({"enum": MODES})),
            ("agent_mode", maybe_text()),
            ("problem", json!({"type": ["object", "null"]})),
            ("can_resume", flag()),
            ("left_running", list(json!({"type": "object"}))),
            ("status", json!({"enum": STATUSES})),
            ("parked", flag()),
            ("turn", json!({"type": ["object", "null"]})),
            ("turns", number()),
            (
                "last_turn",
                json!({"enum": ["completed", "interrupted", "failed", null]}),
            ),
            ("queue", list(reference("Message"))),
            ("approvals", list(reference("Approval"))),
            ("pending_approvals", number()),
            ("last_seq", number()),
            ("total_lines", number()),
            ("activity", maybe_text()),
            ("usage", json!({"type": ["object", "null"]})),
            ("error", maybe_text()),
            ("exit_code", maybe_number()),
            ("exit_signal", maybe_number()),
            ("parent_id", maybe_text()),
            ("origin", json!({"enum": ["api", "mcp", "cli"]})),
            ("created_at", text()),
            ("updated_at", text()),
            ("ended_at", maybe_text()),
        ],
        &[
            "id",
            "executor",
            "project_path",
            "permission_mode",
            "status",
            "queue",
            "approvals",
            "last_seq",
            "created_at",
        ],
    )
}

fn message_schema() -> Value {
    object(
        &[
            ("id", text()),
            ("client_id", maybe_text()),
            ("text", text()),
            ("created_at", text()),
            ("status", json!({"enum": ["queued", "sent"]})),
        ],
        &["id", "text", "created_at", "status"],
    )
}

fn approval_schema() -> Value {
    object(
        &[
            ("id", text()),
            ("session_id", maybe_text()),
            ("agent_session_id", maybe_text()),
            ("session_title", maybe_text()),
            ("executor", text()),
            ("project_path", maybe_text()),
            ("source", json!({"enum": ["session", "mcp"]})),
            ("tool_call_id", maybe_text()),
            ("tool_name", text()),
            ("kind", text()),
            ("title", text()),
            ("reason", maybe_text()),
            ("input", json!({})),
            ("can_allow_session", flag()),
            (
                "session_grants",
                json!({"type": "array", "items": {"type": "object"}}),
            ),
            ("modes", json!({"type": "array", "items": {"type": "string"}})),
            ("can_edit", flag()),
            ("created_at", text()),
            ("expires_at", maybe_text()),
        ],
        &[
            "id",
            "executor",
            "source",
            "tool_name",
            "kind",
            "title",
            "input",
            "created_at",
        ],
    )
}
