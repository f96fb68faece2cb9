//! What the machine that this worker runs on is and has. Knows nothing of Woolly.

pub mod direct;
pub mod simd;
pub mod system;
