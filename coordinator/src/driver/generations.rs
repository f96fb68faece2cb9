//! The generations under way and the channels that tell them what happens.

use crate::generation::{Failure, GenerationEvent, KeyId};
use crate::guides::Guide;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use woolly_protocol::ids::SequenceId;

/// One channel per sequence that has not ended, and its guide, if it has one.
#[derive(Debug, Default)]
pub struct Generations {
    channels: FxHashMap<SequenceId, Underway>,
}

/// A generation under way.
#[derive(Debug)]
struct Underway {
    key: KeyId,
    events: mpsc::Sender<GenerationEvent>,
    /// `None` without a grammar, and while the guide is asked.
    guide: Option<Guide>,
}

/// What came of telling a generation something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It goes on, or is not known any more.
    Heard,
    /// That was its last event.
    Ended(KeyId),
    /// Nobody listens any more: the sequence is to be cancelled.
    Gone(KeyId),
}

impl Generations {
    /// A sequence of a key was accepted.
    pub fn add(
        &mut self,
        id: SequenceId,
        key: KeyId,
        events: mpsc::Sender<GenerationEvent>,
        guide: Option<Guide>,
    ) {
        self.channels.insert(id, Underway { key, events, guide });
    }

    /// The guide of a sequence, which is to be asked.
    pub fn take_guide(&mut self, id: SequenceId) -> Option<Guide> {
        self.channels.get_mut(&id)?.guide.take()
    }

    /// The guide has answered. Whether anyone still listens.
    pub fn return_guide(&mut self, id: SequenceId, guide: Guide) -> bool {
        match self.channels.get_mut(&id) {
            Some(underway) => {
                underway.guide = Some(guide);
                true
            }
            None => false,
        }
    }

    /// The client is gone. Whose generation that was; `None` if it is not known any more.
    pub fn remove(&mut self, id: SequenceId) -> Option<KeyId> {
        self.channels.remove(&id).map(|underway| underway.key)
    }

    /// Tells a generation. Never waits: its channel holds all events that it can get.
    pub fn tell(&mut self, id: SequenceId, event: GenerationEvent) -> Told {
        let last = matches!(event, GenerationEvent::Finished { .. } | GenerationEvent::Failed(_));
        let Some(underway) = self.channels.get(&id) else { return Told::Heard };
        let (key, sent) = (underway.key, underway.events.try_send(event));
        if last || sent.is_err() {
            self.channels.remove(&id);
        }
        match sent {
            Ok(()) if last => Told::Ended(key),
            Ok(()) => Told::Heard,
            Err(TrySendError::Closed(_)) => Told::Gone(key),
            Err(TrySendError::Full(_)) => {
                // One `Scored` and `Prefilled`, `max_tokens` tokens and the end fit: more is a mistake of ours, and
                // must not stop everyone else's generations.
                tracing::error!("sequence {id} got more events than its channel holds");
                Told::Gone(key)
            }
        }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Ends all that are left; says which, and whose.
    pub fn fail_all(&mut self, failure: &Failure) -> Vec<(SequenceId, KeyId)> {
        let fail = |(id, underway): (SequenceId, Underway)| {
            // A client that is gone needs no answer.
            let _ = underway.events.try_send(GenerationEvent::Failed(failure.clone()));
            (id, underway.key)
        };
        self.channels.drain().map(fail).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generation::{FinishReason, TokenEvent};

    const KEY: KeyId = KeyId(3);

    fn token() -> GenerationEvent {
        GenerationEvent::Token(TokenEvent { token: 1, logprob: 0.0, top: Vec::new() })
    }

    fn finished() -> GenerationEvent {
        GenerationEvent::Finished { reason: FinishReason::Stop, cached_tokens: 0 }
    }

    #[test]
    fn a_generation_ends_with_its_last_event() {
        let (sender, mut events) = mpsc::channel(2);
        let mut generations = Generations::default();
        generations.add(SequenceId(1), KEY, sender, None);
        assert_eq!(generations.tell(SequenceId(1), token()), Told::Heard);
        assert_eq!(generations.tell(SequenceId(1), finished()), Told::Ended(KEY));
        assert!(generations.channels.is_empty());
        assert_eq!(events.try_recv(), Ok(token()));
        assert_eq!(events.try_recv(), Ok(finished()));
        assert!(events.try_recv().is_err());
        assert_eq!(generations.tell(SequenceId(1), token()), Told::Heard);
    }

    #[test]
    fn a_closed_channel_cancels_its_sequence_once() {
        let (sender, events) = mpsc::channel(2);
        let mut generations = Generations::default();
        generations.add(SequenceId(1), KEY, sender, None);
        drop(events);
        assert_eq!(generations.tell(SequenceId(1), token()), Told::Gone(KEY));
        assert!(generations.channels.is_empty());
        assert_eq!(generations.remove(SequenceId(1)), None);
    }

    #[test]
    fn all_that_are_left_are_told_of_the_end() {
        let (sender, mut events) = mpsc::channel(2);
        let mut generations = Generations::default();
        generations.add(SequenceId(1), KEY, sender, None);
        let failure = Failure { code: "shutting_down", message: "the end".to_owned() };
        assert_eq!(generations.fail_all(&failure), [(SequenceId(1), KEY)]);
        assert_eq!(events.try_recv(), Ok(GenerationEvent::Failed(failure)));
        assert!(generations.channels.is_empty());
    }
}
