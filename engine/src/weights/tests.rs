//! Mapped weights: the tensors' own bytes, from a model or from slices; files that changed.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::pages::{huge_bytes_in, merged};
use super::{MapError, Resident, Weights};
use crate::gguf::tests::files::{part_path, parts, write_parts};
use crate::gguf::tests::{HIDDEN, small_model, weights};
use crate::gguf::write::GgufWriter;
use crate::gguf::{Gguf, HeaderPart, Value};
use crate::memory::LockError;
use crate::plan::{ByteRange, ModelLayout, SliceId, SlicePiece};
use crate::quant::TensorType;

fn written(model: &GgufWriter, directory: &Path) -> Gguf {
    let path = directory.join("m.gguf");
    model.write(&path).unwrap();
    Gguf::open(&path).unwrap()
}

/// Writes a slice file as a worker that fetches it would.
fn write_slice(gguf: &Gguf, layout: &ModelLayout, slice: SliceId, path: &Path) {
    let mut out = fs::File::create(path).unwrap();
    for piece in layout.slice_ranges(slice) {
        match piece {
            SlicePiece::Zeros(len) => out.write_all(&vec![0; len as usize]).unwrap(),
            SlicePiece::Source(range) => {
                let part = gguf.parts()[range.part as usize].path.as_ref().unwrap();
                let bytes = fs::read(part).unwrap();
                out.write_all(&bytes[range.offset as usize..][..range.len as usize]).unwrap();
            }
        }
    }
}

#[test]
fn model_and_slices_hold_the_same_bytes() {
    let directory = tempfile::tempdir().unwrap();
    let tied = small_model("llama", 3).without_tensor("output.weight");
    let rope = weights(small_model("llama", 3), "rope_freqs.weight", TensorType::F32, &[8]);
    for model in [small_model("qwen3", 3), tied, rope] {
        let gguf = written(&model, directory.path());
        let file = fs::read(directory.path().join("m.gguf")).unwrap();
        let layout = ModelLayout::new(&gguf).unwrap();
        for layers in [0..3, 0..1, 1..2, 1..3] {
            let slices = layout.stage_slices(layers.clone());
            let path_of = |slice: SliceId| directory.path().join(format!("{slice:?}"));
            for &slice in &slices {
                write_slice(&gguf, &layout, slice, &path_of(slice));
                let len = fs::metadata(path_of(slice)).unwrap().len();
                assert_eq!(len, layout.slice_len(slice), "{slice:?}");
            }
            let from_model = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
            let headers = HeaderPart {
                file_name: "m.gguf".into(),
                bytes: file[..gguf.parts()[0].data_start as usize].to_vec(),
                file_size: file.len() as u64,
            };
            let announced = Gguf::from_headers(vec![headers]).unwrap();
            let from_slices =
                Weights::from_slices(&announced, &slices, &path_of, &Resident::new()).unwrap();
            let mut own = 0;
            for tensor in gguf.tensors() {
                let wanted = slices.iter().any(|&slice| {
                    layout.slice_tensors(slice).iter().any(|t| t.name == tensor.name)
                });
                let source = &file[tensor.offset as usize..][..tensor.len as usize];
                let expected = wanted.then_some(source);
                assert_eq!(from_model.bytes(&tensor.name), expected, "{}", tensor.name);
                assert_eq!(from_slices.bytes(&tensor.name), expected, "{}", tensor.name);
                for bytes in [from_model.bytes(&tensor.name), from_slices.bytes(&tensor.name)] {
                    assert!(bytes.is_none_or(|bytes| bytes.as_ptr().addr() % 32 == 0));
                }
                own += expected.map_or(0, |bytes| bytes.len() as u64);
            }
            assert_eq!(own, layout.stage_bytes(layers));
        }
    }
}

#[test]
fn parts_of_a_split_model_are_mapped_each_from_its_file() {
    let directory = tempfile::tempdir().unwrap();
    write_parts(directory.path(), &parts(3));
    let gguf = Gguf::open(&part_path(directory.path(), 2, 3)).unwrap();
    let layout = ModelLayout::new(&gguf).unwrap();
    let weights = Weights::from_model(&gguf, &layout.stage_slices(0..1), &Resident::new()).unwrap();
    for tensor in gguf.tensors() {
        let file = fs::read(part_path(directory.path(), tensor.part + 1, 3)).unwrap();
        let source = &file[tensor.offset as usize..][..tensor.len as usize];
        assert_eq!(weights.bytes(&tensor.name), Some(source), "{}", tensor.name);
    }
    assert_eq!(layout.slices().len(), 3 + 3, "each part has its header");
    for part in 0..3 {
        let header = layout.slice_ranges(SliceId::Header(part));
        let len = gguf.parts()[part as usize].data_start;
        assert_eq!(header, [SlicePiece::Source(ByteRange { part, offset: 0, len })]);
    }
}

