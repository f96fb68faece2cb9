//! What metadata say under any architecture's name, supported or not: a value of another type than expected is
//! as if it were absent, since what is wrong with it is said elsewhere.

use super::report::{Rotary, Shape};
use woolly_engine::gguf::{Metadata, Value};

/// The metadata of a model of some architecture.
pub struct Keys<'a> {
    metadata: &'a Metadata,
    /// `general.architecture`.
    pub architecture: Option<&'a str>,
}

impl<'a> Keys<'a> {
    /// Those of a file.
    pub fn new(metadata: &'a Metadata) -> Keys<'a> {
        let architecture = metadata.opt_str("general.architecture").ok().flatten();
        Keys { metadata, architecture }
    }

    /// A text by its whole key.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.metadata.opt_str(key).ok().flatten()
    }

    fn name(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.unwrap_or_default())
    }

    /// A whole number of the architecture; of one for each layer, the greatest.
    pub fn number(&self, key: &str) -> Option<u64> {
        let name = self.name(key);
        match self.metadata.get(&name)? {
            Value::Array(_) => {
                let values = self.metadata.opt_i32s(&name).ok().flatten()?;
                values.iter().max().and_then(|most| u64::try_from(*most).ok())
            }
            _ => self.metadata.opt_u64(&name).ok().flatten(),
        }
    }

    fn float(&self, key: &str) -> Option<f32> {
        self.metadata.opt_f32(&self.name(key)).ok().flatten()
    }

    /// Tokens of the vocabulary.
    pub fn tokens(&self) -> Option<u64> {
        let listed = self.metadata.opt_strings("tokenizer.ggml.tokens").ok().flatten();
        listed.map(|tokens| tokens.len() as u64).or_else(|| self.number("vocab_size"))
    }

    /// Widths and heads.
    pub fn shape(&self) -> Shape {
        let (hidden, heads) =
            (self.number("embedding_length"), self.number("attention.head_count"));
        let parted = hidden.zip(heads).and_then(|(hidden, heads)| hidden.checked_div(heads));
        Shape {
            hidden,
            heads,
            kv_heads: self.number("attention.head_count_kv").or(heads),
            head_dim: self.number("attention.key_length").or(parted),
            feed_forward: self.number("feed_forward_length"),
        }
    }

    /// Rotary positions; `has_divisors` says whether the file has a tensor of them.
    pub fn rotary(&self, head_dim: Option<u64>, has_divisors: bool) -> Rotary {
        let scaling = self.text(&self.name("rope.scaling.type")).filter(|kind| *kind != "none");
        let factor = self.float("rope.scaling.factor").or_else(|| self.float("rope.scale_linear"));
        // A factor alone is linear, as in llama.cpp.
        let alone = factor.filter(|factor| *factor != 1.0).map(|_| "linear");
        Rotary {
            base: self.float("rope.freq_base"),
            base_of_windows: self.float("rope.freq_base_swa"),
            dims: self.number("rope.dimension_count").or(head_dim),
            scaling: scaling.or(alone).map(str::to_owned),
            factor,
            original_context: self.number("rope.scaling.original_context_length"),
            has_divisors,
        }
    }
}
