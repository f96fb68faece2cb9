//! The text of all metrics, in the exposition format of Prometheus, version 0.0.4.

use super::histogram::{Histogram, describe, escaped, line, seconds};
use super::{Metrics, Outcome, Stage, Worker};
use crate::status::Counts;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

impl Metrics {
    /// Everything at this moment. `docs/metrics.md` says what each line means.
    pub fn render(&self) -> String {
        let mut out = String::new();
        self.render_cluster(&mut out);
        self.render_stages(&mut out);
        self.render_workers(&mut out);
        self.render_scheduler(&mut out);
        self.render_models(&mut out);
        self.render_requests(&mut out);
        self.render_failovers(&mut out);
        self.journal.render(&mut out);
        out
    }

    fn render_stages(&self, out: &mut String) {
        type Sum = fn(&Stage) -> Duration;
        let totals: [(&str, &str, Sum); 4] = [
            ("compute", "Time inside forwards", |stage| stage.compute.sum()),
            ("cpu", "CPU time of the compute thread inside forwards", |stage| {
                Duration::from_micros(stage.cpu_us)
            }),
            ("wait", "Time in which the compute thread waited for forwards", |stage| {
                stage.wait.sum()
            }),
            ("wire", "Time from the end of a forward until its result was written", |stage| {
                stage.wire.sum()
            }),
        ];
        type Of = fn(&Stage) -> &Histogram;
        let histograms: [(&str, &str, Of); 3] = [
            ("compute", "Time inside a forward", |stage| &stage.compute),
            ("wait", "Time that the compute thread waited for a forward", |stage| &stage.wait),
            ("wire", "Time from the end of a forward until its result was written", |stage| {
                &stage.wire
            }),
        ];
        let driver = self.lock();
        describe(out, "woolly_stage_info", "gauge", "The stages of the plan that is served");
        let present = driver.present.iter().flat_map(|(lane, stages)| {
            let model = driver.lanes.get(lane).map_or("", |(model, _)| model);
            stages.iter().map(move |stage| (model, stage))
        });
        for (stage, (model, (worker, layers))) in present.enumerate() {
            let (worker, first, end) = (escaped(worker), layers.start, layers.end);
            let model = escaped(model);
            line(
                out,
                format_args!(
                    "woolly_stage_info{{stage=\"{stage}\",worker=\"{worker}\",model=\"{model}\",\
                     layer_first=\"{first}\",layer_end=\"{end}\"}} 1"
                ),
            );
        }
        describe(out, "woolly_stage_forwards_total", "counter", "Forwards computed and sent on");
        for (stage, series) in driver.stages.iter().enumerate() {
            let count = series.compute.count();
            line(out, format_args!("woolly_stage_forwards_total{{stage=\"{stage}\"}} {count}"));
        }
        for (what, help, sum) in totals {
            let name = format!("woolly_stage_{what}_seconds_total");
            describe(out, &name, "counter", help);
            for (stage, series) in driver.stages.iter().enumerate() {
                let sum = seconds(sum(series));
                line(out, format_args!("{name}{{stage=\"{stage}\"}} {sum}"));
            }
        }
        for (what, help, of) in histograms {
            let name = format!("woolly_stage_forward_{what}_seconds");
            describe(out, &name, "histogram", help);
            for (stage, series) in driver.stages.iter().enumerate() {
                of(series).render(out, &name, &format!("stage=\"{stage}\""));
            }
        }
    }

    fn render_workers(&self, out: &mut String) {
        type Of = fn(&Worker) -> u64;
        let counters: [(&str, &str, Of); 2] = [
            ("slice_mappings", "Mappings of slices made", |worker| worker.mappings),
            ("populated_bytes", "Bytes of weights read in", |worker| worker.populated_bytes),
        ];
        let driver = self.lock();
        for (what, help, of) in counters {
            let name = format!("woolly_worker_{what}_total");
            describe(out, &name, "counter", help);
            for (worker, figures) in &driver.workers {
                let (worker, value) = (escaped(worker), of(figures));
                line(out, format_args!("{name}{{worker=\"{worker}\"}} {value}"));
            }
        }
        let (name, help) = ("woolly_worker_unheard_seconds", "Since its last echo of a heartbeat");
        describe(out, name, "gauge", help);
        for (worker, figures) in &driver.workers {
            let (worker, value) = (escaped(worker), seconds(figures.unheard));
            line(out, format_args!("{name}{{worker=\"{worker}\"}} {value}"));
        }
    }

