//! What happens to models, workers and plans, for whoever watches: the last [`EVENTS_MAX`] of it.
//!
//! Who says something never waits for who listens. A reader that is slower than what happens loses the
//! oldest events and is told how many. `docs/models_at_run_time.md` lists the kinds.

use serde::Serialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Events that are held for slow readers and for those who come back.
pub const EVENTS_MAX: usize = 1024;
/// Characters of a text inside an event: names and reasons come from files, flags and workers.
const TEXT_CHARS_MAX: usize = 1000;

/// What has happened. The word for each kind is in [`kind`](Self::kind).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[allow(
    missing_docs,
    reason = "the fields are what their names say; docs/models_at_run_time.md has them"
)]
pub enum Happening {
    /// A model is being loaded; `progress` is 0 to 100 percent of its stages, said when it changes.
    ModelLoading { model: String, progress: u8 },
    /// A model is served.
    ModelReady { model: String },
    /// A model is served no more, as somebody asked for it. `unfinished` requests were ended.
    ModelUnloaded { model: String, unfinished: usize },
    /// A model could not be loaded, or cannot be served any more.
    ModelFailed { model: String, reason: String },
    /// A worker has joined.
    WorkerJoined { worker: String, worker_id: String },
    /// A worker's certificate was taken back.
    WorkerRemoved { worker: String, worker_id: String },
    /// A worker's name and machine were banned; the name alone without a machine.
    WorkerBanned {
        worker: String,
        worker_id: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        machine: Option<String>,
    },
    /// A worker is gone.
    WorkerLost { worker: String, worker_id: String, reason: String },
    /// A plan is made, and is about to be loaded. A cut is who computes which layers; what this one takes the
    /// place of is left out where it is the first.
    PlanMade {
        model: String,
        plan: u32,
        cut: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        old_plan: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        old_cut: Option<String>,
        reason: String,
    },
    /// A model's plan is served.
    PlanServing { model: String, plan: u32, stages: usize },
    /// A model's plan has ended; its requests wait for the next.
    PlanLost { model: String, plan: u32, reason: String },
    /// After a loss another plan is served, and the first stream has gone on: when, counted from the loss.
    /// Without any that had to it is said at once.
    Failover {
        model: String,
        plan: u32,
        sequences: usize,
        tokens: u64,
        search_ms: u64,
        #[serde(skip_serializing_if = "Option::is_none")]
        first_token_ms: Option<u64>,
    },
    /// All that had been computed under a plan that ended is computed again.
    Replayed { model: String, plan: u32, tokens: u64, took_ms: u64 },
}

impl Happening {
    /// The word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Happening::ModelLoading { .. } => "model_loading",
            Happening::ModelReady { .. } => "model_ready",
            Happening::ModelUnloaded { .. } => "model_unloaded",
            Happening::ModelFailed { .. } => "model_failed",
            Happening::WorkerJoined { .. } => "worker_joined",
            Happening::WorkerRemoved { .. } => "worker_removed",
            Happening::WorkerBanned { .. } => "worker_banned",
            Happening::WorkerLost { .. } => "worker_lost",
            Happening::PlanMade { .. } => "plan_made",
            Happening::PlanServing { .. } => "plan_serving",
            Happening::PlanLost { .. } => "plan_lost",
            Happening::Failover { .. } => "failover",
            Happening::Replayed { .. } => "replayed",
        }
    }

    fn shortened(mut self) -> Happening {
        let texts = match &mut self {
            Happening::ModelLoading { model, .. }
            | Happening::ModelReady { model }
            | Happening::ModelUnloaded { model, .. }
            | Happening::PlanServing { model, .. }
            | Happening::Failover { model, .. }
            | Happening::Replayed { model, .. } => vec![model],
            Happening::ModelFailed { model, reason }
            | Happening::PlanLost { model, reason, .. } => vec![model, reason],
            Happening::PlanMade { model, cut, old_cut, reason, .. } => {
                [model, cut, reason].into_iter().chain(old_cut).collect()
            }
            Happening::WorkerJoined { worker, .. }
            | Happening::WorkerRemoved { worker, .. }
            | Happening::WorkerBanned { worker, .. } => vec![worker],
            Happening::WorkerLost { worker, reason, .. } => vec![worker, reason],
        };
        for text in texts {
            if let Some((at, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
                text.truncate(at);
                text.push('…');
            }
        }
        self
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its number: each has the next one, from 1 on, since the start of this process.
    pub id: u64,
    /// When it happened, in milliseconds since 1970.
    pub at_ms: u64,
    /// What.
    pub what: Happening,
}

impl Event {
    /// As readers get it: number, time, kind, and the fields of its kind beside them.
    pub fn json(&self) -> Value {
        let mut value = json!({ "id": self.id, "at_ms": self.at_ms, "kind": self.what.kind() });
        let fields = serde_json::to_value(&self.what).expect("all keys are strings");
        if let (Value::Object(all), Value::Object(fields)) = (&mut value, fields) {
            all.extend(fields);
        }
        value
    }
}

/// Now, in milliseconds since 1970: the clock of events.
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The next event.
    Event(Event),
    /// So many were lost before the next one: the reader was too slow, or was away for too long.
    Lost(u64),
}

