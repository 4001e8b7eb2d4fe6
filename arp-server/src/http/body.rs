//! Bodies of HTTP/1 messages: taking the framing off bytes as they arrive, and putting ours on.

use super::scan::{Scan, Scanner};
use super::{Framing, Name};
use crate::defaults::{MAX_FIELDS, MAX_HEAD, READ_BUF};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use std::num::NonZeroUsize;

/// Longest line before a chunk, extensions included.
const MAX_CHUNK_LINE: usize = 1024;

/// A piece of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Bytes of content.
    Data(Bytes),
    /// The body is complete. The trailer fields, if there are any, are those that may be passed on.
    End(Option<Trailers>),
}

/// Trailer fields, as lines that are ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trailers(Bytes);

impl Trailers {
    /// The lines, each with its CRLF, without the empty one at the end.
    pub fn lines(&self) -> &[u8] {
        &self.0
    }

    /// Names and values.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.split(|b| *b == b'\n').filter_map(|line| {
            let line = line.strip_suffix(b"\r")?;
            let colon = line.iter().position(|b| *b == b':')?;
            Some((&line[..colon], line[colon + 1..].trim_ascii()))
        })
    }

    /// Makes lines of fields, leaving out what must not come after a body.
    pub fn from_fields<'a>(fields: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Option<Self> {
        let mut lines = BytesMut::new();
        for (name, value) in fields {
            // What frames or routes a message has no business behind it (RFC 9110 §6.5.1).
            let known = Name::of(name);
            let value_is_fine = value.iter().all(|b| *b == b'\t' || (*b >= 0x20 && *b != 0x7f));
            if known.is_hop_by_hop() || known != Name::Other || !value_is_fine {
                continue;
            }
            lines.put_slice(name);
            lines.put_slice(b": ");
            lines.put_slice(value);
            lines.put_slice(b"\r\n");
        }
        (!lines.is_empty()).then(|| Self(lines.freeze()))
    }
}

/// The body cannot be understood; nothing after it on the connection can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadBody(pub &'static str);

/// Takes the framing off a body.
#[derive(Debug)]
pub struct Decoder {
    state: State,
}

#[derive(Debug)]
enum State {
    /// This many bytes are to come.
    Length(u64),
    UntilEof,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    Trailers(Scanner),
    Done,
}

impl Decoder {
    /// A decoder for one body.
    pub fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None | Framing::Length(0) => State::Done,
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::ChunkSize,
            Framing::UntilEof => State::UntilEof,
        };
        Self { state }
    }

    /// Takes the next piece off the front of `buf`; `None` when more bytes are needed. After
    /// [`Piece::End`] what is left in `buf` belongs to the next message.
    ///
    /// # Errors
    /// [`BadBody`] if the framing is broken.
    pub fn decode(&mut self, buf: &mut BytesMut) -> Result<Option<Piece>, BadBody> {
        loop {
            match &mut self.state {
                State::Done => return Ok(Some(Piece::End(None))),
                State::UntilEof => return Ok(take(buf, u64::MAX).map(Piece::Data)),
                State::Length(left) => {
                    let Some(data) = take(buf, *left) else {
                        return Ok(None);
                    };
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::Done;
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                State::ChunkSize => match chunk_size(buf)? {
                    None => return Ok(None),
                    Some(0) => self.state = State::Trailers(Scanner::default()),
                    Some(n) => self.state = State::ChunkData(n),
                },
                State::ChunkData(left) => {
                    let Some(data) = take(buf, *left) else {
                        return Ok(None);
                    };
                    *left -= data.len() as u64;
                    if *left == 0 {
                        self.state = State::ChunkEnd;
                    }
                    return Ok(Some(Piece::Data(data)));
                }
                State::ChunkEnd => {
                    if buf.len() < 2 {
                        return Ok(None);
                    }
                    if !buf.starts_with(b"\r\n") {
                        return Err(BadBody("a chunk does not end where its size says"));
                    }
                    buf.advance(2);
                    self.state = State::ChunkSize;
                }
                State::Trailers(scanner) => {
                    let end = match scanner.scan(buf, true) {
                        Scan::Complete(n) => n,
                        Scan::Partial if buf.len() <= MAX_HEAD => return Ok(None),
                        Scan::Partial => return Err(BadBody("trailers are too long")),
                        Scan::BareLf => return Err(BadBody("a trailer line ends with LF alone")),
                    };
                    let block = buf.split_to(end).freeze();
                    self.state = State::Done;
                    return Ok(Some(Piece::End(parse_trailers(&block)?)));
                }
            }
        }
    }

    /// The connection ended. Was that the end of the body?
    pub fn may_end_here(&self) -> bool {
        matches!(self.state, State::UntilEof | State::Done)
    }

    /// Has everything been taken?
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Bytes that are still to come and need no looking at, if that is known.
    pub fn plain_rest(&self) -> Option<u64> {
        match self.state {
            State::Length(n) => Some(n),
            _ => None,
        }
    }

    /// Counts bytes that were moved past the decoder, of those that [`Decoder::plain_rest`] told.
    pub fn skip(&mut self, n: u64) {
        if let State::Length(left) = &mut self.state {
            *left = left.saturating_sub(n);
            if *left == 0 {
                self.state = State::Done;
            }
        }
    }
}

