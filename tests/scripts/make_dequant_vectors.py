#!/usr/bin/env python3
"""Random quant blocks of every format, and what the `gguf` package dequantises them to.

    python3 -m pip install numpy gguf==0.19.0
    tests/scripts/make_dequant_vectors.py tests/fixtures/dequant

One file per format: `blocks` are the bytes as they stand in a GGUF file (hex), `values` the f32 bit
patterns of the dequantised weights. The blocks' scales are random, with extremes among them: zero,
negative, subnormal and the largest f16 (of MXFP4 exponents from the smallest on); the quants are random bytes, all zero and all ones.
"""
import json
import sys
from pathlib import Path

import numpy as np
import gguf
from gguf import GGMLQuantizationType as T
from gguf import quants

# Where the f16 scales of a block stand, in bytes.
SCALES = {
    T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0],
    T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208],
    T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [],
}
EXTREMES = [0.0, -0.0, 5.9604645e-08, -5.9604645e-08, 6.1035156e-05, 1.0, -1.0, 65504.0, -65504.0]
# Of MXFP4, whose scale is the exponent of a power of two: subnormal ones, and up to what the values can hold.
EXPONENTS = [0, 1, 2, 3, 120, 128, 200, 250]
RANDOM_BLOCKS = 8


def quant_blocks(rng, ty):
    """Blocks as an array of bytes, one block per row."""
    size = gguf.GGML_QUANT_SIZES[ty][1]
    rows = []
    for scale in [None] * RANDOM_BLOCKS + EXTREMES:
        row = rng.integers(0, 256, size, dtype=np.uint8)
        for at in SCALES[ty]:
            value = np.float16(rng.normal(0, 0.02) if scale is None else scale)
            row[at:at + 2] = np.array([value]).view(np.uint8)
        rows.append(row)
    for fill in (0x00, 0xFF, 0x0F, 0xF0, 0x80, 0x7F):
        row = np.full(size, fill, np.uint8)
        for at in SCALES[ty]:
            row[at:at + 2] = np.array([np.float16(rng.normal(0, 0.02))]).view(np.uint8)
        rows.append(row)
    if ty == T.MXFP4:
        for i, row in enumerate(rows):
            row[0] = EXPONENTS[i % len(EXPONENTS)]
    return np.stack(rows)


def plain_values(rng, ty):
    """Values of an unquantised format, 64 to a row."""
    values = np.concatenate([rng.normal(0, 1, 48), rng.normal(0, 1e-3, 7), EXTREMES]).astype(np.float32)
    if ty == T.F32:
        return values.view(np.uint8).reshape(1, -1)
    if ty == T.F16:
        return values.astype(np.float16).view(np.uint8).reshape(1, -1)
    high = (values.view(np.uint32) >> 16).astype(np.uint16)
    return high.view(np.uint8).reshape(1, -1)


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20240601)
    for ty in [T.F32, T.F16, T.BF16, *SCALES]:
        blocks = quant_blocks(rng, ty) if ty in SCALES else plain_values(rng, ty)
        if ty == T.F32:
            values = blocks.view(np.float32)
        elif ty == T.F16:
            values = blocks.view(np.float16).astype(np.float32)
        else:
            values = quants.dequantize(blocks, ty)
        assert np.isfinite(values).all()
        bits = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32).tolist()
        text = json.dumps({"type": ty.name, "blocks": blocks.tobytes().hex(), "values": bits})
        (out / f"{ty.name}.json").write_text(text + "\n")
        print(f"{ty.name:5} {len(blocks):3} rows, {len(bits):5} values")


if __name__ == "__main__":
    main()
