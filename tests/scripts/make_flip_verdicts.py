#!/usr/bin/env python3
"""Which single-byte changes of a small GGUF file the reader of the gguf package accepts.

    pip install gguf numpy
    tests/scripts/make_flip_verdicts.py tests/fixtures/flips

Writes base.gguf and verdicts.json: for each mask, the offsets whose byte may be XORed with it. A change whose
reading takes longer than two seconds counts as refused.
"""
import json
import signal
import sys
import tempfile
from pathlib import Path

import gguf
import numpy as np

MASKS = [0x01, 0x80, 0xFF]


def write_base(path):
    w = gguf.GGUFWriter(str(path), "llama")
    w.add_block_count(1); w.add_context_length(64); w.add_embedding_length(32); w.add_feed_forward_length(32)
    w.add_head_count(2); w.add_head_count_kv(1); w.add_layer_norm_rms_eps(1e-5); w.add_rope_freq_base(10000.0)
    w.add_tokenizer_model("llama"); w.add_token_list([f"t{i}" for i in range(8)])
    w.add_token_scores([0.0] * 8); w.add_token_types([1] * 8); w.add_bos_token_id(1); w.add_eos_token_id(2)
    shapes = {"token_embd": (8, 32), "output_norm": (32,), "blk.0.attn_norm": (32,), "blk.0.attn_q": (32, 32),
              "blk.0.attn_k": (16, 32), "blk.0.attn_v": (16, 32), "blk.0.attn_output": (32, 32), "blk.0.ffn_norm": (32,),
              "blk.0.ffn_gate": (32, 32), "blk.0.ffn_up": (32, 32), "blk.0.ffn_down": (32, 32)}
    for name, shape in shapes.items():
        w.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def accepts(path):
    def late(*_):
        raise TimeoutError
    signal.signal(signal.SIGALRM, late)
    signal.alarm(2)
    try:
        gguf.GGUFReader(str(path))
        return True
    except BaseException as error:  # numpy and struct raise many kinds
        if isinstance(error, KeyboardInterrupt):
            raise
        return False
    finally:
        signal.alarm(0)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / "base.gguf"
    write_base(base)
    data = base.read_bytes()
    end = min(gguf.GGUFReader(str(base)).data_offset, 65536)
    verdicts = {"header_bytes": int(end), "accepted": {}}
    with tempfile.TemporaryDirectory() as tmp:
        path = Path(tmp) / "flipped.gguf"
        for mask in MASKS:
            accepted = []
            for at in range(end):
                flipped = bytearray(data)
                flipped[at] ^= mask
                path.write_bytes(flipped)
                if accepts(path):
                    accepted.append(at)
            verdicts["accepted"][str(mask)] = accepted
    (folder / "verdicts.json").write_text(json.dumps(verdicts, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
