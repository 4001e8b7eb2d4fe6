//! From the start-up packet to the first "ready for query": what the server says is looked at for the key by which
//! this connection can be cancelled. After it nothing is looked at any more.

use super::cancel::{CancelKey, Kept};
use crate::defaults as d;
use crate::exchange::deadline::Deadline;
use crate::exchange::poll_io::{Outgoing, poll_fill};
use crate::tcp::carry::carry;
use crate::tcp::line::Line;
use crate::tcp::reach::{Opened, Reached};
use bytes::{Buf, Bytes, BytesMut};
use std::io;
use std::task::Poll;

/// Longest message that is looked at, in bytes; longer ones are passed over.
const LONGEST: usize = 4096;

/// Looks at a server's messages.
#[derive(Debug, Default)]
struct Watcher {
    /// What is left of a message that is passed over.
    skip: usize,
    /// The beginning of a message that is not complete.
    held: BytesMut,
}

/// What was seen.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Nothing,
    Key(Bytes),
    /// Ready for the first query, or an error: nothing more is of interest.
    Over,
}

impl Watcher {
    /// Looks at further bytes of the server. Not to be asked again once it has seen something.
    fn look(&mut self, mut bytes: &[u8]) -> Seen {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            if !self.fill(5, &mut bytes) {
                return Seen::Nothing;
            }
            let length = self.held[1..5].iter().fold(0, |n, b| n << 8 | usize::from(*b));
            match self.held[0] {
                b'Z' | b'E' => return Seen::Over,
                _ if length < 4 => return Seen::Over,
                b'K' if length < LONGEST => {
                    if !self.fill(1 + length, &mut bytes) {
                        return Seen::Nothing;
                    }
                    let mut key = std::mem::take(&mut self.held);
                    key.advance(5);
                    return Seen::Key(key.freeze());
                }
                _ => {
                    self.skip = length - 4;
                    self.held.clear();
                }
            }
        }
    }

    /// Takes bytes off the front until `n` are held.
    fn fill(&mut self, n: usize, bytes: &mut &[u8]) -> bool {
        let more = n.saturating_sub(self.held.len()).min(bytes.len());
        let (now, rest) = bytes.split_at(more);
        self.held.extend_from_slice(now);
        *bytes = rest;
        self.held.len() >= n
    }
}

/// Sends the start-up packet and carries the connection to its end.
pub(super) async fn serve(mut line: Line, reached: Reached, mut opened: Opened, packet: BytesMut) {
    let mut out = Outgoing {
        head: packet,
        ..Outgoing::default()
    };
    let tunnel = &mut opened.leased.tunnel;
    let sent = out
        .write(&mut tunnel.wr, &mut Deadline::default(), d::WRITE_TIMEOUT)
        .await;
    if sent.is_err() {
        return line.wr.begin();
    }
    let mut kept: Option<Kept> = None;
    let mut watcher = Watcher::default();
    // Passwords may be typed while this lasts.
    line.deadline.set(d::LOGIN);
    // Nobody may take what was cut for the whole.
    line.wr.begin();
    loop {
        let (from, read) = match step(&mut line, &mut opened).await {
            Ok(step) => step,
            Err(_) => return,
        };
        if read == 0 {
            // What the other side still has to say is carried as usual.
            break;
        }
        let mut out = Outgoing::default();
        let mut seen = Seen::Nothing;
        let wr = match from {
            From::Visitor => {
                out.head = line.buf.split();
                &mut opened.leased.tunnel.wr
            }
            From::Server => {
                out.head = opened.leased.tunnel.buf.split();
                seen = watcher.look(&out.head);
                &mut line.wr
            }
        };
        let mut deadline = Deadline::default();
        if out.write(wr, &mut deadline, d::WRITE_TIMEOUT).await.is_err() {
            return;
        }
        match seen {
            Seen::Nothing => {}
            Seen::Key(key) => {
                let cancels = &line.public.cancels;
                kept = cancels.keep(CancelKey(key), reached.name.clone(), line.visitor.ip);
                break;
            }
            Seen::Over => break,
        }
    }
    carry(
        line,
        reached,
        opened,
        "postgres",
        BytesMut::new(),
        BytesMut::new(),
    )
    .await;
    drop(kept);
}

/// Who has said something.
#[derive(Debug, Clone, Copy)]
enum From {
    Visitor,
    Server,
}

/// Reads from whoever has something to say, into its buffer.
async fn step(line: &mut Line, opened: &mut Opened) -> io::Result<(From, usize)> {
    let Line {
        rd, buf, deadline, ..
    } = line;
    let tunnel = &mut opened.leased.tunnel;
    deadline
        .run(|cx| {
            if let Poll::Ready(read) = poll_fill(&mut tunnel.rd, &mut tunnel.buf, cx) {
                return Poll::Ready(read.map(|n| (From::Server, n)));
            }
            poll_fill(rd, buf, cx).map(|read| read.map(|n| (From::Visitor, n)))
        })
        .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = (body.len() as u32 + 4).to_be_bytes();
        [&[kind][..], &length, body].concat()
    }

    #[test]
    fn the_key_is_found_at_every_split() {
        let begin = [
            message(b'R', &[0, 0, 0, 0]),
            message(b'S', &[b'x'; 5000]),
            message(b'K', &[1, 2, 3, 4, 5, 6, 7, 8]),
        ]
        .concat();
        let whole = [&begin[..], &message(b'Z', b"I")].concat();
        for cut in 0..whole.len() {
            let mut watcher = Watcher::default();
            let (a, b) = whole.split_at(cut);
            let seen = match watcher.look(a) {
                Seen::Nothing => watcher.look(b),
                seen => seen,
            };
            assert_eq!(
                seen,
                Seen::Key(Bytes::from_static(&[1, 2, 3, 4, 5, 6, 7, 8])),
                "{cut}"
            );
        }
        for over in [message(b'E', b"no"), message(b'Z', b"I"), vec![b'R', 0, 0, 0, 1]] {
            assert_eq!(Watcher::default().look(&over), Seen::Over);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_looked_at_with_little_memory(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut watcher = Watcher::default();
            for piece in pieces {
                if watcher.look(&piece) != Seen::Nothing {
                    break;
                }
                prop_assert!(watcher.held.len() <= LONGEST + 1);
            }
        }
    }
}
