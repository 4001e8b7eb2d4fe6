//! The fields of a head: kept as the bytes they came in, by position.

use super::name::Name;
use bytes::{Bytes, BytesMut};

#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    start: u32,
    len: u32,
}

impl Span {
    /// Where `part`, a slice of `whole`, lies in it.
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Self {
        Self {
            start: (part.as_ptr() as usize - whole.as_ptr() as usize) as u32,
            len: part.len() as u32,
        }
    }
    /// Where a text lies, which may also be an empty one from elsewhere.
    pub(super) fn of_text(whole: &[u8], part: &str) -> Self {
        let part = if part.is_empty() {
            &whole[..0]
        } else {
            part.as_bytes()
        };
        Self::of(whole, part)
    }
    pub(super) fn get(self, whole: &[u8]) -> &[u8] {
        &whole[self.start as usize..(self.start + self.len) as usize]
    }
}

/// One field of a head.
#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    known: Name,
    name: Span,
    value: Span,
}

/// One field, as bytes of the head it stands in.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// Which, if the relay knows it.
    pub known: Name,
    /// Name as it came.
    pub name: &'a [u8],
    /// Value as it came, without the white space around it.
    pub value: &'a [u8],
}

/// The fields of a head, in order.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    block: Bytes,
    /// On the heap: a head is moved several times on its way, and is to be small then.
    spans: Vec<FieldSpan>,
    /// A bit for each known name that was there: most are asked for and are not.
    present: u32,
}

fn bit(known: Name) -> u32 {
    const { assert!((Name::Other as u32) < u32::BITS) };
    1 << known as u32
}

impl Fields {
    /// The fields of a head in `block`.
    pub(super) fn new(block: &[u8], headers: &[httparse::Header<'_>]) -> Self {
        let mut fields = Self {
            spans: Vec::with_capacity(headers.len()),
            ..Self::default()
        };
        for h in headers {
            let known = Name::of(h.name.as_bytes());
            fields.present |= bit(known);
            fields.spans.push(FieldSpan {
                known,
                name: Span::of(block, h.name.as_bytes()),
                value: Span::of(block, h.value),
            });
        }
        fields
    }

    /// Those of [`Fields::new`], with the bytes that they stand in.
    pub(super) fn in_block(mut self, block: Bytes) -> Self {
        self.block = block;
        self
    }

    /// The bytes that they stand in: the whole head.
    pub(super) fn block(&self) -> &[u8] {
        &self.block
    }

    /// All fields in order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.spans.iter().map(|s| Field {
            known: s.known,
            name: s.name.get(&self.block),
            value: s.value.get(&self.block),
        })
    }

    /// Takes out the fields that are not to be kept.
    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Field<'_>) -> bool) {
        let Self { block, spans, .. } = self;
        spans.retain(|s| {
            keep(&Field {
                known: s.known,
                name: s.name.get(block),
                value: s.value.get(block),
            })
        });
    }

    /// Gives fields another value, where `new` says one.
    pub(crate) fn rewrite(&mut self, mut new: impl FnMut(&Field<'_>) -> Option<Vec<u8>>) {
        let Self { block, spans, .. } = self;
        // Behind the head as it came; nobody looks at that but through spans.
        let mut more = BytesMut::new();
        for s in spans.iter_mut() {
            let field = Field {
                known: s.known,
                name: s.name.get(block),
                value: s.value.get(block),
            };
            if let Some(value) = new(&field) {
                s.value = Span {
                    start: (block.len() + more.len()) as u32,
                    len: value.len() as u32,
                };
                more.extend_from_slice(&value);
            }
        }
        if !more.is_empty() {
            let mut whole = BytesMut::with_capacity(block.len() + more.len());
            whole.extend_from_slice(block);
            whole.extend_from_slice(&more);
            *block = whole.freeze();
        }
    }

    /// The values of one known field, in order.
    pub fn all(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        let there = self.present & bit(known) != 0;
        let spans = if there { &self.spans[..] } else { &[] };
        spans
            .iter()
            .filter(move |s| s.known == known)
            .map(|s| s.value.get(&self.block))
    }

    /// The first value of one known field.
    pub fn first(&self, known: Name) -> Option<&[u8]> {
        self.all(known).next()
    }

    /// The comma-separated members of a known field, over all its lines.
    pub fn members(&self, known: Name) -> impl Iterator<Item = &[u8]> {
        self.all(known)
            .flat_map(|v| v.split(|b| *b == b','))
            .map(|m| m.trim_ascii())
            .filter(|m| !m.is_empty())
    }

    /// Does a list field hold this member, any case?
    pub fn has_member(&self, known: Name, member: &str) -> bool {
        self.members(known)
            .any(|m| m.eq_ignore_ascii_case(member.as_bytes()))
    }
}
