//! Sessions and events as text for a terminal.

use serde_json::Value;
use std::io::{self, Write};

/// Longest part of a tool's output that is shown.
const MAX_OUTPUT: usize = 2000;

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// Takes control characters out of what an agent says, so that it cannot play with the terminal.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
        .collect()
}

/// One line of a list.
pub(crate) fn line(session: &Value) -> String {
    let what = ["title", "first_message"]
        .iter()
        .find_map(|name| session[*name].as_str())
        .unwrap_or("-");
    plain(&format!(
        "{}  {:<9}  {:<7}  {}  {}",
        text(session, "id"),
        text(session, "status"),
        text(session, "executor"),
        text(session, "updated_at").get(..16).unwrap_or_default(),
        what.lines().next().unwrap_or_default()
    ))
}

/// A session in full.
pub(crate) fn details(session: &Value) -> String {
    let mut out = String::new();
    for name in [
        "id",
        "title",
        "status",
        "executor",
        "agent_session_id",
        "project_path",
        "model",
        "permission_mode",
        "turns",
        "activity",
        "error",
        "created_at",
        "updated_at",
    ] {
        let value = &session[name];
        if value.is_null() {
            continue;
        }
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.push_str(&format!("{name:<17} {}\n", plain(&value)));
    }
    for message in session["queue"].as_array().into_iter().flatten() {
        out.push_str(&format!("{:<17} {}\n", "queued", plain(text(message, "text"))));
    }
    for approval in session["approvals"].as_array().into_iter().flatten() {
        out.push_str(&approval_lines(approval));
    }
    out
}

/// An approval that waits, and how to answer it.
pub(crate) fn approval_lines(approval: &Value) -> String {
    let mut out = format!(
        "\n? {}: {}\n",
        plain(text(approval, "tool_name")),
        plain(text(approval, "title"))
    );
    if let Some(reason) = approval["reason"].as_str() {
        out.push_str(&format!("  {}\n", plain(reason)));
    }
    match approval["changes"].as_array() {
        Some(changes) if !changes.is_empty() => {
            for change in changes {
                out.push_str(&format!(
                    "  {}\n{}\n",
                    plain(text(change, "path")),
                    plain(text(change, "diff"))
                ));
            }
        }
        _ => out.push_str(&format!("  {}\n", plain(&approval["input"].to_string()))),
    }
    out.push_str(&format!(
        "  arpc sessions approve {0}   |   arpc sessions deny {0}\n",
        text(approval, "id")
    ));
    out
}

/// Writes events as they come.
#[derive(Default)]
pub(crate) struct Writer {
    /// The text that is being written in fragments.
    open: String,
}

impl Writer {
    pub(crate) fn event(&mut self, event: &Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        let kind = text(event, "type");
        if kind == "text" {
            let id = text(event, "id");
            if event["delta"] == true {
                if self.open != id {
                    self.close(&mut out)?;
                    id.clone_into(&mut self.open);
                }
                write!(out, "{}", plain(text(event, "text")))?;
            } else if self.open == id && !id.is_empty() {
                self.close(&mut out)?;
            } else {
                writeln!(out, "{}", plain(text(event, "text")))?;
            }
            return out.flush();
        }
        if matches!(
            kind,
            "init" | "usage" | "raw" | "thinking" | "stderr" | "session" | "caught_up" | "plan"
        ) {
            return Ok(());
        }
        self.close(&mut out)?;
        match kind {
            "user_message" => writeln!(out, "\n> {}", plain(text(event, "text")))?,
            "tool_call" if !event["input"].is_null() => {
                writeln!(
                    out,
                    "* {}: {}",
                    plain(text(event, "name")),
                    plain(text(event, "title"))
                )?;
            }
            "tool_result" => {
                let output = plain(text(event, "output"));
                let end = output
                    .char_indices()
                    .nth(MAX_OUTPUT)
                    .map_or(output.len(), |(end, _)| end);
                for line in output[..end].lines() {
                    writeln!(out, "    {line}")?;
                }
            }
            "approval" => write!(out, "{}", approval_lines(event))?,
            "approval_resolved" => writeln!(out, "  {}", text(event, "outcome"))?,
            "error" => writeln!(out, "! {}", plain(text(event, "message")))?,
            "turn_end" => writeln!(out, "-- {}", text(event, "status"))?,
            "status" => writeln!(
                out,
                "== {} {}",
                text(event, "status"),
                plain(text(event, "message"))
            )?,
            _ => {}
        }
        out.flush()
    }

    fn close(&mut self, out: &mut impl Write) -> io::Result<()> {
        if !std::mem::take(&mut self.open).is_empty() {
            writeln!(out)?;
        }
        Ok(())
    }
}
