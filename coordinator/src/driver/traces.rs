//! What became of each request at each stage: queue, compute and wire, added up as workers report them, and told in one line of the log when it is
//! over.
//!
//! A microbatch has rows of many requests; each of them counts its times in full: it is how long the request was there. Workers report with their
//! heartbeats, so the line comes [`LATE`] after the end. Requests whose caller keeps its trace are told at the level `info`, others at `debug`.
//!
//! Bounded: [`REQUESTS_MAX`] requests, the oldest of which gives way, and [`FLIGHTS_MAX`] microbatches that may still be reported.

use crate::events::unix_ms;
use crate::metrics::{Metrics, Way, WayStage};
use crate::trace::Trace;
use rustc_hash::FxHashMap;
use std::collections::VecDeque;
use std::time::Duration;
use woolly_protocol::control::ForwardTiming;
use woolly_protocol::forward::Forward;
use woolly_protocol::ids::{MicrobatchId, PlanEpoch, SequenceId, WorkerId};
use woolly_protocol::trace::{SequenceTrace, SpanId, hex, stage_span};

/// Requests that are followed at a time.
const REQUESTS_MAX: usize = 4096;
/// Microbatches whose reports are waited for: those of some heartbeats.
const FLIGHTS_MAX: usize = 512;
/// Stages of a request over all plans that it has seen.
const SPANS_MAX: usize = 256;
/// How long after its end the last reports of a request have come: two heartbeats.
const LATE: Duration = Duration::from_secs(1);

/// The requests of a lane that are followed.
#[derive(Debug, Default)]
pub struct Traces {
    sequences: FxHashMap<SequenceId, Sequence>,
    requests: FxHashMap<SpanId, Request>,
    /// The newest last.
    flights: VecDeque<Flight>,
}

#[derive(Debug)]
struct Sequence {
    request: SpanId,
    /// The plan whose stages were told of it.
    told: Option<PlanEpoch>,
}

#[derive(Debug)]
struct Request {
    trace: Trace,
    begun: Duration,
    /// When its first rows were sent.
    sent: Option<Duration>,
    ended: Option<Duration>,
    /// Sequences that have not ended.
    open: usize,
    spans: Vec<Span>,
}

/// A stage of a plan.
#[derive(Debug)]
struct Span {
    epoch: PlanEpoch,
    stage: usize,
    worker: WorkerId,
    forwards: u64,
    queue_us: u64,
    compute_us: u64,
    wire_us: u64,
}

/// A microbatch, and the requests that have rows in it.
#[derive(Debug, Default)]
struct Flight {
    epoch: PlanEpoch,
    microbatch: MicrobatchId,
    requests: Vec<SpanId>,
}

impl Traces {
    /// A sequence of a request is accepted.
    pub fn begin(&mut self, now: Duration, id: SequenceId, trace: Trace) {
        if self.requests.len() >= REQUESTS_MAX && !self.requests.contains_key(&trace.span) {
            let oldest = self.requests.iter().min_by_key(|(_, request)| request.begun);
            if let Some(oldest) = oldest.map(|(span, _)| *span) {
                self.requests.remove(&oldest);
                self.sequences.retain(|_, sequence| sequence.request != oldest);
            }
        }
        let request = self.requests.entry(trace.span).or_insert_with(|| Request {
            trace,
            begun: now,
            sent: None,
            ended: None,
            open: 0,
            spans: Vec::new(),
        });
        request.open += 1;
        self.sequences.insert(id, Sequence { request: trace.span, told: None });
    }

    /// A sequence has ended, however.
    pub fn ended(&mut self, now: Duration, id: SequenceId) {
        let Some(sequence) = self.sequences.remove(&id) else { return };
        if let Some(request) = self.requests.get_mut(&sequence.request) {
            request.open = request.open.saturating_sub(1);
            request.ended = Some(now);
        }
    }

    /// A microbatch is about to be sent: remembers whose it is, and says so to stages that do not know it yet.
    pub fn stamp(&mut self, now: Duration, forward: &mut Forward) {
        if self.sequences.is_empty() {
            return;
        }
        let used = (self.flights.len() >= FLIGHTS_MAX).then(|| self.flights.pop_front()).flatten();
        let mut flight = used.unwrap_or_default();
        (flight.epoch, flight.microbatch) = (forward.epoch, forward.microbatch);
        flight.requests.clear();
        for (number, chunk) in (0..).zip(&forward.chunks) {
            let Some(sequence) = self.sequences.get_mut(&chunk.sequence) else { continue };
            let Some(request) = self.requests.get_mut(&sequence.request) else { continue };
            request.sent.get_or_insert(now);
            if sequence.told != Some(forward.epoch) {
                sequence.told = Some(forward.epoch);
                let Trace { trace, span, .. } = request.trace;
                forward.traces.push(SequenceTrace { chunk: number, trace, span });
            }
            if !flight.requests.contains(&sequence.request) {
                flight.requests.push(sequence.request);
            }
        }
        self.flights.push_back(flight);
    }

