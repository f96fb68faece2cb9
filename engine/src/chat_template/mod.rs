//! Chat templates: a conversation to the text that a model was trained to continue.
//!
//! A template is a small program (Jinja) in the model file. It runs within limits: of its source
//! ([`TEMPLATE_BYTES_MAX`], [`scan`]), of its steps ([`FUEL`]), of its recursion, of its output
//! ([`OUTPUT_BYTES_MAX`]), of the texts that it builds ([`bounds`]), and on a thread whose stack holds
//! whatever those allow. It reads no file and sees nothing but the conversation.
//!
//! Contents of messages cannot take a role: [`ChatTemplate::prompt`] and
//! [`Tokenizer::encode_chat`] encode control tokens in them as text.
//!
//! A model without a template gets ChatML if its vocabulary has `<|im_start|>`. Otherwise there is
//! none, and [`NO_TEMPLATE`] says what to do.

pub mod bounds;
mod continuation;
mod error;
mod family;
mod lexical;
mod messages;
mod python;
mod rewrite;
pub mod scan;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, ErrorKind};
use serde_json::Value as Json;

pub use bounds::KEPT_BYTES_MAX;
pub use error::ChatTemplateError;
pub use family::family;
pub use messages::MESSAGES_MAX;

use crate::gguf::Metadata;
use crate::tokenizer::{ChatPrompt, Marker, Tokenizer};
use messages::ContentForm;

/// Longest source of a template, in bytes.
pub const TEMPLATE_BYTES_MAX: usize = 1 << 20;
/// Longest text that a template may put out, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 4 << 20;
/// Steps that one rendering may take.
pub const FUEL: u64 = 500_000;
/// Depth of calls in a template; a macro costs 4.
pub const RECURSION_MAX: usize = 200;
/// Stack of the thread that compiles and renders.
const STACK_BYTES: usize = 256 << 20;

/// What to tell a client when a model has no template.
pub const NO_TEMPLATE: &str = "this model has no chat template and its vocabulary is not ChatML's: \
                               use /v1/completions, or start the coordinator with \
                               --chat-template-file";

/// The template of models whose vocabulary is ChatML's and that bring none.
const CHATML: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + \
                      message['content'] + '<|im_end|>' + '\n' }}{% endfor %}\
                      {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/// Variables that come from the request itself.
const RESERVED: [&str; 7] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    python::NOW,
];

/// What a template is given besides the messages.
#[derive(Debug, Clone, Default)]
pub struct RenderOptions<'a> {
    /// Tools the model may call, as the client sent them. Undefined in the template if absent.
    pub tools: Option<&'a Json>,
    /// Documents to answer from. Undefined in the template if absent.
    pub documents: Option<&'a Json>,
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// End where the text of the last message ends, so that it is continued and not answered. Only
    /// [`ChatTemplate::prompt`] does so; `add_generation_prompt` must be off.
    pub continue_final: bool,
    /// Further variables (`chat_template_kwargs`).
    pub variables: Option<&'a serde_json::Map<String, Json>>,
    /// The time for `strftime_now`, in seconds since 1970.
    pub unix_seconds: i64,
}

/// A compiled template with what it needs of the model's vocabulary.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    source: String,
    has_tool_template: bool,
    content: ContentForm,
    marker: Marker,
    bos: String,
    eos: String,
    /// What the templates read and do not set themselves.
    variables: BTreeSet<String>,
}

/// Names of the templates in the environment.
const MAIN: &str = "chat_template";
const WITH_TOOLS: &str = "chat_template.tool_use";

impl ChatTemplate {
    /// The template of a model: its own, or ChatML if it has none but the vocabulary for it.
    /// `None`: conversations are not possible, answer with [`NO_TEMPLATE`].
    ///
    /// # Errors
    /// The template breaks a limit or does not compile. The model can still be used for
    /// completions.
    pub fn from_metadata(
        metadata: &Metadata,
        tokenizer: &Tokenizer,
    ) -> Result<Option<ChatTemplate>, ChatTemplateError> {
        let tools = metadata.opt_str("tokenizer.chat_template.tool_use")?;
        match metadata.opt_str("tokenizer.chat_template")? {
            Some(source) => ChatTemplate::compile(source, tools, tokenizer).map(Some),
            None if tokenizer.special_token("<|im_start|>").is_some() => {
                tracing::warn!("the model file has no chat template: using ChatML");
                ChatTemplate::compile(CHATML, None, tokenizer).map(Some)
            }
            None => Ok(None),
        }
    }

    /// A template that the operator gives instead of the model's.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_metadata`].
    pub fn from_source(
        source: &str,
        tokenizer: &Tokenizer,
    ) -> Result<ChatTemplate, ChatTemplateError> {
        ChatTemplate::compile(source, None, tokenizer)
    }

