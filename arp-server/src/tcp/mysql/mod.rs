//! MySQL and MariaDB by token: here the server speaks first, so a visitor that stays silent for a moment is greeted by
//! the relay. The name comes as the database, or in the user; then the client is asked again with the real server's
//! salt, and what it answers goes on. The relay never learns a password.
//!
//! Source of the formats: MySQL's "Client/Server Protocol", "Connection Phase".

mod login;
mod packet;

use super::carry::carry;
use super::line::Line;
use super::reach::{Opened, Reached, Shown};
use crate::answer::{Refusal, Who};
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io::{Outgoing, poll_fill};
use crate::metrics;
use crate::registry::Spelling;
use arp_common::transport::WriteHalf;
use bytes::BytesMut;
use login::{Login, ServerGreeting};
use packet::Packet;
use std::io;
use std::task::Poll;
use std::time::Duration;

/// Time of silence after which a visitor is taken for a client that waits to be greeted. Others speak at once; if their
/// first packet is lost, the next one comes within less than this.
const SILENCE: Duration = Duration::from_secs(1);
/// The same for an address that speaks HTTP on another connection. Browsers open sockets early, and use even those on
/// which something unasked-for came: whoever asks on one that was greeted has lost a request.
const SILENCE_OF_BROWSERS: Duration = Duration::from_secs(5);
/// Time in which a client answers the greeting. A socket that a browser keeps for later ends with a reset when it is
/// over; the browser then knows that it is of no use.
const ANSWER: Duration = Duration::from_secs(5);

/// How long a visitor may be silent before it is greeted.
pub(crate) fn silence(is_beside_http: bool) -> Duration {
    if is_beside_http {
        SILENCE_OF_BROWSERS
    } else {
        SILENCE
    }
}

/// Serves a visitor that has said nothing.
pub(crate) async fn serve(mut line: Line) {
    line.deadline.set(ANSWER.min(line.public.limits.head_timeout));
    line.wr.begin_unframed();
    if line.say(&login::greeting(line.can_encrypt())).await.is_err() {
        return;
    }
    let Some(mut packet) = from_visitor(&mut line).await else {
        return;
    };
    line.wr.finish();
    line.hurry();
    if login::asks_for_tls(&packet.payload) && line.can_encrypt() {
        // What follows at once was sent in plain, and somebody may have put it there.
        if !line.buf.is_empty() {
            return;
        }
        let Ok(Some(encrypted)) = tokio::time::timeout(d::PUBLIC_HANDSHAKE, line.encrypt()).await else {
            return;
        };
        line = encrypted;
        line.hurry();
        let Some(inner) = from_visitor(&mut line).await else {
            return;
        };
        packet = inner;
    }
    let sequence = packet.sequence.wrapping_add(1);
    let refuse = |refusal: &Refusal| {
        metrics::refused("raw", refusal.code);
        packet::write(sequence, &login::error(refusal))
    };
    let Some(login) = Login::parse(&packet.payload) else {
        let refusal = Refusal::new(Who::Visitor, 400, "bad_request", "malformed login packet");
        return line.farewell(&refuse(&refusal)).await;
    };
    let Some(ours) = login.ours.clone() else {
        let text = "this address needs a token: mysql -h HOST -P PORT -u USER -p \"?token=NAME\", or the database as \
            DATABASE?token=NAME, or the user as USER?token=NAME";
        let refusal = Refusal::new(Who::Visitor, 401, "token_required", text);
        return line.farewell(&refuse(&refusal)).await;
    };
    let (ip, peer) = (line.visitor.ip, line.peer);
    let opened = async {
        let reached = line.public.reach(&ours.name, Spelling::Exact, ip, peer).await?;
        let mut opened = reached.open(&Shown::from(ours.key.clone())).await?;
        let greeting = greeted(&mut opened).await?;
        Ok::<_, Refusal>((reached, opened, greeting))
    };
    match opened.await {
        Ok((reached, opened, greeting)) => {
            authenticate(line, reached, opened, &login, &greeting, sequence).await
        }
        Err(refusal) => line.farewell(&refuse(&refusal)).await,
    }
}

