//! What a chat request says to the model's template: its variables, whether the assistant's turn
//! begins, and whether the last message is continued.
//!
//! A variable that the template does not read cannot be honoured, so it is refused, unless it asks
//! for something to be off: a template that knows no thinking does not think.

use super::fields::{Fields, expected};
use super::messages::Messages;
use super::thinking;
use crate::chat_formats::{Reasoning, shows_thinking};
use crate::http::error::{ApiError, quote};
use crate::http::ids::unix_seconds;
use serde_json::{Map, Value};
use woolly_engine::chat_template::ChatTemplate;

/// Names that an error lists.
const NAMES_SHOWN: usize = 16;
/// Characters of a word such as `low`.
const WORD_CHARS_MAX: usize = 32;

/// What a template is told besides the messages.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TemplateOptions {
    /// Variables that the template reads.
    pub variables: Map<String, Value>,
    /// Where what the model thinks goes.
    pub reasoning: Reasoning,
    /// End with the beginning of the assistant's turn.
    pub add_generation_prompt: bool,
    /// End where the last message's text ends.
    pub continue_final: bool,
    /// The time that it is told.
    pub unix_seconds: u64,
}

/// Takes the fields for the template.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(
    fields: &mut Fields,
    messages: &Messages,
    template: Option<&ChatTemplate>,
) -> Result<TemplateOptions, ApiError> {
    let reads = |name: &str| template.is_some_and(|t| t.variables().any(|read| read == name));
    let mut variables = kwargs(fields, template, &reads)?;
    let thinks = template.is_some_and(|template| shows_thinking(template.source()));
    let can = thinking::Can { reads: &reads, thinks };
    let reasoning = thinking::take(fields, &mut variables, &can)?;
    if let Some(level) = fields.string("verbosity", WORD_CHARS_MAX)?.filter(|_| reads("verbosity"))
    {
        variables.entry("verbosity").or_insert(level.into());
    }
    let begin = fields.bool("add_generation_prompt")?;
    let asked = fields.bool("continue_final_message")?.unwrap_or(false);
    let continue_final = asked || messages.prefix;
    if !continue_final {
        let add_generation_prompt = begin.unwrap_or(true);
        return Ok(TemplateOptions {
            variables,
            reasoning,
            add_generation_prompt,
            continue_final,
            unix_seconds: unix_seconds(),
        });
    }
    let name = if asked { "continue_final_message" } else { "messages" };
    if begin == Some(true) {
        let text = "'continue_final_message' continues the last message, and \
                    'add_generation_prompt' begins a new one: set one of them to true.";
        return Err(ApiError::invalid("add_generation_prompt", text));
    }
    if !messages.end_with_assistant() {
        let text = "Only a last message of the role assistant, with some text, can be continued.";
        return Err(ApiError::invalid(name, text));
    }
    Ok(TemplateOptions {
        variables,
        reasoning,
        add_generation_prompt: false,
        continue_final,
        unix_seconds: unix_seconds(),
    })
}

/// `chat_template_kwargs`.
fn kwargs(
    fields: &mut Fields,
    template: Option<&ChatTemplate>,
    reads: &impl Fn(&str) -> bool,
) -> Result<Map<String, Value>, ApiError> {
    const NAME: &str = "chat_template_kwargs";
    let given = match fields.take(NAME) {
        None => return Ok(Map::new()),
        Some(Value::Object(given)) => given,
        Some(other) => return Err(expected(NAME, "an object", &other)),
    };
    let mut variables = Map::new();
    for (name, value) in given {
        if reads(&name) {
            variables.insert(name, value);
        } else if !is_off(&value) {
            let read = template.into_iter().flat_map(ChatTemplate::variables).take(NAMES_SHOWN);
            let read = read.collect::<Vec<_>>().join(", ");
            let name = quote(&name);
            let text = format!(
                "The model's chat template has no variable '{name}' that a request could set; it \
                 reads: {read}."
            );
            return Err(ApiError::unsupported(NAME, text));
        }
    }
    Ok(variables)
}