    fn compile(
        source: &str,
        with_tools: Option<&str>,
        tokenizer: &Tokenizer,
    ) -> Result<ChatTemplate, ChatTemplateError> {
        let mut sources = vec![(MAIN, checked(source)?)];
        if let Some(source) = with_tools {
            sources.push((WITH_TOOLS, checked(source)?));
        }
        let (environment, variables) = on_large_stack(move || {
            let environment = environment(sources)?;
            let variables = variables(&environment);
            Ok::<_, ChatTemplateError>((environment, variables))
        })??;
        let text = |id: Option<u32>| id.map(|id| tokenizer.token_text(id)).unwrap_or_default();
        let mut template = ChatTemplate {
            environment,
            source: source.to_owned(),
            has_tool_template: with_tools.is_some(),
            content: ContentForm::Text,
            marker: Marker::new(tokenizer)?,
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
            variables,
        };
        template.content = template.probe_content();
        Ok(template)
    }

    /// The source as it was given.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether the template does something with tools. One that does not would drop them silently.
    pub fn uses_tools(&self) -> bool {
        self.has_tool_template || self.source.contains("tools")
    }

    /// The variables that a request may set (`chat_template_kwargs`): what the template reads, but for
    /// what is set from the request itself. Functions that it calls are among them.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let settable = |name: &&str| !RESERVED.contains(name);
        self.variables.iter().map(String::as_str).filter(settable)
    }

    /// The text of a conversation. To be tokenized safely it must come from
    /// [`ChatTemplate::prompt`].
    ///
    /// # Errors
    /// The messages are not a list of objects with text contents, the template refuses them
    /// or fails on them, or a limit is reached.
    pub fn render(
        &self,
        messages: &Json,
        options: &RenderOptions<'_>,
    ) -> Result<String, ChatTemplateError> {
        let input = self.input(messages, options)?;
        self.render_input(input)
    }

    /// The text of a conversation for [`Tokenizer::encode_chat`]: special tokens in what the
    /// client sent will be text.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`]; a last message that is to be continued and that the template does
    /// not show.
    pub fn prompt(
        &self,
        messages: &Json,
        options: &RenderOptions<'_>,
    ) -> Result<ChatPrompt, ChatTemplateError> {
        let mut input = self.input(messages, options)?;
        let mut needs_mark = false;
        input.for_each_text(&mut |text| needs_mark = needs_mark || self.marker.needs_mark(text));
        let mark = if needs_mark { Some(self.free_mark(&input)?) } else { None };
        if let Some(mark) = mark {
            input.map_texts(&|text| self.marker.mark(text, mark).into_owned());
        }
        if !options.continue_final {
            return Ok(ChatPrompt::new(self.render_input(input)?, mark));
        }
        let end = self.free_mark(&input)?;
        continuation::mark_end(&mut input.messages, end)?;
        let text = continuation::cut(self.render_input(input)?, end)?;
        Ok(ChatPrompt::new(text, mark))
    }

    /// A character that neither the template nor the input holds.
    fn free_mark(&self, input: &Input) -> Result<char, ChatTemplateError> {
        let mut texts = vec![self.source.as_str()];
        input.for_each_text(&mut |text| texts.push(text));
        self.marker.free_mark(texts.into_iter()).ok_or(ChatTemplateError::NoMark)
    }

    fn input(
        &self,
        messages: &Json,
        options: &RenderOptions<'_>,
    ) -> Result<Input, ChatTemplateError> {
        let variables = options.variables.cloned().unwrap_or_default();
        if let Some(name) = variables.keys().find(|name| RESERVED.contains(&name.as_str())) {
            return Err(ChatTemplateError::Reserved(name.clone()));
        }
        Ok(Input {
            messages: messages::prepare(messages, self.content)?,
            tools: options.tools.cloned(),
            documents: options.documents.cloned(),
            variables,
            add_generation_prompt: options.add_generation_prompt,
            unix_seconds: options.unix_seconds,
        })
    }

    /// Renders; what templates disagree about is tried one way and then the other: arguments of
    /// tool calls as objects or as texts, no tools as undefined or as an empty list.
    fn render_input(&self, input: Input) -> Result<String, ChatTemplateError> {
        let mut parsed = input.messages.clone();
        let has_arguments = messages::parse_arguments(&mut parsed);
        let parsed = Input { messages: parsed, ..input.clone() };
        let mut others = Vec::new();
        if parsed.tools.is_none() {
            others.push(Input { tools: Some(Json::Array(Vec::new())), ..parsed.clone() });
        }
        if has_arguments {
            others.push(input);
        }
        on_large_stack(|| {
            let first = self.render_once(&parsed);
            match first {
                Err(ChatTemplateError::Failed(_) | ChatTemplateError::Raised(_)) => {
                    others.iter().find_map(|input| self.render_once(input).ok()).map_or(first, Ok)
                }
                done => done,
            }
        })?
    }

    fn render_once(&self, input: &Input) -> Result<String, ChatTemplateError> {
        let name = if self.has_tool_template && input.tools.is_some() { WITH_TOOLS } else { MAIN };
        let template = self.environment.get_template(name).map_err(failed)?;
        let mut variables: BTreeMap<&str, Value> = BTreeMap::new();
        for (key, value) in &input.variables {
            variables.insert(key, Value::from(Serde(value)));
        }
        variables.insert("messages", Value::from(Serde(&input.messages)));
        for (key, value) in [("tools", &input.tools), ("documents", &input.documents)] {
            if let Some(value) = value {
                variables.insert(key, Value::from(Serde(value)));
            }
        }
        variables.insert("add_generation_prompt", input.add_generation_prompt.into());
        variables.insert("bos_token", self.bos.as_str().into());
        variables.insert("eos_token", self.eos.as_str().into());
        variables.insert(python::NOW, input.unix_seconds.into());
        let mut out = Output(Vec::new());
        bounds::begin();
        template.render_captured_to(Value::from(variables), &mut out).map_err(failed)?;
        String::from_utf8(out.0).map_err(|e| ChatTemplateError::Failed(e.to_string()))
    }

    /// Templates that read contents only as parts show nothing of a plain text.
    fn probe_content(&self) -> ContentForm {
        const PROBE: &str = "probe-of-content";
        let shows = |content: Json| {
            let input = Input {
                messages: vec![serde_json::json!({"role": "user", "content": content})],
                ..Input::default()
            };
            self.render_input(input)
                .is_ok_and(|text| text.contains(PROBE) && !text.contains("'type'"))
        };
        let parts = serde_json::json!([{"type": "text", "text": PROBE}]);
        if !shows(PROBE.into()) && shows(parts) { ContentForm::Parts } else { ContentForm::Text }
    }
}