#[test]
fn only_the_own_tensors_are_mapped() {
    let directory = tempfile::tempdir().unwrap();
    // A model whose layers are far larger than a page, so that rounding does not hide the rest.
    let gguf = written(&wide_model(4, 4096), directory.path());
    let layout = ModelLayout::new(&gguf).unwrap();
    let weights = Weights::from_model(&gguf, &layout.stage_slices(1..2), &Resident::new()).unwrap();
    let own = layout.stage_bytes(1..2);
    assert!(weights.mapped_bytes() >= own);
    assert!(weights.mapped_bytes() < own + 3 * (64 << 10), "{}", weights.mapped_bytes());
    let progress = AtomicU64::new(0);
    weights.populate(&progress);
    assert_eq!(progress.load(Ordering::Relaxed), weights.mapped_bytes());
}

#[test]
fn g_33_a_file_that_changed_is_not_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    let gguf = written(&small_model("llama", 1), directory.path());
    let slices = ModelLayout::new(&gguf).unwrap().stage_slices(0..1);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(gguf.parts()[0].size - 4096).unwrap();
    let error = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap_err();
    assert!(matches!(error, MapError::Size { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    small_model("llama", 1).write(&path).unwrap();
    let error = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap_err();
    assert!(matches!(error, MapError::Changed { .. }), "{error}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(
        Weights::from_model(&gguf, &slices, &Resident::new()).unwrap_err(),
        MapError::Gguf(_)
    ));
}

#[test]
fn g_37_a_change_while_mapped_is_seen() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = written(&small_model("llama", 1), directory.path());
    let slices = ModelLayout::new(&gguf).unwrap().stage_slices(0..1);
    let weights = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    weights.check_unchanged().unwrap();
    let path = directory.path().join("m.gguf");
    let file = OpenOptions::new().append(true).open(&path).unwrap();
    file.set_len(gguf.parts()[0].size + 1).unwrap();
    let error = weights.check_unchanged().unwrap_err();
    assert!(matches!(error, MapError::Changed { .. }), "{error}");
}

#[test]
fn g_39_any_bits_are_weights() {
    let directory = tempfile::tempdir().unwrap();
    let nan = f32::NAN.to_le_bytes().repeat(64);
    let name = "output_norm.weight";
    let model = small_model("llama", 1).without_tensor(name);
    let gguf = written(&model.tensor(name, TensorType::F32, &[64], nan.clone()), directory.path());
    let slices = ModelLayout::new(&gguf).unwrap().stage_slices(0..1);
    let weights = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    assert_eq!(weights.bytes(name), Some(nan.as_slice()));
}

#[test]
fn headers_alone_cannot_be_mapped_and_slices_must_exist() {
    let directory = tempfile::tempdir().unwrap();
    let bytes = small_model("llama", 1).to_bytes(32);
    let file_size = bytes.len() as u64;
    let part = HeaderPart { file_name: "m".into(), bytes, file_size };
    let gguf = Gguf::from_headers(vec![part]).unwrap();
    let error = Weights::from_model(&gguf, &[SliceId::Head], &Resident::new()).unwrap_err();
    assert!(matches!(error, MapError::NoFile { part: 0 }), "{error}");
    let error = Weights::from_model(&gguf, &[SliceId::Layer(1)], &Resident::new()).unwrap_err();
    assert!(matches!(error, MapError::NoSlice { .. }), "{error}");
    let path = directory.path().join("short");
    fs::write(&path, [0; 100]).unwrap();
    let error = Weights::from_slices(&gguf, &[SliceId::Head], &|_| path.clone(), &Resident::new())
        .unwrap_err();
    assert!(matches!(error, MapError::Size { .. }), "{error}");
}

#[test]
fn odd_offsets_are_refused_where_values_must_be_read_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("m.gguf");
    // Keys of other lengths move the data to an odd byte, as an alignment of 1 allows.
    let odd = (1..5).find_map(|len| {
        let model = small_model("llama", 1).kv("k".repeat(len), crate::gguf::Value::U8(0));
        fs::write(&path, model.to_bytes(1)).unwrap();
        Gguf::open(&path).ok().filter(|gguf| gguf.parts()[0].data_start % 4 == 1)
    });
    let gguf = odd.expect("one of four neighbours is odd");
    let error = Weights::from_model(&gguf, &[SliceId::Embedding], &Resident::new()).unwrap_err();
    assert!(matches!(error, MapError::Misaligned { .. }), "{error}");
}

