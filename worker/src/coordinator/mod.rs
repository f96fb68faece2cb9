//! This worker's side of the conversation with the coordinator: the plans that it is given, from the assignment
//! to the release.

pub mod assignment;
pub mod context;
pub mod fetch;
pub mod loading;
pub mod renewal;
pub mod session;
