//! Agent session history as the agents keep it on disk, indexed and paged.
