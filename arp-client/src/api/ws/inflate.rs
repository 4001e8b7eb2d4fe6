//! `permessage-deflate` (RFC 7692): what a WebSocket receives. Compressed messages become plain ones before the
//! library, which knows no extensions, reads them.

use super::deflate::TAIL;
use flate2::{Decompress, FlushDecompress, Status};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read from the connection in one go, in bytes.
const CHUNK: usize = 4 * 1024;

/// A connection on which compressed messages of the client become plain ones. Everything else passes as it is, faults
/// included: the library tells them.
pub(super) struct Inflating<S> {
    inner: S,
    /// `None`: no compression was agreed on.
    state: Option<Incoming>,
}

struct Incoming {
    step: Step,
    /// With what came before in mind, for a client that compresses so.
    decompress: Decompress,
    /// The compressed message whose frames are being read.
    message: Option<Message>,
    /// What the library is to read.
    ready: Vec<u8>,
    /// How much of it was read.
    read: usize,
    /// Largest message.
    most: usize,
}

/// Where in the client's frames we are.
enum Step {
    /// In a frame's header, of which this is there.
    Head(Vec<u8>),
    /// In a payload that passes.
    Pass(u64),
    /// In one that is kept.
    Keep {
        left: usize,
        mask: [u8; 4],
        at: usize,
        last: bool,
    },
}

struct Message {
    opcode: u8,
    data: Vec<u8>,
}

impl<S> Inflating<S> {
    /// `most`: the largest message in bytes, compressed or not; `None` if no compression was agreed on.
    pub(super) fn new(inner: S, most: Option<usize>) -> Self {
        let state = most.map(|most| Incoming {
            step: Step::Head(Vec::new()),
            decompress: Decompress::new(false),
            message: None,
            ready: Vec::new(),
            read: 0,
            most,
        });
        Self { inner, state }
    }
}

impl Incoming {
    fn take(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match &mut self.step {
                Step::Head(head) => {
                    head.push(bytes[0]);
                    bytes = &bytes[1..];
                    if head.len() == head_len(head) {
                        let head = std::mem::take(head);
                        self.frame(&head)?;
                    }
                }
                Step::Pass(left) => {
                    let now = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    self.ready.extend_from_slice(&bytes[..now]);
                    bytes = &bytes[now..];
                    *left -= now as u64;
                    if *left == 0 {
                        self.step = Step::Head(Vec::new());
                    }
                }
                Step::Keep { left, mask, at, last } => {
                    let now = (*left).min(bytes.len());
                    if let Some(message) = &mut self.message {
                        let plain = bytes[..now]
                            .iter()
                            .zip(*at..)
                            .map(|(byte, at)| byte ^ mask[at % 4]);
                        message.data.extend(plain);
                    }
                    bytes = &bytes[now..];
                    *at += now;
                    *left -= now;
                    if *left == 0 {
                        let last = *last;
                        self.kept(last)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// A frame begins whose header is whole.
    fn frame(&mut self, head: &[u8]) -> io::Result<()> {
        let (last, compressed, opcode) = (head[0] & 0x80 != 0, head[0] & 0x40 != 0, head[0] & 0x0f);
        let len = payload_len(head);
        let mask = head.last_chunk::<4>().copied().filter(|_| head[1] & 0x80 != 0);
        let begins = compressed && matches!(opcode, 1 | 2) && self.message.is_none();
        let goes_on = !compressed && opcode == 0 && self.message.is_some();
        let Some(mask) = mask.filter(|_| begins || goes_on) else {
            self.ready.extend_from_slice(head);
            self.step = if len == 0 {
                Step::Head(Vec::new())
            } else {
                Step::Pass(len)
            };
            return Ok(());
        };
        let message = self.message.get_or_insert(Message {
            opcode,
            data: Vec::new(),
        });
        let left = usize::try_from(len).unwrap_or(usize::MAX);
        if left > self.most - message.data.len().min(self.most) {
            return Err(too_large());
        }
        self.step = Step::Keep {
            left,
            mask,
            at: 0,
            last,
        };
        if left == 0 { self.kept(last) } else { Ok(()) }
    }

    /// A frame of a compressed message is there.
    fn kept(&mut self, last: bool) -> io::Result<()> {
        self.step = Step::Head(Vec::new());
        let Some(message) = self.message.take_if(|_| last) else {
            return Ok(());
        };
        let plain = inflate(&mut self.decompress, message.data, self.most)?;
        self.ready.push(0x80 | message.opcode);
        // Masked, as all frames of clients are; this mask changes nothing.
        match u16::try_from(plain.len()) {
            Ok(len @ 0..126) => self.ready.push(0x80 | len as u8),
            Ok(len) => {
                self.ready.push(0x80 | 126);
                self.ready.extend_from_slice(&len.to_be_bytes());
            }
            Err(_) => {
                self.ready.push(0x80 | 127);
                self.ready.extend_from_slice(&(plain.len() as u64).to_be_bytes());
            }
        }
        self.ready.extend_from_slice(&[0; 4]);
        self.ready.extend_from_slice(&plain);
        Ok(())
    }
}

/// Bytes of a frame's header, as far as its beginning tells.
fn head_len(head: &[u8]) -> usize {
    let Some(second) = head.get(1) else { return 2 };
    let extended = match second & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    2 + extended + if second & 0x80 != 0 { 4 } else { 0 }
}

fn payload_len(head: &[u8]) -> u64 {
    let extended = match head[1] & 0x7f {
        126 => &head[2..4],
        127 => &head[2..10],
        len => return u64::from(len),
    };
    extended.iter().fold(0, |len, byte| len << 8 | u64::from(*byte))
}

/// A whole message, with at most so many bytes.
fn inflate(decompress: &mut Decompress, mut data: Vec<u8>, most: usize) -> io::Result<Vec<u8>> {
    data.extend_from_slice(&TAIL);
    let mut out = Vec::with_capacity((data.len() * 4).min(most) + 64);
    let mut rest = data.as_slice();
    loop {
        let taken = decompress.total_in();
        let status = decompress
            .decompress_vec(rest, &mut out, FlushDecompress::Sync)
            .map_err(io::Error::other)?;
        let taken = usize::try_from(decompress.total_in() - taken).unwrap_or(usize::MAX);
        rest = rest.get(taken..).unwrap_or_default();
        if out.len() > most {
            return Err(too_large());
        }
        if status == Status::StreamEnd {
            // Allowed, and rare (RFC 7692 §7.2.3.4): what comes next begins anew.
            decompress.reset(false);
            return Ok(out);
        }
        if rest.is_empty() && out.len() < out.capacity() {
            return Ok(out);
        }
        if out.len() < out.capacity() && taken == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a compressed message is damaged",
            ));
        }
        out.reserve(out.capacity().min(most + 1));
    }
}

fn too_large() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a compressed message is too large")
}