/// Whether a value asks for nothing: what a template does that never heard of the variable.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::input::messages;
    use crate::http::tests::support::metadata;
    use serde_json::json;
    use woolly_engine::tokenizer::Tokenizer;

    const QWEN: &str = "{% for m in messages %}{{ m.content }}{% endfor %}\
                        {% if enable_thinking is defined and enable_thinking is false %}-{% endif %}";
    const PLAIN: &str = "{% for m in messages %}{{ m.content }}{% endfor %}";

    fn options(template: &str, body: Value) -> Result<TemplateOptions, ApiError> {
        let tokenizer = Tokenizer::from_metadata(&metadata()).unwrap();
        let template = ChatTemplate::from_source(template, &tokenizer).unwrap();
        let mut body = body;
        if body.get("messages").is_none() {
            body["messages"] = json!([{"role": "user", "content": "hi"}]);
        }
        let mut fields = Fields::of_body(body)?;
        let messages = messages::take(&mut fields)?;
        let options = take(&mut fields, &messages, Some(&template))?;
        fields.finish()?;
        Ok(options)
    }

    fn variables(template: &str, body: Value) -> Value {
        options(template, body).unwrap().variables.into()
    }

    #[test]
    fn what_the_template_reads_is_set() {
        let off = json!({"enable_thinking": false});
        assert_eq!(variables(QWEN, json!({ "chat_template_kwargs": off })), off);
        assert_eq!(variables(QWEN, json!({"think": false})), off);
        assert_eq!(variables(QWEN, json!({"reasoning_effort": "none"})), off);
        assert_eq!(variables(QWEN, json!({"think": true})), json!({"enable_thinking": true}));
        let both = json!({"think": true, "chat_template_kwargs": off});
        assert_eq!(variables(QWEN, both), off);
    }

    #[test]
    fn what_it_does_not_read_may_be_off_only() {
        for harmless in [
            json!({"chat_template_kwargs": {"enable_thinking": false, "x": null}}),
            json!({"think": false}),
            json!({"reasoning_effort": "none"}),
            json!({"verbosity": "low"}),
        ] {
            assert_eq!(variables(PLAIN, harmless), json!({}));
        }
        for (body, param) in [
            (json!({"chat_template_kwargs": {"enable_thinking": true}}), "chat_template_kwargs"),
            (json!({"chat_template_kwargs": {"messages": []}}), ""),
            (json!({"chat_template_kwargs": {"messages": [1]}}), "chat_template_kwargs"),
            (json!({"think": true}), "think"),
            (json!({"reasoning_effort": "high"}), "reasoning_effort"),
        ] {
            match options(PLAIN, body.clone()) {
                Ok(_) => assert_eq!(param, "", "{body}"),
                Err(error) => assert_eq!(error.body()["error"]["param"], json!(param), "{body}"),
            }
        }
    }

    #[test]
    fn a_message_is_continued_only_if_it_can_be() {
        let user = json!({"role": "user", "content": "hi"});
        let said = json!({"role": "assistant", "content": "The"});
        let prefix = json!({"role": "assistant", "content": "The", "prefix": true});
        let continues =
            |body: Value| options(PLAIN, body).map(|o| (o.continue_final, o.add_generation_prompt));
        let both = json!([user, said]);
        assert_eq!(continues(json!({"messages": both})), Ok((false, true)));
        for body in [
            json!({"messages": both, "continue_final_message": true, "add_generation_prompt": false}),
            json!({"messages": both, "continue_final_message": true}),
            json!({"messages": [user, prefix]}),
        ] {
            assert_eq!(continues(body), Ok((true, false)));
        }
        assert_eq!(continues(json!({"add_generation_prompt": false})), Ok((false, false)));
        let contradiction = json!({"messages": both, "continue_final_message": true, "add_generation_prompt": true});
        assert!(continues(contradiction).is_err());
        assert!(continues(json!({"messages": [user], "continue_final_message": true})).is_err());
    }
}
