//! The allowed roots, and one opened directory at or below them.

use crate::{ByteRange, Directory, FileContent, list, read};
use crate::{FilesError, FoundAt, ListPage, RelPath, RootInfo, RootsListing};
use cap_std::ambient_authority;
use cap_std::fs::Dir;
use std::io;
use std::path::{Component, Path, PathBuf};

/// The directories whose content may be read.
#[derive(Debug, Clone, Default)]
pub struct Roots {
    roots: Vec<PathBuf>,
    hidden: Vec<PathBuf>,
}

impl Roots {
    /// Takes the configured directories; each must exist. Symbolic links in the configured paths themselves
    /// are followed once, here: the owner named them.
    ///
    /// # Errors
    /// [`FilesError::BadRoot`] for a relative path, or one that is not a directory that can be opened.
    pub fn new<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>) -> Result<Self, FilesError> {
        let mut roots = Self::default();
        for path in paths {
            roots.add(path)?;
        }
        Ok(roots)
    }

    /// Allows one more directory. A directory that is allowed already is not taken twice.
    ///
    /// # Errors
    /// As [`Roots::new`].
    pub fn add(&mut self, path: impl AsRef<Path>) -> Result<(), FilesError> {
        let path = path.as_ref();
        let bad = |source| FilesError::BadRoot {
            path: path.display().to_string(),
            source,
        };
        if !path.is_absolute() {
            return Err(bad(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the path is not absolute",
            )));
        }
        let real = path.canonicalize().map_err(bad)?;
        if !real.is_dir() {
            return Err(bad(io::ErrorKind::NotADirectory.into()));
        }
        if !self.roots.contains(&real) {
            self.roots.push(real);
        }
        Ok(())
    }

    /// Allows a directory that nobody named for this, such as one in which an agent worked. It counts only as what
    /// it really is: a path that leads on through a link or `..` is refused, and so is one that holds the `home`
    /// directory, or a whole disk.
    ///
    /// # Errors
    /// As [`Roots::new`], and [`FilesError::NotAllowed`] for what is refused.
    pub fn add_project(&mut self, path: impl AsRef<Path>, home: Option<&Path>) -> Result<(), FilesError> {
        let path = path.as_ref();
        let home = home.and_then(|home| home.canonicalize().ok());
        let holds_home = home.is_some_and(|home| home.starts_with(path));
        let real = path.canonicalize().map_err(|_| FilesError::NotAllowed)?;
        if real != path || real.parent().is_none() || holds_home {
            return Err(FilesError::NotAllowed);
        }
        self.add(real)
    }

    /// Keeps what is in this directory (keys, tokens) from being read, wherever the roots are.
    pub fn hide(&mut self, path: impl AsRef<Path>) {
        let path = path.as_ref();
        self.hidden
            .push(path.canonicalize().unwrap_or_else(|_| path.to_owned()));
    }

    /// Is this directory a root or below one, links resolved?
    pub fn holds(&self, path: impl AsRef<Path>) -> bool {
        let path = path.as_ref();
        path.is_absolute()
            && path
                .canonicalize()
                .is_ok_and(|real| self.containing(&real).is_some())
    }

    /// The roots' absolute paths.
    pub fn paths(&self) -> &[PathBuf] {
        &self.roots
    }

    /// The roots as an answer.
    pub fn listing(&self) -> RootsListing {
        let info = |path: &PathBuf| RootInfo {
            path: path.display().to_string(),
            name: path
                .file_name()
                .map_or_else(|| path.display().to_string(), |n| n.to_string_lossy().into()),
        };
        RootsListing {
            roots: self.roots.iter().map(info).collect(),
        }
    }

    /// Opens a directory, named by its absolute path (a session's project), as a root of its own: a root, or a
    /// directory below one.
    ///
    /// # Errors
    /// [`FilesError::NotAllowed`] when it is not below an allowed root or is not there; which of the two is
    /// not told.
    pub fn root(&self, path: impl AsRef<Path>) -> Result<Root, FilesError> {
        let path = path.as_ref();
        if !path.is_absolute() {
            return Err(FilesError::NotAllowed);
        }
        let real = path.canonicalize().map_err(|_| FilesError::NotAllowed)?;
        let (base, below) = self.containing(&real).ok_or(FilesError::NotAllowed)?;
        let mut dir = Dir::open_ambient_dir(base, ambient_authority()).map_err(|_| FilesError::NotAllowed)?;
        if !below.as_os_str().is_empty() {
            // Not opened by its full path: a part of it may have been swapped for a link since it was resolved.
            dir = dir.open_dir(below).map_err(|_| FilesError::NotAllowed)?;
        }
        Ok(Root {
            dir,
            path: real,
            hidden: self.hidden.clone(),
        })
    }

    /// Splits an absolute path into the root that holds it and the path below that root; the innermost root
    /// wins. By its name first, and then the file need not exist; else by what it really is.
    ///
    /// # Errors
    /// [`FilesError::NotAllowed`] when no root holds it, else as [`RelPath::parse_bytes`].
    pub fn locate(&self, path: impl AsRef<Path>) -> Result<(Root, RelPath), FilesError> {
        let path = path.as_ref();
        if let Some((base, below)) = self.containing(path) {
            return Ok((self.root(base)?, below_root(below)?));
        }
        let climbs = path.components().any(|part| part == Component::ParentDir);
        let real = path.canonicalize().ok().filter(|_| path.is_absolute() && !climbs);
        let real = real.ok_or(FilesError::NotAllowed)?;
        let (base, below) = self.containing(&real).ok_or(FilesError::NotAllowed)?;
        Ok((self.root(base)?, below_root(below)?))
    }

    fn containing<'a, 'p>(&'a self, path: &'p Path) -> Option<(&'a Path, &'p Path)> {
        let holds = |root: &'a PathBuf| path.strip_prefix(root).ok().map(|below| (root.as_path(), below));
        self.roots
            .iter()
            .filter_map(holds)
            .min_by_key(|(_, below)| below.as_os_str().len())
    }
}

