//! Numbers that name things inside the coordinator, each a type of its own.

use woolly_protocol::ids::SequenceId;

/// An API key, by its place among those configured; 0 when there are none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub u32);

/// A served model, by its place among those served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModelId(pub u32);

/// A lane: one replica of a served model, with a queue, a scheduler and generations of its own. It
/// outlives plans.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(pub u32);

/// Names a generation: a sequence of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GenerationId {
    /// The lane.
    pub lane: LaneId,
    /// Its number there.
    pub sequence: SequenceId,
}
