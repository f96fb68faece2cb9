#!/usr/bin/env python3
"""Write the tiny random models of the tests: what the golden files on real models do not cover.

    python3 -m pip install numpy gguf==0.19.0 llama-cpp-python==0.3.36
    tests/scripts/make_tiny_models.py tests/fixtures/models [NAME...]

The weights are random, so the models say nothing; but their logits have about the spread of a trained
model's, attention looks at few positions, and every weight format stands somewhere.

The routers of the mixtures of experts are then turned until the last chosen and the first refused expert are
apart on the texts of the golden files, which llama.cpp tokenises: an engine that computes another way must not
choose other experts for that alone. NAME-f32.gguf has the weights of NAME.gguf in F32.
"""
import sys
from pathlib import Path

import gguf
import numpy as np

import tiny_f32
import tiny_forward
import tiny_router
import tiny_texts
from tiny_catalog import MODELS, keeps_f32
from tiny_draw import draw
from tiny_keys import add_parameters, add_vocabulary

CLEAR_RATIO = 1.15          # of their probabilities, for the share that is printed


def write(path, model, routers={}):
    """Draws and writes a model, with `routers` in the place of its own."""
    w = gguf.GGUFWriter(str(path), model["arch"])
    w.add_name(model.get("name", path.stem))
    add_parameters(w, model)
    vocab = add_vocabulary(w, model)
    w.add_vocab_size(vocab)
    for name, ty, data in draw(model, vocab):
        w.add_tensor(name, routers.get(name, data), raw_dtype=ty)
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file()
    w.close()


def part_routers(path, model):
    """Writes a mixture of experts again, with routers that choose clearly."""
    from llama_cpp import Llama
    vocabulary = Llama(str(path), vocab_only=True, verbose=False)
    texts = [tiny_texts.tokens_of(vocabulary, text, special) for _, text, special in tiny_texts.texts_of(vocabulary)]
    experts, w, routers, apart = model["experts"], tiny_forward.weights(path), {}, []

    def router(name, x):
        logit_bias = w.get(name.replace(".weight", ".bias"), 0)
        bias = w.get(name.replace("ffn_gate_inp.weight", "exp_probs_b.bias"))
        routers[name] = tiny_router.parted(w[name], x, logit_bias, experts, bias).astype(np.float32)
        logits = x @ routers[name].T + logit_bias
        apart.append(tiny_router.distances(experts, logits, bias))
        return routers[name]

    tiny_forward.forward(w, model, tiny_forward.Batch(texts), router)
    write(path, model, routers)
    clear = np.array(apart) > np.log(CLEAR_RATIO)
    print(f"{path.name:28} last chosen > {CLEAR_RATIO} x first refused: {clear.mean():.1%} of all choices, "
          f"all layers of {clear.all(axis=0).mean():.1%} of {clear.shape[1]} positions; closest {np.min(apart):.3f}")


def main():
    out, names = Path(sys.argv[1]), sys.argv[2:] or MODELS
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        path, model = out / f"{name}.gguf", MODELS[name]
        write(path, model)
        files = [path]
        if model["experts"]:
            part_routers(path, model)
        if keeps_f32(name):
            files.append(tiny_f32.write(path, out / f"{name}-f32.gguf"))
        for file in files:
            print(f"{file.name:28} {file.stat().st_size // 1024:4} KiB")


if __name__ == "__main__":
    main()
