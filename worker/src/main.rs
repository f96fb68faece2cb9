//! The `woolly-worker` command.

fn main() {}