/// A path that a root holds, checked.
fn below_root(below: &Path) -> Result<RelPath, FilesError> {
    let bytes = below.as_os_str().as_encoded_bytes();
    if std::path::MAIN_SEPARATOR == '/' {
        return RelPath::parse_bytes(bytes);
    }
    let text = below.to_str().ok_or(FilesError::InvalidPath("it is not UTF-8"))?;
    RelPath::parse(&text.replace(std::path::MAIN_SEPARATOR, "/"))
}

/// One opened directory; everything read through it lies below it.
#[derive(Debug)]
pub struct Root {
    pub(crate) dir: Dir,
    path: PathBuf,
    hidden: Vec<PathBuf>,
}

impl Root {
    /// Absolute path, links resolved.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Lists a directory or reads a file, whichever the path names.
    ///
    /// # Errors
    /// Any [`FilesError`] but `BadRoot` and `NotAllowed`.
    pub fn get(
        &self,
        path: &RelPath,
        range: Option<ByteRange>,
        page: ListPage,
    ) -> Result<FoundAt, FilesError> {
        match self.read(path, range) {
            Err(FilesError::IsADirectory) => Ok(FoundAt::Directory(self.list(path, page)?)),
            other => Ok(FoundAt::File(other?)),
        }
    }

    /// One page of a directory, directories first, then by name.
    ///
    /// # Errors
    /// [`FilesError::NotADirectory`] for anything but a directory, and what a lookup may run into.
    pub fn list(&self, path: &RelPath, page: ListPage) -> Result<Directory, FilesError> {
        self.check(path)?;
        list::list(self, path, page)
    }

    /// A file's bytes, at most [`crate::MAX_FILE_BYTES`] of them, as text where they are text.
    ///
    /// # Errors
    /// [`FilesError::IsADirectory`], [`FilesError::SpecialFile`], [`FilesError::BadRange`], and what a lookup
    /// may run into.
    pub fn read(&self, path: &RelPath, range: Option<ByteRange>) -> Result<FileContent, FilesError> {
        self.check(path)?;
        read::read(self, path, range)
    }

    /// An open regular file and its size in bytes, for a caller that streams it whole.
    ///
    /// # Errors
    /// As [`Root::read`].
    pub fn open_file(&self, path: &RelPath) -> Result<(std::fs::File, u64), FilesError> {
        self.check(path)?;
        let (file, metadata) = read::open_regular(self, path)?;
        Ok((file.into_std(), metadata.len()))
    }

    /// Is this, links resolved, in none of the hidden directories?
    fn check(&self, path: &RelPath) -> Result<(), FilesError> {
        // What is not there is told by the lookup.
        let real = self.path.join(path.as_path()).canonicalize();
        let hidden = |real: &PathBuf| self.hidden.iter().any(|hidden| real.starts_with(hidden));
        match real {
            Ok(real) if hidden(&real) => Err(FilesError::Hidden),
            _ => Ok(()),
        }
    }

    pub(crate) fn shown(&self) -> String {
        self.path.display().to_string()
    }
}
