//! The last plan that was served, kept in the state directory: a coordinator that starts again gives
//! the same workers the same layers, so that nothing is fetched twice.
//!
//! A text file: the model's fingerprint in hexadecimal, then one line per stage with its worker and its
//! number of layers. A file that is missing, damaged or of another model is no plan.

use crate::trust::state::{read_bounded, write_private};
use std::path::PathBuf;
use woolly_protocol::ids::WorkerId;
use woolly_protocol::limits::STAGES_MAX;

/// The workers of a plan in order of stage, each with its number of layers.
pub type Seats = Vec<(WorkerId, u32)>;

/// Where the last plan is kept.
#[derive(Clone, Debug)]
pub struct LastPlan {
    path: PathBuf,
}

impl LastPlan {
    /// Kept in the file `path`.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The last plan of the model with this fingerprint; empty if there is none.
    pub fn load(&self, fingerprint: &[u8; 32]) -> Seats {
        let bytes = read_bounded(&self.path).ok().flatten().unwrap_or_default();
        let text = String::from_utf8(bytes).unwrap_or_default();
        parse(&text, fingerprint).unwrap_or_default()
    }

    /// Remembers a plan. Losing it costs a download at most, so that a failure is only logged. Blocks.
    pub fn save(&self, fingerprint: &[u8; 32], seats: &Seats) {
        let mut text = format!("{}\n", hex(fingerprint));
        for (worker, layers) in seats {
            text.push_str(&format!("{} {layers}\n", worker.hex()));
        }
        if let Err(error) = write_private(&self.path, text.as_bytes()) {
            tracing::warn!("cannot remember the plan in {}: {error}", self.path.display());
        }
    }
}

fn hex(fingerprint: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*fingerprint).to_hex().to_string()
}

fn parse(text: &str, fingerprint: &[u8; 32]) -> Option<Seats> {
    let mut lines = text.lines();
    if lines.next()? != hex(fingerprint) {
        return None;
    }
    let seats: Option<Seats> = lines
        .take(STAGES_MAX + 1)
        .map(|line| {
            let (worker, layers) = line.split_once(' ')?;
            Some((WorkerId::from_hex(worker)?, layers.parse().ok().filter(|n| *n > 0)?))
        })
        .collect();
    seats.filter(|seats| seats.len() <= STAGES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_remembered_for_its_model_only_and_damage_is_no_plan() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("last-plan");
        let plan = LastPlan::new(path.clone());
        assert!(plan.load(&[7; 32]).is_empty());
        let seats = vec![(WorkerId(0xabc), 17), (WorkerId(1), 11)];
        plan.save(&[7; 32], &seats);
        assert_eq!(plan.load(&[7; 32]), seats);
        assert!(plan.load(&[8; 32]).is_empty());
        for damaged in ["", "\n", "xyz\n", &format!("{}\nzz 1\n", hex(&[7; 32]))] {
            std::fs::write(&path, damaged).unwrap();
            assert!(plan.load(&[7; 32]).is_empty(), "{damaged:?}");
        }
    }
}
