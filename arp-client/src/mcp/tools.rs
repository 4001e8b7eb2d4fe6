//! The tools of the MCP server.

use super::caller::Caller;
use super::prompt;
use crate::command::{Starter, State};
use arp_sessions::NewSession;
use arp_sessions::error::SessionError;
use arp_sessions::model::{Origin, Status};
use arp_sessions::read::Sequence;
use arp_sessions::store::Filter;
use http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, DiscoverRequestMethod,
    DiscoverResult, ErrorData, Implementation, InitializeResult, ListToolsResult, PaginatedRequestParams,
    ProgressNotificationParam, ProtocolVersion, ServerCapabilities, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{RoleServer, ServerHandler};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Events that one call reads at most.
const MAX_EVENTS: usize = 500;
/// While the user thinks the caller is told this often that we are still there.
const LIFE_EVERY: Duration = Duration::from_secs(10);
/// Bytes that one call reads, about.
const MAX_BYTES: usize = 256 * 1024;

/// The MCP server's handler.
#[derive(Clone)]
pub(super) struct Tools {
    state: Arc<State>,
    caller: Caller,
}

#[derive(Deserialize)]
struct Start {
    prompt: String,
    executor: Option<String>,
    project_path: Option<PathBuf>,
    model: Option<String>,
}

#[derive(Deserialize)]
struct List {
    #[serde(default)]
    live: bool,
}

#[derive(Deserialize)]
struct Read {
    session_id: String,
    #[serde(default)]
    since: u64,
}

#[derive(Deserialize)]
struct Say {
    session_id: String,
    text: String,
}

#[derive(Deserialize)]
struct Cancel {
    session_id: String,
}

impl Tools {
    pub(super) fn new(state: Arc<State>, caller: Caller) -> Self {
        Self { state, caller }
    }

    /// Who calls: as the connection said, or as the request's headers say.
    fn caller(&self, context: &RequestContext<RoleServer>) -> Caller {
        let mut caller = self.caller.clone();
        if let Some(parts) = context.extensions.get::<Parts>() {
            let header = |name: &str| {
                parts
                    .headers
                    .get(name)
                    .and_then(|value| value.to_str().ok())
                    .map(str::to_owned)
            };
            caller.session = header("x-arp-session").or(caller.session);
            caller.executor = header("x-arp-executor").or(caller.executor);
            caller.project = header("x-arp-project").or(caller.project);
        }
        caller
    }

    async fn call(
        &self,
        caller: &Caller,
        name: &str,
        arguments: Map<String, Value>,
    ) -> Result<Value, SessionError> {
        let sessions = &self.state.sessions;
        match name {
            "start_session" => {
                let start: Start = arguments_as(arguments)?;
                let wanted = NewSession {
                    executor: start.executor,
                    prompt: Some(start.prompt),
                    project_path: start.project_path,
                    default_path: self.state.config.default_path.clone(),
                    model: start.model,
                    permission_mode: Some(sessions.mode_for(caller.steering())?),
                    origin: Origin::Mcp,
                    ..NewSession::default()
                };
                // Whoever calls is an agent, not the owner.
                let created = self.state.start_session(wanted, Starter::Visitor).await?;
                Ok(json!({"session_id": created.session.id, "session": created.session}))
            }
            "list_sessions" => {
                let list: List = arguments_as(arguments)?;
                let status = if list.live {
                    Status::ALL
                        .into_iter()
                        .filter(|status| status.is_live())
                        .collect()
                } else {
                    Vec::new()
                };
                let (listed, total) = sessions.list(&Filter {
                    status,
                    limit: 50,
                    ..Filter::default()
                })?;
                Ok(json!({"sessions": listed, "total": total}))
            }
            "read_session" => {
                let read: Read = arguments_as(arguments)?;
                let view = sessions.get(&read.session_id)?;
                let cursor = sessions.read(&view.id, Sequence::Events, read.since.saturating_add(1))?;
                let (_, entries) = cursor.page(MAX_EVENTS, MAX_BYTES).await;
                let entries = entries?;
                let next = entries.last().map_or(read.since, |entry| entry.number);
                let events: Vec<Value> = entries
                    .iter()
                    .filter_map(|entry| serde_json::from_str(&entry.event_json()).ok())
                    // Fragments come again as a whole.
                    .filter(|event: &Value| event["delta"] != true)
                    .collect();
                Ok(
                    json!({"session": view, "events": events, "next_since": next, "has_more": next < view.last_seq}),
                )
            }
            "send_message" => {
                let say: Say = arguments_as(arguments)?;
                sessions.check_steering(caller.steering(), &say.session_id)?;
                let accepted = sessions.message(&say.session_id, say.text, None, false).await?;
                Ok(json!({"message": accepted.message}))
            }
            "cancel_session" => {
                let cancel: Cancel = arguments_as(arguments)?;
                Ok(json!({"session": sessions.cancel(&cancel.session_id).await?}))
            }
            _ => Err(SessionError::BadRequest(format!("there is no tool {name:?}"))),
        }
    }
}

