//! `GET /api/overview`: all sessions in one list, those of this edge and those that only the agents' histories know,
//! newest first.

use super::request::Call;
use super::{Answer, ApiError, State, ok};
use arp_history::{AgentKind, SessionFilter};
use arp_sessions::model::SessionView;
use arp_sessions::store::Filter;
use serde_json::{Value, json};
use std::collections::HashSet;
use std::sync::Arc;

const PAGE: usize = 50;
const MAX_PAGE: usize = 200;
/// Sessions of this edge that are looked at.
const MAX_OWN: u64 = 20_000;

/// A session of either kind.
enum Entry {
    Own(Arc<SessionView>),
    Past(Box<arp_history::Session>),
}

/// Where a page ends: the time of its last entry and that entry's id, which tells entries of one moment apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    time: u64,
    id: String,
}

impl Place {
    fn parse(text: &str) -> Option<Self> {
        let (time, id) = text.split_once('.')?;
        Some(Self {
            time: time.parse().ok()?,
            id: id.to_owned(),
        })
    }

    fn text(&self) -> String {
        format!("{}.{}", self.time, self.id)
    }
}

impl Entry {
    fn place(&self) -> Place {
        match self {
            Self::Own(session) => Place {
                time: session.updated_at.0,
                id: session.id.clone(),
            },
            Self::Past(session) => Place {
                time: u64::try_from(session.updated_at)
                    .unwrap_or(0)
                    .saturating_mul(1000),
                id: session.id.clone(),
            },
        }
    }

    /// Do all words (in lower case) occur in what a person knows it by?
    fn has(&self, words: &[String]) -> bool {
        let (title, first, path) = match self {
            Self::Own(session) => (
                &session.title,
                &session.first_message,
                session.project_path.to_string_lossy(),
            ),
            Self::Past(session) => (
                &session.title,
                &session.first_message,
                session.project_path.as_str().into(),
            ),
        };
        let text = [
            title.as_deref().unwrap_or(""),
            first.as_deref().unwrap_or(""),
            &path,
        ]
        .join("\n")
        .to_lowercase();
        words.iter().all(|word| text.contains(word.as_str()))
    }

    fn json(&self, state: &State) -> Value {
        match self {
            Self::Own(session) => {
                let session = super::gateway::joined(state, session);
                json!({"kind": "session", "session": session})
            }
            Self::Past(session) => {
                json!({"kind": "past", "executor": session.agent.name(), "session": session})
            }
        }
    }
}

pub(super) async fn list(state: &Arc<State>, call: &Call) -> Answer {
    let query = &call.query;
    let given = |name: &str| query.get(name).filter(|value| !value.is_empty());
    let limit = query.limit("limit", PAGE, MAX_PAGE)?.max(1);
    let before = given("before")
        .map(|text| {
            Place::parse(text).ok_or_else(|| ApiError::bad_query("\"before\" is the next of an answer"))
        })
        .transpose()?;
    let words: Vec<String> = given("q")
        .unwrap_or_default()
        .to_lowercase()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let executor = given("executor").map(str::to_lowercase);
    let project_path = given("project_path").map(str::to_owned);

    let all = Filter {
        limit: MAX_OWN,
        ..Filter::default()
    };
    let (own, _) = state.sessions.list(&all)?;
    // What one of ours goes on with is that one, whatever else the filter says.
    let covered: HashSet<String> = own
        .iter()
        .filter_map(|one| one.agent_session_id.clone())
        .collect();
    let mut entries = past(state, executor.as_deref(), project_path.as_deref(), &covered).await?;
    entries.extend(
        own.into_iter()
            .filter(|one| executor.as_ref().is_none_or(|wanted| *wanted == one.executor))
            .filter(|one| {
                project_path
                    .as_ref()
                    .is_none_or(|wanted| one.project_path.to_string_lossy() == wanted.as_str())
            })
            .map(Entry::Own),
    );
    entries.retain(|entry| entry.has(&words));
    let (page, next, total) = cut(entries, before.as_ref(), limit);
    let page: Vec<Value> = page.iter().map(|entry| entry.json(state)).collect();
    ok(&json!({"type": "overview", "entries": page, "total": total, "next": next}))
}

/// The page after `before`, where the next one begins, and how many there are on all pages.
fn cut(mut entries: Vec<Entry>, before: Option<&Place>, limit: usize) -> (Vec<Entry>, Option<String>, usize) {
    entries.sort_by_cached_key(|entry| std::cmp::Reverse(entry.place()));
    let total = entries.len();
    let from = before.map_or(0, |before| {
        entries.partition_point(|entry| entry.place() >= *before)
    });
    let mut page: Vec<Entry> = entries.drain(from..).collect();
    let more = page.len() > limit;
    page.truncate(limit);
    let next = page.last().filter(|_| more).map(|last| last.place().text());
    (page, next, total)
}

/// Sessions of the agents' histories that are none of ours. A history that cannot be read leaves the others.
async fn past(
    state: &Arc<State>,
    executor: Option<&str>,
    project_path: Option<&str>,
    covered: &HashSet<String>,
) -> Result<Vec<Entry>, ApiError> {
    let history = Arc::clone(&state.history);
    let agents: Vec<AgentKind> = AgentKind::ALL
        .into_iter()
        .filter(|agent| executor.is_none_or(|wanted| wanted == agent.name()))
        .collect();
    let filter = SessionFilter {
        project_path: project_path.map(str::to_owned),
        ..SessionFilter::default()
    };
    let found = tokio::task::spawn_blocking(move || {
        agents
            .into_iter()
            .filter_map(|agent| history.sessions(agent, &filter).ok())
            .flat_map(|listed| listed.sessions)
            .collect::<Vec<_>>()
    })
    .await
    .map_err(|error| ApiError::internal(format!("a look into the history failed: {error}")))?;
    Ok(found
        .into_iter()
        .filter(|session| !covered.contains(&session.id))
        .map(|session| Entry::Past(Box::new(session)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(id: &str, seconds: i64) -> Entry {
        Entry::Past(Box::new(arp_history::Session {
            id: id.into(),
            agent: AgentKind::Claude,
            project_id: String::new(),
            project_path: "/home/me/Shop".into(),
            todo_data: None,
            created_at: seconds,
            updated_at: seconds,
            first_message: Some("Fix the Basket".into()),
            message_timestamp: None,
            message_count: 1,
            status: arp_history::Status::Completed,
            total_duration: None,
            title: None,
            model: None,
            git_branch: None,
            archived: false,
            size: 1,
        }))
    }

    #[test]
    fn pages_follow_each_other_without_gap_or_repeat_also_within_one_second() {
        let all = || {
            (0..25)
                .map(|n| entry(&format!("s{n:02}"), 100 + n / 10))
                .collect::<Vec<_>>()
        };
        let mut seen = Vec::new();
        let mut next: Option<String> = None;
        loop {
            let before = next.as_deref().map(|text| Place::parse(text).unwrap());
            let (page, following, total) = cut(all(), before.as_ref(), 7);
            assert_eq!(total, 25);
            seen.extend(page.iter().map(|one| one.place().id));
            next = following;
            if next.is_none() {
                break;
            }
        }
        let mut expected: Vec<String> = (0..25).map(|n| format!("s{n:02}")).collect();
        expected.reverse();
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_search_wants_every_word_somewhere_in_any_case() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert!(entry("a", 1).has(&words("basket shop")));
        assert!(!entry("a", 1).has(&words("basket garden")));
        assert!(entry("a", 1).has(&[]));
    }
}
