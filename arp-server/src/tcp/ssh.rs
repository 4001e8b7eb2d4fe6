//! SSH on the public port itself: it has no place for a token, so it is told how to come.

use super::line::Line;
use bytes::{BufMut, BytesMut};

const HINT: &str = "this port needs a name before SSH begins: ssh -o ProxyCommand='arpc connect %h --stdio' NAME, or \
    ssh -o ProxyCommand='nc -X connect -x RELAY:PORT %h %p' NAME";

/// Says so in SSH's own words, which clients show (RFC 4253 §11.1).
pub(super) async fn refuse(mut line: Line) {
    line.hurry();
    // A client speaks first or last; what it says is of no interest.
    let mut packet = BytesMut::from(&b"SSH-2.0-arp\r\n"[..]);
    put_disconnect(&mut packet, HINT);
    line.farewell(&packet).await;
}

/// A packet before any key exchange: no cipher, no MAC (RFC 4253 §6).
fn put_disconnect(out: &mut BytesMut, text: &str) {
    const DISCONNECT: u8 = 1;
    const HOST_NOT_ALLOWED: u32 = 1;
    let payload = 1 + 4 + 4 + text.len() + 4;
    // The whole packet is a multiple of 8, with at least 4 bytes of padding.
    let padding = 4 + (8 - (5 + payload + 4) % 8) % 8;
    out.put_u32((1 + payload + padding) as u32);
    out.put_u8(padding as u8);
    out.put_u8(DISCONNECT);
    out.put_u32(HOST_NOT_ALLOWED);
    out.put_u32(text.len() as u32);
    out.put_slice(text.as_bytes());
    out.put_u32(0);
    out.put_bytes(0, padding);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_padded_to_blocks_of_eight() {
        for length in 0..40 {
            let mut out = BytesMut::new();
            put_disconnect(&mut out, &"x".repeat(length));
            assert_eq!(out.len() % 8, 0);
            assert_eq!(
                u32::from_be_bytes(out[..4].try_into().unwrap()) as usize,
                out.len() - 4
            );
            assert!(out[4] >= 4);
        }
    }
}
