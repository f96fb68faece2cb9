//! G-01 to G-06: magic, version, counts; and G-60, every byte of a header flipped.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Raw, assert_refused, problem, read, small_model};
use crate::gguf::{Gguf, HeaderPart};

#[test]
fn g_01_truncated_at_every_byte() {
    let bytes = small_model("llama", 1).to_bytes(32);
    let data_start = read(bytes.clone()).unwrap().parts()[0].data_start as usize;
    for len in 0..data_start {
        let error = read(bytes[..len].to_vec()).expect_err("a part of a header");
        let text = format!("{:?}", error.problem());
        // A length or a count that points past the end is seen before the end itself.
        let kinds = ["Truncated", "TooLong", "TensorPastEnd"];
        assert!(kinds.iter().any(|kind| text.starts_with(kind)), "{len} bytes: {text}");
    }
    for len in [0, 1, 3, 4, 7, 8, 15, 23] {
        assert_refused(read(bytes[..len].to_vec()), "Truncated");
    }
    for len in data_start..bytes.len() - 16 {
        assert_refused(read(bytes[..len].to_vec()), "TensorPastEnd");
    }
}

#[test]
fn g_01_headers_alone_need_their_padding() {
    let bytes = small_model("llama", 1).to_bytes(32);
    let file_size = bytes.len() as u64;
    let data_start = read(bytes.clone()).unwrap().parts()[0].data_start as usize;
    let part = |len: usize| {
        vec![HeaderPart { file_name: "m".into(), bytes: bytes[..len].to_vec(), file_size }]
    };
    assert!(Gguf::from_headers(part(data_start)).is_ok());
    assert_refused(Gguf::from_headers(part(data_start - 1)), "Truncated");
    assert_refused(Gguf::from_headers(vec![]), "Limit");
}

#[test]
fn g_02_other_magic() {
    let starts: [&[u8]; 9] = [
        b"FUGG",
        b"GGUf",
        b"GGML",
        b"GGJT",
        b"PK\x03\x04",
        b"\x1f\x8b\x08\0",
        b"\x80\x02ci",
        b"\x10\x02\0\0\0\0\0\0{\"",
        b"\x7fELF",
    ];
    for start in starts {
        let mut bytes = small_model("llama", 1).to_bytes(32);
        bytes[..start.len()].copy_from_slice(start);
        assert_refused(read(bytes), "NotGguf");
    }
}

#[test]
fn g_03_other_version() {
    for version in [0, 1, 4, 0x0300_0000, u32::MAX] {
        let mut bytes = small_model("llama", 1).to_bytes(32);
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        let text = problem(read(bytes));
        assert!(text.starts_with("Version"), "{text}");
        assert_eq!(text.contains("big-endian"), version == 0x0300_0000, "{text}");
    }
    let mut bytes = small_model("llama", 1).to_bytes(32);
    bytes[4..8].copy_from_slice(&2u32.to_le_bytes());
    assert!(read(bytes).is_ok(), "version 2 has the same layout");
}

#[test]
fn g_04_tensor_counts() {
    let bytes = small_model("llama", 1).to_bytes(32);
    let actual = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
    for count in [u64::MAX, 1 << 63, 1 << 32, 65_537, 65_536, actual + 1] {
        let mut bytes = bytes.clone();
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        problem(read(bytes));
    }
    for count in [actual - 1, 0] {
        let mut bytes = bytes.clone();
        bytes[8..16].copy_from_slice(&count.to_le_bytes());
        // The rest of the table stands where zeros should be.
        assert_refused(read(bytes), "Padding");
    }
}

#[test]
fn g_05_pair_counts() {
    let bytes = small_model("llama", 1).to_bytes(32);
    let actual = u64::from_le_bytes(bytes[16..24].try_into().unwrap());
    for count in [u64::MAX, 1 << 63, 500_000_000, 65_537, 65_536, actual + 1, actual - 1] {
        let mut bytes = bytes.clone();
        bytes[16..24].copy_from_slice(&count.to_le_bytes());
        problem(read(bytes));
    }
    assert_refused(Raw::new(0, 500_000_000).read(), "Limit");
    assert_refused(Raw::new(0, 1).read(), "TooLong");
}

#[test]
fn g_06_counts_swapped() {
    let mut bytes = small_model("llama", 1).to_bytes(32);
    let (tensors, pairs) = (bytes[8..16].to_vec(), bytes[16..24].to_vec());
    assert_ne!(tensors, pairs);
    bytes[8..16].copy_from_slice(&pairs);
    bytes[16..24].copy_from_slice(&tensors);
    problem(read(bytes));
}

#[test]
fn g_60_every_byte_flipped() {
    let bytes = small_model("llama", 1).to_bytes(32);
    let started = Instant::now();
    for at in 0..bytes.len().min(64 << 10) {
        for flip in [0xff, 0x01, 0x80] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            // Read, or refused in words; whatever is read can be laid out or is refused too, and
            // everything that is laid out lies in the file.
            let Ok(gguf) = read(bytes.clone()) else { continue };
            let Ok(layout) = crate::plan::ModelLayout::new(&gguf) else { continue };
            for tensor in layout.slices().iter().flat_map(|&id| layout.slice_tensors(id)) {
                assert!(tensor.source.offset + tensor.source.len <= bytes.len() as u64);
            }
        }
    }
    assert!(started.elapsed() < Duration::from_secs(60));
}

#[test]
fn g_60_every_bit_of_the_first_bytes_flipped() {
    let bytes = small_model("qwen3", 1).to_bytes(32);
    let data_start = read(bytes.clone()).unwrap().parts()[0].data_start as usize;
    for bit in 0..8 * data_start {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        if let Ok(gguf) = read(bytes) {
            let _ = crate::plan::ModelLayout::new(&gguf).map_err(|error| error.to_string());
        }
    }
}

/// Numbers that lie where arithmetic breaks.
const EDGES: [u64; 12] = [
    0,
    1,
    31,
    32,
    255,
    i32::MAX as u64,
    u32::MAX as u64,
    1 << 40,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 15,
    u64::MAX,
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn g_60_numbers_overwritten(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..EDGES.len(), 1..=8usize), 1..6)
    ) {
        let mut bytes = small_model("llama", 1).to_bytes(32);
        for (at, edge, width) in changes {
            let at = at.index(2500);
            bytes[at..at + width].copy_from_slice(&EDGES[edge].to_le_bytes()[..width]);
        }
        let len = bytes.len() as u64;
        if let Ok(gguf) = read(bytes) {
            for tensor in gguf.tensors() {
                prop_assert!(tensor.offset.checked_add(tensor.len).is_some_and(|end| end <= len));
                let blocks = tensor.shape[0] / tensor.ty.block_len() as u64 * tensor.rows();
                prop_assert_eq!(blocks * tensor.ty.block_bytes() as u64, tensor.len);
            }
            let _ = crate::plan::ModelLayout::new(&gguf).map_err(|error| error.to_string());
        }
    }
}