    fn render_scheduler(&self, out: &mut String) {
        let counts = self.lock().counts;
        let gauges = [
            ("sequences_waiting", "Sequences that wait", counts.waiting),
            ("sequences_running", "Sequences that run", counts.running),
            ("microbatches_in_flight", "Microbatches on their way", counts.in_flight),
            ("decode_groups", "Groups of decoding sequences", counts.decode_groups),
            ("rows_beside_decode", "Rows with prefill", counts.rows_beside_decode),
            ("kv_blocks", "KV blocks of the plan", counts.kv_blocks as usize),
            ("kv_blocks_free", "KV blocks that nobody holds", counts.kv_blocks_free as usize),
            ("kv_blocks_cached", "Free ones that hold a prefix", counts.kv_blocks_cached as usize),
        ];
        for (name, help, value) in gauges {
            single(out, &format!("woolly_{name}"), "gauge", help, value as u64);
        }
        let counters = [
            ("rows_total", "Rows of microbatches sent", counts.rows),
            ("mask_bytes_total", "Bytes of token masks sent", counts.mask_bytes),
            ("prefix_hit_tokens_total", "Positions found in the cache", counts.prefix_hit_tokens),
            ("prefix_evictions_total", "Extents that gave way", counts.evictions),
            ("expired_total", "Sequences that ran out of time", counts.expired),
            ("preemptions_total", "Sequences that gave their blocks back", counts.preemptions),
            ("failovers_total", "Plans that were lost", counts.failovers),
            ("recomputed_tokens_total", "Positions lost with plans", counts.recomputed_tokens),
            ("stale_answers_total", "Answers to an earlier plan", counts.stale_answers),
            ("stale_faults_total", "Faults of an earlier plan", counts.stale_faults),
            ("unknown_timings_total", "Reports of unknown microbatches", counts.unknown_timings),
        ];
        for (name, help, value) in counters {
            single(out, &format!("woolly_{name}"), "counter", help, value);
        }
    }

    /// What each model's scheduler holds; the figures of all of them together stand without a label.
    fn render_models(&self, out: &mut String) {
        type Of = fn(&Counts) -> u64;
        let gauges: [(&str, &str, Of); 4] = [
            ("sequences_waiting", "Sequences that wait", |counts| counts.waiting as u64),
            ("sequences_running", "Sequences that run", |counts| counts.running as u64),
            ("kv_blocks", "KV blocks of the plan", |counts| counts.kv_blocks.into()),
            ("kv_blocks_free", "KV blocks that nobody holds", |counts| {
                counts.kv_blocks_free.into()
            }),
        ];
        let driver = self.lock();
        for (what, help, of) in gauges {
            let name = format!("woolly_model_{what}");
            describe(out, &name, "gauge", help);
            for (model, counts) in driver.lanes.values() {
                let (model, value) = (escaped(model), of(counts));
                line(out, format_args!("{name}{{model=\"{model}\"}} {value}"));
            }
        }
    }

    fn render_requests(&self, out: &mut String) {
        let name = "woolly_requests_total";
        describe(out, name, "counter", "Completion requests by what became of them");
        for outcome in Outcome::ALL {
            let (label, count) = (outcome.label(), self.requests(outcome));
            line(out, format_args!("{name}{{outcome=\"{label}\"}} {count}"));
        }
        let tokens = [
            ("prompt", "Tokens of prompts", &self.prompt_tokens),
            ("completion", "Tokens of completions", &self.completion_tokens),
        ];
        for (what, help, count) in tokens {
            let name = format!("woolly_{what}_tokens_total");
            single(out, &name, "counter", help, count.load(Relaxed));
        }
        let histograms = [
            ("time_to_first_token", "From a request's arrival to a first token", &self.first_token),
            ("time_between_tokens", "Between two tokens of a choice", &self.between_tokens),
            ("mask", "Until a grammar says which tokens may come next", &self.masks),
        ];
        for (what, help, histogram) in histograms {
            let name = format!("woolly_{what}_seconds");
            describe(out, &name, "histogram", help);
            histogram.render(out, &name, "");
        }
    }
}

