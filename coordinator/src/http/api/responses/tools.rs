//! `tools` and `tool_choice` of a Responses request, put into the form of chat completions.

use crate::http::error::{ApiError, quote};
use crate::http::input::fields::{Fields, array_of};
use crate::http::input::known::{self, Place};
use serde_json::{Map, Value, json};

/// Tools of a request.
const TOOLS_MAX: usize = 1024;
/// Characters of a type or a name.
const NAME_CHARS_MAX: usize = 256;

/// Puts the tools of chat completions in the place of this API's.
///
/// # Errors
///
/// 400 naming the tool and its field.
pub fn translate(fields: &mut Fields) -> Result<(), ApiError> {
    if let Some(list) = fields.take("tools") {
        let list = array_of(list, "tools", TOOLS_MAX)?.into_iter().enumerate();
        let tools: Vec<Value> = list
            .map(|(index, value)| tool(value, &format!("tools[{index}]")))
            .collect::<Result<_, _>>()?;
        fields.put("tools", tools)?;
    }
    match fields.take("tool_choice") {
        None => Ok(()),
        Some(word @ Value::String(_)) => fields.put("tool_choice", word),
        Some(value) => {
            let mut choice = Fields::of_value(value, "tool_choice")?;
            let kind = choice.string("type", NAME_CHARS_MAX)?.unwrap_or_default();
            if kind != "function" {
                let text = format!(
                    "'tool_choice' of type '{}' is not supported: give none, auto, required, or the \
                     type function with a name.",
                    quote(&kind)
                );
                return Err(ApiError::unsupported("tool_choice", text));
            }
            let name = choice.string("name", NAME_CHARS_MAX)?;
            choice.finish()?;
            fields.put("tool_choice", json!({ "type": "function", "function": { "name": name } }))
        }
    }
}

fn tool(value: Value, at: &str) -> Result<Value, ApiError> {
    let mut tool = Fields::of_value(value, at)?;
    let type_path = tool.path("type");
    let kind = tool.string("type", NAME_CHARS_MAX)?.unwrap_or_default();
    if kind != "function" {
        let text = format!(
            "A tool of type '{}' is not supported: Woolly runs no tools of its own; the type function is \
             for yours.",
            quote(&kind)
        );
        return Err(ApiError::unsupported(&type_path, text));
    }
    known::take(&mut tool, &[Place::Tool])?;
    let mut function = Map::new();
    for name in ["name", "description", "parameters", "strict"] {
        if let Some(value) = tool.take(name) {
            function.insert(name.to_owned(), value);
        }
    }
    tool.finish()?;
    Ok(json!({ "type": "function", "function": function }))
}
