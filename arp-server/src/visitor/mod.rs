//! Connections of visitors: the look at their first bytes, HTTP/1 and HTTP/2, and how many there may be.

pub mod census;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod listener;
pub(crate) mod sniff;