fn take(buf: &mut BytesMut, most: u64) -> Option<Bytes> {
    if buf.is_empty() {
        return None;
    }
    let n = usize::try_from(most).map_or(buf.len(), |m| m.min(buf.len()));
    // What came in little pieces shares its memory with nobody; a large buffer is read into again.
    if n == buf.len() && n == buf.capacity() && n <= READ_BUF {
        return Some(std::mem::take(buf).freeze());
    }
    Some(buf.split_to(n).freeze())
}

/// Takes a chunk's size line. Extensions are dropped, as RFC 9112 §7.1.1 lets a recipient do.
fn chunk_size(buf: &mut BytesMut) -> Result<Option<u64>, BadBody> {
    let Some(lf) = memchr::memchr(b'\n', &buf[..buf.len().min(MAX_CHUNK_LINE)]) else {
        return if buf.len() >= MAX_CHUNK_LINE {
            Err(BadBody("a chunk's size line is too long"))
        } else {
            Ok(None)
        };
    };
    let line = buf[..lf]
        .strip_suffix(b"\r")
        .ok_or(BadBody("a chunk's size line ends with LF alone"))?;
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    if digits == 0 || digits > 15 {
        return Err(BadBody("a chunk's size is not a hexadecimal number"));
    }
    let rest = line[digits..].trim_ascii_start();
    if !(rest.is_empty() || rest[0] == b';') || rest.iter().any(|b| *b < 0x20 && *b != b'\t') {
        return Err(BadBody("something else than an extension after a chunk's size"));
    }
    let size = std::str::from_utf8(&line[..digits])
        .ok()
        .and_then(|d| u64::from_str_radix(d, 16).ok());
    let size = size.ok_or(BadBody("a chunk's size is not a hexadecimal number"))?;
    buf.advance(lf + 1);
    Ok(Some(size))
}

fn parse_trailers(block: &[u8]) -> Result<Option<Trailers>, BadBody> {
    if block == b"\r\n" {
        return Ok(None);
    }
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(block, &mut fields) {
        Ok(httparse::Status::Complete((n, fields))) if n == block.len() => Ok(Trailers::from_fields(
            fields.iter().map(|h| (h.name.as_bytes(), h.value)),
        )),
        _ => Err(BadBody("malformed trailers")),
    }
}

/// Puts the framing onto the pieces of a body.
///
/// A chunk of size 0 ends a body for whoever reads it. So no piece can be one: its length is not zero by its
/// type, and the last chunk is written by [`Encoder::end`] alone, after which there is no encoder any more.
#[derive(Debug)]
pub struct Encoder {
    form: Form,
}

