#!/usr/bin/env python3
"""What lm-eval needs that is not fetched from anywhere: tasks of a few questions, and a model's tokenizer.

    lm_eval_tasks.py MODEL.gguf DIR
"""
import json
import pathlib
import sys

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

QUESTIONS = [("Sheep give", "wool", "milk of almonds"), ("Water is", "wet", "a kind of brick"),
             ("The sun rises in the", "east", "drawer"), ("Two and two are", "four", "green")]
TASKS = {
    "few_choices": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: 0
doc_to_choice: "{{[right, wrong]}}"
metric_list:
  - metric: acc
""",
    "few_words": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{right}}"
generation_kwargs: {until: ["\\n"], max_gen_toks: 8, do_sample: false, temperature: 0.0}
metric_list:
  - metric: exact_match
""",
    "few_texts": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{question}} {{right}}"
metric_list:
  - metric: word_perplexity
""",
}


def text(field):
    return bytes(field.parts[field.data[0]]).decode()


def tokenizer(model, folder):
    """The vocabulary of a GGUF file with byte-level BPE, as the package tokenizers has it."""
    fields = GGUFReader(model).fields
    words = [bytes(fields["tokenizer.ggml.tokens"].parts[at]).decode() for at in fields["tokenizer.ggml.tokens"].data]
    merges = [bytes(fields["tokenizer.ggml.merges"].parts[at]).decode() for at in fields["tokenizer.ggml.merges"].data]
    kinds = [int(fields["tokenizer.ggml.token_type"].parts[at][0]) for at in fields["tokenizer.ggml.token_type"].data]
    vocabulary = {word: number for number, word in enumerate(words)}
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[tuple(merge.split(" ")) for merge in merges]))
    digits = pre_tokenizers.Digits(individual_digits=True)
    made.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(word, special=True) for word, kind in zip(words, kinds) if kind == 3])
    made.save(str(folder / "tokenizer.json"))
    begin, end = (words[int(fields[f"tokenizer.ggml.{kind}_token_id"].parts[-1][0])] for kind in ("bos", "eos"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "bos_token": begin, "unk_token": end,
              "chat_template": text(fields["tokenizer.chat_template"])}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def main():
    model, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    (folder / "tokenizer").mkdir(parents=True, exist_ok=True)
    tokenizer(model, folder / "tokenizer")
    rows = folder / "rows.jsonl"
    rows.write_text("".join(json.dumps(dict(zip(("question", "right", "wrong"), row))) + "\n" for row in QUESTIONS))
    for name, rest in TASKS.items():
        head = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files: {{test: {rows}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(head + rest.lstrip())


main()
