//! arpc, the edge agent of arp.

pub mod console;