#[derive(Debug, Clone, Copy)]
enum Form {
    /// This many bytes are still to come.
    Length(u64),
    Chunked,
    UntilEof,
}

impl Encoder {
    /// An encoder for one body.
    pub fn new(framing: Framing) -> Self {
        let form = match framing {
            Framing::None => Form::Length(0),
            Framing::Length(n) => Form::Length(n),
            Framing::Chunked => Form::Chunked,
            Framing::UntilEof => Form::UntilEof,
        };
        Self { form }
    }

    /// Puts what stands in front of a piece of `len` bytes into `out`, and returns what stands behind it. All
    /// three belong together: who has a piece waits for its end, too.
    ///
    /// # Errors
    /// If the body becomes longer than was told.
    pub fn piece(&mut self, out: &mut BytesMut, len: NonZeroUsize) -> Result<&'static [u8], BadBody> {
        match &mut self.form {
            Form::Length(left) => {
                let rest = left.checked_sub(len.get() as u64);
                *left = rest.ok_or(BadBody("longer than its Content-Length"))?;
                Ok(b"")
            }
            Form::Chunked => {
                put_chunk_size(out, len);
                Ok(b"\r\n")
            }
            Form::UntilEof => Ok(b""),
        }
    }

    /// Puts the end of the body into `out`.
    ///
    /// # Errors
    /// If the body is shorter than was told.
    pub fn end(self, out: &mut BytesMut, trailers: Option<&Trailers>) -> Result<(), BadBody> {
        match self.form {
            Form::Length(0) | Form::UntilEof => {}
            Form::Length(_) => return Err(BadBody("shorter than its Content-Length")),
            Form::Chunked => {
                out.put_slice(b"0\r\n");
                if let Some(trailers) = trailers {
                    out.put_slice(trailers.lines());
                }
                out.put_slice(b"\r\n");
            }
        }
        Ok(())
    }

    /// Does a piece stand alone on the wire, with nothing around it?
    pub fn is_plain(&self) -> bool {
        !matches!(self.form, Form::Chunked)
    }

    /// Counts bytes that were moved past the encoder, of a body that [`Encoder::is_plain`].
    pub fn skip(&mut self, n: u64) {
        if let Form::Length(left) = &mut self.form {
            *left = left.saturating_sub(n);
        }
    }
}

