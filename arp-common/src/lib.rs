//! What both arp daemons agree on, and nothing else.
