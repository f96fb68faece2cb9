//! The endpoints, a file for each family of them.
//!
//! Only here are the words of an API known. An API that generates is two things: a function that takes
//! the fields of a request, and an [`Encoder`](crate::http::output::encoder::Encoder) that writes its
//! answers; all else is shared.
//!
//! | file | holds |
//! | --- | --- |
//! | `chat.rs`, `completions.rs` | the two APIs that generate: fields → job, deltas → messages |
//! | `openai.rs`, `logprobs.rs` | what both have in common |
//! | `answer.rs` | how any request to generate is answered |
//! | `admin.rs`, `events.rs` | loading and unloading models, and what happens |
//! | `on_demand.rs` | requests that wait for their model |
//! | `tokenize.rs`, `models.rs`, `health.rs`, `metrics.rs`, `page.rs` | the small endpoints, and a page for people |

pub mod admin;
pub mod answer;
pub mod chat;
pub mod completions;
pub mod events;
pub mod health;
pub mod logprobs;
pub mod metrics;
pub mod models;
pub mod on_demand;
pub mod openai;
pub mod page;
pub mod tokenize;
