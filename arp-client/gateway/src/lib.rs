//! The gateway in front of the agents' model APIs: Claude Code, Codex and Gemini talk to it, it talks to the
//! upstreams that a person has configured, switches between them without a restart, asks the next when one fails,
//! and counts what it all costs.
//!
//! [`service`] names the three APIs and [`dialect`] what differs between them; [`home`], [`files`], [`settings`] and
//! [`live`] are the configuration; [`health`] says who is asked; [`forward`] carries a request; [`usage`] counts;
//! [`server`] holds the ports behind [`guard`], and [`process`] is the program around all of it. Nothing in here knows of sessions, the console or the relay.

pub mod activity;
pub mod api;
pub mod choices;
pub mod clients;
pub mod dialect;
pub mod files;
pub mod forward;
pub mod guard;
pub mod health;
pub mod home;
pub mod json;
pub mod live;
pub mod names;
pub mod persist;
pub mod process;
pub mod redact;
pub mod secret;
pub mod server;
pub mod service;
pub mod settings;
pub mod setup;
pub mod sse;
pub mod strings;
pub mod usage;
