//! A page of a session as events.

use crate::defaults::{MAX_PAGE_BYTES, MAX_PAGE_LINES};
use crate::formats::{self, gemini};
use crate::lines::Line;
use crate::page::{Opened, Page, Taken};
use crate::shapes::HistoryEvent;
use crate::store::Store;
use crate::sub_agents::SubAgents;
use crate::{AgentKind, HistoryError, events};
use serde_json::Value;
use std::sync::atomic::AtomicU64;

/// Events, how many records the session has, and where the next page begins.
pub(crate) struct Talk {
    pub(crate) events: Vec<HistoryEvent>,
    pub(crate) records: u64,
    pub(crate) next: Option<u64>,
}

/// The events of a page.
pub(crate) fn page(
    store: &Store,
    counter: &AtomicU64,
    agent: AgentKind,
    opened: &Opened,
    page: Page,
) -> Result<Talk, HistoryError> {
    if agent == AgentKind::Gemini {
        return of_messages(store, counter, opened, page);
    }
    let mut all = Vec::new();
    let mut codex = events::codex::Talk::default();
    let mut sub_agents = (agent == AgentKind::Claude).then(|| SubAgents::of(&opened.path, counter));
    let take = |number: u64, line: Line<'_>| {
        let told = line.bytes.filter(|b| !formats::is_housekeeping(agent, b));
        let Some(value) = told.and_then(events::value) else {
            return Taken::LeftOut;
        };
        let (timestamp, said) = match agent {
            AgentKind::Claude => events::claude::events(&value, None),
            AgentKind::Codex | AgentKind::Gemini => codex.events(number, &value),
        };
        if said.is_empty() || number < page.from {
            return Taken::LeftOut;
        }
        let inner = sub_agents
            .as_mut()
            .map(|agents| agents.told_by(&said))
            .unwrap_or_default();
        let own = said.into_iter().map(|event| (timestamp.clone(), event));
        let tell = |(timestamp, event)| HistoryEvent {
            line: number,
            timestamp,
            event,
        };
        all.extend(own.chain(inner).map(tell));
        Taken::Given
    };
    // Codex tells results twice, a few lines apart: the lines before the page say which are known.
    let lead = agent == AgentKind::Codex;
    let next = opened.walk(store, counter, page, lead, take)?;
    Ok(Talk {
        events: all,
        records: opened.lines,
        next,
    })
}

/// Gemini's records are the messages that stand, wherever their lines are.
fn of_messages(
    store: &Store,
    counter: &AtomicU64,
    opened: &Opened,
    page: Page,
) -> Result<Talk, HistoryError> {
    let summary = opened.summary(store)?;
    let list = summary.journal.list();
    let from = usize::try_from(page.from).unwrap_or(usize::MAX).min(list.len());
    let limit = page.limit.clamp(1, MAX_PAGE_LINES);
    let (mut all, mut bytes, mut at) = (Vec::new(), 0, from);
    let mut line: Option<(u64, Option<Value>)> = None;
    for message in list.iter().skip(from).take(limit) {
        // Many messages may share one line; it is read and parsed once.
        if line.as_ref().map(|(offset, _)| *offset) != Some(message.offset) {
            let text = opened.line_at(counter, message.offset)?;
            let len = text.as_ref().map_or(0, Vec::len) as u64;
            if bytes > 0 && bytes + len > MAX_PAGE_BYTES {
                break;
            }
            bytes += len;
            line = Some((message.offset, text.as_deref().and_then(events::value)));
        }
        let value = line.as_ref().and_then(|(_, value)| value.as_ref());
        if let Some(value) = value.and_then(|value| gemini::message_in(value, message.place)) {
            let (timestamp, said) = events::gemini::events(value);
            let tell = |event| HistoryEvent {
                line: at as u64,
                timestamp: timestamp.clone(),
                event,
            };
            all.extend(said.into_iter().map(tell));
        }
        at += 1;
    }
    let next = (at < list.len()).then_some(at as u64);
    Ok(Talk {
        events: all,
        records: list.len() as u64,
        next,
    })
}
