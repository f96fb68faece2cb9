//! The chat template that conversations are written with: the model's own or the operator's, or the
//! reason why there is none. A model without one still completes texts.

use crate::exit::Fatal;
use anyhow::Context;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use woolly_engine::chat_template::{ChatTemplate, TEMPLATE_BYTES_MAX};
use woolly_engine::gguf::Metadata;
use woolly_engine::tokenizer::Tokenizer;

/// A template, or why there is none.
#[derive(Clone, Debug)]
pub enum Template {
    /// It compiles.
    Ready(Arc<ChatTemplate>),
    /// The model brings none, and its vocabulary is not one whose template is known.
    Missing,
    /// The model's own cannot be used.
    Broken {
        /// Why, without an end of sentence.
        cause: String,
    },
}

impl Template {
    /// The template of a model. One that cannot be used is a warning: completions do without.
    pub fn of_model(metadata: &Metadata, tokenizer: &Tokenizer) -> Template {
        match ChatTemplate::from_metadata(metadata, tokenizer) {
            Ok(Some(template)) => Template::Ready(Arc::new(template)),
            Ok(None) => Template::Missing,
            Err(error) => {
                tracing::warn!(
                    "the model's chat template cannot be used: {error}. Conversations are refused; \
                     --chat-template-file gives another template"
                );
                Template::Broken { cause: error.to_string() }
            }
        }
    }

    /// The template in a file that the operator names.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`]: the file cannot be read, is too long, not UTF-8, or does not compile.
    pub fn of_file(path: &Path, tokenizer: &Tokenizer) -> Result<Template, Fatal> {
        let read = || {
            let mut text = String::new();
            let limit = TEMPLATE_BYTES_MAX as u64 + 1;
            File::open(path)?.take(limit).read_to_string(&mut text)?;
            Ok::<_, std::io::Error>(text)
        };
        let shown = path.display();
        let text = read()
            .with_context(|| format!("cannot read the chat template {shown}"))
            .map_err(Fatal::Usage)?;
        let template = ChatTemplate::from_source(&text, tokenizer)
            .with_context(|| format!("the chat template {shown} cannot be used"))
            .map_err(Fatal::Usage)?;
        Ok(Template::Ready(Arc::new(template)))
    }

    /// The template, if there is one.
    pub fn get(&self) -> Option<&ChatTemplate> {
        match self {
            Template::Ready(template) => Some(template),
            Template::Missing | Template::Broken { .. } => None,
        }
    }
}
