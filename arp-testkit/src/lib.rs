//! Test helpers of arp: daemons on port 0, recording origins, scripted peers, a loopback model API.
//!
//! Panicking is how a test helper reports that the machine is not as the test needs it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cli;
pub mod daemon;
pub mod http;
pub mod middlebox;
pub mod model_api;
pub mod origin;
