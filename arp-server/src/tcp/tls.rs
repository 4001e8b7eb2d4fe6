//! TLS that the relay does not read: where the ClientHello is for the host name of a service that wants it so, the
//! connection goes to the edge as it is. Everything else is for the relay's own certificate, or is refused with an
//! alert.

use super::carry::carry;
use super::hello::{Alert, Heard, LONGEST, Listener};
use super::line::Line;
use super::reach::{Opened, Reached, Shown};
use crate::answer::Refusal;
use crate::defaults as d;
use crate::metrics::{self, Counter};
use crate::registry::Spelling;
use crate::routing::source::label;
use crate::shared::Public;
use arp_common::protocol::TlsBegun;
use arp_common::stop::Stop;
use bytes::BytesMut;

impl Public {
    /// May TLS come that goes to an edge unread?
    pub(crate) fn passes_tls(&self) -> bool {
        self.limits.domain.is_some() && self.registry.passes_tls()
    }
}

/// What becomes of a ClientHello.
enum Becomes {
    /// It goes to the edge.
    Passed(Box<(Reached, Opened)>),
    /// It is for the relay itself.
    Ours,
    /// It is refused with this record.
    Refused(Vec<u8>),
}

/// Serves a connection that begins TLS, to its end, if it goes to an edge or cannot be served. Else it is for the
/// relay's own certificate, and comes back with what was read of it.
pub(crate) async fn serve(mut line: Line, begun: TlsBegun, stop: &Stop) -> Option<Line> {
    line.deadline.set(d::PUBLIC_HANDSHAKE);
    let mut listener = Listener::default();
    let name = loop {
        match listener.look(&line.buf) {
            Heard::Whole(name) => break name,
            Heard::Bad(record) => {
                metrics::add(Counter::FailedPublic, 1);
                line.farewell(&record).await;
                return None;
            }
            Heard::Part => {}
        }
        let more = tokio::select! {
            biased;
            more = line.more(LONGEST) => more,
            () = stop.given() => false,
        };
        if !more {
            return None;
        }
    };
    drop(listener);
    match becomes(&line, name.as_deref(), begun).await {
        Becomes::Passed(open) => {
            let (reached, opened) = *open;
            carry(line, reached, opened, "tls", BytesMut::new(), BytesMut::new()).await;
            None
        }
        Becomes::Ours => Some(line),
        Becomes::Refused(record) => {
            line.farewell(&record).await;
            None
        }
    }
}

async fn becomes(line: &Line, name: Option<&str>, begun: TlsBegun) -> Becomes {
    let public = &line.public;
    let ours = || {
        if line.can_encrypt() {
            Becomes::Ours
        } else {
            metrics::refused("raw", "unrecognized_name");
            Becomes::Refused(Alert::UnrecognizedName.record().to_vec())
        }
    };
    let domain = public.limits.domain.as_deref().filter(|_| public.passes_tls());
    let Some(name) = domain.and_then(|domain| label(name?, domain)) else {
        return ours();
    };
    // Whether there is such a name shows in what happens now. So it counts, like every other question.
    let reached = public.reach(name, Spelling::AnyCase, line.visitor.ip, line.peer);
    let reached = match reached.await {
        Ok(reached) if reached.service.passthrough => reached,
        // With a certificate of ours, HTTP tells more.
        Ok(_) | Err(_) => return ours(),
    };
    let shown = Shown {
        tls: Some(begun),
        ..Shown::default()
    };
    match reached.open(&shown).await {
        Ok(opened) => Becomes::Passed(Box::new((reached, opened))),
        Err(refusal) => {
            metrics::refused("raw", refusal.code);
            let client = &reached.client.id;
            tracing::debug!(%client, code = refusal.code, "no connection for a visitor's TLS");
            Becomes::Refused(alert(&refusal).record().to_vec())
        }
    }
}

fn alert(refusal: &Refusal) -> Alert {
    match refusal.code {
        "edge_auth_required" => Alert::AccessDenied,
        "no_passthrough" | "no_such_service" => Alert::UnrecognizedName,
        _ => Alert::InternalError,
    }
}
