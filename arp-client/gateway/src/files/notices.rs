//! Have files changed since they were looked at last? Told by the system, at the cost of one call for all of them.
//!
//! A change is in the system's queue before whoever makes it goes on, so that an edit counts from the next request as
//! with a look at each file. Where nobody tells (another system than Linux, a link whose end lies elsewhere), the
//! answer is that they may have; and so it is from time to time for those that others change, over a network.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After so long the files are looked at, whatever was told.
const TRUSTED: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug)]
// Elsewhere nothing is told: the files are looked at.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(crate) struct Notices {
    files: Vec<PathBuf>,
    folders: Vec<PathBuf>,
    /// Since when everything is told, if it is.
    since: Option<Instant>,
    #[cfg(target_os = "linux")]
    queue: Option<std::os::fd::OwnedFd>,
}

impl Notices {
    /// Of these files, which lie in these folders.
    pub(crate) fn of(files: Vec<PathBuf>, folders: Vec<PathBuf>) -> Self {
        Self {
            files,
            folders,
            since: None,
            #[cfg(target_os = "linux")]
            queue: None,
        }
    }

    /// May any of the files have changed since the last call? Whatever is read after it is as new as that call.
    pub(crate) fn may_have_changed(&mut self) -> bool {
        if self.since.is_some_and(|since| since.elapsed() < TRUSTED) && self.is_quiet() {
            return false;
        }
        self.since = self.begin().then(Instant::now);
        true
    }

    #[cfg(not(target_os = "linux"))]
    fn is_quiet(&self) -> bool {
        false
    }

    #[cfg(not(target_os = "linux"))]
    fn begin(&mut self) -> bool {
        false
    }

    /// Was nothing told?
    #[cfg(target_os = "linux")]
    fn is_quiet(&self) -> bool {
        // Nothing but that: whatever else comes of it, too little room for what was told included, is a change.
        let mut told = [0; 32];
        self.queue
            .as_ref()
            .is_some_and(|queue| rustix::io::read(queue, &mut told) == Err(rustix::io::Errno::WOULDBLOCK))
    }

    /// From now on all changes are told; `false` where some would not be.
    #[cfg(target_os = "linux")]
    fn begin(&mut self) -> bool {
        use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
        use rustix::io::Errno;
        let queue = match self.queue.take() {
            Some(queue) => queue,
            None => match init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC) {
                Ok(queue) => queue,
                Err(_) => return false,
            },
        };
        // What was told before is known by now. As much as there is: more may be coming all the time.
        let mut told = [0; 4096];
        let _ = rustix::io::read(&queue, &mut told);
        let itself = WatchFlags::MOVE_SELF | WatchFlags::DELETE_SELF;
        let in_folder =
            itself | WatchFlags::CREATE | WatchFlags::MOVED_TO | WatchFlags::MOVED_FROM | WatchFlags::DELETE;
        let of_file = itself | WatchFlags::MODIFY | WatchFlags::ATTRIB | WatchFlags::CLOSE_WRITE;
        // A file that is not there comes into its folder; so does the folder.
        let watched = |path: &PathBuf, flags| {
            matches!(
                add_watch(&queue, path, flags),
                Ok(_) | Err(Errno::NOENT | Errno::NOTDIR)
            )
        };
        let is_link = |path: &PathBuf| {
            path.symlink_metadata()
                .is_ok_and(|meta| meta.file_type().is_symlink())
        };
        let all = self.folders.first().is_some_and(|folder| folder.is_dir())
            && self.folders.iter().all(|path| watched(path, in_folder))
            && self
                .files
                .iter()
                .all(|path| !is_link(path) && watched(path, of_file));
        self.queue = Some(queue);
        all
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs;

    /// Is each of these changes told, and nothing else?
    #[test]
    fn every_way_of_changing_a_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, data) = (dir.path().join("a.json"), dir.path().join("data"));
        let (inner, other) = (data.join("b.json"), dir.path().join("other"));
        let mut notices = Notices::of(
            vec![file.clone(), inner.clone()],
            vec![dir.path().to_owned(), data.clone()],
        );
        let steps: [(&str, &dyn Fn()); 11] = [
            ("a new file", &|| fs::write(&file, "1").unwrap()),
            ("written anew", &|| fs::write(&file, "2").unwrap()),
            ("in place", &|| {
                use std::io::Write;
                let mut open = fs::OpenOptions::new().append(true).open(&file).unwrap();
                open.write_all(b"3").unwrap();
            }),
            ("another in its place", &|| {
                fs::write(&other, "4").unwrap();
                fs::rename(&other, &file).unwrap();
            }),
            ("that one written", &|| fs::write(&file, "5").unwrap()),
            ("gone", &|| fs::remove_file(&file).unwrap()),
            ("a folder", &|| fs::create_dir(&data).unwrap()),
            ("a file in it", &|| fs::write(&inner, "6").unwrap()),
            ("written again", &|| fs::write(&inner, "7").unwrap()),
            ("the folder elsewhere", &|| fs::rename(&data, &other).unwrap()),
            ("and gone", &|| fs::remove_dir_all(&other).unwrap()),
        ];
        for (what, step) in steps {
            // A slow machine may need longer than what is trusted.
            let mut looks = 0..1_000;
            while looks.next().is_some() && notices.may_have_changed() {}
            assert!(looks.next().is_some(), "it becomes quiet before {what}");
            step();
            assert!(notices.may_have_changed(), "{what}");
        }
    }

    #[test]
    fn of_what_a_link_leads_to_nothing_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let (file, end) = (dir.path().join("a.json"), dir.path().join("end"));
        fs::write(&end, "1").unwrap();
        std::os::unix::fs::symlink(&end, &file).unwrap();
        let mut notices = Notices::of(vec![file], vec![dir.path().to_owned()]);
        assert!((0..9).all(|_| notices.may_have_changed()));
        let mut nowhere = Notices::of(vec![], vec![dir.path().join("none")]);
        assert!((0..9).all(|_| nowhere.may_have_changed()));
    }
}
