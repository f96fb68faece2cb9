//! The endpoints, a file for each family of them.

pub mod generate;
pub mod health;
pub mod models;
pub mod page;
pub mod tokenize;
