//! Approvals of a session: decided by somebody, or denied because nobody did.

use super::actor::Actor;
use crate::clock;
use crate::error::SessionError;
use crate::host::Mark;
use crate::model::Resolution;
use arp_agents::driver::{Command, Decision};
use arp_agents::event::{ApprovalOutcome, Edited};

impl Actor {
    pub(super) async fn decide(
        &mut self,
        approval_id: &str,
        decision: Decision,
    ) -> Result<Resolution, SessionError> {
        let waiting = self.run.as_ref().and_then(|run| {
            run.approvals
                .iter()
                .find(|waiting| waiting.view.approval.id == approval_id)
        });
        let Some(waiting) = waiting else {
            return Err(if self.resolved.iter().any(|resolved| resolved == approval_id) {
                SessionError::ApprovalResolved(approval_id.to_owned())
            } else {
                SessionError::ApprovalNotFound(approval_id.to_owned())
            });
        };
        let approval = &waiting.view.approval;
        let outcome = match &decision {
            Decision::Allow {
                for_session: true, ..
            } if !approval.can_allow_session => {
                return Err(SessionError::Unsupported(
                    "this approval cannot be given for the session; allow it once".into(),
                ));
            }
            Decision::Allow {
                updated_input: Some(_),
                ..
            } if !approval.can_edit => {
                return Err(SessionError::Unsupported(
                    "the arguments of this approval cannot be changed; allow it as it is or deny it".into(),
                ));
            }
            Decision::Allow {
                for_session: true, ..
            } => ApprovalOutcome::AllowedForSession,
            Decision::Allow { .. } => ApprovalOutcome::Allowed,
            Decision::Deny { .. } => ApprovalOutcome::Denied,
        };
        let message = match &decision {
            Decision::Deny { message, .. } => message.clone(),
            Decision::Allow { .. } => None,
        };
        let edited = match &decision {
            Decision::Allow {
                updated_input: Some(ran),
                ..
            } if *ran != approval.input => Some(Edited {
                asked: approval.input.clone(),
                ran: ran.clone(),
            }),
            _ => None,
        };
        let driver_id = waiting.driver_id.clone();
        let Some(run) = &mut self.run else {
            return Err(SessionError::ApprovalResolved(approval_id.to_owned()));
        };
        let command = Command::Decide {
            approval_id: driver_id,
            decision,
        };
        let actions = match run.driver.command(command) {
            Ok(actions) => actions,
            // It waits here until the answer is in the log; the driver has it already.
            Err(arp_agents::driver::CommandError::UnknownApproval(_)) => {
                return Err(SessionError::ApprovalResolved(approval_id.to_owned()));
            }
            Err(error) => return Err(error.into()),
        };
        self.carry_out(actions, None).await;
        let session_id = Some(self.meta.id.clone());
        Ok(Resolution {
            id: approval_id.to_owned(),
            session_id,
            outcome,
            message,
            edited,
        })
    }

    /// Denies what nobody answered in time.
    pub(super) async fn deny_expired(&mut self) {
        let now = clock::now_ms();
        let Some(run) = &self.run else { return };
        let expired: Vec<String> = run
            .approvals
            .iter()
            .filter(|waiting| waiting.view.expires_at.is_some_and(|at| at.0 <= now))
            .filter(|waiting| !run.timed_out.contains(&waiting.driver_id))
            .map(|waiting| waiting.driver_id.clone())
            .collect();
        for driver_id in expired {
            let Some(run) = &mut self.run else { return };
            let decision = Decision::Deny {
                message: Some("Nobody answered in time, so this was denied.".into()),
                interrupt: false,
            };
            let command = Command::Decide {
                approval_id: driver_id.clone(),
                decision,
            };
            match run.driver.command(command) {
                Ok(actions) => {
                    run.timed_out.insert(driver_id.clone());
                    self.carry_out(actions, Some(Mark::TimedOut { approval: driver_id }))
                        .await;
                }
                Err(error) => tracing::debug!(%error, "an approval that expired was answered meanwhile"),
            }
        }
    }
}
