//! G-07 to G-18: keys, strings, arrays, alignment; G-57, more keys than anyone needs.

use std::time::{Duration, Instant};

use super::{Raw, assert_refused, problem, read, small_model};
use crate::gguf::{Array, Gguf, GgufError, Value};

/// A file of one pair whose type and value are `rest`, padded with zeros.
fn with_value(ty: u32, rest: &[u8]) -> Raw {
    Raw::new(0, 1).string("key").u32(ty).bytes(rest).zeros(64)
}

fn read_value(ty: u32, rest: &[u8]) -> Result<Gguf, GgufError> {
    with_value(ty, rest).read()
}

#[test]
fn g_07_key_lengths() {
    let left = 64u64;
    for len in [u64::MAX, 1 << 63, left + 1] {
        let raw = Raw::new(0, 1).u64(len).zeros(left as usize);
        assert_refused(raw.read(), "TooLong");
    }
    assert_refused(Raw::new(0, 1).string("").u32(4).u32(1).zeros(32).read(), "Name");
}

#[test]
fn g_08_key_bytes() {
    let with_key = |key: &[u8]| Raw::new(0, 1).string(key).u32(4).u32(1).read();
    assert_refused(with_key(b"\xff\xfe"), "NotUtf8");
    assert_refused(with_key(b"a\0b"), "Name");
    assert_refused(with_key(b"a\n\x1b[31mERROR"), "Name");
    assert_refused(with_key(&vec![b'k'; 65_536]), "Limit");
    assert!(with_key(&vec![b'k'; 65_535]).is_ok());
    assert!(with_key("schlüssel".as_bytes()).is_ok());
}

#[test]
fn g_09_duplicate_key() {
    let model = small_model("llama", 1);
    let twice = model.kv("general.architecture", Value::String("qwen2".into()));
    assert_refused(read(twice.to_bytes(32)), "DuplicateKey");
}

#[test]
fn g_10_value_types() {
    for ty in [13, 255, u32::MAX, 1 << 31] {
        assert_refused(read_value(ty, &[0; 16]), "ValueType");
        let element = [ty.to_le_bytes().as_slice(), &1u64.to_le_bytes(), &[0; 16]].concat();
        assert_refused(read_value(9, &element), "ValueType");
    }
}

#[test]
fn g_11_string_lengths() {
    for len in [u64::MAX, 1 << 63, 1 << 30, 65] {
        assert_refused(read_value(8, &len.to_le_bytes()), "TooLong");
    }
    let mut long = with_value(8, &(64u64 << 20 | 1).to_le_bytes()).0;
    long.resize(66 << 20, b'x');
    assert_refused(read(long), "Limit");
}

#[test]
fn g_12_array_lengths() {
    let array = |element: u32, len: u64| {
        read_value(9, &[element.to_le_bytes().as_slice(), &len.to_le_bytes()].concat())
    };
    for len in [u64::MAX, 1 << 60, (64 << 20) + 1] {
        assert_refused(array(10, len), "Limit");
    }
    assert_refused(array(10, 9), "TooLong");
    assert_refused(array(0, 65), "TooLong");
    assert!(array(10, 8).is_ok());
    assert!(array(0, 0).is_ok());
}

#[test]
fn g_13_arrays_of_strings() {
    let claimed = [8u32.to_le_bytes().as_slice(), &(1u64 << 30).to_le_bytes()].concat();
    assert_refused(read_value(9, &claimed), "Limit");
    let claimed = [8u32.to_le_bytes().as_slice(), &(1u64 << 21).to_le_bytes()].concat();
    assert_refused(read_value(9, &claimed), "TooLong");
    let sum = Raw::new(0, 1).string("key").u32(9).u32(8).u64(3);
    assert_refused(sum.clone().string("abc").u64(50).zeros(20).read(), "TooLong");
    let whole = sum.string("a").string("").string("c").read().unwrap();
    assert_eq!(whole.metadata().opt_strings("key").unwrap().unwrap(), ["a", "", "c"]);
}

#[test]
fn g_14_nested_arrays() {
    let nested = (0..10_000).fold(Raw::new(0, 1).string("key").u32(9), |raw, _| raw.u32(9).u64(1));
    assert_refused(nested.read(), "NestedArray");
}

#[test]
fn g_15_bools() {
    for value in [2, 255] {
        assert_refused(read_value(7, &[value]), "Bool");
        let array = [7u32.to_le_bytes().as_slice(), &2u64.to_le_bytes(), &[1, value]].concat();
        assert_refused(read_value(9, &array), "Bool");
    }
    assert!(read_value(7, &[1]).unwrap().metadata().bool("key").unwrap());
}

