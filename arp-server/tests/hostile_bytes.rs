//! Parsers of the public port against bytes of any kind. Each property is tried for some thousands of cases, a few
//! seconds in all; more: `PROPTEST_CASES=1000000 cargo test --release hostile`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use arps::http::body::{Decoder, Piece};
use arps::http::scan::{Scan, Scanner};
use arps::http::{Framing, RequestHead, ResponseHead};
use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

/// Bytes that look like a head often enough to reach the far corners.
fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let line = prop_oneof![
        Just(b"Host: r".to_vec()),
        Just(b"Content-Length: 5".to_vec()),
        Just(b"Content-Length: 5, 6".to_vec()),
        Just(b"Transfer-Encoding: chunked".to_vec()),
        Just(b"Transfer-Encoding: gzip, chunked".to_vec()),
        Just(b"Connection: upgrade, x".to_vec()),
        Just(b"Upgrade: websocket".to_vec()),
        Just(b"Cookie: a=b; arp_token=demo:4:f; ;=".to_vec()),
        Just(b"Referer: http://r/?token=demo&x".to_vec()),
        "[A-Za-z-]{1,12}:[ -~]{0,20}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..20),
    ];
    let first = prop_oneof![
        "(GET|POST|OPTIONS|CONNECT) (/|\\*|http://r/)[!-~]{0,20} HTTP/1\\.[019]".prop_map(String::into_bytes),
        "/?HTTP/1.1 [0-9]{3} [ -~]{0,9}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..40),
    ];
    (first, proptest::collection::vec(line, 0..6)).prop_map(|(first, lines)| {
        let mut all = first;
        for line in lines {
            all.extend_from_slice(b"\r\n");
            all.extend(line);
        }
        all.extend_from_slice(b"\r\n\r\n");
        all
    })
}

/// Cases of each property, unless the environment says otherwise.
fn cases(n: u32) -> ProptestConfig {
    match std::env::var_os("PROPTEST_CASES") {
        Some(_) => ProptestConfig::default(),
        None => ProptestConfig::with_cases(n),
    }
}

/// Pieces of a chunked body, right and wrong.
fn chunked_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (0usize..20).prop_map(|n| format!("{n:x}\r\n{}\r\n", "x".repeat(n)).into_bytes()),
        (0usize..20, 0usize..20).prop_map(|(n, m)| format!("{n:X}\r\n{}\r\n", "x".repeat(m)).into_bytes()),
        "[0-9a-fA-F]{0,17}(;[!-~]{0,8})?\r?\n".prop_map(String::into_bytes),
        "0\r\n([A-Za-z-]{1,8}: [ -~]{0,8}\r\n){0,3}\r\n".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

/// Decodes a whole body: what came out, and how it ended.
fn decode(bytes: &[u8], cut: usize) -> (Vec<u8>, Option<String>, usize) {
    let mut decoder = Decoder::new(Framing::Chunked);
    let (mut buf, mut out, mut fed) = (BytesMut::new(), Vec::new(), 0);
    loop {
        match decoder.decode(&mut buf) {
            Ok(Some(Piece::Data(data))) => out.extend_from_slice(&data),
            Ok(Some(Piece::End(trailers))) => {
                let trailers = trailers.map(|t| {
                    t.fields()
                        .map(|(n, v)| (n.to_vec(), v.to_vec()))
                        .collect::<Vec<_>>()
                });
                return (out, Some(format!("end {trailers:?}")), fed - buf.len());
            }
            Ok(None) if fed < bytes.len() => {
                let piece = &bytes[fed..(fed + cut).min(bytes.len())];
                buf.extend_from_slice(piece);
                fed += piece.len();
            }
            Ok(None) => return (out, None, fed),
            Err(_) => return (out, Some("refused".into()), 0),
        }
    }
}

/// The data of a chunked body as its grammar has it (RFC 9112 §7.1), read in the plainest way.
fn by_the_grammar(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut rest, mut data) = (bytes, Vec::new());
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..end]).ok()?;
        let digits = line.split([';', ' ', '\t']).next()?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let size = usize::from_str_radix(digits, 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(data);
        }
        data.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
}

proptest! {
    #![proptest_config(cases(8192))]

    /// A chunked body is the same body however its bytes are cut on the way, and ends at the same byte: what
    /// follows is the next request for everybody.
    #[test]
    fn a_chunked_body_has_one_meaning_however_it_is_cut(bytes in chunked_like(), cut in 1usize..9) {
        let (whole, pieces) = (decode(&bytes, bytes.len().max(1)), decode(&bytes, cut));
        prop_assert_eq!(&whole.1, &pieces.1);
        // Of a refused body some of what was right may have been given already.
        if whole.1.as_deref() != Some("refused") {
            prop_assert_eq!(&whole, &pieces);
        }
        if whole.1.as_ref().is_some_and(|end| end.starts_with("end")) {
            prop_assert_eq!(Some(whole.0), by_the_grammar(&bytes));
        }
    }

    /// Whatever a head says, it is understood in one way or refused.
    #[test]
    fn any_head_is_understood_or_refused(bytes in head_like()) {
        let mut scanner = Scanner::default();
        if let Scan::Complete(n) = scanner.scan(&bytes, true) {
            prop_assert!(n <= bytes.len());
        }
        let block = Bytes::from(bytes);
        if let Ok(head) = RequestHead::parse(block.clone()) {
            // Never both framings, and never one that was not announced.
            if head.framing == Framing::Chunked {
                prop_assert!(!String::from_utf8_lossy(&block).to_ascii_lowercase().contains("\r\ncontent-length:"));
            }
        }
        if let Ok(head) = ResponseHead::parse(block) {
            let _ = head.framing("GET");
            let _ = head.content_length();
        }
    }

    /// A decoder of any framing takes any bytes: it never gives more than it got, and always comes to an end.
    #[test]
    fn any_body_is_decoded_or_refused(
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), b'0'..=b'9'], 0..200),
        kind in 0u8..3,
    ) {
        let framing = match kind {
            0 => Framing::Chunked,
            1 => Framing::Length(u64::from(bytes.first().copied().unwrap_or(0))),
            _ => Framing::UntilEof,
        };
        let mut decoder = Decoder::new(framing);
        let mut buf = BytesMut::from(&bytes[..]);
        let mut given = 0;
        for _ in 0..=bytes.len() {
            match decoder.decode(&mut buf) {
                Ok(Some(Piece::Data(data))) => given += data.len(),
                Ok(Some(Piece::End(_))) | Ok(None) | Err(_) => break,
            }
        }
        prop_assert!(given + buf.len() <= bytes.len());
    }
}