/// A model whose feed-forward blocks have `width` values between their matrices, which are `F32`.
fn wide_model(layers: u32, width: u64) -> GgufWriter {
    let model = small_model("llama", layers);
    let mut model = model.set("llama.feed_forward_length", Value::U32(width as u32));
    let values: Vec<u8> = (0..(HIDDEN * width) as u32)
        .flat_map(|i| (i.wrapping_mul(0x9e37_79b9)).to_le_bytes())
        .collect();
    for layer in 0..layers {
        let [up, down] = [[HIDDEN, width], [width, HIDDEN]];
        for (name, shape) in [("ffn_gate", up), ("ffn_up", up), ("ffn_down", down)] {
            let name = format!("blk.{layer}.{name}.weight");
            model = model.without_tensor(&name);
            model = model.tensor(&name, TensorType::F32, &shape, values.clone());
        }
    }
    model
}

/// A model with matrices of several huge pages, and the slices of its only layer.
fn large_layer(directory: &Path) -> (Gguf, Vec<SliceId>) {
    let gguf = written(&wide_model(1, 24576), directory);
    let slices = ModelLayout::new(&gguf).unwrap().stage_slices(0..1);
    (gguf, slices)
}

fn assert_same_as_file(weights: &Weights, gguf: &Gguf) {
    let file = fs::read(gguf.parts()[0].path.as_ref().unwrap()).unwrap();
    for tensor in gguf.tensors() {
        let source = &file[tensor.offset as usize..][..tensor.len as usize];
        assert!(weights.bytes(&tensor.name) == Some(source), "{}", tensor.name);
    }
}

#[test]
fn advice_about_pages_changes_no_byte() {
    let directory = tempfile::tempdir().unwrap();
    let (gguf, slices) = large_layer(directory.path());
    for advise in [
        (|_| {}) as fn(&Weights),
        |weights| weights.use_small_pages(),
        // Whether the system has huge pages for this file is its own affair.
        |weights| _ = weights.read_again(),
    ] {
        let weights = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
        advise(&weights);
        let progress = AtomicU64::new(0);
        weights.populate(&progress);
        assert_eq!(progress.load(Ordering::Relaxed), weights.mapped_bytes());
        assert_same_as_file(&weights, &gguf);
        assert!(weights.huge_bytes().is_none_or(|bytes| bytes <= weights.page_bytes()));
    }
}

#[test]
fn locked_weights_are_the_same_or_the_limit_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let (gguf, slices) = large_layer(directory.path());
    let weights = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    if let Err(error) = weights.lock() {
        let text = LockError::new(weights.page_bytes(), error).to_string();
        assert!(text.contains("RLIMIT_MEMLOCK"), "{text}");
    }
    weights.populate(&AtomicU64::new(0));
    assert_same_as_file(&weights, &gguf);
}

#[test]
fn small_pages_are_small() {
    let directory = tempfile::tempdir().unwrap();
    let (gguf, slices) = large_layer(directory.path());
    // In the cache in huge pages, if the system gives any.
    fs::File::open(directory.path().join("m.gguf")).unwrap().sync_all().unwrap();
    let huge = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    let given = huge.read_again();
    huge.populate(&AtomicU64::new(0));
    if given {
        assert!(huge.huge_bytes().is_some_and(|bytes| bytes >= 2 << 20), "{:?}", huge.huge_bytes());
    }
    let small = Weights::from_model(&gguf, &slices, &Resident::new()).unwrap();
    small.use_small_pages();
    small.populate(&AtomicU64::new(0));
    assert!(small.huge_bytes().is_none_or(|bytes| bytes == 0), "{:?}", small.huge_bytes());
}

#[test]
fn files_without_room_for_a_huge_page_are_not_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = written(&small_model("llama", 1), directory.path());
    let slices = ModelLayout::new(&gguf).unwrap().stage_slices(0..1);
    assert!(!Weights::from_model(&gguf, &slices, &Resident::new()).unwrap().read_again());
}

#[test]
fn ranges_that_touch_or_share_a_page_become_one() {
    const PAGE: u64 = 4096;
    let merged = |ranges: &[Range<u64>]| merged(ranges.iter().cloned(), PAGE);
    let found = merged(&[10..20, 20..PAGE + 1, 2 * PAGE..2 * PAGE + 5]);
    let whole: Vec<Range<u64>> = std::iter::once(0..2 * PAGE + 5).collect();
    assert_eq!(found, whole);
    let found = merged(&[10..20, 3 * PAGE + 7..3 * PAGE + 9]);
    assert_eq!(found, [0..20, 3 * PAGE..3 * PAGE + 9]);
    let found = merged(&[10..5 * PAGE, 20..30]);
    assert_eq!(found, std::iter::once(0..5 * PAGE).collect::<Vec<_>>());
}

