//! Packets: three bytes of length, one that counts, and the payload.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Longest packet of a login, in bytes.
pub(super) const LONGEST: usize = 16 * 1024;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Packet {
    /// Its number.
    pub(super) sequence: u8,
    /// What it says.
    pub(super) payload: Bytes,
}

/// A packet is longer than any of a login.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Takes a packet off the front, if it is complete.
pub(super) fn take(buf: &mut BytesMut) -> Result<Option<Packet>, TooLong> {
    let Some([a, b, c, sequence]) = buf.first_chunk::<4>().copied() else {
        return Ok(None);
    };
    let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    if length > LONGEST - 4 {
        return Err(TooLong);
    }
    if buf.len() < 4 + length {
        return Ok(None);
    }
    buf.advance(4);
    let payload = buf.split_to(length).freeze();
    Ok(Some(Packet { sequence, payload }))
}

/// Writes a packet.
pub(super) fn write(sequence: u8, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(4 + payload.len());
    out.put_uint_le(payload.len() as u64, 3);
    out.put_u8(sequence);
    out.put_slice(payload);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_taken_at_every_split() {
        let bytes = write(3, b"hello");
        for cut in 0..bytes.len() {
            assert_eq!(take(&mut BytesMut::from(&bytes[..cut])), Ok(None));
        }
        let mut buf = BytesMut::from(&[&bytes[..], b"x"].concat()[..]);
        let packet = take(&mut buf).unwrap().unwrap();
        assert_eq!(
            (packet.sequence, &packet.payload[..], &buf[..]),
            (3, &b"hello"[..], &b"x"[..])
        );
        assert_eq!(
            take(&mut BytesMut::from(&[0xff, 0xff, 0xff, 0][..])),
            Err(TooLong)
        );
    }
}
