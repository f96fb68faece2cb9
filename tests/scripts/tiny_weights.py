"""Random matrices in every weight format."""
import gguf
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import quants


def k_quant(rng, ty, rows, cols, sigma):
    """Random superblocks of 256 whose weights have mean about 0 and spread `sigma`."""
    size = gguf.GGML_QUANT_SIZES[ty][1]
    count = rows * cols // 256
    out = rng.integers(0, 256, (count, size), dtype=np.uint8)

    def put(at, value):
        out[:, at:at + 2] = np.full(count, value, np.float16).view(np.uint8).reshape(count, 2)

    if ty == T.Q2_K:            # d sc q - dmin m with q in 0..3: equal scales and mins, so that 1.5 is the middle
        scales = rng.integers(4, 16, (count, 16), dtype=np.uint8)
        out[:, :16] = scales | (scales << 4)
        put(80, sigma / (10.1 * 1.118))
        put(82, 1.5 * sigma / (10.1 * 1.118))
    elif ty == T.Q3_K:          # d (sc - 32) q with q in -4..3, sc any of 64
        put(108, sigma / (18.5 * 2.35))
    elif ty in (T.Q4_K, T.Q5_K):
        scales = rng.integers(16, 64, (count, 8), dtype=np.uint8)
        low, high = scales[:, :4], scales[:, 4:]
        out[:, 4:8] = low | ((high >> 4) << 6)
        out[:, 8:12] = low | ((high >> 4) << 6)
        out[:, 12:16] = (high & 15) | ((high & 15) << 4)
        middle, spread = (7.5, 4.61) if ty == T.Q4_K else (15.5, 9.23)
        put(0, sigma / (42 * spread))
        put(2, middle * sigma / (42 * spread))
    else:                       # Q6_K: d sc q with q in -32..31, sc any sign
        scales = rng.integers(24, 112, (count, 16)) * np.where(rng.random((count, 16)) < .5, -1, 1)
        out[:, 192:208] = scales.astype(np.int8).view(np.uint8)
        put(208, sigma / (73 * 18.5))
    return out.reshape(rows, -1)


def table_quant(rng, ty, rows, cols, sigma):
    """Random blocks of a format that looks its values up, with spread `sigma`."""
    length, size = gguf.GGML_QUANT_SIZES[ty]
    count = rows * cols // length
    out = rng.integers(0, 256, (count, size), dtype=np.uint8)
    if ty == T.MXFP4:           # 2^(e - 128) times twice the values of E2M1, whose spread is 5.85
        out[:, 0] = 128 + np.rint(np.log2(sigma / 5.85)).astype(int) + rng.integers(-1, 2, count)
    else:                       # d times values with spread 67.4; IQ4_XS: and times sc - 32, sc any of 64
        spread = 67.4 if ty == T.IQ4_NL else 67.4 * 18.5
        out[:, :2] = np.full(count, sigma / spread, np.float16).view(np.uint8).reshape(count, 2)
    return out.reshape(rows, -1)


def matrix(rng, ty, rows, cols, sigma):
    """Bytes of a random matrix in format `ty`, one row per row; `cols` is the row length."""
    if ty in (T.IQ4_NL, T.IQ4_XS, T.MXFP4):
        return table_quant(rng, ty, rows, cols, sigma)
    if ty.name.endswith("_K"):
        return k_quant(rng, ty, rows, cols, sigma)
    values = rng.normal(0, sigma, (rows, cols)).astype(np.float32)
    if ty == T.F32:
        return values
    if ty == T.F16:
        return values.astype(np.float16)
    return quants.quantize(values, ty)


class Tensors:
    """Random tensors, in the order of the file: name, format, bytes."""
    def __init__(self, seed):
        self.rng, self.all = np.random.default_rng(seed), []

    def put(self, name, ty, rows, cols, sigma, count=None):
        data = matrix(self.rng, ty, rows * (count or 1), cols, sigma)
        self.all.append((name, ty, data if count is None else data.reshape(count, rows, -1)))

    def stack(self, name, ty, parts, cols):
        """Matrices of several spreads below each other: `parts` are their rows and spreads."""
        self.all.append((name, ty, np.concatenate([matrix(self.rng, ty, rows, cols, sigma) for rows, sigma in parts])))

    def vector(self, name, mean, sigma, length):
        self.all.append((name, T.F32, self.rng.normal(mean, sigma, length).astype(np.float32)))

    def norm(self, name, length, gain):
        self.vector(name, gain, .1 * gain, length)