fn arguments_as<T: DeserializeOwned>(arguments: Map<String, Value>) -> Result<T, SessionError> {
    serde_json::from_value(Value::Object(arguments))
        .map_err(|error| SessionError::BadRequest(format!("the arguments do not fit: {error}")))
}

impl ServerHandler for Tools {
    fn get_info(&self) -> InitializeResult {
        let mut info = InitializeResult::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info = Implementation::new("arpc", env!("CARGO_PKG_VERSION"));
        info.instructions = Some(
            "Sessions of coding agents on this machine: start, list, read, message and cancel them. \
             approval_prompt is for --permission-prompt-tool."
                .to_owned(),
        );
        info
    }

    /// Not the newest: under it an answer has no head until there is a result, so that nothing can be sent while
    /// the user thinks, and Claude gives up after 60 s. With a session the stream is open at once.
    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Owned(ProtocolVersion::known_up_to(&ProtocolVersion::LATEST_WITH_INITIALIZE).to_vec())
    }

    async fn discover(&self, _context: RequestContext<RoleServer>) -> Result<DiscoverResult, ErrorData> {
        Err(ErrorData::method_not_found::<DiscoverRequestMethod>())
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult {
            tools: all(),
            ..ListToolsResult::default()
        })
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = request.arguments.unwrap_or_default();
        let called = if request.name == "approval_prompt" {
            match arguments_as(arguments) {
                Ok(question) => {
                    // Said before anybody can decide: a quick answer would overtake it.
                    show_life_once(&context, 1).await;
                    let asked = prompt::ask(&self.state, self.caller(&context), question);
                    tokio::select! {
                        answer = asked => Ok(answer),
                        () = show_life(&context) => Err(SessionError::Internal("the call broke off".into())),
                        // Nobody waits for the answer any more: the question is void.
                        () = context.ct.cancelled() => {
                            Err(SessionError::WrongState("the call was cancelled".into()))
                        }
                    }
                }
                Err(error) => Err(error),
            }
        } else {
            self.call(&self.caller(&context), &request.name, arguments).await
        };
        let result = match called {
            Ok(value) => CallToolResult::success(vec![ContentBlock::text(value.to_string())]),
            Err(error) => {
                CallToolResult::error(vec![ContentBlock::text(format!("{}: {error}", error.code()))])
            }
        };
        Ok(result.into())
    }
}

/// Tells the caller that we are still there, if it wants to be told. False if that cannot be.
async fn show_life_once(context: &RequestContext<RoleServer>, progress: u32) -> bool {
    let Some(token) = context.meta.get_progress_token() else {
        return false;
    };
    let mut life = ProgressNotificationParam::new(token, f64::from(progress));
    life.message = Some("waiting for the user".to_owned());
    context.peer.notify_progress(life).await.is_ok()
}

/// Goes on telling it. Does not end.
async fn show_life(context: &RequestContext<RoleServer>) {
    for progress in 2_u32.. {
        tokio::time::sleep(LIFE_EVERY).await;
        if !show_life_once(context, progress).await {
            break;
        }
    }
    std::future::pending().await
}

fn all() -> Vec<Tool> {
    let text = |what: &str| json!({"type": "string", "description": what});
    vec![
        tool(
            "approval_prompt",
            "Asks the user, on any of their devices, whether a tool may be used. For Claude Code's \
             --permission-prompt-tool.",
            json!({"tool_name": text("Name of the tool"), "input": {"type": "object", "description": "Its arguments"},
                "tool_use_id": text("Id of the call")}),
            &["tool_name", "input"],
        ),
        tool(
            "start_session",
            "Starts a session of a coding agent on this machine. It asks the user for permissions.",
            json!({"prompt": text("What the agent shall do"), "executor": text("claude, codex or gemini"),
                "project_path": text("Absolute path of the directory to work in"), "model": text("Model")}),
            &["prompt"],
        ),
        tool(
            "list_sessions",
            "Lists the newest sessions on this machine and what they do.",
            json!({"live": {"type": "boolean", "description": "Only those that have a process"}}),
            &[],
        ),
        tool(
            "read_session",
            "Reads what happened in a session.",
            json!({"session_id": text("Id of the session"),
                "since": {"type": "integer", "minimum": 0, "description": "Events after this number"}}),
            &["session_id"],
        ),
        tool(
            "send_message",
            "Gives a session its next message; it waits for the running turn.",
            json!({"session_id": text("Id of the session"), "text": text("The message")}),
            &["session_id", "text"],
        ),
        tool(
            "cancel_session",
            "Ends a session's process; its history stays.",
            json!({"session_id": text("Id of the session")}),
            &["session_id"],
        ),
    ]
}

fn tool(name: &'static str, description: &'static str, properties: Value, required: &[&str]) -> Tool {
    let schema = json!({"type": "object", "properties": properties, "required": required});
    let schema = if let Value::Object(schema) = schema {
        schema
    } else {
        Map::new()
    };
    Tool::new(name, description, schema)
}
