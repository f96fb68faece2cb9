//! Where weights are: files of this machine, or slices that are fetched into a store. Knows no stage and no
//! plan.

pub mod model_files;
pub mod pages;
pub mod slice_store;
pub mod source;
pub mod verify;
