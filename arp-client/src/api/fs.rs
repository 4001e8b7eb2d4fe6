//! `/api/fs…`: files below the roots that the owner allows.

use super::error::ApiError;
use super::request::Call;
use super::{Answer, State, ok};
use arp_files::{ByteRange, FilesError, FoundAt, ListPage, MAX_PAGE, RelPath, Roots};
use http::StatusCode;
use percent_encoding::percent_decode_str;
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl From<FilesError> for ApiError {
    fn from(error: FilesError) -> Self {
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = match error.code() {
            "not_found" => "file_not_found",
            "root_not_allowed" => "outside_root",
            code => code,
        };
        Self::new(status, code, error.to_string())
    }
}

/// Parameters that there are.
const PARAMETERS: [&str; 6] = ["path", "project_path", "offset", "limit", "start", "length"];

/// What is wanted of a file or directory.
struct Wanted {
    /// The directory that `path` is below; absolute.
    project: Option<PathBuf>,
    /// As bytes: a name need not be UTF-8.
    path: Vec<u8>,
    range: Option<ByteRange>,
    page: ListPage,
}

/// `/api/fs`: the roots, or what `project_path` and `path` name.
pub(super) async fn machine(state: &Arc<State>, call: &Call) -> Answer {
    check_enabled(state)?;
    let wanted = wanted(call, after(call.head.uri.path(), 2))?;
    let readable = Arc::clone(&state.roots);
    let found = blocking(move || {
        let roots = readable.current();
        let (root, below) = match (&wanted.project, wanted.path.is_empty()) {
            (None, true) => return Ok(Err(roots.listing())),
            (None, false) => roots.locate(absolute(&wanted.path)?)?,
            (Some(project), _) => (roots.root(project)?, below(project, &wanted.path)?),
        };
        Ok(Ok(root.get(&below, wanted.range, wanted.page)?))
    })
    .await?;
    match found {
        Ok(found) => ok(&found),
        Err(listing) => ok(&listing),
    }
}

/// `/api/sessions/{id}/fs`: the same below the session's directory, which has to be below the roots itself.
pub(super) async fn session(state: &Arc<State>, call: &Call) -> Answer {
    check_enabled(state)?;
    let session = state.sessions.get(call.param("id"))?;
    // `/sessions…` is an alias of `/api/sessions…`.
    let before = if call.head.uri.path().starts_with("/api/") {
        4
    } else {
        3
    };
    let wanted = wanted(call, after(call.head.uri.path(), before))?;
    let (id, at) = (session.id.clone(), session.project_path.clone());
    let readable = Arc::clone(&state.roots);
    let found = blocking(move || {
        let roots = readable.current();
        let root = roots.root(&at)?;
        let (root, below) = match &wanted.project {
            None => (root, below(&at, &wanted.path)?),
            Some(project) => {
                let own = Roots::new([root.path()])?;
                let below = below(project, &wanted.path)?;
                own.root(project)?;
                (roots.root(project)?, below)
            }
        };
        Ok(root.get(&below, wanted.range, wanted.page)?)
    })
    .await?;
    ok(&match found {
        FoundAt::Directory(mut directory) => {
            directory.session_id = Some(id);
            FoundAt::Directory(directory)
        }
        FoundAt::File(mut file) => {
            file.session_id = Some(id);
            FoundAt::File(file)
        }
    })
}

fn check_enabled(state: &Arc<State>) -> Result<(), ApiError> {
    if state.config.enable_fs {
        return Ok(());
    }
    Err(ApiError::new(
        StatusCode::FORBIDDEN,
        "fs_disabled",
        "files are not served on this machine; the owner can allow it with --enable-fs",
    ))
}

/// What follows the first `segments` of a path.
fn after(path: &str, segments: usize) -> &str {
    path.splitn(segments + 2, '/')
        .nth(segments + 1)
        .unwrap_or_default()
}

/// Path, project, range and page of a request; the path stands in the URL's path or in its query.
fn wanted(call: &Call, in_path: &str) -> Result<Wanted, ApiError> {
    let query = &call.query;
    query.only(&PARAMETERS)?;
    let in_path: Vec<u8> = percent_decode_str(in_path).collect();
    let path = match (in_path.is_empty(), query.bytes("path")) {
        (false, Some(_)) => {
            let why = "\"path\" stands in the path of the URL and in its query; give it once";
            return Err(ApiError::bad_query(why));
        }
        (true, Some(path)) => path.to_vec(),
        (_, None) => in_path,
    };
    // A variable that was not set: what it was meant to keep the path below is not known.
    if query.get("project_path") == Some("") {
        return Err(ApiError::bad_query("\"project_path\" is empty"));
    }
    let project = query.bytes("project_path").map(os_path).transpose()?;
    let project = project.map(super::input::in_home);
    if project.as_ref().is_some_and(|project| !project.is_absolute()) {
        return Err(FilesError::InvalidPath("project_path begins with / or ~").into());
    }
    let (start, len) = (query.parsed::<u64>("start")?, query.parsed::<u64>("length")?);
    let range = match (call.header("range"), start, len) {
        (None, None, None) => None,
        (Some(header), None, None) => Some(ByteRange::from_header(header)?),
        (_, start, len) => Some(ByteRange::From {
            start: start.unwrap_or(0),
            len,
        }),
    };
    let offset = query.parsed::<usize>("offset")?.unwrap_or(0);
    let limit = query.limit("limit", MAX_PAGE, MAX_PAGE)?;
    Ok(Wanted {
        project,
        path,
        range,
        page: ListPage { offset, limit },
    })
}

/// A path of which the leading slash may be missing.
fn absolute(path: &[u8]) -> Result<PathBuf, FilesError> {
    if cfg!(windows) || path.starts_with(b"/") {
        return os_path(path);
    }
    os_path(&[b"/", path].concat())
}

/// A path below a directory; it may be spelled with that directory in front of it.
fn below(project: &Path, path: &[u8]) -> Result<RelPath, FilesError> {
    if !path.starts_with(b"/") {
        return RelPath::parse_bytes(path);
    }
    let whole = os_path(path)?;
    let rest = whole.strip_prefix(project).map_err(|_| FilesError::OutsideRoot)?;
    RelPath::parse_bytes(rest.as_os_str().as_encoded_bytes())
}

#[cfg(unix)]
fn os_path(path: &[u8]) -> Result<PathBuf, FilesError> {
    use std::os::unix::ffi::OsStrExt;
    if path.contains(&0) {
        return Err(FilesError::InvalidPath("it holds a NUL byte"));
    }
    Ok(PathBuf::from(std::ffi::OsStr::from_bytes(path)))
}

#[cfg(not(unix))]
fn os_path(path: &[u8]) -> Result<PathBuf, FilesError> {
    let text = std::str::from_utf8(path).map_err(|_| FilesError::InvalidPath("it is not UTF-8"))?;
    Ok(PathBuf::from(text))
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| ApiError::internal(format!("a look at files failed: {error}")))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_what_follows_the_endpoint() {
        for (path, segments, rest) in [
            ("/api/fs", 2, ""),
            ("/api/fs/", 2, ""),
            ("/api/fs/a/b", 2, "a/b"),
            ("/api/fs//a", 2, "/a"),
            ("/api/sessions/fs/fs/x", 4, "x"),
            ("/sessions/i/fs", 3, ""),
        ] {
            assert_eq!(after(path, segments), rest, "{path}");
        }
    }
}
