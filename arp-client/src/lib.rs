//! arpc, the edge agent of arp.
