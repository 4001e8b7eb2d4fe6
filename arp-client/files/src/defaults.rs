//! The limits of this crate, each with its unit and reason.

/// Bytes of a file given in one answer. What a phone can show; more is asked for by range.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Entries of one directory that are looked at. A directory beyond it (a cache, a mail spool) is listed up to
/// here and says `truncated`; it bounds memory at some megabytes.
pub const MAX_ENTRIES: usize = 10_000;

/// Entries in one page, also the default: the `stat` calls that one request may cause.
pub const MAX_PAGE: usize = 1_000;

/// Bytes of a relative path. Linux's PATH_MAX; nothing longer can name a file.
pub const MAX_PATH_BYTES: usize = 4_096;
