//! Test helpers of arp: daemons on port 0, recording origins, scripted peers, a loopback model API.
