//! Rooted file access for arpc: nothing outside the configured roots can be reached.