/// A metric of one value.
fn single(out: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    describe(out, name, kind, help);
    line(out, format_args!("{name} {value}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::LaneId;
    use std::collections::HashSet;
    use woolly_protocol::control::ForwardTiming;
    use woolly_protocol::ids::MicrobatchId;
    use woolly_protocol::limits::STAGES_MAX;

    fn timing(us: u32) -> ForwardTiming {
        let microbatch = MicrobatchId(1);
        ForwardTiming {
            microbatch,
            compute_us: us,
            cpu_us: us / 2,
            wait_us: 10 * us,
            queue_us: us / 10,
            wire_us: us / 5,
        }
    }

    #[test]
    fn every_line_has_a_type_and_no_series_stands_twice() {
        let metrics = Metrics::default();
        metrics.forward(1, &timing(500));
        metrics.loaded(LaneId(0), "m");
        metrics.plan(LaneId(0), vec![("a\"b\\c".to_owned(), 0..3), ("d".to_owned(), 3..5)]);
        let text = metrics.render();
        let (mut typed, mut seen) = (HashSet::new(), HashSet::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let name = rest.split(' ').next().unwrap();
                assert!(typed.insert(name.to_owned()), "{line}");
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                value.parse::<f64>().unwrap();
                assert!(seen.insert(series.to_owned()), "{line}");
                let name = series.split('{').next().unwrap();
                let base =
                    ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
                assert!(typed.contains(name) || typed.contains(base.unwrap_or_default()), "{line}");
            }
        }
        let info = r#"woolly_stage_info{stage="0",worker="a\"b\\c",model="m",layer_first="0",layer_end="3"} 1"#;
        assert!(text.contains(info), "{text}");
        assert!(seen.contains("woolly_requests_total{outcome=\"abandoned\"}"), "{text}");
    }

    #[test]
    fn stages_are_counted_apart_and_bounded() {
        let metrics = Metrics::default();
        metrics.forward(0, &timing(1_000));
        metrics.forward(0, &timing(2_000));
        metrics.forward(1, &timing(500));
        metrics.forward(STAGES_MAX, &timing(500));
        metrics.scheduler(Counts {
            rows: 9,
            mask_bytes: 40,
            kv_blocks: 8,
            kv_blocks_free: 7,
            ..Counts::default()
        });
        let text = metrics.render();
        for line in [
            "woolly_stage_forwards_total{stage=\"0\"} 2",
            "woolly_stage_forwards_total{stage=\"1\"} 1",
            "woolly_stage_compute_seconds_total{stage=\"0\"} 0.003",
            "woolly_stage_cpu_seconds_total{stage=\"0\"} 0.0015",
            "woolly_stage_wait_seconds_total{stage=\"1\"} 0.005",
            "woolly_stage_wire_seconds_total{stage=\"1\"} 0.0001",
            "woolly_stage_forward_compute_seconds_bucket{stage=\"0\",le=\"0.001\"} 1",
            "woolly_stage_forward_compute_seconds_count{stage=\"0\"} 2",
            "woolly_rows_total 9",
            "woolly_mask_bytes_total 40",
            "woolly_kv_blocks_free 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(!text.contains("stage=\"2\""), "{text}");
    }

    #[test]
    fn each_model_has_its_figures_while_it_is_loaded() {
        let metrics = Metrics::default();
        for (lane, name) in [(0, "one"), (3, "two")] {
            metrics.loaded(LaneId(lane), name);
            metrics.lane(LaneId(lane), Counts { running: 2 + lane as usize, ..Counts::default() });
        }
        let text = metrics.render();
        assert!(text.contains("woolly_model_sequences_running{model=\"one\"} 2\n"), "{text}");
        assert!(text.contains("woolly_model_sequences_running{model=\"two\"} 5\n"), "{text}");
        metrics.unloaded(LaneId(0));
        assert!(!metrics.render().contains("model=\"one\""));
    }
}