#[test]
fn g_16_alignment_values() {
    let with =
        |value: Value| read(small_model("llama", 1).kv("general.alignment", value).to_bytes(32));
    for value in [0, 3, 31, 1 << 30, 1 << 31] {
        assert_refused(with(Value::U32(value)), "KeyValue");
    }
    for value in [Value::U64(32), Value::String("32".into()), Value::I32(-32), Value::I32(32)] {
        assert_refused(with(value), "KeyValue");
    }
    assert!(with(Value::U32(32)).is_ok());
    for alignment in [1, 2, 8, 64, 4096] {
        let gguf = read(small_model("llama", 1).to_bytes(alignment)).unwrap();
        assert!(gguf.tensors().iter().all(|tensor| tensor.offset % alignment == 0));
    }
}

#[test]
fn g_17_padding_is_zeros() {
    let model = small_model("llama", 1).kv("x", Value::String("y".into()));
    let mut bytes = model.to_bytes(4096);
    let data_start = read(bytes.clone()).unwrap().parts()[0].data_start as usize;
    bytes[data_start - 1] = 0xff;
    assert_refused(read(bytes), "Padding");
}

#[test]
fn g_18_wide_alignment_is_paid_by_the_file() {
    let bytes = small_model("llama", 1).to_bytes(1 << 20);
    let gguf = read(bytes.clone()).unwrap();
    assert_eq!(gguf.tensors().len(), 12);
    // Padding is the file's own bytes: a short file cannot claim it.
    assert_refused(read(bytes[..2 << 20].to_vec()), "TensorPastEnd");
}

#[test]
fn g_57_many_unknown_keys() {
    let many = |count: u64| {
        let pairs = (0..count)
            .fold(Raw::new(0, count), |raw, at| raw.string(format!("unknown.{at}")).u32(4).u32(0));
        pairs.read()
    };
    let started = Instant::now();
    assert_refused(many(1_000_000), "Limit");
    let gguf = many(65_536).unwrap();
    assert_eq!(gguf.metadata().keys().count(), 65_536);
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[test]
fn every_type_of_value_is_read_back() {
    let values = [
        Value::U8(200),
        Value::I8(-7),
        Value::U16(65_000),
        Value::I16(-300),
        Value::U32(4_000_000_000),
        Value::I32(-2),
        Value::U64(u64::MAX),
        Value::I64(i64::MIN),
        Value::F32(0.1),
        Value::F64(-0.1),
        Value::Bool(true),
        Value::String("Größe".into()),
        Value::Array(Array::U8(vec![1, 2])),
        Value::Array(Array::I8(vec![-1])),
        Value::Array(Array::U16(vec![1, 65_535])),
        Value::Array(Array::I16(vec![-1])),
        Value::Array(Array::U32(vec![7])),
        Value::Array(Array::I32(vec![-7, 8])),
        Value::Array(Array::U64(vec![u64::MAX])),
        Value::Array(Array::I64(vec![-1])),
        Value::Array(Array::F32(vec![1.5])),
        Value::Array(Array::F64(vec![2.5])),
        Value::Array(Array::Bools(vec![true, false])),
        Value::Array(Array::Strings(vec!["a".into(), String::new()])),
    ];
    let mut model = small_model("llama", 1);
    for (at, value) in values.iter().enumerate() {
        model = model.kv(format!("value.{at}"), value.clone());
    }
    let gguf = read(model.to_bytes(32)).unwrap();
    for (at, value) in values.iter().enumerate() {
        assert_eq!(gguf.metadata().get(&format!("value.{at}")), Some(value));
    }
    let metadata = gguf.metadata();
    assert_eq!(metadata.u32("value.2").unwrap(), 65_000, "any width that fits");
    assert!(metadata.u32("value.5").is_err(), "no negative number");
    assert!(metadata.u32("value.6").is_err(), "no number beyond 32 bits");
    assert_eq!(metadata.opt_i32s("value.14").unwrap().unwrap().as_ref(), [1, 65_535]);
    assert!(metadata.opt_i32s("value.18").is_err());
    assert_eq!(metadata.f32("value.9").unwrap(), -0.1);
}

#[test]
fn foreign_text_in_errors_is_escaped_and_cut() {
    let model = small_model("llama", 1);
    let long = format!("\u{1b}[31m\n{}", "ü".repeat(10_000));
    let text = problem(
        read(model.set("llama.block_count", Value::String(long)).to_bytes(32))
            .and_then(|gguf| gguf.metadata().u32("llama.block_count").map(|_| gguf.clone())),
    );
    assert!(text.contains("(20006 bytes)"), "{text}");
}
