//! The two real daemons, started as processes on free ports and ended with the test.

mod edge;
mod process;
mod relay;

pub use edge::{Edge, EdgeBuilder};
pub use process::{Daemon, PATIENCE, rss_kib};
pub use relay::{Relay, RelayBuilder};
