//! What an approval would do to files as they are now: read when somebody looks, not when the agent asked.
//!
//! Only files below the session's project are read, through a handle of that directory, so that no link leads out
//! of it. Of any other file only its being there is told.

use arp_agents::event::Approval;
use arp_agents::proposal::{Effect, FileAction, Misfit, Proposal, proposals};
use arp_files::{Encoding, FilesError, RelPath, Root, Roots};
use serde::Serialize;
use std::path::Path;

/// Files that are looked at for one approval; more than a person reads.
const MAX_FILES: usize = 200;

/// One file that an approval would change.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct FilePreview {
    /// The path as the agent gave it.
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    moved_to: Option<String>,
    action: FileAction,
    /// It lies outside of the session's project (and was not read).
    outside_project: bool,
    /// From the present content; null where that was not compared.
    diff: Option<String>,
    problem: Option<Problem>,
}

/// Why there is no diff from the present content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Problem {
    NoMatch,
    Missing,
    OutsideProject,
    TooLarge,
    NotText,
    Unreadable,
}

impl From<Misfit> for Problem {
    fn from(misfit: Misfit) -> Self {
        match misfit {
            Misfit::NoMatch => Self::NoMatch,
            Misfit::Missing => Self::Missing,
        }
    }
}

/// What the files' content is.
enum Present {
    Text(String),
    Absent,
    /// Something is there that cannot be compared.
    Unknown(Problem),
}

/// Looks at the files that an approval of a session in `project` would change. `only` gives a directory as the only
/// root. Blocks.
pub(super) fn files(
    approval: &Approval,
    project: Option<&Path>,
    only: impl Fn(&Path) -> Roots,
) -> Vec<FilePreview> {
    let proposals = proposals(approval);
    if proposals.is_empty() {
        return Vec::new();
    }
    // The whole disk is nobody's project, by whatever name.
    let root = project
        .filter(|project| project.canonicalize().is_ok_and(|real| real.parent().is_some()))
        .and_then(|project| only(project).root(project).ok());
    let look = |proposal: &Proposal| look(proposal, project, root.as_ref());
    proposals.iter().take(MAX_FILES).map(look).collect()
}

fn look(proposal: &Proposal, project: Option<&Path>, root: Option<&Root>) -> FilePreview {
    let (effect, problem) = match present(&proposal.path, project, root) {
        Present::Text(text) => told(proposal.against(Some(&text))),
        Present::Absent => told(proposal.against(None)),
        Present::Unknown(problem) => (None, Some(problem)),
    };
    let action = match &effect {
        Some(effect) => effect.action,
        None => proposal.action(exists(&proposal.path, project)),
    };
    FilePreview {
        path: proposal.path.clone(),
        moved_to: proposal.moved_to.clone(),
        action,
        outside_project: problem == Some(Problem::OutsideProject),
        diff: effect.map(|effect| effect.diff),
        problem,
    }
}

fn told(effect: Result<Effect, Misfit>) -> (Option<Effect>, Option<Problem>) {
    match effect {
        Ok(effect) => (Some(effect), None),
        Err(misfit) => (None, Some(misfit.into())),
    }
}

fn present(path: &str, project: Option<&Path>, root: Option<&Root>) -> Present {
    let (Some(project), Some(root)) = (project, root) else {
        return Present::Unknown(Problem::OutsideProject);
    };
    let Some(below) = below(Path::new(path), project, root.path()) else {
        return Present::Unknown(Problem::OutsideProject);
    };
    match root.read(&below, None) {
        Ok(file) if file.truncated => Present::Unknown(Problem::TooLarge),
        Ok(file) if file.encoding != Encoding::Utf8 => Present::Unknown(Problem::NotText),
        Ok(file) => Present::Text(file.content),
        Err(FilesError::NotFound) => Present::Absent,
        Err(FilesError::OutsideRoot) => Present::Unknown(Problem::OutsideProject),
        Err(_) => Present::Unknown(Problem::Unreadable),
    }
}

