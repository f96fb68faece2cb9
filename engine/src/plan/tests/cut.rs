//! Cuts: balance, memory, sharing, what is kept, and failures with numbers.

use std::ops::Range;

use super::layout;
use crate::plan::{
    Cut, CutRequest, KV_CTX_MAX, KvType, Member, MemoryLimit, ModelLayout, Objective, PlanError,
    cut, scratch_bytes,
};

pub(super) const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A worker on a machine of its own.
pub(super) fn member(machine: u8, memory_bytes: u64, read_bytes_per_s: u64) -> Member {
    Member {
        memory_bytes,
        memory_is_own: false,
        machine: [machine; 16],
        kv_memory_bytes: 0,
        read_bytes_per_s,
        macs_per_s: 0,
        threads: 2,
        weights_from_disk: false,
    }
}

pub(super) fn request() -> CutRequest {
    CutRequest {
        ctx_size: 128,
        objective: Objective::Balanced,
        cut: None,
        rows_max: 16,
        kv_type: KvType::F16,
        block_len: 32,
        contexts_max: KV_CTX_MAX,
        previous: None,
    }
}

/// Checks what every cut must be, and returns it.
#[track_caller]
pub(super) fn checked(layout: &ModelLayout, members: &[Member], request: &CutRequest) -> Cut {
    let found = cut(layout, members, request).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found, cut(layout, members, request).unwrap(), "the same again");
    assert_eq!(found.layers.first().unwrap().start, 0);
    assert_eq!(found.layers.last().unwrap().end, layout.layers);
    assert!(found.layers.windows(2).all(|pair| pair[0].end == pair[1].start));
    assert!(found.layers.iter().all(|range| !range.is_empty()));
    assert!(found.members.is_sorted());
    assert_eq!(found.members.len(), found.layers.len());
    assert!(found.kv_positions() >= u64::from(request.ctx_size));
    assert!(found.kv_positions() < 16 * u64::from(request.ctx_size.next_multiple_of(32)) + 1);
    for (at, stage) in found.stages.iter().enumerate() {
        assert_eq!(stage.own_bytes, layout.stage_bytes(found.layers[at].clone()));
        let member = &members[found.members[at]];
        let mates = (0..found.stages.len()).filter(|&other| {
            let mate = &members[found.members[other]];
            other == at
                || (mate.machine == member.machine && !mate.memory_is_own && !member.memory_is_own)
        });
        let taken: u64 = mates
            .map(|other| &found.stages[other])
            .map(|stage| stage.own_bytes + stage.scratch_bytes + stage.kv_bytes)
            .sum();
        assert!(taken <= member.memory_bytes, "stage {at} takes {taken}");
    }
    found
}

#[test]
fn one_worker_takes_everything() {
    let layout = layout(4);
    let found = checked(&layout, &[member(0, GIB, 1000)], &request());
    assert_eq!(found.counts(), [4]);
    assert_eq!(found.kv_blocks, 16 * 4, "sixteen contexts of four blocks");
    assert!(!found.kv_is_limited_by_memory);
}

#[test]
fn equal_workers_share_equally_but_for_the_head() {
    let layout = layout(9);
    let members = [member(0, GIB, 1000), member(1, GIB, 1000), member(2, GIB, 1000)];
    let found = checked(&layout, &members, &request());
    // The head's 2,976 bytes are less than a tenth of a layer: it does not move one.
    assert_eq!(found.counts(), [3, 3, 3]);
    let ten = super::layout(10);
    assert_eq!(checked(&ten, &members, &request()).counts(), [3, 4, 3], "the last has the head");
}

#[test]
fn speeds_weigh_and_noise_does_not() {
    let layout = layout(12);
    let fast =
        |a, b| checked(&layout, &[member(0, GIB, a), member(1, GIB, b)], &request()).counts();
    assert_eq!(fast(2000, 1000), [8, 4]);
    assert_eq!(fast(1000, 3000), [3, 9]);
    assert_eq!(fast(1000, 1240), fast(1000, 1000));
    assert_eq!(fast(1240, 1000), fast(1000, 1000));
    assert_eq!(fast(0, 0), fast(1000, 1000), "nothing measured: all equal");
}

#[test]
fn workers_of_one_machine_share_its_bandwidth() {
    let layout = layout(12);
    let mut own = [member(0, GIB, 1000), member(0, GIB, 1000), member(1, GIB, 1000)];
    let found = checked(&layout, &own, &request());
    assert_eq!(found.counts(), [3, 3, 6]);
    own[1].machine = [7; 16];
    assert_eq!(checked(&layout, &own, &request()).counts(), [4, 4, 4]);
}

#[test]
fn memory_bends_the_cut() {
    let layout = layout(12);
    let small = 4 * layout.stage_bytes(1..2);
    let members = [member(0, GIB, 1000), member(1, small, 1000)];
    let found = checked(&layout, &members, &request());
    assert!(found.counts()[1] < 4, "{:?}", found.counts());
    assert_eq!(found.limiting_stage, 1);
    assert!(found.kv_is_limited_by_memory);
}

