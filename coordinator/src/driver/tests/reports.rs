//! What workers say of themselves, and where it is counted.

use super::*;

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
}
