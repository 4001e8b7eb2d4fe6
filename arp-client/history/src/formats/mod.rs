//! The formats that are known.

mod claude;
mod codex;
pub(crate) mod gemini;

pub(crate) use claude::{Claude, slug};
pub(crate) use codex::Codex;
pub(crate) use gemini::Gemini;

use crate::AgentKind;
use crate::format::Format;

/// An agent's format.
pub(crate) fn of(agent: AgentKind) -> Box<dyn Format> {
    match agent {
        AgentKind::Claude => Box::new(Claude),
        AgentKind::Codex => Box::new(Codex::default()),
        AgentKind::Gemini => Box::new(Gemini),
    }
}