#[test]
fn a_machine_that_would_hold_too_much_in_all_hands_layers_on() {
    let layout = layout(12);
    let block = layout.stage_bytes(1..2);
    // Two workers of machine 0 are faster than the other but share memory for about five layers.
    let mut members =
        [member(0, 6 * block, 8000), member(1, GIB, 1000), member(0, 6 * block, 8000)];
    let found = checked(&layout, &members, &request());
    assert!(found.counts()[0] + found.counts()[2] <= 5, "{:?}", found.counts());
    // With memory of their own, each has all of it.
    members[0].memory_is_own = true;
    members[2].memory_is_own = true;
    let found = checked(&layout, &members, &request());
    assert!(found.counts()[0] + found.counts()[2] > 5, "{:?}", found.counts());
}

#[test]
fn kv_memory_of_a_worker_is_obeyed() {
    let layout = layout(4);
    let mut members = [member(0, GIB, 1000), member(1, GIB, 1000)];
    members[1].kv_memory_bytes = 10 * layout.kv_block_bytes(0..2, KvType::F16);
    let fixed = CutRequest { cut: Some(vec![2, 2]), ..request() };
    let found = checked(&layout, &members, &fixed);
    assert_eq!((found.kv_blocks, found.limiting_stage), (10, 1));
    assert_eq!(found.stages[1].kv_bytes, members[1].kv_memory_bytes);
    members[1].kv_memory_bytes = 3 * layout.kv_block_bytes(0..2, KvType::F16);
    let error = cut(&layout, &members, &fixed).unwrap_err();
    let missing = layout.kv_block_bytes(0..2, KvType::F16);
    assert!(
        matches!(error, PlanError::Memory { stage: 1, missing: m, .. } if m == missing),
        "{error}"
    );
}

#[test]
fn more_room_for_kv_is_worth_a_little_speed() {
    let layout = layout(20);
    // The second worker has memory for half of the layers and one context of one block. One layer
    // less makes room for a second context, and costs a tenth of the speed.
    let half = layout.stage_bytes(10..20) + scratch_bytes(&layout, &(10..20), 16);
    let members =
        [member(0, GIB, 1000), member(1, half + layout.kv_block_bytes(0..10, KvType::F16), 1000)];
    let request = CutRequest { ctx_size: 32, ..request() };
    let found = checked(&layout, &members, &request);
    assert_eq!((found.counts(), found.kv_blocks), (vec![11, 9], 2));
    let by_hand = CutRequest { cut: Some(vec![10, 10]), ..request };
    assert_eq!(checked(&layout, &members, &by_hand).kv_blocks, 1);
}

#[test]
fn a_cut_by_hand_is_obeyed() {
    let layout = layout(28);
    let members: Vec<Member> = (0..3).map(|machine| member(machine, GIB, 1000)).collect();
    let fixed = |counts: &[u32]| CutRequest { cut: Some(counts.to_vec()), ..request() };
    assert_eq!(checked(&layout, &members, &fixed(&[17, 11])).counts(), [17, 11]);
    assert_eq!(checked(&layout, &members, &fixed(&[28])).members, [0]);
    assert_eq!(checked(&layout, &members, &fixed(&[1, 1, 26])).layers[2], 2..28);
    for wrong in [&[17, 12][..], &[28, 0], &[0, 28], &[], &[u32::MAX, 29]] {
        let error = cut(&layout, &members, &fixed(wrong)).unwrap_err();
        assert!(matches!(error, PlanError::CutLayers { .. }), "{error}");
    }
    let error = cut(&layout, &members, &fixed(&[7, 7, 7, 7])).unwrap_err();
    assert_eq!(error.to_string(), "the cut 7,7,7,7 names 4 stages, but there are 3 workers");
}

#[test]
fn every_member_works_and_surplus_members_are_spare() {
    let layout = layout(3);
    let members: Vec<Member> = (0..5).map(|machine| member(machine, GIB, 1000)).collect();
    let found = checked(&layout, &members, &request());
    assert_eq!(found.counts(), [1, 1, 1]);
    assert_eq!(found.members, [0, 1, 2]);
    let slow = [member(0, GIB, 1_000_000), member(1, GIB, 1), member(2, GIB, 1_000_000)];
    assert_eq!(checked(&layout, &slow, &request()).counts(), [1, 1, 1], "all members are used");
    let tiny = [member(0, GIB, 1000), member(1, 1000, 1000), member(2, GIB, 1000)];
    let found = checked(&layout, &tiny, &request());
    assert_eq!(found.members, [0, 2], "a worker that can hold no layer is spare");
}