/// Everything a template is given.
#[derive(Debug, Clone, Default)]
struct Input {
    messages: Vec<Json>,
    tools: Option<Json>,
    documents: Option<Json>,
    variables: serde_json::Map<String, Json>,
    add_generation_prompt: bool,
    unix_seconds: i64,
}

impl Input {
    fn for_each_text<'a>(&'a self, visit: &mut dyn FnMut(&'a str)) {
        let values = self.messages.iter().chain(&self.tools).chain(&self.documents);
        values.chain(self.variables.values()).for_each(|v| messages::for_each_text(v, visit));
    }

    fn map_texts(&mut self, map: &dyn Fn(&str) -> String) {
        let values = self.messages.iter_mut().chain(&mut self.tools).chain(&mut self.documents);
        values
            .chain(self.variables.values_mut())
            .for_each(|value| *value = messages::map_texts(value, map));
    }
}

/// Takes a text up to [`OUTPUT_BYTES_MAX`].
struct Output(Vec<u8>);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn checked(source: &str) -> Result<String, ChatTemplateError> {
    if source.len() > TEMPLATE_BYTES_MAX {
        return Err(ChatTemplateError::TooLong { found: source.len(), max: TEMPLATE_BYTES_MAX });
    }
    scan::scan(source)
}

fn environment(
    sources: Vec<(&'static str, String)>,
) -> Result<Environment<'static>, ChatTemplateError> {
    let syntax = |e: minijinja::Error| ChatTemplateError::Syntax(e.to_string());
    let mut environment = Environment::new();
    environment.set_syntax(
        SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(syntax)?,
    );
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.set_debug(false);
    bounds::install(&mut environment);
    environment.add_filter("tojson", python::tojson);
    environment.add_function("raise_exception", python::raise_exception);
    environment.add_function("strftime_now", python::strftime_now);
    for (name, source) in sources {
        environment.add_template_owned(name, source).map_err(syntax)?;
    }
    Ok(environment)
}

fn variables(environment: &Environment<'_>) -> BTreeSet<String> {
    environment.templates().flat_map(|(_, template)| template.undeclared_variables(false)).collect()
}

/// Runs `work` on a thread of its own, whose stack holds the deepest recursion that the limits
/// allow: the caller's may be small. Memory of the stack is taken only as it is used.
fn on_large_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, ChatTemplateError> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("chat-template".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map_err(ChatTemplateError::Thread)?;
        thread
            .join()
            .map_err(|_| ChatTemplateError::Failed("the template engine panicked".to_owned()))
    })
}

/// The error of a rendering in our words.
fn failed(error: minijinja::Error) -> ChatTemplateError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(raised) = cause.downcast_ref::<python::Raised>() {
            return ChatTemplateError::Raised(raised.0.clone());
        }
        let cause_kind = cause.downcast_ref::<minijinja::Error>().map(minijinja::Error::kind);
        let is_full = cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::FileTooLarge);
        if is_full {
            return ChatTemplateError::OutputTooLong(OUTPUT_BYTES_MAX);
        }
        if cause.is::<bounds::TooMuch>() {
            let (text, kept) = (OUTPUT_BYTES_MAX, KEPT_BYTES_MAX);
            return ChatTemplateError::TooMuchText { text, kept };
        }
        if cause_kind == Some(ErrorKind::OutOfFuel) {
            return ChatTemplateError::TooManySteps(FUEL);
        }
        source = cause.source();
    }
    ChatTemplateError::Failed(error.to_string())
}
