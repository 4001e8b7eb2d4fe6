//! Rooted file access for `arpc`: nothing outside the configured roots can be reached.
//!
//! A visitor names a file by a path below a root; whatever that path says, and whatever an agent on the
//! machine plants or swaps meanwhile (symbolic links, renamed directories, pipes), the answer comes from
//! inside the root or is a refusal. The guarantee does not rest on inspecting names: every lookup starts at
//! an open handle of the root and is resolved by `cap-std`, which on Linux is one `openat2` call with
//! `RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS`, and elsewhere (or where that call is missing) a walk that opens
//! component by component. Hard links and mounts inside a root are, by their nature, inside.
//!
//! The crate only ever reads. All calls block: use them from `spawn_blocking`.
//!
//! ```no_run
//! use arp_files::{ListPage, RelPath, Roots};
//!
//! # fn main() -> Result<(), arp_files::FilesError> {
//! let roots = Roots::new(["/home/dev/projects"])?;
//! let root = roots.root("/home/dev/projects/app")?;
//! let found = root.get(&RelPath::parse("src/main.rs")?, None, ListPage::default())?;
//! # Ok(())
//! # }
//! ```

mod defaults;
mod error;
mod list;
mod path;
mod range;
mod read;
mod root;
mod shapes;

pub use defaults::{MAX_ENTRIES, MAX_FILE_BYTES, MAX_PAGE, MAX_PATH_BYTES};
pub use error::FilesError;
pub use list::ListPage;
pub use path::RelPath;
pub use range::ByteRange;
pub use root::{Root, Roots};
pub use shapes::{Directory, Encoding, Entry, EntryType, FileContent, FoundAt, RootInfo, RootsListing};