/// The part of a path below the project, by whichever name the project is called.
fn below(path: &Path, project: &Path, real_project: &Path) -> Option<RelPath> {
    let relative = if path.is_absolute() {
        path.strip_prefix(project)
            .or_else(|_| path.strip_prefix(real_project))
            .ok()?
    } else {
        path
    };
    RelPath::parse(&relative.to_str()?.replace(std::path::MAIN_SEPARATOR, "/")).ok()
}

fn exists(path: &str, project: Option<&Path>) -> bool {
    let path = Path::new(path);
    match project {
        Some(project) => project.join(path).symlink_metadata().is_ok(),
        None => path.is_absolute() && path.symlink_metadata().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::fs;

    fn preview(project: &Path, tool: &str, input: Value) -> FilePreview {
        let approval: Approval = serde_json::from_value(json!({
            "id": "a", "tool_call_id": null, "tool_name": tool, "kind": "edit", "title": "", "reason": null,
            "input": input, "can_allow_session": false, "can_edit": false,
        }))
        .unwrap();
        files(&approval, Some(project), |project| {
            Roots::new([project]).unwrap_or_default()
        })
        .remove(0)
    }

    fn write(project: &Path, path: &str) -> FilePreview {
        preview(project, "Write", json!({"file_path": path, "content": "new\n"}))
    }

    #[test]
    fn a_write_is_compared_with_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("there"), "old\n").unwrap();
        let absolute = dir.path().join("there").display().to_string();
        for path in ["there", absolute.as_str()] {
            let there = write(dir.path(), path);
            assert_eq!((there.action, there.problem), (FileAction::Overwrite, None));
            assert_eq!(there.diff.as_deref(), Some("@@ -1 +1 @@\n-old\n+new\n"));
        }
        let new = write(dir.path(), "not-there");
        assert_eq!((new.action, new.problem), (FileAction::Create, None));
    }

    #[test]
    fn nothing_outside_of_the_project_is_read_and_that_it_is_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("project");
        fs::create_dir(&project).unwrap();
        fs::write(dir.path().join("secret"), "secret\n").unwrap();
        let secret = dir.path().join("secret").display().to_string();
        for path in ["../secret", secret.as_str()] {
            let outside = write(&project, path);
            assert_eq!(outside.action, FileAction::Overwrite, "{path}");
            assert_eq!((outside.outside_project, outside.diff), (true, None), "{path}");
        }
        assert_eq!(write(&project, "../nothing").action, FileAction::Create);
    }

    #[cfg(unix)]
    #[test]
    fn no_link_and_no_pipe_leads_the_look_astray() {
        let dir = tempfile::tempdir().unwrap();
        let project = dir.path().join("project");
        fs::create_dir(&project).unwrap();
        fs::write(dir.path().join("secret"), "secret\n").unwrap();
        std::os::unix::fs::symlink("../secret", project.join("link")).unwrap();
        let link = write(&project, "link");
        assert_eq!((link.action, link.diff), (FileAction::Overwrite, None));
        fs::create_dir(project.join("directory")).unwrap();
        let directory = write(&project, "directory");
        assert_eq!(
            (directory.problem, directory.diff),
            (Some(Problem::Unreadable), None)
        );
    }

    #[test]
    fn what_does_not_fit_or_is_no_text_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("text"), "a\n").unwrap();
        fs::write(dir.path().join("bytes"), [0xff, 0xfe, 0, 1]).unwrap();
        let edit = preview(
            dir.path(),
            "Edit",
            json!({"file_path": "text", "old_string": "b", "new_string": "c"}),
        );
        assert_eq!(
            (edit.action, edit.problem),
            (FileAction::Edit, Some(Problem::NoMatch))
        );
        assert_eq!(write(dir.path(), "bytes").problem, Some(Problem::NotText));
    }
}
