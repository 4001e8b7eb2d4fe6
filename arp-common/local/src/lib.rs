//! A door that only programs of the same user on the same machine find: a Unix socket that is closed to others, or,
//! where there is none, a port on loopback whose number and secrets stand in a file that only its owner may read.
//!
//! Either way there is a file, and whoever may read and write it may enter. [`Listener::bind`] makes it, [`connect`]
//! takes its path.

mod tcp;
#[cfg(unix)]
mod unix;

#[cfg(unix)]
pub use unix::{BlockingStream, Listener, Stream, connect, connect_blocking};

#[cfg(not(unix))]
pub use tcp::{BlockingStream, Listener, Stream, connect, connect_blocking};
