//! What there is to say of each operation: parameters, body, answers, errors.

use crate::api::router::Op;

/// What there is to say of an operation.
pub(super) struct About {
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    /// Query parameters: name, type, meaning.
    pub(super) query: &'static [(&'static str, &'static str, &'static str)],
    /// Schema of the request's body, and must there be one?
    pub(super) body: Option<(&'static str, bool)>,
    /// Success: status, schema, and can it be a stream of events too?
    pub(super) answers: &'static [(&'static str, &'static str)],
    pub(super) stream: bool,
    pub(super) errors: &'static [&'static str],
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

pub(super) fn about(op: Op) -> About {
    match op {
        Op::Health => plain("health", "Is it up?", &[("200", "Health")]),
        Op::Info => plain("info", "Versions, agents, limits", &[("200", "Info")]),
        Op::OpenApi => plain("openapi", "This document", &[("200", "Anything")]),
        Op::Login => About {
            body: Some(("Login", true)),
            errors: &["400", "401"],
            ..plain("login", "Give the edge key, get a cookie", &[("200", "Typed")])
        },
        Op::Logout => plain("logout", "End the login of this browser", &[("200", "Typed")]),
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
                (
                    "history",
                    "string",
                    "delete or keep: the agent's own files; without a word they go if the session was begun here",
                ),
                ("keep_history", "boolean", "The same as history=keep"),
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
        Op::Retry => About {
            body: Some(("Retry", false)),
            errors: &["400", "404", "409", "429", "503"],
            ..plain(
                "retrySession",
                "Try again what went wrong",
                &[("202", "MessageAccepted")],
            )
        },
        Op::Stop => About {
            body: Some(("Stop", false)),
            errors: &["400", "403"],
            ..plain(
                "stop",
                "Stop arpc (only over its local socket)",
                &[("202", "Typed")],
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
        Op::ProxyTunnel => About {
            errors: &["400", "403", "415", "426", "502"],
            ..plain(
                "proxyTunnel",
                "A raw connection to an allowed port of this machine, by Upgrade: tcp",
                &[("101", "")],
            )
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
        Op::SessionGateway => About {
            errors: &["404", "503"],
            ..plain(
                "sessionGateway",
                "What the model gateway knows of a session",
                &[("200", "Typed")],
            )
        },
        Op::SessionGatewayChoose => About {
            body: Some(("Anything", true)),
            errors: &["400", "404", "503"],
            ..plain(
                "chooseSessionGateway",
                "Choose a session's upstream or model",
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
        Op::Directories => plain(
            "directories",
            "Where a session may start: home, git repositories below it, projects of the past",
            &[("200", "Typed")],
        ),
        Op::Overview => About {
            query: &[
                PAGE[0],
                (
                    "before",
                    "string",
                    "Only what follows this; the last answer's next",
                ),
                (
                    "q",
                    "string",
                    "Words that all occur in title, first message or path",
                ),
                ("executor", "string", "Only this agent"),
                ("project_path", "string", "Only this directory"),
            ],
            errors: &["400"],
            ..plain(
                "overview",
                "All sessions, running, ended and of the agents' histories, newest first",
                &[("200", "Typed")],
            )
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
    (
        "project_path",
        "string",
        "Directory that the path is below: a root, or below one",
    ),
    ("path", "string", "The path, if it is not in the path of the URL"),
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