#[test]
fn only_our_own_mappings_are_counted() {
    let list = "\
        7f0000000000-7f0000600000 r--s 00000000 fe:00 42 /models/with a: b.gguf\n\
        Size:               6144 kB\n\
        FilePmdMapped:      4096 kB\n\
        VmFlags: rd mr me ms hg \n\
        7f0000600000-7f0000800000 r--s 00600000 fe:00 42 /models/with a: b.gguf\n\
        FilePmdMapped:      2048 kB\n\
        ShmemPmdMapped:        0 kB\n";
    let at = |start: usize, len: usize| 0x7f00_0000_0000 + start..0x7f00_0000_0000 + start + len;
    assert_eq!(huge_bytes_in(list, &[]), 0);
    assert_eq!(huge_bytes_in(list, &[at(5, 9)]), 4 << 20);
    assert_eq!(huge_bytes_in(list, &[at(0x60_0000, 1), at(0x80_0000, 1)]), 2 << 20);
    assert_eq!(huge_bytes_in(list, &[at(0, 0x60_0000), at(0x60_0000, 9)]), 6 << 20);
}

/// Everything that `weights` holds, for the next stage.
fn held(weights: &Weights) -> Resident {
    let mut held = Resident::new();
    held.extend(weights.slices());
    held
}

#[test]
fn what_is_held_is_neither_mapped_nor_populated_again() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = written(&wide_model(4, 4096), directory.path());
    let layout = ModelLayout::new(&gguf).unwrap();
    let first = Weights::from_model(&gguf, &layout.stage_slices(0..3), &Resident::new()).unwrap();
    assert!(first.mappings_made() > 0);
    let progress = AtomicU64::new(0);
    assert_eq!(first.bytes_to_populate(), first.mapped_bytes());
    assert_eq!(first.populate(&progress), first.mapped_bytes());
    let again = Weights::from_model(&gguf, &layout.stage_slices(0..3), &held(&first)).unwrap();
    assert_eq!((again.mappings_made(), again.populate(&progress)), (0, 0));
    assert_eq!(again.mapped_bytes(), first.mapped_bytes());
    let same =
        |name: &str| first.bytes(name).map(<[u8]>::as_ptr) == again.bytes(name).map(<[u8]>::as_ptr);
    assert!(gguf.tensors().iter().all(|tensor| same(&tensor.name)));
    // A part of it is a part of the bytes, and one more layer is all that comes new.
    let part = Weights::from_model(&gguf, &layout.stage_slices(1..3), &held(&first)).unwrap();
    let own = layout.stage_bytes(1..3);
    assert!((own..own + 3 * (64 << 10)).contains(&part.mapped_bytes()));
    let more = Weights::from_model(&gguf, &layout.stage_slices(1..4), &held(&first)).unwrap();
    assert!(more.mappings_made() > 0);
    let own = layout.stage_bytes(3..4);
    assert!((own..own + 3 * (64 << 10)).contains(&more.populate(&progress)));
    assert!(held(&more).slices().all(|slice| slice.is_populated()));
}

#[test]
fn a_slice_that_goes_leaves_the_bytes_of_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = written(&wide_model(2, 24576), directory.path());
    let layout = ModelLayout::new(&gguf).unwrap();
    let all = Weights::from_model(&gguf, &layout.stage_slices(0..2), &Resident::new()).unwrap();
    all.populate(&AtomicU64::new(0));
    let mut held = held(&all);
    drop(all);
    let gone = held.remove(SliceId::Layer(0)).unwrap();
    assert_eq!(gone.bytes(), layout.slice_len(SliceId::Layer(0)));
    drop(gone);
    let all = Weights::from_model(&gguf, &layout.stage_slices(0..2), &held).unwrap();
    assert!(all.mappings_made() > 0, "what has gone is mapped again");
    assert!(all.bytes_to_populate() < all.mapped_bytes());
    assert_same_as_file(&all, &gguf);
}

#[test]
fn a_tied_head_shares_the_embedding_that_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let gguf = written(&small_model("llama", 2).without_tensor("output.weight"), directory.path());
    let none = Resident::new();
    let first = Weights::from_model(&gguf, &[SliceId::Embedding], &none).unwrap();
    let name = "token_embd.weight";
    let last = Weights::from_model(&gguf, &[SliceId::Head], &held(&first)).unwrap();
    assert_eq!(last.bytes(name).map(<[u8]>::as_ptr), first.bytes(name).map(<[u8]>::as_ptr));
    let bytes = first.bytes(name).unwrap().to_vec();
    drop(first);
    assert_eq!(last.bytes(name), Some(&bytes[..]));
}
