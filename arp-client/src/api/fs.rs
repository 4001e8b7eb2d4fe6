//! `/api/fs…`: files below the roots that the owner allows.

use super::error::ApiError;
use super::request::Call;
use super::{Answer, State, ok};
use arp_files::{ByteRange, FilesError, FoundAt, ListPage, MAX_PAGE, RelPath, Roots};
use arp_history::AgentKind;
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

/// What is wanted of a file or directory.
struct Wanted {
    path: Vec<u8>,
    range: Option<ByteRange>,
    page: ListPage,
}

pub(super) async fn machine(state: &Arc<State>, call: &Call) -> Answer {
    check_enabled(state)?;
    let wanted = wanted(call, "/api/fs")?;
    let roots = roots(state, None).await?;
    let found = blocking(move || {
        if wanted.path.is_empty() {
            return Ok(None);
        }
        let path = String::from_utf8(wanted.path).map_err(|_| FilesError::InvalidPath("it is not UTF-8"))?;
        let absolute = if cfg!(windows) || path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        };
        let (root, below) = roots.locate(&absolute)?;
        root.get(&below, wanted.range, wanted.page)
            .map(Some)
            .map_err(ApiError::from)
    })
    .await?;
    match found {
        Some(found) => ok(&found),
        None => ok(&self::roots(state, None).await?.listing()),
    }
}

pub(super) async fn session(state: &Arc<State>, call: &Call) -> Answer {
    check_enabled(state)?;
    let session = state.sessions.get(call.param("id"))?;
    let wanted = wanted(call, "/fs")?;
    let (id, project) = (session.id.clone(), session.project_path.clone());
    let roots = roots(state, Some(&project)).await?;
    let found = blocking(move || {
        let root = roots.root(&project)?;
        let below = RelPath::parse_bytes(&wanted.path)?;
        root.get(&below, wanted.range, wanted.page)
            .map_err(ApiError::from)
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

/// The path is taken as bytes: a name need not be UTF-8.
fn wanted(call: &Call, before: &str) -> Result<Wanted, ApiError> {
    let path = call.head.uri.path();
    let path = path.find(before).map_or("", |at| &path[at + before.len()..]);
    let path: Vec<u8> = percent_decode_str(path.strip_prefix('/').unwrap_or(path)).collect();
    let query = &call.query;
    let (start, len) = (query.parsed::<u64>("start")?, query.parsed::<u64>("length")?);
    let range = match (call.header("range"), start, len) {
        (_, None, None) => None,
        (_, start, len) => Some(ByteRange::From {
            start: start.unwrap_or(0),
            len,
        }),
    };
    let range = match (range, call.header("range")) {
        (None, Some(header)) => Some(ByteRange::from_header(header)?),
        (range, _) => range,
    };
    let offset = query.parsed::<usize>("offset")?.unwrap_or(0);
    let limit = query.limit("limit", MAX_PAGE, MAX_PAGE)?;
    Ok(Wanted {
        path,
        range,
        page: ListPage { offset, limit },
    })
}

/// Configured directories, and those in which agents work or worked.
async fn roots(state: &Arc<State>, project: Option<&Path>) -> Result<Roots, ApiError> {
    let configured = state.config.fs_roots.clone();
    let mut worked: Vec<PathBuf> = project.map(Path::to_owned).into_iter().collect();
    let (sessions, _) = state.sessions.list(&arp_sessions::store::Filter {
        limit: 1000,
        ..arp_sessions::store::Filter::default()
    })?;
    worked.extend(sessions.iter().map(|session| session.project_path.clone()));
    let history = Arc::clone(&state.history);
    blocking(move || {
        let mut roots = Roots::default();
        for agent in AgentKind::ALL {
            let known = history
                .working_directories(agent)
                .map(|known| known.directories)
                .unwrap_or_default();
            worked.extend(known.into_iter().map(|directory| PathBuf::from(directory.path)));
        }
        worked.sort();
        worked.dedup();
        for path in configured {
            if let Err(error) = roots.add(&path) {
                tracing::warn!(%error, "a root for files cannot be used");
            }
        }
        for path in worked {
            // The whole disk is nobody's project: an agent that was started there opens nothing by it.
            if path.parent().is_some() && Some(&path) != std::env::home_dir().as_ref() {
                // Directories that are gone are no roots.
                let _ = roots.add(&path);
            }
        }
        Ok(roots)
    })
    .await
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(read)
        .await
        .map_err(|error| ApiError::internal(format!("a look at files failed: {error}")))?
}
