//! What both arp daemons agree on, and nothing else: the wire protocol, the stream type that tunnels and
//! control channels run on, copying between two streams, socket options, shutdown and logging.
//!
//! Nothing in here knows what a relay or an edge agent does with it.

pub mod cookies;
pub mod defaults;
pub mod duplex;
pub mod error_body;
pub mod ids;
pub mod kept;
pub mod logging;
pub mod net;
pub mod origin;
mod pacing;
pub mod private;
pub mod protocol;
pub mod proxy_header;
pub mod scratch;
pub mod selfdoc;
pub mod service;
pub mod settings;
pub mod shutdown;
pub mod splice;
pub mod stop;
pub mod tls;
pub mod transport;
pub mod update;
