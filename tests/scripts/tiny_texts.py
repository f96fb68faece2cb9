"""The texts of the golden files, and which of them a model gets."""

PROSE = (
    "The lighthouse keeper counted the ships every evening before the lamp was lit. There were never more than nine, and on the "
    "nights when there were fewer he wrote the number down in red. By the end of the winter the red numbers had filled a page, and "
    "he began to ask himself where the others had gone. Nobody in the town could tell him; the harbour master said that ships come "
    "and go, and that the sea keeps no books."
)
UNICODE = (
    "Prices: 12,50 € → 1 234 567 ¥; naïve café, Ωμέγα, 東京タワー, привет мир, 🦙🚀. Isn't it?\n\n\tint x = 0x1F;  // don't\n"
    "  we've   they'LL 'S 'tis…\r\nﬁne ½ ② á\u0301\u0301 עברית हिन्दी"
)
# Thirteen blocks of 32 positions of the tiny vocabularies, and a rest.
LONG = PROSE + (
    "\n\nIn March a boat came in that he did not know. It had no name on it, only a number, 1847, and the man at the wheel asked "
    "for water and for nothing else. \"How many are you?\" said the keeper. \"Count us,\" said the man. for (int i = 0; i < n; i++) "
    "{ total += boats[i]; } So he counted them, and wrote it down."
)
CHATS = {
    "<|im_start|>": "<|im_start|>system\nYou count things.<|im_end|>\n<|im_start|>user\nHow many boats came down the river, and "
                    "how many of them came back?<|im_end|>\n<|im_start|>assistant\n",
    "[INST]": "[INST] How many boats came down the river, and how many of them came back? [/INST] Seven, and five.</s>"
              "[INST] Count again. [/INST]",
    "<start_of_turn>": "<start_of_turn>user\nHow many boats came down the river, and how many of them came back?<end_of_turn>\n"
                       "<start_of_turn>model\n",
}


def tokens_of(model, text, special):
    return model.tokenize(text.encode(), add_bos=True, special=special)


def texts_of(model):
    """Name, text, and whether special tokens are parsed in it. Mixtures of experts and the later architectures get the long text."""
    has_experts = any(key.endswith(".expert_count") for key in model.metadata)
    is_long = has_experts or model.metadata["general.architecture"] in ("gemma3", "phi3")
    texts = [("long", LONG, False)] if is_long else [("prose", PROSE, False), ("unicode", UNICODE, False)]
    for marker, chat in CHATS.items():
        if len(model.tokenize(marker.encode(), add_bos=False, special=True)) == 1:
            texts.append(("chat", chat, True))
    return texts
