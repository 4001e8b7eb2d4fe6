//! Byte ranges as HTTP has them.

use crate::FilesError;

/// Which bytes of a file are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From an offset on, at most so many bytes (`None`: to the end).
    From {
        /// Offset of the first byte.
        start: u64,
        /// How many.
        len: Option<u64>,
    },
    /// The last so many bytes.
    Last(u64),
}

impl ByteRange {
    /// Reads one range of a `Range: bytes=…` header: `a-b` (both included), `a-`, or `-n`.
    ///
    /// # Errors
    /// [`FilesError::BadRange`] for another unit, several ranges or nonsense.
    pub fn from_header(value: &str) -> Result<Self, FilesError> {
        let bad = FilesError::BadRange { size: 0 };
        let Some((start, end)) = value
            .trim()
            .strip_prefix("bytes=")
            .and_then(|v| v.split_once('-'))
        else {
            return Err(bad);
        };
        let number = |text: &str| match text.bytes().all(|b| b.is_ascii_digit()) {
            true => text.parse::<u64>().ok(),
            false => None,
        };
        match (start.trim(), end.trim()) {
            ("", last) => number(last).map(Self::Last),
            (start, "") => number(start).map(|start| Self::From { start, len: None }),
            (start, end) => match (number(start), number(end)) {
                (Some(start), Some(end)) if start <= end => Some(Self::From {
                    start,
                    len: (end - start).checked_add(1),
                }),
                _ => None,
            },
        }
        .ok_or(bad)
    }

    /// Offset and length within a file of `size` bytes.
    pub(crate) fn resolve(self, size: u64) -> Result<(u64, u64), FilesError> {
        match self {
            Self::From { start, .. } if start > size => Err(FilesError::BadRange { size }),
            Self::From { start, len } => Ok((start, len.unwrap_or(u64::MAX).min(size - start))),
            Self::Last(n) => Ok((size.saturating_sub(n), n.min(size))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_forms_are_understood() {
        let from = |start, len| ByteRange::From { start, len };
        assert_eq!(ByteRange::from_header("bytes=0-99").unwrap(), from(0, Some(100)));
        assert_eq!(ByteRange::from_header("bytes=5-").unwrap(), from(5, None));
        assert_eq!(ByteRange::from_header("bytes=-7").unwrap(), ByteRange::Last(7));
        for bad in [
            "",
            "bytes=",
            "bytes=-",
            "bytes=9-5",
            "bytes=1-2,4-5",
            "lines=1-2",
            "bytes=+1-2",
        ] {
            assert!(ByteRange::from_header(bad).is_err(), "{bad}");
        }
        assert!(ByteRange::from_header("bytes=0-18446744073709551615").is_ok_and(|r| r == from(0, None)));
    }

    #[test]
    fn ranges_are_cut_to_the_file() {
        assert_eq!(
            ByteRange::From {
                start: 2,
                len: Some(100)
            }
            .resolve(10)
            .unwrap(),
            (2, 8)
        );
        assert_eq!(
            ByteRange::From { start: 10, len: None }.resolve(10).unwrap(),
            (10, 0)
        );
        assert_eq!(ByteRange::Last(100).resolve(10).unwrap(), (0, 10));
        assert!(matches!(
            ByteRange::From { start: 11, len: None }.resolve(10),
            Err(FilesError::BadRange { size: 10 })
        ));
    }
}
