//! What is asked of a lane's plans.

use std::sync::Arc;
use woolly_engine::plan::{KvType, ModelLayout, Objective};
use woolly_protocol::control::ModelPart;

/// What is asked of a lane's plans: fixed for the life of the lane.
#[derive(Clone, Debug)]
pub struct PlacementConfig {
    /// What the model is called, for people.
    pub name: String,
    /// The model.
    pub layout: Arc<ModelLayout>,
    /// Its files.
    pub parts: Vec<ModelPart>,
    /// Workers to wait for before layers are placed; at least the stages of `cut`, at least 1.
    pub workers_wanted: u32,
    /// What a cut is to be best for, if the planner chooses it.
    pub objective: Objective,
    /// Layers of each stage; `None` lets the planner choose.
    pub cut: Option<Vec<u32>>,
    /// Positions of a sequence.
    pub ctx_size: u32,
    /// Rows of a microbatch at most; fewer if the model is so wide that they would not fit a frame.
    pub rows_max: u32,
    /// How the KV cache holds its values.
    pub kv_type: KvType,
    /// Positions of the KV cache that are given out together, a multiple of 32.
    pub extent_len: u32,
    /// Sequences of full length for which a plan takes memory at most.
    pub contexts_max: u64,
    /// Bytes of KV cache on each worker at most; `None` leaves it to what each worker says of itself.
    pub kv_memory: Option<u64>,
    /// Before it was ever served, to be told that there is no room for it
    /// ([`Action::NoRoom`](super::Action::NoRoom)): then nobody waits for workers that could hold it.
    pub must_fit: bool,
}
