//! How an exchange fails, and what its visitor is told.

use super::Outcome;
use crate::answer::{Refusal, Who};
use crate::http::body::BadBody;
use std::io;

/// What went wrong on the way back.
pub(super) enum DownError {
    /// The tunnel ended or failed.
    Tunnel(&'static str, Option<io::Error>),
    /// The local service does not speak HTTP.
    NotHttp(&'static str),
    /// It did not answer in time.
    Silent,
    /// It does not change protocols, and was only asked whether it would.
    Declined,
    /// The visitor took no more of the answer.
    Visitor,
}

/// Why the way up ended.
pub(super) enum UpEnd {
    /// The visitor has closed its sending side.
    HalfClosed,
    Gone,
    Bad(BadBody),
    Slow,
    /// The edge takes no more.
    Tunnel,
}

/// Either way of an exchange failed.
pub(super) enum Failure {
    Down(DownError),
    Up(UpEnd),
    /// Others waited for a tunnel, and this exchange for its visitor.
    GaveWay,
}

pub(super) fn refused(refusal: Refusal, body_read: bool) -> Outcome {
    Outcome::Refused { refusal, body_read }
}

/// What the visitor is told, if it is still there.
pub(super) fn refusal_of(failure: Failure) -> Option<Refusal> {
    Some(match failure {
        Failure::Up(UpEnd::Bad(e)) => bad_body(e),
        Failure::Up(UpEnd::Slow) => slow_body(),
        Failure::GaveWay => Refusal::new(
            Who::Visitor,
            408,
            "slow_body",
            "the request body paused while others were waiting for this edge agent",
        ),
        Failure::Up(UpEnd::Tunnel) => broken_tunnel("the tunnel closed while the request body was sent"),
        Failure::Up(UpEnd::HalfClosed | UpEnd::Gone)
        | Failure::Down(DownError::Visitor | DownError::Declined) => return None,
        Failure::Down(DownError::Tunnel(what, error)) => match error {
            // An orderly end comes from the local service; a failure, from the way there.
            None => Refusal::new(Who::LocalService, 502, "no_answer", what),
            Some(e) => broken_tunnel(&format!("{what} ({e})")),
        },
        Failure::Down(DownError::NotHttp(what)) => {
            let message = format!("the local service did not give a valid HTTP answer: {what}");
            Refusal::new(Who::LocalService, 502, "bad_answer", message)
        }
        Failure::Down(DownError::Silent) => Refusal::new(
            Who::LocalService,
            504,
            "answer_timeout",
            "the local service did not answer in time",
        ),
    })
}

pub(super) fn bad_body(e: BadBody) -> Refusal {
    Refusal::new(
        Who::Visitor,
        400,
        "bad_body",
        format!("the request body cannot be understood: {e}"),
    )
}

pub(super) fn slow_body() -> Refusal {
    Refusal::new(
        Who::Visitor,
        408,
        "slow_body",
        "the request body paused for too long",
    )
}

pub(super) fn broken_tunnel(what: &str) -> Refusal {
    Refusal::new(
        Who::Edge,
        502,
        "tunnel_failed",
        format!("{what}; the edge agent may be reconnecting, try again"),
    )
}

pub(super) fn cut() -> DownError {
    DownError::Tunnel(
        "the local service closed the connection in the middle of its answer",
        None,
    )
}