/// The log of events. Clones are of the same.
#[derive(Clone, Debug)]
pub struct Events(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    held: Mutex<VecDeque<Event>>,
    /// The number of the last event; 0 before the first.
    last: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Events {
        Events(Arc::new(Shared { held: Mutex::default(), last: watch::Sender::new(0) }))
    }
}

impl Events {
    /// Something has happened.
    pub fn say(&self, what: Happening) {
        let at_ms = unix_ms();
        let mut held = self.held();
        let id = *self.0.last.borrow() + 1;
        if held.len() == EVENTS_MAX {
            held.pop_front();
        }
        held.push_back(Event { id, at_ms, what: what.shortened() });
        // With the lock held: numbers and events come in one order.
        self.0.last.send_replace(id);
    }

    /// Who reads what happens after the event `after`; from now on with `None`. A number that no event had
    /// yet is of another start of this process: everything that is held is read then.
    pub fn reader(&self, after: Option<u64>) -> Reader {
        let last = self.0.last.subscribe();
        let now = *last.borrow();
        let next = after.map_or(now, |after| if after > now { 0 } else { after }) + 1;
        Reader { events: self.clone(), last, next }
    }

    /// The newest events, the oldest first.
    pub fn newest(&self, most: usize) -> Vec<Event> {
        let held = self.held();
        held.iter().skip(held.len().saturating_sub(most)).cloned().collect()
    }

    fn held(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads events in their order. See [`Events::reader`].
#[derive(Debug)]
pub struct Reader {
    events: Events,
    last: watch::Receiver<u64>,
    next: u64,
}

impl Reader {
    /// What comes next; waits for it. May be dropped and called again: nothing is lost by that. `None` when
    /// nobody is left who could say anything.
    pub async fn next(&mut self) -> Option<Heard> {
        let next = self.next;
        self.last.wait_for(|last| *last >= next).await.ok()?;
        let held = self.events.held();
        let first = held.front()?.id;
        if first > self.next {
            let lost = first - self.next;
            self.next = first;
            return Some(Heard::Lost(lost));
        }
        let place = usize::try_from(self.next - first).ok()?;
        let event = held.get(place)?.clone();
        self.next += 1;
        Some(Heard::Event(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(model: &str) -> Happening {
        Happening::ModelReady { model: model.to_owned() }
    }

    async fn id(reader: &mut Reader) -> u64 {
        match reader.next().await {
            Some(Heard::Event(event)) => event.id,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_reader_hears_what_happens_from_now_on_or_from_where_it_was() {
        let events = Events::default();
        events.say(ready("a"));
        let mut from_now = events.reader(None);
        let mut again = events.reader(Some(0));
        events.say(ready("b"));
        assert_eq!(id(&mut from_now).await, 2);
        assert_eq!((id(&mut again).await, id(&mut again).await), (1, 2));
        let waiting = tokio::spawn(async move { id(&mut again).await });
        tokio::task::yield_now().await;
        events.say(ready("c"));
        assert_eq!(waiting.await.unwrap(), 3);
        // A number of another start.
        assert_eq!(id(&mut events.reader(Some(900))).await, 1);
    }

    #[tokio::test]
    async fn a_slow_reader_loses_the_oldest_events_and_is_told_how_many() {
        let events = Events::default();
        let mut reader = events.reader(None);
        for _ in 0..EVENTS_MAX + 7 {
            events.say(ready("a"));
        }
        assert_eq!(events.held().len(), EVENTS_MAX);
        assert_eq!(reader.next().await, Some(Heard::Lost(7)));
        assert_eq!(id(&mut reader).await, 8);
    }

    #[test]
    fn long_texts_are_cut() {
        let reason = "é".repeat(TEXT_CHARS_MAX + 1);
        let failed = Happening::ModelFailed { model: "m".to_owned(), reason };
        let Happening::ModelFailed { reason, .. } = failed.shortened() else { panic!() };
        assert_eq!(reason.chars().count(), TEXT_CHARS_MAX + 1);
        assert!(reason.ends_with('…'));
    }

    #[test]
    fn the_newest_events_are_shown_without_a_reader() {
        let events = Events::default();
        assert_eq!(events.newest(3), []);
        (0..5).for_each(|_| events.say(ready("a")));
        let ids = |most| events.newest(most).iter().map(|event| event.id).collect::<Vec<_>>();
        assert_eq!((ids(3), ids(9)), (vec![3, 4, 5], vec![1, 2, 3, 4, 5]));
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let made = |old_plan, old_cut| Happening::PlanMade {
            model: "m".to_owned(),
            plan: 2,
            cut: "a 0-7".to_owned(),
            old_plan,
            old_cut,
            reason: "why".to_owned(),
        };
        let event = Event { id: 4, at_ms: 5, what: made(None, None) };
        let expected = json!({
            "id": 4, "at_ms": 5, "kind": "plan_made", "model": "m", "plan": 2, "cut": "a 0-7", "reason": "why",
        });
        assert_eq!(event.json(), expected);
        let event = Event { id: 4, at_ms: 5, what: made(Some(1), Some("b 0-7".to_owned())) };
        assert_eq!(
            (&event.json()["old_plan"], &event.json()["old_cut"]),
            (&json!(1), &json!("b 0-7"))
        );
    }
}
