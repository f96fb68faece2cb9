//! What can be wrong with a chat template, or with a conversation given to one.

use crate::gguf::GgufError;
use crate::tokenizer::TokenizerError;

/// Why a template could not be used or a conversation not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum ChatTemplateError {
    /// `tokenizer.chat_template` is not a string.
    #[error(transparent)]
    Metadata(#[from] GgufError),
    /// The search for special tokens in contents could not be built.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The source is longer than [`super::TEMPLATE_BYTES_MAX`].
    #[error("the chat template is {found} bytes long; at most {max} are supported")]
    TooLong {
        /// Bytes of the source.
        found: usize,
        /// The limit.
        max: usize,
    },
    /// The source nests too deep or has too long a tag.
    #[error("the chat template has more than {max} {what}")]
    TooDeep {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: usize,
    },
    /// The source is not a template.
    #[error("the chat template does not compile: {0}")]
    Syntax(String),
    /// The template itself refused the conversation (`raise_exception`).
    #[error("the model's chat template refuses this conversation: {0}")]
    Raised(String),
    /// The template failed on this conversation.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
    /// The template took more than [`super::FUEL`] steps.
    #[error("the model's chat template takes more than {0} steps for this conversation")]
    TooManySteps(u64),
    /// The template built a text longer than [`super::OUTPUT_BYTES_MAX`], or more than
    /// [`super::KEPT_BYTES_MAX`] in all.
    #[error(
        "the model's chat template builds too much text for this conversation: at most {text} bytes in \
         one text and {kept} in all are supported"
    )]
    TooMuchText {
        /// The limit of one text.
        text: usize,
        /// The limit of all.
        kept: usize,
    },
    /// The text is longer than [`super::OUTPUT_BYTES_MAX`].
    #[error("the rendered conversation is longer than {0} bytes")]
    OutputTooLong(usize),
    /// The messages are not what a template can read.
    #[error("{0}")]
    Messages(String),
    /// A variable of the template that only the gateway may set.
    #[error("'{0}' cannot be set in chat_template_kwargs: it is set from the request")]
    Reserved(String),
    /// The last message is to be continued, and the template does not show its text.
    #[error("the model's chat template does not show the last message, so it cannot be continued")]
    NotContinued,
    /// The input uses up the characters that protect it.
    #[error("the conversation contains too many different private-use characters from U+F0000 on")]
    NoMark,
    /// No thread could be started to work in.
    #[error("cannot start a thread for the chat template: {0}")]
    Thread(std::io::Error),
}
