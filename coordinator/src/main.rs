//! The `woolly-coordinator` command.

fn main() {}
