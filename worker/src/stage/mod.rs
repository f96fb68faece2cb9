//! What is loaded, and the thread that computes with it. Stages have lives of their own: this knows plans only
//! by their numbers, and nothing of neighbours and streams.

pub mod compute;
pub mod execute;
pub mod held;
pub mod load;
pub mod on_disk;
pub mod progress;
pub mod resident;
pub mod stages;
pub mod timings;
