//! A conversation to be continued, in no API's words: what every API of conversations makes of its fields,
//! and the one way from there to a [`Job`].
//!
//! It knows nothing of how the answer is written down, nor of the fields of any API but OpenAI's names of
//! what all have in common.

use super::constraint::{self, Constraint};
use super::fields::Fields;
use super::job::{self, Job, Wanted};
use super::known::{self, Place};
use super::messages::{self, Messages};
use super::stopping::{self, StopConditions};
use super::template_options::{self, TemplateOptions};
use super::{sampling, tokens};
use crate::generation::KeyId;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::ids::random;
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
    /// Takes what all APIs of conversations have in common, under OpenAI's names: an API with other names
    /// puts its fields there first. What is reported of tokens, and whether the answer is streamed, is the
    /// API's to say.
    ///
    /// # Errors
    ///
    /// 400 naming the field.
    pub fn take(
        fields: &mut Fields,
        place: Place,
        model: &ServedModel,
    ) -> Result<Conversation, ApiError> {
        known::take(fields, &[Place::Body, place])?;
        let messages = messages::take(fields)?;
        let template = template_options::take(fields, &messages, model.template.get())?;
        let sampling = sampling::take(fields, model.tokenizer.vocab_size(), random()?)?;
        let stopping = stopping::take(fields)?;
        let constraint = constraint::take(fields)?;
        let (top_logprobs, stream) = (None, false);
        Ok(Conversation {
            messages,
            template,
            sampling,
            stopping,
            top_logprobs,
            constraint,
            stream,
        })
    }

    /// Tokens of the prompt. This is work for a blocking thread.
    ///
    /// # Errors
    ///
    /// 400 if the template refuses the messages.
    pub fn prompt_tokens(self, model: &ServedModel) -> Result<usize, ApiError> {
        tokens::of_messages(model, &self.messages, self.template, u32::MAX).map(|ids| ids.len())
    }

    /// The prompt as text. This is work for a blocking thread.
    ///
    /// # Errors
    ///
    /// 400 if the template refuses the messages.
    pub fn prompt_text(self, model: &ServedModel) -> Result<String, ApiError> {
        let prompt = tokens::rendered(model, &self.messages, &self.template)?;
        Ok(prompt.text().into_owned())
    }

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