/// The next packet of the visitor.
async fn from_visitor(line: &mut Line) -> Option<Packet> {
    loop {
        if let Some(packet) = packet::take(&mut line.buf).ok()? {
            return Some(packet);
        }
        if !line.more(packet::LONGEST).await {
            return None;
        }
    }
}

/// What the real server says first.
async fn greeted(opened: &mut Opened) -> Result<ServerGreeting, Refusal> {
    let failed = |text: &str| Refusal::new(Who::LocalService, 502, "bad_answer", text);
    let mut deadline = Deadline::default();
    deadline.set(d::OPENED);
    let tunnel = &mut opened.leased.tunnel;
    loop {
        match packet::take(&mut tunnel.buf) {
            Ok(Some(packet)) => {
                return ServerGreeting::parse(&packet.payload).ok_or_else(|| {
                    failed("the service behind this token is no MySQL server, or does not let us in")
                });
            }
            Ok(None) => {}
            Err(_) => {
                return Err(failed(
                    "the service behind this token does not speak MySQL's protocol",
                ));
            }
        }
        match deadline
            .run(|cx| poll_fill(&mut tunnel.rd, &mut tunnel.buf, cx))
            .await
        {
            Ok(n) if n > 0 => {}
            _ => {
                return Err(failed(
                    "the service behind this token does not greet as a MySQL server does",
                ));
            }
        }
    }
}

/// Asks the client again with the server's salt, and carries both to the end of the login and beyond it. What the two
/// count apart (the relay's own two packets) is made good until then.
async fn authenticate(
    mut line: Line,
    reached: Reached,
    mut opened: Opened,
    login: &Login,
    greeting: &ServerGreeting,
    sequence: u8,
) {
    let again = packet::write(sequence, &login::ask_again(greeting));
    if line.say(&again).await.is_err() {
        return;
    }
    let Some(answer) = from_visitor(&mut line).await else {
        return;
    };
    let user = reached.service.default_user.as_deref();
    let response = login.write(greeting, &answer.payload, user);
    // Nobody may take what was cut for the whole.
    line.wr.begin();
    let sent = write(&mut opened.leased.tunnel.wr, packet::write(1, &response)).await;
    // The server has counted one packet of ours, the client up to its answer.
    let apart = answer.sequence.wrapping_sub(1);
    if sent.is_err() {
        return;
    }
    line.deadline.set(d::LOGIN);
    loop {
        // A packet that came is passed on with the number that the other side expects.
        while let Ok(Some(packet)) = packet::take(&mut opened.leased.tunnel.buf) {
            let over = matches!(packet.payload.first(), Some(0x00 | 0xff));
            let bytes = packet::write(packet.sequence.wrapping_add(apart), &packet.payload);
            if write(&mut line.wr, bytes).await.is_err() {
                return;
            }
            if over {
                return carry(line, reached, opened, "mysql", BytesMut::new(), BytesMut::new()).await;
            }
        }
        while let Ok(Some(packet)) = packet::take(&mut line.buf) {
            let bytes = packet::write(packet.sequence.wrapping_sub(apart), &packet.payload);
            if write(&mut opened.leased.tunnel.wr, bytes).await.is_err() {
                return;
            }
        }
        if line.buf.len() > packet::LONGEST || opened.leased.tunnel.buf.len() > packet::LONGEST {
            return;
        }
        if !matches!(step(&mut line, &mut opened).await, Ok(n) if n > 0) {
            return;
        }
    }
}

async fn write(wr: &mut WriteHalf, bytes: BytesMut) -> io::Result<()> {
    let mut out = Outgoing {
        head: bytes,
        ..Outgoing::default()
    };
    out.write(wr, &mut Deadline::default(), d::WRITE_TIMEOUT).await
}

/// Reads from whoever has something to say, into its buffer.
async fn step(line: &mut Line, opened: &mut Opened) -> io::Result<usize> {
    let Line {
        rd, buf, deadline, ..
    } = line;
    let tunnel = &mut opened.leased.tunnel;
    deadline
        .run(|cx| match poll_fill(&mut tunnel.rd, &mut tunnel.buf, cx) {
            Poll::Ready(read) => Poll::Ready(read),
            Poll::Pending => poll_fill(rd, buf, cx),
        })
        .await
}
