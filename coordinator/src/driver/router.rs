//! Who serves what, and how much of it one API key may have: in front of all lanes.
//!
//! It knows models, lanes and keys, and how many generations of each key have not ended; no sequence
//! and no worker.

use crate::generation::{KeyId, LaneId, ModelId};
use std::collections::BTreeMap;

/// Models with their lanes, and keys with their generations.
#[derive(Debug, Default)]
pub struct Router {
    /// The replicas of each model.
    lanes: BTreeMap<ModelId, Vec<LaneId>>,
    /// Generations of each key that have not ended. No key has none.
    of_key: BTreeMap<KeyId, usize>,
    /// Generations that one key may have; `None` is no limit of its own.
    key_concurrency: Option<usize>,
}

/// A key has as many generations as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyFull {
    /// So many.
    pub limit: usize,
}

impl Router {
    /// A router without models.
    pub fn new(key_concurrency: Option<usize>) -> Router {
        Router { key_concurrency, ..Router::default() }
    }

    /// A lane serves a model.
    pub fn add(&mut self, model: ModelId, lane: LaneId) {
        self.lanes.entry(model).or_default().push(lane);
    }

    /// A model is served no more.
    pub fn remove(&mut self, model: ModelId) {
        self.lanes.remove(&model);
    }

    /// The lanes of a model; none if it is not served.
    pub fn lanes(&self, model: ModelId) -> &[LaneId] {
        self.lanes.get(&model).map_or(&[], Vec::as_slice)
    }

    /// Whether a key may have one more.
    ///
    /// # Errors
    ///
    /// [`KeyFull`] if it has as many as it may.
    pub fn check_key(&self, key: KeyId) -> Result<(), KeyFull> {
        let held = self.of_key.get(&key).copied().unwrap_or(0);
        match self.key_concurrency {
            Some(limit) if held >= limit => Err(KeyFull { limit }),
            _ => Ok(()),
        }
    }

    /// A generation of a key begins.
    pub fn begin(&mut self, key: KeyId) {
        *self.of_key.entry(key).or_insert(0) += 1;
    }

    /// A generation of a key has ended.
    ///
    /// # Panics
    ///
    /// If the key has none: another one's would be taken for it.
    pub fn end(&mut self, key: KeyId) {
        let held = self.of_key.get_mut(&key).expect("every generation is counted");
        *held -= 1;
        if *held == 0 {
            self.of_key.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_limit_of_its_own() {
        let mut router = Router::new(Some(2));
        let (one, other) = (KeyId(1), KeyId(2));
        router.begin(one);
        router.begin(one);
        assert_eq!(router.check_key(one), Err(KeyFull { limit: 2 }));
        assert_eq!(router.check_key(other), Ok(()));
        router.end(one);
        assert_eq!(router.check_key(one), Ok(()));
        router.end(one);
        assert!(router.of_key.is_empty());
        let mut free = Router::new(None);
        (0..9).for_each(|_| free.begin(one));
        assert_eq!(free.check_key(one), Ok(()));
    }

    #[test]
    fn a_model_may_have_several_lanes_and_another_none() {
        let mut router = Router::new(None);
        for lane in [0, 2] {
            router.add(ModelId(7), LaneId(lane));
        }
        assert_eq!(router.lanes(ModelId(7)), [LaneId(0), LaneId(2)]);
        assert_eq!(router.lanes(ModelId(8)), []);
        router.remove(ModelId(7));
        assert_eq!(router.lanes(ModelId(7)), []);
    }
}
