//! PostgreSQL by token: the name comes in the start-up packet, as a part of the user, the database or the options,
//! and is taken out of it. Nothing else is changed.
//!
//! Source of the formats: PostgreSQL's documentation, "Frontend/Backend Protocol".

pub(crate) mod cancel;
mod error;
mod startup;
mod watch;

use super::carry::carry;
use super::line::Line;
use super::reach::{Opened, Reached, Shown};
use super::tls;
use crate::answer::Refusal;
use crate::defaults as d;
use crate::metrics;
use crate::registry::Spelling;
use crate::visitor::sniff::postgres::{CANCEL_REQUEST, GSSENC_REQUEST, MAX_STARTUP, SSL_REQUEST};
use arp_common::protocol::TlsBegun;
use arp_common::stop::Stop;
use bytes::{Buf, Bytes, BytesMut};
use cancel::CancelKey;
use startup::Startup;
use tokio::time::timeout;

/// Serves a connection that begins with a start-up packet.
pub(super) async fn serve(mut line: Line, stop: &Stop) {
    line.hurry();
    // Each kind of encryption is asked for once at most.
    for _ in 0..4 {
        let Some(packet) = packet(&mut line, stop).await else {
            return;
        };
        match code(&packet) {
            // What follows at once was sent in plain, and somebody may have put it there.
            SSL_REQUEST | GSSENC_REQUEST if !line.buf.is_empty() => return,
            SSL_REQUEST if line.can_encrypt() || (line.public.passes_tls() && !line.visitor.tls) => {
                line = match encrypt(line, stop).await {
                    Some(line) => line,
                    None => return,
                };
            }
            SSL_REQUEST | GSSENC_REQUEST => {
                if line.say(b"N").await.is_err() {
                    return;
                }
            }
            CANCEL_REQUEST => return cancel(line, packet).await,
            _ => return start(line, &packet).await,
        }
    }
}

/// The next packet without a type byte, whole.
async fn packet(line: &mut Line, stop: &Stop) -> Option<Bytes> {
    loop {
        if let Some(length) = line.buf.first_chunk::<4>() {
            let length = u32::from_be_bytes(*length);
            if !(8..=MAX_STARTUP).contains(&length) {
                return None;
            }
            if line.buf.len() >= length as usize {
                return Some(line.buf.split_to(length as usize).freeze());
            }
        }
        let most = MAX_STARTUP as usize + 4;
        let more = tokio::select! {
            biased;
            more = line.more(most) => more,
            () = stop.given() => false,
        };
        if !more {
            return None;
        }
    }
}

fn code(packet: &[u8]) -> u32 {
    packet
        .get(4..8)
        .and_then(|code| code.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

/// Says yes to TLS and goes on inside it, unless it is for an edge to read.
async fn encrypt(mut line: Line, stop: &Stop) -> Option<Line> {
    line.say(b"S").await.ok()?;
    if line.public.passes_tls() {
        line = tls::serve(line, TlsBegun::Postgres, stop).await?;
    }
    let handshake = timeout(d::PUBLIC_HANDSHAKE, line.encrypt());
    let mut line = handshake.await.ok()??;
    line.hurry();
    Some(line)
}

/// A visitor asks to cancel what another connection does: that goes to the server of that connection.
async fn cancel(line: Line, packet: Bytes) {
    let mut key = packet.clone();
    key.advance(8);
    let Some((name, ip)) = line.public.cancels.find(&CancelKey(key)) else {
        return;
    };
    let reached = line
        .public
        .reach(name.as_str(), Spelling::Exact, ip, line.peer)
        .await;
    let Ok(reached) = reached else { return };
    let Ok(opened) = reached.open(&Shown::default()).await else {
        return;
    };
    carry(
        line,
        reached,
        opened,
        "postgres cancel",
        BytesMut::from(&packet[..]),
        BytesMut::new(),
    )
    .await;
}

async fn start(line: Line, packet: &[u8]) {
    let startup = match Startup::parse(packet) {
        Ok(startup) => startup,
        Err(bad) => return line.farewell(&error::of_bad(bad)).await,
    };
    let (ip, peer) = (line.visitor.ip, line.peer);
    let Some(ours) = startup.ours.clone() else {
        return line.farewell(&error::no_token()).await;
    };
    let opened = async {
        let reached = line.public.reach(&ours.name, Spelling::Exact, ip, peer).await?;
        let user = reached.service.default_user.as_deref();
        let Some(packet) = startup.write(user) else {
            return Err(Refusal::new(
                crate::answer::Who::Visitor,
                400,
                "bad_request",
                "no user: give one in front of the token, as in alice?token=NAME",
            ));
        };
        let opened = reached.open(&ours.key.clone().into()).await?;
        Ok((reached, opened, packet))
    };
    let opened: Result<(Reached, Opened, BytesMut), Refusal> = opened.await;
    match opened {
        Ok((reached, opened, packet)) => watch::serve(line, reached, opened, packet).await,
        Err(refusal) => {
            metrics::refused("raw", refusal.code);
            line.farewell(&error::of(&refusal)).await;
        }
    }
}
