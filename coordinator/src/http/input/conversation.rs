//! A conversation to be continued, in no API's words: what every API of conversations makes of its fields,
//! and the one way from there to a [`Job`].
//!
//! It knows nothing of how the answer is written down, nor of the fields of any API but OpenAI's names of
//! what all have in common.

use super::choices::{self, ChoiceOptions};
use super::constraint::{self, Constraint};
use super::fields::Fields;
use super::job::{self, Job, Wanted};
use super::known::{self, Place};
use super::messages::{self, Messages};
use super::stopping::{self, StopConditions};
use super::template_options::{self, TemplateOptions};
use super::tools;
use super::{sampling, tokens};
use crate::chat_formats::Tools;
use crate::generation::KeyId;
use crate::http::error::ApiError;
use crate::http::gateway::Gateway;
use crate::http::ids::Identity;
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
    /// Tools that the model may call.
    pub tools: Option<Tools>,
    /// How tokens are chosen.
    pub sampling: SamplingOptions,
    /// When the answer ends.
    pub stopping: StopConditions,
    /// How many answers there are.
    pub choices: ChoiceOptions,
    /// Alternatives to report per token; `None` reports no log-probability.
    pub top_logprobs: Option<u8>,
    /// What the answer has to be; `None` leaves it to the model.
    pub constraint: Option<Constraint>,
    /// What else there is of chance and clock.
    pub identity: Identity,
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
        identity: Identity,
    ) -> Result<Conversation, ApiError> {
        known::take(fields, &[Place::Body, place])?;
        let messages = messages::take(fields)?;
        let mut template = template_options::take(fields, &messages, model.template.get())?;
        template.unix_seconds = identity.created;
        let tools = tools::take(fields)?;
        let vocab = model.tokenizer.vocab_size();
        let sampling = sampling::take(fields, vocab, identity.seed)?;
        let stopping = stopping::take(fields, vocab)?;
        let choices = choices::take(fields, &model.tokenizer)?;
        let constraint = constraint::take(fields)?;
        let (top_logprobs, stream) = (None, false);
        Ok(Conversation {
            messages,
            template,
            tools,
            sampling,
            stopping,
            choices,
            top_logprobs,
            constraint,
            identity,
            stream,
        })
    }

    /// Tokens of the prompt. This is work for a blocking thread.
    ///
    /// # Errors
    ///
    /// 400 if the template refuses the messages.
    pub fn prompt_tokens(self, model: &ServedModel) -> Result<usize, ApiError> {
        let tools = self.tools.as_ref();
        let rendered = tokens::of_messages(model, &self.messages, self.template, tools, u32::MAX)?;
        Ok(rendered.tokens.len())
    }

    /// The prompt as text. This is work for a blocking thread.
    ///
    /// # Errors
    ///
    /// 400 if the template refuses the messages.
    pub fn prompt_text(self, model: &ServedModel) -> Result<String, ApiError> {
        let prompt = tokens::rendered(model, &self.messages, &self.template, self.tools.as_ref())?;
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
        job::check_places(gateway, "n", self.choices.count as usize)?;
        let ctx = job::context(gateway, &model)?;
        let tools = self.tools.map(Arc::new);
        let becomes_a_part = tools.is_some() || model.format.grammar_has_thinking();
        if let Some(given) = self.constraint.as_ref().filter(|_| becomes_a_part) {
            // What is wrong with it is said as if it stood alone.
            given.compile(&model, None)?;
        }
        let (constraint, is_of_calls) =
            Constraint::with_calls(self.constraint, &model.format, tools.as_deref())?;
        let encoded = tokens::of_conversation(&model, &self.messages, self.template, tools, ctx)?;
        let guided = match constraint {
            None => None,
            Some(asked) if is_of_calls && model.format.grammar_has_thinking() => {
                Some(asked.compile(&model, None)?)
            }
            Some(asked) => {
                let thinks = encoded.reading.as_ref().is_some_and(|r| r.thinks_at_start);
                let (asked, thinking) = asked.after_thinking(&model.format, thinks)?;
                Some(asked.compile(&model, thinking)?)
            }
        };
        let seed = self.sampling.seed;
        let wanted = Wanted {
            sampling: self.sampling,
            stopping: self.stopping,
            choices: self.choices,
            max_tokens_default: ctx,
            top_logprobs: self.top_logprobs,
            score_prompt: false,
            guided,
            key,
            identity: self.identity,
        };
        let choices = wanted.choices(gateway, &model, 0, encoded, ctx)?;
        Ok(Job { model, choices, stream: self.stream, seed })
    }
}
