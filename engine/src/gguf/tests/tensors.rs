//! G-19 to G-32: the tensor table.

use super::{Raw, assert_refused, problem, read, small_model, weights};
use crate::quant::TensorType;

/// A file with one F32 tensor of this shape and 4 KiB of data.
fn with_shape(shape: &[u64]) -> Raw {
    Raw::new(1, 0).tensor("w", shape, 0, 0).data(4096)
}

#[test]
fn g_19_tensor_names() {
    let with_name = |raw: Raw| raw.u32(1).u64(8).u32(0).u64(0).data(64).read();
    assert_refused(with_name(Raw::new(1, 0).u64(u64::MAX)), "TooLong");
    assert_refused(with_name(Raw::new(1, 0).string("n".repeat(64))), "Limit");
    assert_refused(with_name(Raw::new(1, 0).string("")), "Name");
    assert_refused(with_name(Raw::new(1, 0).string(b"\xc3\x28")), "NotUtf8");
    assert_refused(with_name(Raw::new(1, 0).string("a\u{1b}[2J")), "Name");
    assert!(with_name(Raw::new(1, 0).string("n".repeat(63))).is_ok());
    let twice = Raw::new(2, 0).tensor("w", &[8], 0, 0).tensor("w", &[8], 0, 32).data(96);
    assert_refused(twice.read(), "DuplicateTensor");
    // Such a name is read, but no model has it, and nothing is opened by a tensor's name.
    let model = weights(small_model("llama", 1), "../../etc/passwd", TensorType::F32, &[8]);
    let gguf = read(model.to_bytes(32)).unwrap();
    let error = crate::plan::ModelLayout::new(&gguf).unwrap_err().to_string();
    assert!(error.contains("\"../../etc/passwd\""), "{error}");
}

#[test]
fn g_20_dimensions() {
    for dims in [0, 5, 255, u32::MAX] {
        let raw = Raw::new(1, 0).string("w").u32(dims).zeros(128);
        assert_refused(raw.read(), "Dimensions");
    }
    assert!(with_shape(&[8, 1, 1, 2]).read().is_ok());
}

#[test]
fn g_21_empty_dimensions() {
    for shape in [&[0][..], &[8, 0], &[0, 0, 0, 0]] {
        assert_refused(with_shape(shape).read(), "Dimension");
    }
}

#[test]
fn g_22_negative_dimensions() {
    for dim in [1u64 << 63, u64::MAX, (-32i64) as u64] {
        assert_refused(with_shape(&[dim]).read(), "Dimension");
        assert_refused(with_shape(&[8, dim]).read(), "Dimension");
    }
}

#[test]
fn g_23_products_that_wrap() {
    for shape in [&[1 << 40, 1 << 40][..], &[u64::MAX, 2], &[u32::MAX.into(); 4]] {
        problem(with_shape(shape).read());
    }
    let widest = i32::MAX as u64;
    assert_refused(with_shape(&[widest; 4]).read(), "TensorSize");
    assert_refused(with_shape(&[widest, widest, 4]).read(), "TensorSize");
}

#[test]
fn g_24_embedding_of_cve_2026_33298() {
    problem(Raw::new(1, 0).tensor("token_embd.weight", &[64, (1 << 42) + 1], 0, 0).data(64).read());
}

#[test]
fn g_25_dimensions_beyond_32_bits() {
    for dim in [1 << 31, (1 << 31) + 32, (1 << 32) + 32] {
        assert_refused(with_shape(&[dim]).read(), "Dimension");
    }
}

#[test]
fn g_26_rows_of_whole_quant_blocks() {
    for ty in TensorType::ALL.into_iter().filter(|ty| ty.block_len() > 1) {
        let short = ty.block_len() as u64 - 1;
        let raw = Raw::new(1, 0).tensor("w", &[short, 2], ty as u32, 0).data(8192);
        assert_refused(raw.read(), "RowLength");
    }
}

#[test]
fn g_27_tensor_types() {
    let known: Vec<u32> = TensorType::ALL.into_iter().map(|ty| ty as u32).collect();
    let others = (0..=43).filter(|id| !known.contains(id)).chain([255, u32::MAX]);
    for id in others {
        let raw = Raw::new(1, 0).tensor("the.tensor", &[256], id, 0).data(4096);
        let text = problem(raw.read());
        assert!(text.starts_with("TensorType") && text.contains("the.tensor"), "{text}");
    }
    let named = problem(Raw::new(1, 0).tensor("w", &[256], 16, 0).data(4096).read());
    assert!(named.contains("IQ2_XXS"), "{named}");
    for id in known {
        assert!(Raw::new(1, 0).tensor("w", &[256], id, 0).data(4096).read().is_ok());
    }
}

#[test]
fn g_28_sizes_that_pad_to_zero() {
    problem(with_shape(&[4, (1 << 30) - 1, (1 << 30) + 1]).read());
}

#[test]
fn g_29_sums_that_overflow() {
    let half = [i32::MAX as u64 - 31, 1 << 31, 1];
    let raw = Raw::new(2, 0).tensor("a", &half, 0, 0).tensor("b", &half, 0, 1 << 62).data(64);
    problem(raw.read());
    let i8 = 0x7fff_ffff_ffff_ffc0;
    problem(Raw::new(2, 0).tensor("a", &[i8], 24, 0).tensor("b", &[i8], 24, i8).data(64).read());
}

#[test]
fn g_30_offsets_that_are_not_the_running_sum() {
    let second =
        |offset| Raw::new(2, 0).tensor("a", &[8], 0, 0).tensor("b", &[8], 0, offset).data(256);
    assert!(second(32).read().is_ok());
    for offset in [31, 33, 40, 64, 96] {
        assert_refused(second(offset).read(), "TensorOffset");
    }
    assert_refused(Raw::new(1, 0).tensor("a", &[8], 0, 32).data(256).read(), "TensorOffset");
}

#[test]
fn g_31_overlaps() {
    let two = |a, b| Raw::new(2, 0).tensor("a", &[16], 0, a).tensor("b", &[16], 0, b).data(256);
    assert_refused(two(0, 0).read(), "TensorOffset");
    assert_refused(two(0, 32).read(), "TensorOffset");
    assert_refused(two(64, 0).read(), "TensorOffset");
    assert!(two(0, 64).read().is_ok());
}

#[test]
fn g_32_offsets_that_wrap() {
    for offset in [u64::MAX, u64::MAX - 31, 1 << 63] {
        assert_refused(Raw::new(1, 0).tensor("a", &[8], 0, offset).data(64).read(), "TensorOffset");
    }
}
