//! Machines that a model is to be planned on, and the links between them and the coordinator.

use std::ops::Range;
use std::time::Duration;

/// What workers of a machine may use of its memory together unless they are told more, in percent: as
/// `woolly-worker join` has it.
const MEMORY_SHARE_PERCENT: u64 = 80;

/// The name that stands for the coordinator where links are named.
pub const COORDINATOR: &str = "coordinator";
/// The name that stands for whatever is at the other end.
pub const ANY: &str = "any";

/// A machine with one worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// Bytes of memory that it has.
    pub memory_bytes: u64,
    /// Bytes that its worker may use, if that was said (`--memory`).
    pub may_use_bytes: Option<u64>,
    /// Bytes of them for the KV cache at most; 0 for as many as fit.
    pub kv_memory_bytes: u64,
    /// Compute threads of its worker.
    pub threads: u32,
    /// Bytes per second that all threads read from memory together.
    pub read_bytes_per_s: u64,
    /// Bytes per second that one thread reads.
    pub read_1_bytes_per_s: Option<u64>,
    /// Multiply-adds per second of the worker's threads together.
    pub macs_per_s: u64,
}

impl Machine {
    /// Bytes that its worker may use.
    pub fn allowance_bytes(&self) -> u64 {
        self.may_use_bytes.unwrap_or(self.memory_bytes / 100 * MEMORY_SHARE_PERCENT)
    }

    /// Bytes per second that its worker reads: what its threads read one by one, and no more than the memory gives.
    pub fn worker_read_bytes_per_s(&self) -> u64 {
        let each = self.read_1_bytes_per_s.unwrap_or(self.read_bytes_per_s);
        each.saturating_mul(self.threads.into()).min(self.read_bytes_per_s)
    }
}

/// A way between two processes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wire {
    /// Time there and back.
    pub round_trip: Duration,
    /// Bytes per second in each direction.
    pub bytes_per_s: u64,
}

/// A wired network of one gigabit per second.
pub const USUAL_WIRE: Wire =
    Wire { round_trip: Duration::from_micros(300), bytes_per_s: 125_000_000 };

/// Processes of one machine.
pub const LOCAL_WIRE: Wire =
    Wire { round_trip: Duration::from_micros(150), bytes_per_s: 1_000_000_000 };

/// One end of a link, or several that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The coordinator.
    Coordinator,
    /// Machines, by their places.
    Machines(Range<usize>),
    /// The coordinator and all machines.
    Any,
}

impl End {
    /// Whether it is this machine, or the coordinator for `None`.
    fn is(&self, machine: Option<usize>) -> bool {
        match (self, machine) {
            (End::Any, _) | (End::Coordinator, None) => true,
            (End::Machines(places), Some(machine)) => places.contains(&machine),
            _ => false,
        }
    }
}

/// Machines in the order in which their workers join, and how they are linked.
#[derive(Clone, Debug, PartialEq)]
pub struct Machines {
    /// The machines.
    pub list: Vec<Machine>,
    /// Between any two for which nothing else is said, the coordinator included.
    pub usual: Wire,
    /// Others; where several are of the same two ends, the last one counts.
    pub between: Vec<(End, End, Wire)>,
}

impl Machines {
    /// The link between two machines by their places; `None` is the coordinator.
    pub fn wire(&self, a: Option<usize>, b: Option<usize>) -> Wire {
        let is_of = |(one, other, _): &&(End, End, Wire)| {
            one.is(a) && other.is(b) || one.is(b) && other.is(a)
        };
        self.between.iter().rev().find(is_of).map_or(self.usual, |(_, _, wire)| *wire)
    }
}
