//! Moving bytes between two TCP connections inside the kernel, with splice(2) through a pipe.
//!
//! Only Linux has it; elsewhere [`Pipe::new`] answers `None` and callers copy through memory.

use std::io;
use std::task::{Context, Poll};
use tokio::net::TcpStream;

/// How far one call of [`Pipe::poll_move`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// All that was asked for has been written.
    All,
    /// The source ended first; everything it gave has been written.
    SourceEnded,
}

/// A kernel pipe that carries bytes from one socket to another.
#[derive(Debug)]
pub struct Pipe {
    #[cfg(target_os = "linux")]
    imp: linux::Pipe,
    #[cfg(not(target_os = "linux"))]
    never: std::convert::Infallible,
}

impl Pipe {
    /// A fresh pipe, or `None` where there is no splice(2) or no file descriptor left: copy instead.
    pub fn new() -> Option<Self> {
        #[cfg(target_os = "linux")]
        return linux::Pipe::new().ok().map(|imp| Self { imp });
        #[cfg(not(target_os = "linux"))]
        None
    }

    /// Bytes that were taken from the source and not yet given to the destination.
    pub fn held(&self) -> usize {
        #[cfg(target_os = "linux")]
        return self.imp.held;
        #[cfg(not(target_os = "linux"))]
        match self.never {}
    }

    /// Moves up to `*want` bytes from `src` to `dst`, counting `*want` down as bytes leave `src` and
    /// `*moved` up as they reach `dst`. Pending when either side is not ready.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn poll_move(
        &mut self,
        cx: &mut Context<'_>,
        src: &TcpStream,
        dst: &TcpStream,
        want: &mut u64,
        moved: &mut u64,
    ) -> Poll<io::Result<Moved>> {
        #[cfg(target_os = "linux")]
        return self.imp.poll_move(cx, src, dst, want, moved);
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (cx, src, dst, want, moved);
            match self.never {}
        }
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use super::Moved;
    use crate::defaults::SPLICE_PIPE;
    use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
    use std::io;
    use std::os::fd::OwnedFd;
    use std::task::{Context, Poll, ready};
    use tokio::io::Interest;
    use tokio::net::TcpStream;

    #[derive(Debug)]
    pub(super) struct Pipe {
        read: OwnedFd,
        write: OwnedFd,
        size: usize,
        pub(super) held: usize,
    }

    impl Pipe {
        pub(super) fn new() -> io::Result<Self> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            // The user's pipe quota may be used up; a small pipe still works.
            let size = fcntl_setpipe_size(&write, SPLICE_PIPE).unwrap_or(64 * 1024);
            Ok(Self {
                read,
                write,
                size,
                held: 0,
            })
        }

        pub(super) fn poll_move(
            &mut self,
            cx: &mut Context<'_>,
            src: &TcpStream,
            dst: &TcpStream,
            want: &mut u64,
            moved: &mut u64,
        ) -> Poll<io::Result<Moved>> {
            let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
            loop {
                // try_io neither spends nor checks tokio's budget: without this a fast pair of sockets
                // would keep the thread for itself.
                let coop = ready!(tokio::task::coop::poll_proceed(cx));
                while self.held > 0 {
                    match dst.try_io(Interest::WRITABLE, || {
                        Ok(splice(&self.read, None, dst, None, self.held, flags)?)
                    }) {
                        Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                        Ok(n) => {
                            self.held -= n;
                            *moved += n as u64;
                            coop.made_progress();
                        }
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(dst.poll_write_ready(cx))?,
                        Err(e) => return Poll::Ready(Err(e)),
                    }
                }
                if *want == 0 {
                    return Poll::Ready(Ok(Moved::All));
                }
                let most = usize::try_from(*want).map_or(self.size, |w| w.min(self.size));
                match src.try_io(Interest::READABLE, || {
                    Ok(splice(src, None, &self.write, None, most, flags)?)
                }) {
                    Ok(0) => return Poll::Ready(Ok(Moved::SourceEnded)),
                    Ok(n) => {
                        self.held = n;
                        *want -= n as u64;
                        coop.made_progress();
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(src.poll_read_ready(cx))?,
                    Err(e) => return Poll::Ready(Err(e)),
                }
            }
        }
    }
}
