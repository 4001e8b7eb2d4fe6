//! Which client a request is for, what of the request was meant for us, and who guesses at names. Every
//! request is routed by itself, never a connection.

mod decide;
pub mod guesses;
pub mod source;
pub mod tabs;
