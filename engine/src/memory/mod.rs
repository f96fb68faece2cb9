//! Memory of the engine's own: buffers, and how pages are counted and locked. Knows no model.

#[allow(unsafe_code, reason = "a mapping is memory that the compiler cannot reason about")]
mod buffer;

pub use buffer::{ALIGNMENT, Buffer, HUGE_PAGE, LockError};
pub(crate) use buffer::{page_size, whole_pages};
