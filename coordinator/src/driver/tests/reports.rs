//! What workers say of themselves, and where it is counted and told.

use super::*;
use crate::events::Event;
use crate::snapshot::{Snapshot, WorkerState};
use crate::trace::Trace;
use woolly_protocol::control::Drain;
use woolly_protocol::trace::SequenceTrace;

#[tokio::test]
async fn what_a_stage_reports_of_the_present_plan_is_counted() {
    let (rig, mut players) = Rig::ready(2).await;
    let epoch = players[0].assign.as_ref().unwrap().links.epoch;
    let timing = |compute_us| ForwardTiming { compute_us, ..ForwardTiming::default() };
    // The second is of a plan that is not served.
    for (player, epoch, times) in
        [(0, epoch, vec![10, 20]), (1, PlanEpoch(epoch.0 + 1), vec![40]), (1, epoch, vec![50])]
    {
        let timings = times.into_iter().map(timing).collect();
        let plans = vec![PlanReport { epoch, timings }];
        let heartbeat = Heartbeat { number: 1, plans, mappings: 6, ..Heartbeat::default() };
        let frame = EncodedFrame::new(&heartbeat).unwrap();
        write_frame(&mut players[player].send, frame).await.unwrap();
    }
    let counted = |text: &str| {
        let sum = |stage, us| {
            format!("woolly_stage_compute_seconds_total{{stage=\"{stage}\"}} 0.0000{us}\n")
        };
        let mapped = "woolly_worker_slice_mappings_total{worker=\"";
        text.contains(&sum(0, 3)) && text.contains(&sum(1, 5)) && text.contains(mapped)
    };
    rig.wait_for("both stages are counted", |_| counted(&rig.engine.metrics().render())).await;

    let told = rig.snapshot().await;
    let [model] = &told.models[..] else { panic!("{told:?}") };
    assert_eq!((model.model.as_str(), model.state.as_str()), ("model-0", "ready"));
    assert!(model.kv_blocks.is_some() && model.kv_blocks == model.kv_blocks_free, "{model:?}");
    let plan = model.plan.as_ref().unwrap();
    assert_eq!((plan.plan, model.next.is_none(), plan.served_ms.is_some()), (epoch.0, true, true));
    let recent = |stage: usize| plan.stages[stage].recent.clone().unwrap();
    assert_eq!((recent(0).forwards, recent(0).mean.unwrap().compute_us), (2, 15));
    assert_eq!((recent(1).forwards, recent(1).mean.unwrap().compute_us), (1, 50));
    assert_eq!(told.workers.len(), 2);
    for worker in &told.workers {
        assert_eq!(worker.state, WorkerState::Serving);
        let rtt = worker.heard.as_ref().and_then(|heard| heard.rtt_us);
        assert!(rtt.is_some_and(|us| us > 0 && us < 1_000_000), "{rtt:?}");
    }
}

impl Rig {
    pub(super) async fn snapshot(&self) -> Snapshot {
        let (reply, told) = oneshot::channel();
        self.lanes.send(LaneCommand::Snapshot(reply)).await.unwrap();
        timeout(PATIENCE, told).await.unwrap().unwrap()
    }
}

