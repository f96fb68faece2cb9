//! Workers of a cluster that is played, and the gate of a keeper.

use crate::app::keeper::members::Gate;
use crate::snapshot::{WorkerSnapshot, WorkerState};
use crate::trust::exclusions::{Exclusions, Known};
use crate::trust::state::StateDir;
use crate::trust::tokens::Tokens;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use woolly_protocol::ca::ClusterCa;
use woolly_protocol::ids::WorkerId;

/// The machine of the server.
pub const OWN: [u8; 16] = [9; 16];

fn worker(id: u64, name: &str, state: WorkerState, local: bool) -> WorkerSnapshot {
    WorkerSnapshot { local, ..WorkerSnapshot::named(name, WorkerId(id).hex(), state) }
}

/// One of the server's own, two that are here under one name, and one that is lost.
pub fn workers() -> Vec<WorkerSnapshot> {
    vec![
        worker(1, "local-1", WorkerState::Serving, true),
        worker(2, "twin", WorkerState::Serving, false),
        worker(3, "twin", WorkerState::Spare, false),
        worker(4, "gone", WorkerState::Lost, false),
    ]
}

/// The gate of a new cluster. Worker 5 was here before the server was started, on the machine of worker 4.
pub fn gate(folder: &Path) -> Gate {
    let state = StateDir::open(folder.join("gate")).unwrap();
    let ca = ClusterCa::open(&state.pki(), SystemTime::now()).unwrap();
    let exclusions = Exclusions::open(state.members()).unwrap();
    for (id, name, host) in
        [(2, "twin", 2), (3, "twin", 3), (4, "gone", 4), (5, "older", 4), (6, "own", 9)]
    {
        let (worker, name) = (WorkerId(id), name.to_owned());
        exclusions.note(Known { worker, name, host: [host; 16] });
    }
    exclusions.write_noted().unwrap();
    Gate {
        exclusions: Arc::new(exclusions),
        tokens: Tokens::open(&state, &ca).unwrap(),
        join_address: "10.0.0.1:7400".to_owned(),
        own_host: OWN,
    }
}
