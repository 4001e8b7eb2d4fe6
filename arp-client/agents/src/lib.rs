//! The coding agents that `arpc` drives.
//!
//! Everything that differs between Claude Code, Codex, Gemini and other ACP agents lives here: how the
//! binary is found, how it is started, what its output lines mean and what must be written to its input.
//! Nothing in this crate does I/O on a running agent: a [`driver::Driver`] is a state machine that is fed
//! lines and answers with actions, so the same code serves a live process, a log that is replayed after a
//! restart, and a test.

pub mod acp;
pub mod agent;
pub mod card;
pub mod catalog;
pub mod claude;
pub mod codex;
pub mod diff;
pub mod discover;
pub mod driver;
pub mod event;
pub mod proposal;

mod options;
mod rpc;
mod text;
