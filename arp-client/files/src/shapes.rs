//! The answers, as they are sent. Times are Unix seconds (UTC), sizes are bytes.

use serde::Serialize;

/// What a path turned out to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FoundAt {
    /// A directory, listed.
    Directory(Directory),
    /// A file, read.
    File(FileContent),
}

/// A page of a directory: `{"type":"directory",session_id,project_path,path,entries,…}`.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "directory")]
pub struct Directory {
    /// The session whose directory this is; set by the caller, null for `/api/fs`.
    pub session_id: Option<String>,
    /// Absolute path of the root.
    pub project_path: String,
    /// Path below the root with `/` between parts; empty for the root itself.
    pub path: String,
    /// This page: directories first, then by name.
    pub entries: Vec<Entry>,
    /// How many entries there are in all (at most [`crate::MAX_ENTRIES`]).
    pub total: usize,
    /// How many entries were skipped before this page.
    pub offset: usize,
    /// The directory has more than [`crate::MAX_ENTRIES`] entries; the rest is not shown.
    pub truncated: bool,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// Its name; bytes that are not UTF-8 are shown as U+FFFD.
    pub name: String,
    /// Only when the name is not UTF-8: the name percent-encoded, to be put into a URL as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_name: Option<String>,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: EntryType,
    /// For a symbolic link: what it leads to; absent when that is outside the root, missing or special.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<EntryType>,
    /// Size in bytes of the file (of what a link leads to); null for anything but a file.
    pub size: Option<u64>,
    /// Last change in Unix seconds; null where it cannot be told.
    pub mtime: Option<i64>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryType {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A pipe, socket or device: listed, never read.
    Other,
}

/// A file or a part of it: `{"type":"file",session_id,project_path,path,size,bytes,encoding,truncated,content,…}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "file")]
pub struct FileContent {
    /// The session whose file this is; set by the caller, null for `/api/fs`.
    pub session_id: Option<String>,
    /// Absolute path of the root.
    pub project_path: String,
    /// Path below the root with `/` between parts.
    pub path: String,
    /// Size of the whole file in bytes.
    pub size: u64,
    /// Last change in Unix seconds; null where it cannot be told.
    pub mtime: Option<i64>,
    /// Offset of the first byte given.
    pub offset: u64,
    /// How many bytes of the file are given.
    pub bytes: u64,
    /// How `content` is to be read.
    pub encoding: Encoding,
    /// Less was given than was asked for (the whole file, or the range); go on at `offset + bytes`.
    pub truncated: bool,
    /// The bytes.
    pub content: String,
}

/// How the bytes of a file are put into JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Encoding {
    /// Text, as it is.
    #[serde(rename = "utf-8")]
    Utf8,
    /// Anything that is not text: standard base64 with padding.
    #[serde(rename = "base64")]
    Base64,
}

/// The roots that may be looked into: `{"type":"roots","roots":[…]}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "roots")]
pub struct RootsListing {
    /// All roots, in the order of the configuration.
    pub roots: Vec<RootInfo>,
}

/// One root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RootInfo {
    /// Absolute path.
    pub path: String,
    /// Its last part, for showing.
    pub name: String,
}