#[test]
fn the_present_cut_is_kept_unless_another_is_worth_it() {
    let layout = layout(20);
    let members = [member(0, GIB, 1000), member(1, GIB, 1000)];
    let after = |previous: &[u32]| {
        let request = CutRequest { previous: Some(previous.to_vec()), ..request() };
        checked(&layout, &members, &request).counts()
    };
    let best = checked(&layout, &members, &request()).counts();
    assert_eq!(best, [10, 10]);
    assert_eq!(after(&[11, 9]), [11, 9], "a tenth is not worth a move");
    assert_eq!(after(&[14, 6]), best);
    assert_eq!(after(&[20]), best, "a plan of other workers says nothing");
    assert_eq!(after(&[30, 30]), best);
}

#[test]
fn failures_say_which_stage_misses_how_many_bytes() {
    let layout = layout(8);
    let whole = layout.stage_bytes(0..8);
    let members = [member(0, whole / 4, 1000), member(1, whole / 3, 1000)];
    let error = cut(&layout, &members, &request()).unwrap_err();
    let PlanError::Memory { stage, first, last, missing, weights, scratch, kv, limit, .. } = error
    else {
        panic!("{error}")
    };
    let layers: Range<u32> = first..last + 1;
    assert_eq!(weights, layout.stage_bytes(layers.clone()));
    assert_eq!(kv, 4 * layout.kv_block_bytes(first..last + 1, KvType::F16));
    let allowance = members[stage].memory_bytes;
    assert_eq!(limit, MemoryLimit::Machine(allowance));
    assert_eq!(weights + scratch + kv - allowance, missing);
    let text = cut(&layout, &members, &request()).unwrap_err().to_string();
    assert!(text.contains("misses") && text.contains("--ctx-size"), "{text}");

    // Workers of one machine: what one misses is what the machine misses.
    let members = [member(0, whole, 1000), member(0, whole, 1000)];
    let error = cut(&layout, &members, &request()).unwrap_err();
    let PlanError::Memory { missing, total_allowance, total_needed, .. } = error else {
        panic!("{error}")
    };
    assert_eq!(total_allowance, whole, "shared memory counts once");
    assert_eq!(missing, total_needed - whole);
}

#[test]
fn what_fits_is_not_refused_and_what_is_refused_misses_bytes() {
    let layout = layout(12);
    let (block, whole) = (layout.stage_bytes(1..2), layout.stage_bytes(0..12));
    // Three workers of one machine and one of another, memory from far too little to plenty.
    let (mut placed, mut refused) = (0, 0);
    for shared in 0..40 {
        for own in 0..24 {
            let (shared, own) = (shared * block, own * block);
            let members = [
                member(0, shared, 4000),
                member(1, own, 1000),
                member(0, shared, 1000),
                member(0, shared, 2000),
            ];
            match cut(&layout, &members, &request()) {
                Ok(_) => placed += 1,
                Err(PlanError::Memory { missing, .. }) => {
                    assert!(missing > 0, "{shared} and {own} of {whole}");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
    assert!(placed > 100 && refused > 100, "{placed} and {refused}");
}

#[test]
fn the_flag_that_set_the_limit_is_named() {
    let layout = layout(8);
    let text = |member: Member| cut(&layout, &[member], &request()).unwrap_err().to_string();
    let tight = text(Member { kv_memory_bytes: 1, ..member(0, 64 * GIB, 1000) });
    assert!(tight.contains("--kv-memory allows 1 bytes"), "{tight}");
    assert!(tight.contains("Raise --kv-memory") && !tight.contains("64.0 GiB may"), "{tight}");
    let own = text(Member { memory_is_own: true, ..member(0, MIB / 4, 1000) });
    assert!(own.contains("256.0 KiB may be used there, by --memory"), "{own}");
    let shared = text(member(0, MIB / 4, 1000));
    assert!(shared.contains("80 % of the machine's memory"), "{shared}");
}

#[test]
fn requests_out_of_range_are_refused() {
    let layout = layout(2);
    let members = [member(0, GIB, 1000)];
    assert!(matches!(cut(&layout, &[], &request()), Err(PlanError::NoMembers)));
    for ctx_size in [0, 257, u32::MAX] {
        let request = CutRequest { ctx_size, ..request() };
        let error = cut(&layout, &members, &request).unwrap_err();
        assert!(matches!(error, PlanError::Context { limit: 256, .. }), "{error}");
    }
    let most = CutRequest { ctx_size: 256, rows_max: u32::MAX, ..request() };
    assert!(cut(&layout, &members, &most).is_err(), "scratch beyond any memory");
}

#[test]
fn many_workers_are_cut_in_time() {
    let layout = layout(126);
    let members: Vec<Member> =
        (0..64).map(|at| member(at, 64 * MIB, 1000 + 400 * u64::from(at % 5))).collect();
    let started = std::time::Instant::now();
    let found = checked(&layout, &members, &request());
    assert_eq!(found.layers.len(), 64);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}
