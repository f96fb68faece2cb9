//! Blocks of cache groups: what windows save, and that it fits wherever the layers are.

use super::cut::{GIB, checked, member, request};
use crate::arch::Arch;
use crate::arch::families::{FAMILIES, Family, Windows};
use crate::gguf::Value;
use crate::gguf::tests::{read, small_model};
use crate::plan::{CutRequest, GroupBlocks, KvType, Member, ModelLayout, cut, window_blocks};

/// Rows of the largest chunk, as `serve` has them.
const ROWS: u32 = 256;

/// A model that has a window on all layers but the last of every `period`.
fn windowed(layers: u32, period: u32, window: u32) -> ModelLayout {
    let rows = [Family {
        architecture: "windowed",
        windows: Windows::AllButLastOf {
            period,
            is_optional: false,
            rope_base: None,
            is_stretched: true,
        },
        ..FAMILIES[0]
    }];
    let model = small_model("windowed", layers)
        .set("windowed.context_length", Value::U32(1 << 17))
        .kv("windowed.attention.sliding_window", Value::U32(window));
    let gguf = read(model.to_bytes(32)).unwrap();
    ModelLayout::of(&gguf, Arch::declared(&gguf, &rows).unwrap()).unwrap()
}

fn of_serve() -> CutRequest {
    CutRequest { ctx_size: 8192, rows_max: ROWS, ..request() }
}

/// A worker with memory for everything, and so much of it for KV.
fn with_kv(machine: u8, bytes: u64) -> Member {
    Member { kv_memory_bytes: bytes, ..member(machine, 64 * GIB, 1000) }
}

/// Bytes of the cache per sequence of full length, in tenths of a percent of what all positions take.
fn permille(layout: &ModelLayout) -> u64 {
    let found = checked(layout, &[member(0, 64 * GIB, 1000)], &of_serve());
    let (all, kv_type) = (0..layout.layers, KvType::F16);
    let taken = layout.kv_bytes(&all, kv_type, &found.caches);
    assert_eq!(found.stages[0].kv_bytes, taken);
    let sequences = u64::from(found.kv_blocks) / 256;
    assert_eq!(sequences, 16);
    let whole = layout.kv_bytes(&all, kv_type, &layout.equal_caches(256));
    (taken / sequences * 1000).div_ceil(whole)
}

#[test]
fn windows_halve_the_cache_of_gpt_oss_and_quarter_that_of_gemma3() {
    // All layers of a model weigh the same: what counts is how many have which window.
    let gpt_oss = permille(&windowed(24, 2, 128));
    let gemma3 = permille(&windowed(48, 6, 512));
    println!("gpt-oss {gpt_oss} ‰, gemma3 {gemma3} ‰ of the cache that keeps all positions");
    assert!((500..=550).contains(&gpt_oss), "{gpt_oss}");
    assert!((200..=250).contains(&gemma3), "{gemma3}");
}

#[test]
fn a_sequence_holds_its_window_its_chunk_and_what_is_cut_off() {
    // One row after another reads a window of 128 from the middle of a block on.
    assert_eq!(window_blocks(128, 1, 32), 5);
    assert_eq!(window_blocks(128, 256, 32), 13);
    assert_eq!(window_blocks(1, 1, 32), 1);
    assert_eq!(window_blocks(2, 1, 32), 2);
    assert_eq!(window_blocks(128, 256, 96), 15, "five extents of three blocks");
    for (window, rows) in [(1, 1), (5, 3), (32, 1), (33, 7), (64, 64), (100, 31)] {
        let group = GroupBlocks { window: Some(window), count: 0 };
        let blocks = |start: u32| (start + rows).div_ceil(32) - group.first_read(start);
        let most = (0..500).map(blocks).max().unwrap();
        assert_eq!(u64::from(most), window_blocks(window, rows, 32), "{window} and {rows}");
    }
}

#[test]
fn memory_that_held_eight_contexts_holds_fifteen() {
    let layout = windowed(24, 2, 128);
    let eight = layout.kv_bytes(&(0..24), KvType::F16, &layout.equal_caches(8 * 256));
    let found = checked(&layout, &[with_kv(0, eight)], &of_serve());
    assert_eq!(found.kv_blocks / 256, 15);
    assert!(found.kv_is_limited_by_memory);
    let [window, all] = found.caches[..] else { panic!("{:?}", found.caches) };
    assert_eq!((window.window, all.window), (Some(128), None));
    assert!(window.count >= 15 * 13, "each of fifteen has what it may hold: {window:?}");
    assert!(found.stages[0].kv_bytes <= eight);
}

#[test]
fn the_most_that_fits_is_given_out_on_every_stage_alike() {
    let layout = windowed(12, 6, 512);
    for block_len in [32, 96] {
        for kv in [3_000_000, 3_333_333, 8_000_001, 40_000_000] {
            // The first stage has layers with windows only.
            let request =
                CutRequest { cut: Some(vec![2, 10]), block_len, ctx_size: 960, ..of_serve() };
            let members = [with_kv(0, kv), with_kv(1, kv)];
            let found = checked(&layout, &members, &request);
            let most = |blocks: u32| {
                let mut caches = found.caches.clone();
                caches.iter_mut().for_each(|group| group.count += blocks);
                layout.kv_bytes(&(2..12), KvType::F16, &caches)
            };
            let together = block_len / 32;
            assert!(found.caches.iter().all(|group| group.count.is_multiple_of(together)));
            assert!(most(0) <= kv && most(0) == found.stages[1].kv_bytes, "{kv}");
            assert!(most(together) > kv || !found.kv_is_limited_by_memory, "{kv}: {found:?}");
        }
    }
}

#[test]
fn a_model_with_windows_alone_has_blocks_for_as_many_contexts() {
    let layout = windowed(4, 5, 128);
    let found = checked(&layout, &[member(0, GIB, 1000)], &of_serve());
    assert_eq!(found.caches, [GroupBlocks { window: Some(128), count: 16 * 13 }]);
    assert_eq!(found.kv_positions(), 16 * 8192);
    let one =
        layout.kv_bytes(&(0..4), KvType::F16, &[GroupBlocks { window: Some(128), count: 13 }]);
    let found = checked(&layout, &[with_kv(0, one)], &of_serve());
    assert_eq!((found.caches[0].count, found.kv_positions()), (13, 8192));
    assert!(cut(&layout, &[with_kv(0, one - 1)], &of_serve()).is_err(), "less than one context");
}

#[test]
fn a_window_longer_than_the_context_is_none() {
    let layout = windowed(4, 2, 4096);
    let request = CutRequest { ctx_size: 2048, ..of_serve() };
    let found = checked(&layout, &[member(0, GIB, 1000)], &request);
    assert_eq!(found.caches.iter().map(|group| group.count).collect::<Vec<_>>(), [16 * 64; 2]);
}
