//! The threads that ask guides what may come next: beside the driver, so that a slow grammar delays nobody
//! else.
//!
//! A guide goes to the pool with the token that was chosen, and comes back with its answer. Each generation
//! has at most one question on its way, so there are at most as many as generations.

use super::guide::Guide;
use super::next::Next;
use crate::ids::GenerationId;
use crate::metrics::Metrics;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Instant;
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Threads of the pool: a mask takes 20 to 100 µs, a step of a pipeline milliseconds.
const THREADS: usize = 2;

/// Answers that wait for the driver; more, and the threads wait for it.
const ANSWERS_MAX: usize = 4096;

/// A question.
struct Asked {
    of: GenerationId,
    guide: Guide,
    token: u32,
}

/// What a guide has answered.
#[derive(Debug)]
pub struct Answered {
    /// Whose it is.
    pub of: GenerationId,
    /// For the next question.
    pub guide: Guide,
    /// The answer.
    pub next: Next,
}

/// The pool's end for the driver. The threads end when it is dropped.
#[derive(Debug)]
pub struct Pool {
    questions: mpsc::Sender<Asked>,
}

impl Pool {
    /// Starts the threads; `metrics` counts their time. The answers come out of the receiver.
    pub fn new(metrics: Arc<Metrics>) -> (Pool, Receiver<Answered>) {
        let (questions, asked) = mpsc::channel();
        let (answers, answered) = channel(ANSWERS_MAX);
        let asked = Arc::new(Mutex::new(asked));
        for _ in 0..THREADS {
            let (asked, answers, metrics) =
                (Arc::clone(&asked), answers.clone(), Arc::clone(&metrics));
            let work = move || work(&asked, &answers, &metrics);
            let started = std::thread::Builder::new().name("guides".to_owned()).spawn(work);
            if let Err(error) = started {
                tracing::error!(%error, "no thread for grammars");
            }
        }
        (Pool { questions }, answered)
    }

    /// Asks what may come after this token.
    pub fn ask(&self, of: GenerationId, guide: Guide, token: u32) {
        if self.questions.send(Asked { of, guide, token }).is_err() {
            tracing::error!("no thread for grammars is left");
        }
    }
}

fn work(asked: &Mutex<mpsc::Receiver<Asked>>, answers: &Sender<Answered>, metrics: &Metrics) {
    loop {
        let question = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Asked { of, mut guide, token }) = question else { return };
        let begun = Instant::now();
        let next = guide.next(token);
        metrics.mask(begun.elapsed());
        if answers.blocking_send(Answered { of, guide, next }).is_err() {
            return;
        }
    }
}