impl<S: AsyncRead + Unpin> AsyncRead for Inflating<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(state) = &mut this.state else {
            return Pin::new(&mut this.inner).poll_read(cx, out);
        };
        let mut chunk = [0; CHUNK];
        while state.read == state.ready.len() {
            state.ready.clear();
            state.ready.shrink_to(CHUNK);
            state.read = 0;
            let mut buffer = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            state.take(buffer.filled())?;
        }
        let now = out.remaining().min(state.ready.len() - state.read);
        out.put_slice(&state.ready[state.read..state.read + now]);
        state.read += now;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inflating<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use flate2::{Compress, Compression, FlushCompress};
    use futures_util::{SinkExt, StreamExt};
    use tokio_tungstenite::WebSocketStream;
    use tokio_tungstenite::tungstenite::Message as WsMessage;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// A frame as a client sends it.
    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mask = [0x12, 0x34, 0x56, 0x78];
        let mut frame = vec![first];
        match payload.len() {
            len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap()),
            len => {
                frame.push(0x80 | 126);
                frame.extend(u16::try_from(len).unwrap().to_be_bytes());
            }
        }
        frame.extend(mask);
        frame.extend(payload.iter().zip(0..).map(|(byte, at)| byte ^ mask[at % 4]));
        frame
    }

    fn deflated(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len() + 1024);
        Compress::new(Compression::default(), false)
            .compress_vec(text, &mut out, FlushCompress::Sync)
            .unwrap();
        assert!(out.ends_with(&TAIL));
        out.truncate(out.len() - 4);
        out
    }

    /// What the library reads of these bytes, which come in pieces of a size.
    async fn heard(bytes: &[u8], size: usize) -> Vec<Result<WsMessage, String>> {
        let (mut client, server) = tokio::io::duplex(64);
        let sent = bytes.to_vec();
        let writing = async move {
            for piece in sent.chunks(size) {
                // The library may have hung up.
                if tokio::io::AsyncWriteExt::write_all(&mut client, piece)
                    .await
                    .is_err()
                {
                    break;
                }
            }
        };
        let reading = async {
            let stream = Inflating::new(server, Some(100_000));
            let mut socket = WebSocketStream::from_raw_socket(stream, Role::Server, None).await;
            let mut heard = Vec::new();
            while let Some(message) = socket.next().await {
                let over = message.is_err();
                heard.push(message.map_err(|error| error.to_string()));
                if over {
                    break;
                }
            }
            let _ = socket.close(None).await;
            heard
        };
        tokio::join!(reading, writing).0
    }

    #[tokio::test]
    async fn messages_of_the_client_are_read_compressed_or_not_and_however_they_are_cut() {
        let long = "all the words of a long message ".repeat(300);
        let packed = deflated(long.as_bytes());
        let (one, two) = packed.split_at(packed.len() / 2);
        let bytes = [
            client_frame(0x81, b"plain"),
            client_frame(0xc1, &deflated(b"packed")),
            // In three frames, one of them empty, a ping between them.
            client_frame(0x41, one),
            client_frame(0x89, b"ping"),
            client_frame(0x00, b""),
            client_frame(0x80, two),
            client_frame(0x01, b"in two "),
            client_frame(0x80, b"plain frames"),
            client_frame(0xc1, &deflated(b"")),
            client_frame(0x81, "more plain text ".repeat(20).as_bytes()),
        ]
        .concat();
        for size in [1, 2, 3, 7, 64, 5000] {
            let heard = heard(&bytes, size).await;
            let texts: Vec<&str> = heard
                .iter()
                .filter_map(|message| match message {
                    Ok(WsMessage::Text(text)) => Some(text.as_str()),
                    _ => None,
                })
                .collect();
            let last = "more plain text ".repeat(20);
            assert_eq!(
                texts,
                ["plain", "packed", &long, "in two plain frames", "", &last],
                "{size}: {heard:?}"
            );
            assert!(heard.contains(&Ok(WsMessage::Ping(Bytes::from_static(b"ping")))));
        }
    }

    #[tokio::test]
    async fn what_a_client_sends_with_earlier_messages_in_mind_is_read() {
        let mut theirs = Compress::new(Compression::default(), false);
        let mut bytes = Vec::new();
        let text = "a sentence that comes again and again in this conversation";
        let mut sizes = Vec::new();
        for _ in 0..5 {
            let mut out = Vec::with_capacity(1024);
            theirs
                .compress_vec(text.as_bytes(), &mut out, FlushCompress::Sync)
                .unwrap();
            out.truncate(out.len() - 4);
            sizes.push(out.len());
            bytes.extend(client_frame(0xc1, &out));
        }
        assert!(sizes[4] * 3 < sizes[0], "{sizes:?}");
        let heard = heard(&bytes, 4096).await;
        let texts = heard
            .iter()
            .filter(|message| **message == Ok(WsMessage::Text(text.into())));
        assert_eq!(texts.count(), 5, "{heard:?}");
    }

    #[tokio::test]
    async fn what_is_broken_ends_the_socket_and_a_bomb_is_not_unpacked() {
        let bomb = deflated(&vec![b' '; 10_000_000]);
        assert!(bomb.len() < 60_000);
        let unmasked = [&[0xc1, 3][..], &[1, 2, 3]].concat();
        for (what, bytes) in [
            ("a bomb", client_frame(0xc1, &bomb)),
            ("garbage", client_frame(0xc1, &[0xff; 40])),
            ("a compressed ping", client_frame(0xc9, b"")),
            (
                "a continuation that says it is compressed",
                [client_frame(0x41, b"x"), client_frame(0xc0, b"x")].concat(),
            ),
            (
                "a new message within one",
                [client_frame(0x41, b"x"), client_frame(0xc1, b"x")].concat(),
            ),
            ("another reserved bit", client_frame(0xa1, b"x")),
            ("no mask", unmasked),
            (
                "more than may be",
                [0xc1, 0x80 | 127, 0, 0, 0, 1, 0, 0, 0, 0, 1, 2, 3, 4].to_vec(),
            ),
            (
                "more than can be",
                [
                    0xc1,
                    0x80 | 127,
                    255,
                    255,
                    255,
                    255,
                    255,
                    255,
                    255,
                    255,
                    1,
                    2,
                    3,
                    4,
                ]
                .to_vec(),
            ),
            ("no text", client_frame(0xc1, &deflated(&[0xff, 0xfe]))),
        ] {
            let heard = heard(&bytes, 4096).await;
            assert!(matches!(heard.as_slice(), [Err(_)]), "{what}: {heard:?}");
        }
    }

    #[tokio::test]
    async fn without_an_agreement_everything_passes_as_it_is() {
        let (client, server) = tokio::io::duplex(1024);
        let server = Inflating::new(server, None);
        let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
        let mut server = WebSocketStream::from_raw_socket(server, Role::Server, None).await;
        client.send(WsMessage::Text("hello".into())).await.unwrap();
        assert_eq!(
            server.next().await.unwrap().unwrap(),
            WsMessage::Text("hello".into())
        );
        server.send(WsMessage::Text("you".into())).await.unwrap();
        assert_eq!(
            client.next().await.unwrap().unwrap(),
            WsMessage::Text("you".into())
        );
    }
}
