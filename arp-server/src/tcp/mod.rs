//! Raw connections: what visitors send in other protocols than HTTP, carried byte for byte to one of a client's
//! services.
//!
//! [`visitor::sniff`](crate::visitor) tells what a connection speaks; one file here for each protocol finds the name
//! in it, [`reach`] looks that up (and counts, like a request's) and opens a tunnel, [`carry`] moves the bytes.

mod carry;
pub(crate) mod connect;
mod hello;
mod line;
pub(crate) mod mysql;
pub mod ports;
pub(crate) mod postgres;
mod preamble;
mod reach;
mod redis;
pub mod services;
mod ssh;
pub(crate) mod tls;
mod token;

pub use carry::RawLimits;
pub(crate) use line::Line;

use crate::visitor::sniff::{Speaks, UNDERSTOOD};
use arp_common::protocol::TlsBegun;
use arp_common::stop::Stop;

/// Serves a connection that does not speak HTTP, to its end.
pub(crate) async fn serve(line: Line, speaks: Option<Speaks>, stop: &Stop) {
    match speaks {
        Some(Speaks::Preamble) => preamble::serve(line, stop).await,
        Some(Speaks::Postgres) => postgres::serve(line, stop).await,
        Some(Speaks::Redis) => redis::serve(line, stop).await,
        Some(Speaks::Ssh) => ssh::refuse(line).await,
        // Without a certificate nothing else can become of it.
        Some(Speaks::Tls) => drop(tls::serve(line, TlsBegun::Direct, stop).await),
        // HTTP has its own rooms.
        Some(Speaks::Http1 | Speaks::Http2) | None => {
            line.farewell(format!("{UNDERSTOOD}\r\n").as_bytes()).await
        }
    }
}
