//! The endpoints, a file for each family of them.
//!
//! Only here are the words of an API known. An API that generates is two things: a function that takes
//! the fields of a request, and an [`Encoder`](crate::http::output::encoder::Encoder) that writes its
//! answers; all else is shared.
//!
//! | file | holds |
//! | --- | --- |
//! | `chat.rs`, `completions.rs` | OpenAI's two older ways to generate: fields → job, deltas → messages |
//! | `openai.rs`, `logprobs.rs`, `timings.rs` | what both have in common |
//! | `responses/`, `messages/`, `ollama/` | OpenAI's Responses API, Anthropic's API, Ollama's API |
//! | `fields/` | which fields each of them has: what `docs/api.md` and `/openapi.json` are made of |
//! | `turns.rs`, `shape.rs` | conversations and errors, from and into other words than OpenAI's |
//! | `infill.rs` | llama-server's way to fill text in |
//! | `answer.rs` | how any request to generate is answered |
//! | `admin.rs`, `cluster.rs`, `history.rs`, `members.rs`, `events.rs` | loading and unloading models, how the cluster stands and stood, who belongs to it, and what happens |
//! | `session.rs` | keys of the page |
//! | `streams.rs` | streams that go on, and those of the journal that are begun again |
//! | `on_demand.rs` | requests that wait for their model |
//! | `tokenize.rs`, `props.rs`, `models.rs`, `health.rs`, `metrics.rs`, `page.rs` | the small endpoints, and a page for people |

pub mod admin;
pub mod answer;
pub mod chat;
pub mod cluster;
pub mod completions;
pub mod events;
pub mod fields;
pub mod health;
pub mod history;
pub mod infill;
pub mod logprobs;
pub mod members;
pub mod messages;
pub mod metrics;
pub mod models;
pub mod ollama;
pub mod on_demand;
pub mod openai;
pub mod page;
pub mod props;
pub mod responses;
pub mod session;
pub mod shape;
pub mod streams;
pub mod timings;
pub mod tokenize;
pub mod turns;
