//! Parses, wires and runs.

fn main() {}