    /// A stage tells how long it had a microbatch.
    pub fn timing(
        &mut self,
        (epoch, stage, worker): (PlanEpoch, usize, WorkerId),
        timing: &ForwardTiming,
    ) {
        let is_it = |it: &&Flight| it.microbatch == timing.microbatch && it.epoch == epoch;
        let Some(flight) = self.flights.iter().rev().find(is_it) else { return };
        for request in &flight.requests {
            let Some(request) = self.requests.get_mut(request) else { continue };
            let is_same = |span: &Span| span.epoch == epoch && span.stage == stage;
            let at = request.spans.iter().position(is_same).unwrap_or_else(|| {
                if request.spans.len() >= SPANS_MAX {
                    request.spans.remove(0);
                }
                let (forwards, queue_us, compute_us, wire_us) = (0, 0, 0, 0);
                request.spans.push(Span {
                    epoch,
                    stage,
                    worker,
                    forwards,
                    queue_us,
                    compute_us,
                    wire_us,
                });
                request.spans.len() - 1
            });
            let span = &mut request.spans[at];
            span.forwards += 1;
            span.queue_us += u64::from(timing.queue_us);
            span.compute_us += u64::from(timing.compute_us);
            span.wire_us += u64::from(timing.wire_us);
        }
    }

    /// Tells of the requests of which nothing more will be reported: the log, and who asks for the last ones.
    pub fn flush(&mut self, now: Duration, model: &str, metrics: &Metrics) {
        for request in self.take_over(now) {
            let way = request.way(model);
            request.log(&way);
            metrics.way(way);
        }
    }

    fn take_over(&mut self, now: Duration) -> Vec<Request> {
        let is_over = |request: &Request| {
            request.open == 0 && request.ended.is_some_and(|ended| ended + LATE <= now)
        };
        let over = self.requests.extract_if(|_, request| is_over(request));
        over.map(|(_, request)| request).collect()
    }
}

impl Request {
    /// Its way, stage by stage: first those of the first plan that it saw.
    fn way(&self, model: &str) -> Way {
        let ms = |from: Duration, to: Duration| {
            u64::try_from(to.saturating_sub(from).as_millis()).unwrap_or(u64::MAX)
        };
        let ended = self.ended.unwrap_or(self.begun);
        let mut spans: Vec<&Span> = self.spans.iter().collect();
        spans.sort_by_key(|span| (span.epoch, span.stage));
        let Trace { trace, span, parent, .. } = self.trace;
        let stage = |it: &Span| WayStage {
            plan: it.epoch.0,
            stage: it.stage,
            worker_id: it.worker.hex(),
            span: hex(&stage_span((trace, span), it.epoch, it.stage)),
            forwards: it.forwards,
            queue_us: it.queue_us,
            compute_us: it.compute_us,
            wire_us: it.wire_us,
        };
        Way {
            at_ms: unix_ms(),
            model: model.to_owned(),
            trace: hex(&trace),
            span: hex(&span),
            parent: parent.map(|parent| hex(&parent)),
            took_ms: ms(self.begun, ended),
            waited_ms: ms(self.begun, self.sent.unwrap_or(ended)),
            stages: spans.into_iter().map(stage).collect(),
        }
    }

    /// One line of the log.
    fn log(&self, way: &Way) {
        let Way { trace, span, .. } = way;
        let (parent, line) = (way.parent.as_deref().unwrap_or("-"), line(way));
        if self.trace.sampled {
            tracing::info!(%trace, %span, %parent, "a request's way: {line}");
        } else {
            tracing::debug!(%trace, %span, %parent, "a request's way: {line}");
        }
    }
}

