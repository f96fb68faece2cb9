//! What Woolly's coordinator and workers say to each other, and how they trust each other.

#![forbid(unsafe_code)]

pub mod check;
pub mod control;
pub mod fault;
pub mod forward;
pub mod frame;
pub mod frame_io;
pub mod ids;
pub mod join;
pub mod kind;
pub mod limits;
pub mod machine;
pub mod preamble;
pub mod sampling;
pub mod slices;

/// The version of everything on the wire. Before 1.0 both sides must have the same.
pub const PROTOCOL: u32 = 1;
