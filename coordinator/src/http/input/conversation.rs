//! A conversation to be continued, in no API's words: what every API of conversations makes of its fields,
//! and the one way from there to a [`Job`].
//!
//! It knows nothing of the fields that a client wrote, or of how the answer is written down.

use super::constraint::Constraint;
use super::job::{self, Job, Wanted};
use super::messages::Messages;
use super::stopping::StopConditions;
use super::template_options::TemplateOptions;
use super::tokens;
use crate::generation::KeyId;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::models::ServedModel;
use std::sync::Arc;
use woolly_protocol::sampling::SamplingOptions;

/// What a conversation asks for; every field is checked.
#[derive(Debug)]
pub struct Conversation {
    /// What was said.
    pub messages: Messages,
    /// What the model's template is told besides.
    pub template: TemplateOptions,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// When the answer ends.
    pub stopping: StopConditions,
    /// Alternatives to report per token; `None` reports no log-probability.
    pub top_logprobs: Option<u8>,
    /// What the answer has to be; `None` leaves it to the model.
    pub constraint: Option<Constraint>,
    /// Stream the answer.
    pub stream: bool,
}

impl Conversation {
    /// What is to be generated. This is work for a blocking thread.
    ///
    /// # Errors
    ///
    /// 400 if the template refuses the messages or makes no tokens of them, or they do not fit the
    /// context; 503 while there is no plan.
    pub fn job(
        self,
        gateway: &Gateway,
        model: Arc<ServedModel>,
        key: KeyId,
    ) -> Result<Job, ApiError> {
        self.stopping.check_not_zero()?;
        let ctx = job::context(gateway, &model)?;
        let encoded = tokens::of_conversation(&model, &self.messages, self.template, ctx)?;
        let guided = self.constraint.map(|asked| asked.compile(&model, None)).transpose()?;
        let seed = self.sampling.seed;
        let wanted = Wanted {
            sampling: self.sampling,
            stopping: self.stopping,
            max_tokens_default: ctx,
            top_logprobs: self.top_logprobs,
            score_prompt: false,
            guided,
            key,
        };
        let choices = vec![wanted.choice(gateway, &model, 0, encoded, ctx)?];
        Ok(Job { model, choices, stream: self.stream, seed })
    }
}
