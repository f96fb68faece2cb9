//! What the stages have done so far, from the gateway's `/metrics`.

/// Counters of one stage since the coordinator's start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageCounters {
    /// Forwards computed.
    pub forwards: f64,
    /// Seconds inside them.
    pub compute_s: f64,
    /// Seconds of the compute thread's CPU time inside them.
    pub cpu_s: f64,
}

/// The counters of every stage, in order; empty if the text has none.
pub fn stages(metrics: &str) -> Vec<StageCounters> {
    let mut stages = Vec::new();
    for line in metrics.lines() {
        let Some((stage, name, value)) = sample(line) else { continue };
        if stage >= woolly_protocol::limits::STAGES_MAX {
            continue;
        }
        if stages.len() <= stage {
            stages.resize(stage + 1, StageCounters::default());
        }
        let StageCounters { forwards, compute_s, cpu_s } = &mut stages[stage];
        match name {
            "forwards_total" => *forwards = value,
            "compute_seconds_total" => *compute_s = value,
            "cpu_seconds_total" => *cpu_s = value,
            _ => {}
        }
    }
    stages
}

/// `woolly_stage_NAME{stage="N"} VALUE`, taken apart.
fn sample(line: &str) -> Option<(usize, &str, f64)> {
    let (series, value) = line.strip_prefix("woolly_stage_")?.rsplit_once(' ')?;
    let (name, labels) = series.split_once('{')?;
    let stage = labels.strip_prefix("stage=\"")?.strip_suffix("\"}")?.parse().ok()?;
    Some((stage, name, value.parse().ok()?))
}

/// What was added between two readings; empty if stages came or went meanwhile.
pub fn between(before: &[StageCounters], after: &[StageCounters]) -> Vec<StageCounters> {
    let zero = StageCounters::default();
    let before = before.iter().chain(std::iter::repeat(&zero));
    let added = |(before, after): (&StageCounters, &StageCounters)| StageCounters {
        forwards: after.forwards - before.forwards,
        compute_s: after.compute_s - before.compute_s,
        cpu_s: after.cpu_s - before.cpu_s,
    };
    before.zip(after).map(added).filter(|stage| stage.forwards > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LaneId;
    use crate::metrics::Metrics;
    use woolly_protocol::control::ForwardTiming;

    #[test]
    fn reads_what_the_gateway_writes() {
        let metrics = Metrics::default();
        metrics.plan(LaneId(0), vec![("a".to_owned(), 0..2), ("b".to_owned(), 2..4)]);
        assert_eq!(stages(&metrics.render()), []);
        let timing =
            |compute_us, cpu_us| ForwardTiming { compute_us, cpu_us, ..ForwardTiming::default() };
        metrics.forward(0, &timing(500_000, 250_000));
        let before = stages(&metrics.render());
        let first = StageCounters { forwards: 1.0, compute_s: 0.5, cpu_s: 0.25 };
        assert_eq!(before, [first]);
        metrics.forward(0, &timing(1_000_000, 1_000_000));
        metrics.forward(1, &timing(500_000, 125_000));
        let added = between(&before, &stages(&metrics.render()));
        let one = StageCounters { forwards: 1.0, compute_s: 1.0, cpu_s: 1.0 };
        assert_eq!(added, [one, StageCounters { compute_s: 0.5, cpu_s: 0.125, ..one }]);
    }

    #[test]
    fn other_servers_have_no_stages() {
        assert_eq!(stages("vllm:num_requests_running 3\nwoolly_stage_x{stage=\"-1\"} 2\n"), []);
        assert_eq!(stages("woolly_stage_forwards_total{stage=\"9999\"} 2\n"), []);
    }
}
