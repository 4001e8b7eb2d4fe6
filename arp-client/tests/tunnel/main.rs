//! Tunnels, black box: the real `arpc tunnel …` with the real bore on loopback, and with programs that stand in for
//! those that cannot be had here (tunnel_programs/scripted.py).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(unix)]

mod bore;
mod command_mode;
mod custom;
mod machine;
mod services;