#[tokio::test]
async fn a_loss_is_told_in_the_order_in_which_things_follow_from_it() {
    let (rig, mut players) = Rig::ready(2).await;
    let (last, first) = (players.pop().unwrap(), &mut players[0]);
    let mut forwards = first.stream(StreamPurpose::Forwards).await;
    let mut samplings = last.stream(StreamPurpose::Samplings).await;
    let mut answers = last.answers().await;
    let mut generation = rig.engine.submit(request(2)).await.unwrap();
    let forward = read(&mut forwards, Kind::Forward).await.message::<Forward>().unwrap();
    read(&mut samplings, Kind::Sampling).await;
    write_frame(&mut answers, answer(&forward, 7)).await.unwrap();
    assert!(matches!(event(&mut generation).await, GenerationEvent::Token(_)));
    last.connection.close(0u32.into(), b"");
    first.load().await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        streams.push(first.any_stream().await);
    }
    let of_forwards = streams.iter_mut().find(|(purpose, _)| *purpose == StreamPurpose::Forwards);
    let frame = read(&mut of_forwards.unwrap().1, Kind::Forward).await;
    let forward = frame.message::<Forward>().unwrap();
    write_frame(&mut first.answers().await, answer(&forward, 8)).await.unwrap();
    assert!(matches!(event(&mut generation).await, GenerationEvent::Token(_)));
    assert!(matches!(event(&mut generation).await, GenerationEvent::Finished { .. }));

    let told = rig.snapshot().await;
    let states: Vec<_> = told.workers.iter().map(|worker| worker.state).collect();
    assert_eq!(states, [WorkerState::Serving, WorkerState::Lost]);
    assert_eq!(told.models[0].failovers, 1);
    let events = rig.events.newest(20);
    let kinds: Vec<&str> = events.iter().map(|event| event.what.kind()).collect();
    let start = ["worker_joined", "worker_joined", "plan_made", "plan_serving"];
    let loss = ["worker_lost", "plan_lost", "plan_made", "plan_serving", "failover", "replayed"];
    assert_eq!(kinds, [&start[..], &loss[..]].concat());
    let fields: Vec<_> = events.iter().map(Event::json).collect();
    let (made, failover) = (&fields[6], &fields[8]);
    assert_eq!((&made["plan"], &made["old_plan"]), (&2.into(), &1.into()));
    assert!(made["reason"].as_str().unwrap().contains("is lost"), "{made}");
    assert_eq!((&failover["plan"], &failover["sequences"]), (&2.into(), &1.into()));
    // The prompt and the first token.
    assert_eq!(failover["tokens"], 4);
    assert!(failover["first_token_ms"].as_u64() >= failover["search_ms"].as_u64(), "{failover}");
}

#[tokio::test]
async fn workers_that_said_that_they_leave_are_not_counted_as_lost() {
    let (rig, mut players) = Rig::ready(2).await;
    let drain = EncodedFrame::new(&Drain { reason: "an update".to_owned() }).unwrap();
    write_frame(&mut players[1].send, drain).await.unwrap();
    let gone =
        |how: &str, count: u32| format!("woolly_workers_gone_total{{how=\"{how}\"}} {count}\n");
    let leaves = |snapshot: &Snapshot| {
        snapshot.workers.iter().any(|worker| worker.state == WorkerState::Leaving)
    };
    while !leaves(&rig.snapshot().await) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    players.pop().unwrap().connection.close(0u32.into(), b"");
    let text = || rig.engine.metrics().render();
    rig.wait_for("one has left", |_| text().contains(&gone("left", 1))).await;
    players.pop().unwrap().connection.close(0u32.into(), b"");
    rig.wait_for("one is lost", |_| text().contains(&gone("lost", 1))).await;
    assert!(text().contains(&gone("left", 1)), "{}", text());
}

#[tokio::test]
async fn stages_are_told_whose_sequence_begins_and_only_then() {
    let (rig, mut players) = Rig::ready(1).await;
    let only = &mut players[0];
    let mut forwards = only.stream(StreamPurpose::Forwards).await;
    let mut samplings = only.stream(StreamPurpose::Samplings).await;
    let mut answers = only.answers().await;
    let trace = Trace::begin(None).unwrap();
    let mut generation = rig.engine.traced(Some(trace)).submit(request(2)).await.unwrap();
    let mut told = Vec::new();
    for token in [7, 8] {
        let forward = read(&mut forwards, Kind::Forward).await.message::<Forward>().unwrap();
        read(&mut samplings, Kind::Sampling).await;
        told.push(forward.traces.clone());
        write_frame(&mut answers, answer(&forward, token)).await.unwrap();
        assert!(matches!(event(&mut generation).await, GenerationEvent::Token(_)));
    }
    let Trace { trace, span, .. } = trace;
    assert_eq!(told, [vec![SequenceTrace { chunk: 0, trace, span }], vec![]]);
    // One that nobody traces says nothing.
    let _generation = rig.engine.submit(request(1)).await.unwrap();
    let forward = read(&mut forwards, Kind::Forward).await.message::<Forward>().unwrap();
    assert_eq!(forward.traces, []);
}
