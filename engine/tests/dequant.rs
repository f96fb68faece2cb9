//! Scalar dequantisation of every format equals the `gguf` Python package to the bit.

use serde_json::Value;
use woolly_engine::quant::{TensorType, dequantize_row};

fn vectors(ty: TensorType) -> (Vec<u8>, Vec<u32>) {
    let path = format!("{}/../tests/fixtures/dequant/{ty}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let json: Value = serde_json::from_str(&text).expect("the fixture is JSON");
    assert_eq!(json["type"], ty.name());
    let hex = json["blocks"].as_str().expect("a string of blocks");
    let bytes = (0..hex.len() / 2)
        .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hexadecimal"))
        .collect();
    let values = json["values"].as_array().expect("a list of values");
    (bytes, values.iter().map(|v| v.as_u64().expect("bits") as u32).collect())
}

#[test]
fn every_format_dequantises_as_the_gguf_package_does() {
    for ty in TensorType::ALL {
        let (bytes, expected) = vectors(ty);
        assert!(expected.len() >= 2 * ty.block_len(), "{ty} has several blocks");
        let mut out = vec![0.0; expected.len()];
        dequantize_row(ty, &bytes, &mut out);
        for (i, (ours, theirs)) in out.iter().zip(&expected).enumerate() {
            let both_nan = ours.is_nan() && f32::from_bits(*theirs).is_nan();
            assert!(
                ours.to_bits() == *theirs || both_nan,
                "{ty} value {i}: {ours:e}, expected {:e}",
                f32::from_bits(*theirs)
            );
        }
    }
}
