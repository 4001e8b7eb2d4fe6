//! Approvals that wait, wherever they come from.

use super::Sessions;
use crate::clock;
use crate::error::SessionError;
use crate::host::SessionDir;
use crate::log::{LogError, LogReader};
use crate::model::{ApprovalSource, ApprovalView, Resolution, Time};
use crate::session::BusEvent;
use arp_agents::driver::Decision;
use arp_agents::event::{Approval, ApprovalOutcome, Edited};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// A question of an agent that `arpc` did not start.
pub(super) struct External {
    view: ApprovalView,
    answer: oneshot::Sender<Decision>,
}

/// A question that waits for an answer; dropping it takes the question back.
pub struct ExternalApproval {
    sessions: Sessions,
    id: String,
    answer: oneshot::Receiver<Decision>,
}

impl Sessions {
    /// All approvals that wait, oldest first; only those of a session, if one is given.
    #[must_use]
    pub fn approvals(&self, session_id: Option<&str>) -> Vec<ApprovalView> {
        let mut all: Vec<ApprovalView> = self
            .actors()
            .values()
            .flat_map(|handle| handle.shared.view().approvals.clone())
            .collect();
        all.extend(self.external().values().map(|external| external.view.clone()));
        if let Some(session) = session_id {
            all.retain(|view| {
                view.session_id.as_deref() == Some(session)
                    || view.agent_session_id.as_deref() == Some(session)
            });
        }
        all.sort_by(|a, b| (a.created_at, &a.approval.id).cmp(&(b.created_at, &b.approval.id)));
        all
    }

    /// What is wrong with an approval that does not wait: somebody decided it or it is void, or there never was one.
    pub async fn why_not_waiting(&self, approval_id: &str) -> SessionError {
        let resolved = SessionError::ApprovalResolved(approval_id.to_owned());
        if approval_id.starts_with("mcp.") {
            return resolved;
        }
        let session = approval_id.split_once('.').map(|(session, _)| self.meta(session));
        if let Some(Ok(meta)) = session {
            let log = SessionDir::new(self.core().config.session_dir(&meta.id)).event_log();
            let id = approval_id.to_owned();
            let found = tokio::task::spawn_blocking(move || was_told_resolved(&log, &id)).await;
            if matches!(found, Ok(Ok(true))) {
                return resolved;
            }
        }
        SessionError::ApprovalNotFound(approval_id.to_owned())
    }

    /// Puts a question of an agent that `arpc` did not start before whoever decides.
    #[must_use]
    pub fn ask_external(
        &self,
        mut approval: Approval,
        executor: &str,
        agent_session_id: Option<String>,
        project_path: Option<PathBuf>,
    ) -> ExternalApproval {
        let id = format!("mcp.0.{}", uuid::Uuid::new_v4().simple());
        approval.id.clone_from(&id);
        let now = clock::now_ms();
        let view = ApprovalView {
            approval,
            session_id: None,
            agent_session_id,
            session_title: None,
            executor: executor.to_owned(),
            project_path,
            source: ApprovalSource::Mcp,
            created_at: Time(now),
            expires_at: self.config().approval_timeout.map(|timeout| {
                Time(now.saturating_add(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)))
            }),
        };
        let (sender, answer) = oneshot::channel();
        self.external().insert(
            id.clone(),
            External {
                view: view.clone(),
                answer: sender,
            },
        );
        self.core().tell(BusEvent::Approval(Arc::new(view)));
        ExternalApproval {
            sessions: self.clone(),
            id,
            answer,
        }
    }

    /// Decides a question that came over MCP; `None` if it is not one.
    pub(super) fn decide_external(
        &self,
        id: &str,
        decision: &Decision,
    ) -> Option<Result<Resolution, SessionError>> {
        if !id.starts_with("mcp.") {
            return None;
        }
        let outcome = match decision {
            Decision::Allow {
                for_session: true, ..
            } => {
                return Some(Err(SessionError::Unsupported(
                    "this approval cannot be given for the session; allow it once".into(),
                )));
            }
            Decision::Allow {
                permission_mode: Some(_),
                ..
            } => {
                return Some(Err(SessionError::Unsupported(
                    "this approval does not offer a permission mode; allow it without one".into(),
                )));
            }
            Decision::Allow { .. } => ApprovalOutcome::Allowed,
            Decision::Deny { .. } => ApprovalOutcome::Denied,
        };
        let Some(external) = self.external().remove(id) else {
            return Some(Err(SessionError::ApprovalResolved(id.to_owned())));
        };
        let message = match decision {
            Decision::Deny { message, .. } => message.clone(),
            Decision::Allow { .. } => None,
        };
        let edited = match decision {
            Decision::Allow {
                updated_input: Some(ran),
                ..
            } if *ran != external.view.approval.input => Some(Edited {
                asked: external.view.approval.input.clone(),
                ran: ran.clone(),
            }),
            _ => None,
        };
        if external.answer.send(decision.clone()).is_err() {
            return Some(Err(SessionError::ApprovalResolved(id.to_owned())));
        }
        Some(Ok(self.external_resolved(id, outcome, message, edited)))
    }

    fn external_resolved(
        &self,
        id: &str,
        outcome: ApprovalOutcome,
        message: Option<String>,
        edited: Option<Edited>,
    ) -> Resolution {
        let resolution = Resolution {
            id: id.to_owned(),
            session_id: None,
            outcome,
            message,
            edited,
        };
        self.core().tell(BusEvent::Resolved(Arc::new(resolution.clone())));
        resolution
    }

    fn external(&self) -> MutexGuard<'_, HashMap<String, External>> {
        self.0.external.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Do the events of a session tell the end of this approval?
fn was_told_resolved(events: &Path, id: &str) -> Result<bool, LogError> {
    #[derive(Deserialize)]
    struct Told<'a> {
        #[serde(rename = "type")]
        kind: &'a str,
        #[serde(borrow)]
        id: Cow<'a, str>,
    }
    let mut log = LogReader::open(events)?;
    while let Some(record) = log.next_record()? {
        let told = serde_json::from_slice::<Told<'_>>(&record.payload);
        if told.is_ok_and(|told| told.kind == "approval_resolved" && told.id == id) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl ExternalApproval {
    /// Waits for the answer; time-out denies.
    pub async fn wait(mut self) -> Decision {
        let timeout = self.sessions.config().approval_timeout;
        let answer = &mut self.answer;
        let decision = match timeout {
            Some(timeout) => match tokio::time::timeout(timeout, answer).await {
                Ok(decision) => decision.ok(),
                Err(_) => {
                    self.take_back(ApprovalOutcome::TimedOut);
                    None
                }
            },
            None => answer.await.ok(),
        };
        decision.unwrap_or_else(|| Decision::Deny {
            message: Some("Nobody answered in time, so this was denied.".into()),
            interrupt: false,
        })
    }

    fn take_back(&self, outcome: ApprovalOutcome) {
        if self.sessions.external().remove(&self.id).is_some() {
            self.sessions.external_resolved(&self.id, outcome, None, None);
        }
    }
}

impl Drop for ExternalApproval {
    fn drop(&mut self) {
        self.take_back(ApprovalOutcome::Void);
    }
}
