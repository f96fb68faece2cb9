//! Stages that do not fit their memory: refused with the numbers, or read from the disk.

use super::cut::{GIB, member, request};
use super::layout;
use super::mixture::qwen3_30b_a3b;
use crate::plan::{CutRequest, Member, PlanError, cut};

/// A worker that may read weights from its disk.
fn from_disk(machine: u8, memory_bytes: u64) -> Member {
    Member {
        weights_from_disk: true,
        memory_is_own: true,
        macs_per_s: 400_000_000_000,
        ..member(machine, memory_bytes, 40_000_000_000)
    }
}

fn small_request() -> CutRequest {
    CutRequest { ctx_size: 4096, rows_max: 256, ..request() }
}

#[test]
fn what_does_not_fit_is_refused_with_the_numbers_and_the_flag() {
    let layout = qwen3_30b_a3b(48);
    let refused = |member: Member| cut(&layout, &[member], &small_request()).unwrap_err();
    let text = refused(Member { weights_from_disk: false, ..from_disk(0, 8 * GIB) }).to_string();
    for part in [
        "stage 0 (layers 0 to 47) misses 8.5 GiB",
        "it needs 16.1 GiB for its weights",
        "8.0 GiB may be used there, by --memory",
        "add a worker, have it read what does not fit from its disk, slowly, with --weights-from-disk",
        "or lower --ctx-size",
    ] {
        assert!(text.contains(part), "{part} in: {text}");
    }
    // Without memory for what must be there it is refused all the same.
    let PlanError::Memory { weights, is_from_disk, .. } = refused(from_disk(0, GIB)) else {
        panic!("expected a lack of memory")
    };
    assert!(is_from_disk && (GIB..3 * GIB).contains(&weights), "{weights}");
    let text = refused(from_disk(0, GIB)).to_string();
    assert!(text.contains("for those of its weights that cannot be left on the disk"), "{text}");
    assert!(!text.contains("--weights-from-disk"), "{text}");
}

#[test]
fn a_mixture_leaves_on_the_disk_the_experts_that_do_not_fit() {
    let layout = qwen3_30b_a3b(48);
    let found = cut(&layout, &[from_disk(0, 8 * GIB)], &small_request()).unwrap();
    let stage = found.stages[0];
    let taken = stage.own_bytes - stage.disk_bytes + stage.scratch_bytes + stage.kv_bytes;
    assert!(taken <= 8 * GIB + 48 * 1024, "{taken}");
    assert!(stage.disk_bytes > 8 * GIB - (1 << 29), "{}", stage.disk_bytes);
    assert!(found.kv_positions() >= 4096 && found.kv_is_limited_by_memory);
    // Half of the experts are not there: a token takes 8 times as long as from memory, and no wonder.
    let in_memory = cut(&layout, &[from_disk(0, 64 * GIB)], &small_request()).unwrap();
    assert_eq!(in_memory.stages[0].disk_bytes, 0, "what fits is not read from the disk");
    let times = found.predicted_ns[0] / in_memory.predicted_ns[0];
    assert!((4..9).contains(&times), "{times}");
}

#[test]
fn a_model_without_experts_is_read_for_every_token() {
    let layout = layout(12);
    let whole = layout.stage_bytes(0..12);
    let request = request();
    let fits = cut(&layout, &[from_disk(0, GIB)], &request).unwrap();
    let needs = fits.stages[0].scratch_bytes + 4 * layout.kv_block_bytes(0..12, request.kv_type);
    let tight = needs + whole - 1;
    let found = cut(&layout, &[from_disk(0, tight)], &request).unwrap();
    assert!(found.stages[0].disk_bytes > 0);
    assert!(found.predicted_ns[0] > 15 * fits.predicted_ns[0], "one byte too few: all is read");
    let few = cut(&layout, &[from_disk(0, needs + whole / 3)], &request).unwrap();
    assert!(few.stages[0].disk_bytes > whole / 2);
    assert!(cut(&layout, &[from_disk(0, needs)], &request).is_err(), "two slices must fit");
}

#[test]
fn a_worker_with_memory_takes_layers_off_one_that_reads_from_the_disk() {
    let layout = qwen3_30b_a3b(48);
    let roomy = Member { weights_from_disk: false, ..from_disk(1, 12 * GIB) };
    let found = cut(&layout, &[from_disk(0, 3 * GIB), roomy], &small_request()).unwrap();
    let [disk, memory] = [0, 1].map(|stage| found.counts()[stage]);
    assert!(memory > 2 * disk, "{disk} and {memory}");
    assert_eq!(found.stages[1].disk_bytes, 0, "it was not said of that one");
    // By hand it is as it is asked for.
    let even = CutRequest { cut: Some(vec![24, 24]), ..small_request() };
    let found = cut(&layout, &[from_disk(0, 3 * GIB), from_disk(1, 12 * GIB)], &even).unwrap();
    assert!(found.stages[0].disk_bytes > 4 * GIB && found.stages[1].disk_bytes == 0);
}
