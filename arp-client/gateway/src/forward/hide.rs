//! What a request holds that upstreams are not to see is taken out before anybody is asked.

use super::Gateway;
use super::request::Work;
use crate::live::Snapshot;
use crate::redact;
use crate::redact::placeholder::Hidden;
use crate::service::Service;
use http::header::HeaderValue;
use tokio::runtime::{Handle, RuntimeFlavor};

/// A body of this length takes long enough for others to notice that they wait for it: about a millisecond.
const LONG: usize = 256 << 10;

/// Does work on so many bytes; where that takes long, others go on meanwhile.
fn apart<T>(len: usize, work: impl FnOnce() -> T) -> T {
    let others_can =
        || Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if len >= LONG && others_can() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}

impl Gateway {
    /// Hides what the upstreams are not to see.
    ///
    /// # Errors
    /// Code and message, when nobody can tell what would be seen.
    pub(super) fn hide(
        &self,
        service: Service,
        now: &Snapshot,
        work: &mut Work,
    ) -> Result<Hidden, (&'static str, String)> {
        let mut hidden = Hidden::of(work.identity.session.as_deref().unwrap_or_default());
        if let Some(fault) = &now.unsafe_because {
            return Err((
                "filters_unusable",
                format!(
                    "the rules for what is hidden cannot be used, so nothing is sent: {fault}. Mend the file, or set \
                     fail_open = true under [redaction] in gateway.toml"
                ),
            ));
        }
        let redaction = now.settings.redact.is_on(service).then_some(&now.settings.redact);
        if redaction.is_none() && now.filters.rules.is_empty() {
            return Ok(hidden);
        }
        let open = now.settings.redaction.fail_open;
        if !work.is_kept() || work.is_coded() {
            if open {
                return Ok(hidden);
            }
            return Err((
                "cannot_be_filtered",
                "this request is too long (32 MiB) or compressed, so that nobody can see what is in it, and filters are \
                 on; nothing was sent"
                    .to_owned(),
            ));
        }
        // Codex tells here, too, where it works; the body has the same text, and both are to stay the same.
        let name = "x-codex-turn-metadata";
        let text = work.headers.get(name).and_then(|value| value.to_str().ok());
        let new =
            text.and_then(|text| redact::hide_text(&now.filters, redaction, &self.key, &mut hidden, text));
        if let Some(value) = new.and_then(|new| HeaderValue::from_str(&new).ok()) {
            work.headers.insert(name, value);
        }
        if work.kept().trim_ascii().is_empty() {
            return Ok(hidden);
        }
        let body = work.kept();
        let look = || redact::hide(&now.filters, redaction, &self.key, &mut hidden, body);
        match apart(body.len(), look) {
            Ok(Some(body)) => {
                work.replace(body);
                Ok(hidden)
            }
            Ok(None) => Ok(hidden),
            Err(_) if open => Ok(hidden),
            Err(e) => Err((
                "cannot_be_filtered",
                format!("filters are on, and this request's body is {e}; nothing was sent"),
            )),
        }
    }
}
