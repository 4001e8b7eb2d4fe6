//! arps, the relay of arp.