fn put_chunk_size(out: &mut BytesMut, size: NonZeroUsize) {
    let mut digits = [0u8; 16];
    let mut at = digits.len();
    let mut n = size.get();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[n & 15];
        n >>= 4;
        if n == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    type Decoded = (Vec<u8>, Option<Trailers>, Vec<u8>);

    /// Decodes `wire` cut into pieces of `step` bytes: content, trailers, and what was left over.
    fn decode(framing: Framing, wire: &[u8], step: usize) -> Result<Decoded, BadBody> {
        let mut decoder = Decoder::new(framing);
        let mut buf = BytesMut::new();
        let mut content = Vec::new();
        let mut input = wire.chunks(step);
        loop {
            match decoder.decode(&mut buf)? {
                Some(Piece::Data(data)) => content.extend_from_slice(&data),
                Some(Piece::End(trailers)) => {
                    let rest = buf.iter().copied().chain(input.flatten().copied()).collect();
                    return Ok((content, trailers, rest));
                }
                None => match input.next() {
                    Some(more) => buf.extend_from_slice(more),
                    None if decoder.may_end_here() => return Ok((content, None, vec![])),
                    None => return Err(BadBody("short")),
                },
            }
        }
    }

    #[test]
    fn bodies_come_out_whole_however_they_are_cut() {
        let chunked =
            b"3;ext=\"1\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-Sum: 7\r\nContent-Length: 9\r\n\r\nNEXT";
        for step in 1..chunked.len() {
            let (content, trailers, rest) = decode(Framing::Chunked, chunked, step).unwrap();
            assert_eq!((&content[..], &rest[..]), (&b"abc0123456789"[..], &b"NEXT"[..]));
            assert_eq!(trailers.unwrap().lines(), b"X-Sum: 7\r\n");
            let (content, _, rest) = decode(Framing::Length(5), b"helloNEXT", step).unwrap();
            assert_eq!((&content[..], &rest[..]), (&b"hello"[..], &b"NEXT"[..]));
            assert_eq!(
                decode(Framing::UntilEof, b"all of it", step).unwrap().0,
                b"all of it"
            );
        }
        assert_eq!(decode(Framing::None, b"NEXT", 9).unwrap().2, b"NEXT");
    }

    #[test]
    fn broken_chunks_are_refused() {
        for wire in [
            &b"x\r\n"[..],
            b"\r\n",
            b"-1\r\n",
            b"+1\r\na\r\n",
            b"0x1\r\na\r\n",
            b"1\na\r\n0\r\n\r\n",
            b"1\r\nab\r\n0\r\n\r\n",
            b"1\r\na\n0\r\n\r\n",
            b"1 x\r\na\r\n",
            b"1;a\rb\r\na\r\n",
            b"ffffffffffffffff\r\n",
            b"0\r\nBad Name: 1\r\n\r\n",
            b"0\r\nA: b\n\r\n",
        ] {
            assert!(
                decode(Framing::Chunked, wire, 100).is_err(),
                "{:?}",
                String::from_utf8_lossy(wire)
            );
        }
        assert!(decode(Framing::Chunked, &[b'1'; 5000], 100).is_err());
        let long = [b"0\r\nA: ".to_vec(), vec![b'x'; 2 * MAX_HEAD]].concat();
        assert_eq!(
            decode(Framing::Chunked, &long, 100),
            Err(BadBody("trailers are too long"))
        );
    }

    #[test]
    fn sizes_are_written_in_hex() {
        for n in [1usize, 9, 10, 255, 65536, usize::MAX] {
            let mut out = BytesMut::new();
            put_chunk_size(&mut out, NonZeroUsize::new(n).unwrap());
            assert_eq!(out, format!("{n:x}\r\n"));
        }
    }

    /// What a peer would see of pieces of these lengths.
    fn encode(framing: Framing, pieces: &[usize], trailers: Option<&Trailers>) -> Result<Vec<u8>, BadBody> {
        let (mut encoder, mut out) = (Encoder::new(framing), BytesMut::new());
        for len in pieces.iter().filter_map(|n| NonZeroUsize::new(*n)) {
            let behind = encoder.piece(&mut out, len)?;
            out.put_bytes(b'x', len.get());
            out.put_slice(behind);
        }
        encoder.end(&mut out, trailers)?;
        Ok(out.to_vec())
    }

    #[test]
    fn what_is_put_on_comes_off_again() {
        let trailers = Trailers::from_fields([(&b"X-Sum"[..], &b"7"[..])].into_iter());
        for pieces in [&[][..], &[1], &[3, 1, 40_000], &[16; 9]] {
            let total: usize = pieces.iter().sum();
            let length = Framing::Length(total as u64);
            for framing in [Framing::Chunked, Framing::UntilEof, length] {
                let wire = encode(framing, pieces, trailers.as_ref()).unwrap();
                for step in [1, 2, 7, 100_000] {
                    let (content, got, rest) = decode(framing, &wire, step).unwrap();
                    assert_eq!((content.len(), rest.len()), (total, 0), "{framing:?} {pieces:?}");
                    assert_eq!(got, trailers.clone().filter(|_| framing == Framing::Chunked));
                }
            }
            assert!(encode(Framing::Length(total as u64 + 1), pieces, None).is_err());
            assert!(total == 0 || encode(Framing::Length(total as u64 - 1), pieces, None).is_err());
        }
    }

    #[test]
    fn a_chunk_of_size_0_comes_once_and_last() {
        let wire = encode(Framing::Chunked, &[0, 2, 0, 1, 0, 0], None).unwrap();
        assert_eq!(wire, b"2\r\nxx\r\n1\r\nx\r\n0\r\n\r\n");
    }
}
