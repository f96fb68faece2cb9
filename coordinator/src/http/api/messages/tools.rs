//! `tools` and `tool_choice` of an Anthropic request, put into the form of OpenAI's.

use crate::http::error::{ApiError, quote};
use crate::http::input::fields::{Fields, array_of};
use crate::http::input::known::{self, Place};
use serde_json::{Value, json};

/// Tools of a request.
const TOOLS_MAX: usize = 1024;
/// Characters of a type or a name.
const NAME_CHARS_MAX: usize = 256;
/// Characters of a description: more than a body can hold.
const TEXT_CHARS_MAX: usize = usize::MAX;

/// Puts OpenAI's `tools`, `tool_choice` and `parallel_tool_calls` in the place of Anthropic's fields.
///
/// # Errors
///
/// 400 naming the tool and its field.
pub fn translate(fields: &mut Fields) -> Result<(), ApiError> {
    if let Some(list) = fields.take("tools") {
        let list = array_of(list, "tools", TOOLS_MAX)?;
        let tools = list.into_iter().enumerate();
        let tools: Vec<Value> = tools
            .map(|(index, value)| tool(value, &format!("tools[{index}]")))
            .collect::<Result<_, _>>()?;
        fields.put("tools", tools)?;
    }
    if let Some(choice) = fields.take("tool_choice") {
        choose(fields, choice)?;
    }
    Ok(())
}

fn tool(value: Value, at: &str) -> Result<Value, ApiError> {
    let mut tool = Fields::of_value(value, at)?;
    let type_path = tool.path("type");
    let kind = tool.string("type", NAME_CHARS_MAX)?;
    if let Some(kind) = kind.filter(|kind| kind != "custom") {
        let kind = quote(&kind);
        let text = format!(
            "A tool of type '{kind}' is not supported: Woolly runs no tools of its own; give its name, \
             description and input_schema as a tool of type custom."
        );
        return Err(ApiError::unsupported(&type_path, text));
    }
    known::take(&mut tool, &[Place::Tool])?;
    let name = tool.required("name", NAME_CHARS_MAX)?;
    let mut function = json!({ "name": name });
    if let Some(description) = tool.string("description", TEXT_CHARS_MAX)? {
        function["description"] = description.into();
    }
    if let Some(schema) = tool.take("input_schema") {
        function["parameters"] = schema;
    }
    if let Some(strict) = tool.bool("strict")? {
        function["strict"] = strict.into();
    }
    tool.finish()?;
    Ok(json!({ "type": "function", "function": function }))
}

fn choose(fields: &mut Fields, choice: Value) -> Result<(), ApiError> {
    let mut choice = Fields::of_value(choice, "tool_choice")?;
    let kind = choice.string("type", NAME_CHARS_MAX)?.unwrap_or_default();
    let name = choice.string("name", NAME_CHARS_MAX)?;
    let one_at_a_time = choice.bool("disable_parallel_tool_use")?;
    choice.finish()?;
    let choice: Value = match (kind.as_str(), name) {
        ("auto", None) => "auto".into(),
        ("any", None) => "required".into(),
        ("none", None) => "none".into(),
        ("tool", Some(name)) => json!({ "type": "function", "function": { "name": name } }),
        _ => {
            let text = "'tool_choice' must have the type auto, any or none, or tool with a name.";
            return Err(ApiError::invalid("tool_choice", text));
        }
    };
    fields.put("tool_choice", choice)?;
    match one_at_a_time {
        Some(one) => fields.put("parallel_tool_calls", !one),
        None => Ok(()),
    }
}