/// A way as people read it.
fn line(way: &Way) -> String {
    let Way { model, took_ms, waited_ms, .. } = way;
    let mut line = format!("{model}, {took_ms} ms, {waited_ms} of them before it ran");
    for it in &way.stages {
        let WayStage { plan, stage, worker_id, span, forwards, .. } = it;
        let WayStage { queue_us, compute_us, wire_us, .. } = it;
        line += &format!(
            "; plan {plan} stage {stage} worker {worker_id} span {span}: {forwards} forwards, queue {queue_us} us, \
             compute {compute_us} us, wire {wire_us} us"
        );
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use woolly_protocol::forward::Chunk;

    const MS: Duration = Duration::from_millis(1);

    fn trace(span: u8) -> Trace {
        Trace { trace: [7; 16], span: [span; 8], parent: None, sampled: true }
    }

    fn forward(epoch: u32, microbatch: u64, sequences: &[u64]) -> Forward {
        let chunk = |sequence: &u64| Chunk {
            sequence: SequenceId(*sequence),
            position: 0,
            token_count: 1,
            sample_rows: 1,
        };
        Forward {
            epoch: PlanEpoch(epoch),
            microbatch: MicrobatchId(microbatch),
            traces: Vec::new(),
            chunks: sequences.iter().map(chunk).collect(),
            caches: Vec::new(),
        }
    }

    fn told(traces: &mut Traces, epoch: u32, microbatch: u64, sequences: &[u64]) -> Vec<(u32, u8)> {
        let mut forward = forward(epoch, microbatch, sequences);
        traces.stamp(30 * MS, &mut forward);
        forward.traces.iter().map(|trace| (trace.chunk, trace.span[0])).collect()
    }

    fn report(traces: &mut Traces, epoch: u32, microbatch: u64, stage: usize) {
        let timing = ForwardTiming {
            microbatch: MicrobatchId(microbatch),
            queue_us: 10,
            compute_us: 200,
            wire_us: 3,
            ..ForwardTiming::default()
        };
        traces.timing((PlanEpoch(epoch), stage, WorkerId(0xab)), &timing);
    }

    #[test]
    fn stages_are_told_once_of_each_sequence_and_again_under_another_plan() {
        let mut traces = Traces::default();
        traces.begin(10 * MS, SequenceId(1), trace(1));
        traces.begin(10 * MS, SequenceId(2), trace(2));
        // Nobody follows the third.
        assert_eq!(told(&mut traces, 1, 1, &[3, 1]), [(1, 1)]);
        assert_eq!(told(&mut traces, 1, 2, &[1, 2]), [(1, 2)]);
        assert_eq!(told(&mut traces, 1, 3, &[1, 2]), []);
        assert_eq!(told(&mut traces, 2, 4, &[1, 2]), [(0, 1), (1, 2)]);
    }

    #[test]
    fn the_times_of_a_requests_choices_are_one_way_and_told_when_all_have_ended() {
        let mut traces = Traces::default();
        traces.begin(10 * MS, SequenceId(1), trace(1));
        traces.begin(10 * MS, SequenceId(2), trace(1));
        traces.begin(10 * MS, SequenceId(3), trace(3));
        told(&mut traces, 1, 1, &[1, 2]);
        told(&mut traces, 1, 2, &[1, 3]);
        for (microbatch, stage) in [(1, 0), (1, 1), (2, 0), (2, 1), (99, 0)] {
            report(&mut traces, 1, microbatch, stage);
        }
        traces.ended(50 * MS, SequenceId(1));
        assert!(traces.take_over(5000 * MS).is_empty(), "one choice goes on");
        traces.ended(110 * MS, SequenceId(2));
        assert!(traces.take_over(500 * MS).is_empty(), "reports may come");
        let over = traces.take_over(1110 * MS);
        let [request] = &over[..] else { panic!("{over:?}") };
        let way = request.way("m");
        assert_eq!((way.trace.as_str(), way.parent), (hex(&[7; 16]).as_str(), None));
        let span = |stage| hex(&stage_span(([7; 16], [1; 8]), PlanEpoch(1), stage));
        let times = "2 forwards, queue 20 us, compute 400 us, wire 6 us";
        let worker = WorkerId(0xab).hex();
        let expected = format!(
            "m, 100 ms, 20 of them before it ran; plan 1 stage 0 worker {worker} span {}: {times}; plan 1 stage 1 worker \
             {worker} span {}: {times}",
            span(0),
            span(1)
        );
        assert_eq!(line(&request.way("m")), expected);
        assert!(traces.take_over(9000 * MS).is_empty(), "the third is under way");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut traces = Traces::default();
        for number in 0..REQUESTS_MAX as u64 + 10 {
            let span = (number + 1).to_le_bytes();
            let trace = Trace { span, ..trace(1) };
            let now = Duration::from_micros(number);
            traces.begin(now, SequenceId(number), trace);
            told(&mut traces, 1, number + 1, &[number]);
        }
        assert_eq!((traces.requests.len(), traces.sequences.len()), (REQUESTS_MAX, REQUESTS_MAX));
        assert_eq!(traces.flights.len(), FLIGHTS_MAX);
        assert!(!traces.requests.contains_key(&1_u64.to_le_bytes()), "the oldest gave way");
        assert!(traces.requests.contains_key(&(REQUESTS_MAX as u64 + 10).to_le_bytes()));
    }
}
