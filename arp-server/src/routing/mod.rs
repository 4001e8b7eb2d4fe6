//! Which client a request is for, what of the request was meant for us, and who guesses at names. Every
//! request is routed by itself, never a connection.
//!
//! [`source`] reads where names stand in a request, [`names`] looks them up and keeps what was asked,
//! [`route`](mod@route) decides, [`strip`] takes out what was ours, [`redirect`] sends browsers elsewhere, [`tabs`] tells the
//! clients of one browser apart, [`guesses`] holds up who guesses, and [`decide`] says what becomes of the request.
//! The order and the rules are docs/protocol.md, "Tokens".

mod decide;
pub(crate) mod guesses;
pub(crate) mod names;
pub(crate) mod redirect;
pub(crate) mod route;
pub(crate) mod source;
mod strip;
mod tabs;

pub(crate) use route::{Decision, Route, Site, route};
