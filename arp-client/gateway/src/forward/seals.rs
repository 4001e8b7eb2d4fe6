//! What one account has signed or sealed, another refuses: sessions that were refused go without it from then on.

use super::Gateway;
use super::request::Work;
use crate::service::Service;
use std::sync::PoisonError;
use std::time::Instant;

/// Sessions known to be refused elsewhere for what an earlier upstream has sealed.
const MAX_UNSEALED: usize = 10_000;

impl Gateway {
    pub(super) fn is_unsealed(&self, session: &str) -> bool {
        self.unsealed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .contains_key(session)
    }

    pub(super) fn remember_unsealed(&self, session: &str) {
        let mut all = self.unsealed.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= MAX_UNSEALED {
            let oldest = all.iter().min_by_key(|(_, at)| **at).map(|(id, _)| id.clone());
            if let Some(oldest) = oldest {
                all.remove(&oldest);
            }
        }
        all.insert(session.to_owned(), Instant::now());
    }
}

impl Work {
    /// Takes out what an earlier upstream has signed or sealed. Was there any?
    pub(super) fn unseal(&mut self, service: Service) -> bool {
        // A turn's routing mark belongs to the upstream that gave it.
        self.headers.remove("x-codex-turn-state");
        match service.without_seals(self.kept()) {
            Some(body) => {
                self.replace(body);
                if let Some(turn) = &mut self.turn {
                    turn.begins_anew();
                }
                true
            }
            None => false,
        }
    }
}
