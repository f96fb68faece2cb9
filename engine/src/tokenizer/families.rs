//! The pre-tokenizers by name (`tokenizer.ggml.pre`): their patterns, llama.cpp's, in its order.

/// One pattern of a pre-tokenizer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pattern {
    /// Matches of this source are pieces.
    Plain(&'static str),
    /// The same with `\s+(?!\S)|\s+` as the last alternative.
    Words(&'static str),
    /// Runs of digits are cut into threes from their end: `(?=(\d{3})+(?!\d))`.
    Threes,
}

const fn plain(source: &'static str) -> Pattern {
    Pattern::Plain(source)
}

const fn words(source: &'static str) -> Pattern {
    Pattern::Words(source)
}

/// What a value of `tokenizer.ggml.pre` means.
#[derive(Debug)]
pub(super) struct Family {
    pub(super) names: &'static [&'static str],
    pub(super) patterns: &'static [Pattern],
    /// A piece that is a token as a whole is taken as it is, even if no merges lead to it.
    pub(super) ignore_merges: bool,
    /// Whether texts begin with BOS when the file does not say.
    pub(super) add_bos: bool,
}

const GPT2: Pattern = words(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+");

const LLAMA3: Pattern = words(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

const QWEN2: Pattern = words(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

const QWEN35: Pattern = words(concat!(
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|",
    r"\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

const TEKKEN: Pattern = words(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+|",
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*|",
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));

const GPT4O: Pattern = words(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+",
));

const DEEPSEEK3_WORDS: Pattern = words(concat!(
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|"##,
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+",
));

/// Letters of Latin, Greek, Cyrillic, Georgian and the like, with the space before them.
const DEEPSEEK_LETTERS: &str = concat!(
    r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ",
    r"-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-",
    r"ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+",
);

/// Words up to punctuation of several scripts.
const CLAUSES: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

const KIMI: Pattern = words(concat!(
    r"\p{Han}+|",
    r"[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]--\p{Han}]*[[\p{Ll}\p{Lm}\p{Lo}\p{M}]--\p{Han}]+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"[^\r\n\p{L}\p{N}]?[[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]--\p{Han}]+[[\p{Ll}\p{Lm}\p{Lo}\p{M}]--\p{Han}]*",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])?|",
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+",
));

/// The families, each with all the names that stand for it.
pub(super) const FAMILIES: [Family; 21] = [
    Family {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
        ],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
    },
    Family {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        patterns: &[LLAMA3],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["glm4", "glm5"], patterns: &[LLAMA3], ignore_merges: true, add_bos: false },
    Family {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "megrez",
            "grok-2",
        ],
        patterns: &[QWEN2],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["qwen35"], patterns: &[QWEN35], ignore_merges: false, add_bos: false },
    Family {
        names: &[
            "refact",
            "starcoder",
            "smollm",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        patterns: &[plain(r"\p{N}"), GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "granite-docling",
            "exaone4",
            "gigachat",
            "a.x-4.0",
            "mellum",
        ],
        patterns: &[GPT2],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true },
    Family {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        patterns: &[GPT4O],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["falcon"],
        patterns: &[plain(r"[\p{P}\$\+<=>\^~\|`]+"), GPT2, plain("[0-9][0-9][0-9]")],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["deepseek-llm"],
        patterns: &[
            plain(r"[\r\n]"),
            plain(DEEPSEEK_LETTERS),
            plain(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            plain(r"\s+$"),
            plain(r"[一-龥ࠀ-一가-퟿]+"),
            plain(r"\p{N}+"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["deepseek-coder"],
        patterns: &[
            plain(r"[\r\n]"),
            plain(r"\s?\p{L}+"),
            plain(r"\s?\p{P}+"),
            plain(r"[一-龥ࠀ-一가-퟿]+"),
            plain(r"\p{N}"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm"],
        patterns: &[plain(r"\p{N}{1,3}"), plain(r"[一-龥぀-ゟ゠-ヿ]+"), DEEPSEEK3_WORDS],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["seed-coder"],
        patterns: &[words(concat!(
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|",
            r"\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+",
        ))],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["bailingmoe", "bailingmoe2", "llada-moe"],
        patterns: &[words(concat!(
            r"'(?:[sSdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])|[^\r\n\p{L}\p{N}]?\p{L}+|",
            r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]",
        ))],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["exaone-moe"],
        patterns: &[words(concat!(
            r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|",
            r"[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|",
            r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]",
        ))],
        ignore_merges: false,
        add_bos: false,
    },
    Family { names: &["kimi-k2"], patterns: &[KIMI], ignore_merges: false, add_bos: false },
    Family {
        names: &["superbpe"],
        patterns: &[plain(r"\p{N}+"), Pattern::Threes],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["poro-chat", "bloom", "gpt3-finnish"],
        patterns: &[plain(CLAUSES)],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["viking"],
        patterns: &[plain(CLAUSES), plain(r"\p{N}")],
        ignore_merges: false,
        add_bos: false,
    },
    Family {
        names: &["default"],
        patterns: &[
            plain(r"[\p{P}\$\+<=>\^~\|]+"),
            GPT2,
            plain(r"\p{N}+"),
            plain("[0-9][0-9][0-9]"),
        ],
        ignore_merges: false,
        add_bos: false,
    },
];
