//! The fields that say which tools a model may call, in OpenAI's words.
//!
//! # Limits
//!
//! 128 tools; names of 64 letters, digits, `_` and `-`; a schema of 64 KiB and 32 levels, a description of
//! 16,384 characters. An empty list is no tools, whatever is said of their choice.

use super::fields::{Fields, array_of, expected, string_of};
use crate::chat_formats::{Tool, ToolChoice, Tools};
use crate::http::error::{ApiError, quote};
use serde_json::{Value, json};

/// Tools of a request.
pub const TOOLS_MAX: usize = 128;
/// Characters of a tool's name.
pub const NAME_CHARS_MAX: usize = 64;
/// Characters of its description.
const DESCRIPTION_CHARS_MAX: usize = 16_384;
/// Bytes of its schema, written compactly.
const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Objects and arrays of its schema inside one another.
const SCHEMA_DEPTH_MAX: usize = 32;

/// Takes the tools, and what is said of them; `None` if there are none.
///
/// # Errors
///
/// 400 naming the field.
pub fn take(fields: &mut Fields) -> Result<Option<Tools>, ApiError> {
    let given = fields.take("tools");
    let is_empty_list = given.as_ref().is_some_and(|value| *value == json!([]));
    let list = match given {
        Some(value) => list_of(value)?,
        None => Vec::new(),
    };
    let parallel = fields.bool("parallel_tool_calls")?.unwrap_or(true);
    if is_empty_list {
        // With no tools any choice among them is the same.
        fields.take("tool_choice");
        return Ok(None);
    }
    let choice = choice(fields, &list)?;
    // Who names one function wants one call of it, as with OpenAI.
    let parallel = parallel && !matches!(choice, ToolChoice::Named(_));
    Ok((!list.is_empty()).then(|| Tools { list: list.into(), choice, parallel }))
}

fn list_of(value: Value) -> Result<Vec<Tool>, ApiError> {
    let items = array_of(value, "tools", TOOLS_MAX)?;
    let mut tools: Vec<Tool> = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let at = format!("tools[{index}]");
        let tool = tool(item, &at)?;
        if tools.iter().any(|other| other.name == tool.name) {
            let path = format!("{at}.function.name");
            let text = format!("Two tools have the name '{}'.", tool.name);
            return Err(ApiError::invalid(&path, text));
        }
        tools.push(tool);
    }
    Ok(tools)
}

fn tool(value: Value, at: &str) -> Result<Tool, ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let type_path = fields.path("type");
    match fields.string("type", NAME_CHARS_MAX)?.as_deref() {
        Some("function") | None => {}
        Some(other) => {
            let text = format!(
                "Tools of type '{}' are not supported: only functions, which the client runs.",
                quote(other)
            );
            return Err(ApiError::unsupported(&type_path, text));
        }
    }
    // A hint for caches that are not here.
    fields.take("cache_control");
    let path = fields.path("function");
    let Some(function) = fields.take("function") else {
        return Err(ApiError::invalid(&path, format!("'{path}' is missing.")));
    };
    fields.finish()?;
    let template = json!({"type": "function", "function": function.clone()});
    let mut function = Fields::of_value(function, &path)?;
    let name_path = function.path("name");
    let Some(name) = function.string("name", usize::MAX)? else {
        return Err(ApiError::invalid(&name_path, format!("'{name_path}' is missing.")));
    };
    check_name(&name_path, &name)?;
    function.string("description", DESCRIPTION_CHARS_MAX)?;
    let strict = function.bool("strict")?.unwrap_or(false);
    let parameters = parameters(&mut function)?;
    function.finish()?;
    Ok(Tool { name, parameters, strict, template: without_nulls(template) })
}

/// A template writes what it is given: fields that say nothing are left out.
fn without_nulls(mut template: Value) -> Value {
    if let Some(function) = template["function"].as_object_mut() {
        function.retain(|name, value| !value.is_null() && name != "strict");
    }
    template
}

fn check_name(at: &str, name: &str) -> Result<(), ApiError> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if (1..=NAME_CHARS_MAX).contains(&name.len()) && name.chars().all(is_plain) {
        return Ok(());
    }
    let wanted = format!("1 to {NAME_CHARS_MAX} letters, digits, '_' and '-'");
    Err(expected(at, &wanted, &Value::from(name)))
}

/// The schema of the arguments; without one there are none.
fn parameters(function: &mut Fields) -> Result<Value, ApiError> {
    let path = function.path("parameters");
    let Some(value) = function.take("parameters") else {
        return Ok(json!({"type": "object", "properties": {}}));
    };
    let Some(object) = value.as_object() else {
        return Err(expected(&path, "a JSON Schema, an object", &value));
    };
    match object.get("type") {
        None | Some(Value::Null) => {}
        Some(kind) if kind == "object" => {}
        Some(kind) => return Err(expected(&format!("{path}.type"), "\"object\"", kind)),
    }
    if depth(&value) > SCHEMA_DEPTH_MAX {
        let text = format!("'{path}' is nested deeper than {SCHEMA_DEPTH_MAX} levels.");
        return Err(ApiError::invalid(&path, text));
    }
    let bytes = value.to_string().len();
    if bytes > SCHEMA_BYTES_MAX {
        let text = format!("'{path}' takes {bytes} bytes; at most {SCHEMA_BYTES_MAX} are allowed.");
        return Err(ApiError::invalid(&path, text));
    }
    Ok(value)
}

/// Objects and arrays inside one another; a body is nested less than the stack is deep.
fn depth(value: &Value) -> usize {
    let inner = match value {
        Value::Object(fields) => fields.values().map(depth).max(),
        Value::Array(items) => items.iter().map(depth).max(),
        _ => return 0,
    };
    1 + inner.unwrap_or(0)
}

fn choice(fields: &mut Fields, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    const NAME: &str = "tool_choice";
    const WANTED: &str =
        "\"none\", \"auto\", \"required\" or {\"type\": \"function\", \"function\": {\"name\": …}}";
    let choice = match fields.take(NAME) {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "none" => return Ok(ToolChoice::None),
            "auto" => return Ok(ToolChoice::Auto),
            // What Mistral's clients call it.
            "required" | "any" => ToolChoice::Required,
            _ => return Err(expected(NAME, WANTED, &Value::String(word))),
        },
        Some(value @ Value::Object(_)) => ToolChoice::Named(named(value, NAME)?),
        Some(other) => return Err(expected(NAME, WANTED, &other)),
    };
    if tools.is_empty() {
        let text =
            "'tool_choice' wants a call, and there are no 'tools': give some, or leave it out.";
        return Err(ApiError::invalid(NAME, text));
    }
    match &choice {
        ToolChoice::Named(name) if !tools.iter().any(|tool| tool.name == *name) => {
            let path = format!("{NAME}.function.name");
            let text = format!("'{}' is none of the 'tools'.", quote(name));
            Err(ApiError::invalid(&path, text))
        }
        _ => Ok(choice),
    }
}

fn named(value: Value, at: &str) -> Result<String, ApiError> {
    let mut fields = Fields::of_value(value, at)?;
    let type_path = fields.path("type");
    match fields.string("type", NAME_CHARS_MAX)?.as_deref() {
        Some("function") | None => {}
        Some(other) => {
            let text = format!("'{}' is not supported: only \"function\".", quote(other));
            return Err(ApiError::unsupported(&type_path, text));
        }
    }
    let path = fields.path("function");
    let function = fields.take("function").unwrap_or(Value::Null);
    fields.finish()?;
    let mut function = Fields::of_value(function, &path)?;
    let name_path = function.path("name");
    let name = function.take("name").unwrap_or(Value::Null);
    function.finish()?;
    string_of(name, &name_path, NAME_CHARS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tools(body: Value) -> Result<Option<Tools>, ApiError> {
        let mut fields = Fields::of_body(body)?;
        let tools = take(&mut fields)?;
        fields.finish()?;
        Ok(tools)
    }

    fn function(name: &str) -> Value {
        let parameters = json!({"type": "object", "properties": {"a": {"type": "string"}}});
        json!({"type": "function", "function": {"name": name, "parameters": parameters}})
    }

    fn param(body: Value) -> String {
        let error = tools(body.clone()).expect_err(&body.to_string());
        error.body()["error"]["param"].as_str().unwrap().to_owned()
    }

    #[test]
    fn tools_and_their_choice() {
        let given = json!({"type": "function", "function": {"name": "f", "description": "Does.",
            "strict": true, "parameters": null}, "cache_control": {"type": "ephemeral"}});
        let asked = json!({"tools": [given, function("g-1")], "parallel_tool_calls": false});
        let found = tools(asked).unwrap().unwrap();
        assert_eq!((found.choice.clone(), found.parallel), (ToolChoice::Auto, false));
        let first = found.find("f").unwrap();
        assert!(first.strict && !found.find("g-1").unwrap().strict);
        assert_eq!(first.parameters, json!({"type": "object", "properties": {}}));
        let template =
            json!({"type": "function", "function": {"name": "f", "description": "Does."}});
        assert_eq!(first.template, template);
        let choice = |choice: Value| {
            tools(json!({"tools": [function("f")], "tool_choice": choice})).unwrap().unwrap().choice
        };
        assert_eq!(choice(json!("none")), ToolChoice::None);
        assert_eq!(choice(json!("required")), ToolChoice::Required);
        assert_eq!(choice(Value::Null), ToolChoice::Auto);
        let named = json!({"type": "function", "function": {"name": "f"}});
        assert_eq!(choice(named), ToolChoice::Named("f".into()));
    }

    #[test]
    fn a_function_that_is_named_is_called_once() {
        let parallel = |choice: Value| {
            let asked = json!({"tools": [function("f")], "tool_choice": choice, "parallel_tool_calls": true});
            tools(asked).unwrap().unwrap().parallel
        };
        assert!(parallel(json!("required")));
        assert!(!parallel(json!({"type": "function", "function": {"name": "f"}})));
    }

    #[test]
    fn without_tools_any_choice_among_them_is_the_same() {
        let named = json!({"type": "function", "function": {"name": "f"}});
        for choice in [json!("auto"), json!("none"), json!("required"), named.clone(), json!(null)]
        {
            assert_eq!(tools(json!({"tools": [], "tool_choice": choice})), Ok(None));
        }
        assert_eq!(tools(json!({"tool_choice": "auto", "parallel_tool_calls": true})), Ok(None));
        assert_eq!(tools(json!({"tools": null})), Ok(None));
        assert_eq!(param(json!({"tool_choice": "required"})), "tool_choice");
        assert_eq!(param(json!({ "tool_choice": named })), "tool_choice");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |name: &str, value: Value| {
            let mut tool = function("f");
            tool["function"][name] = value;
            param(json!({"tools": [tool]}))
        };
        assert_eq!(param(json!({"tools": {}})), "tools");
        assert_eq!(param(json!({"tools": ["f"]})), "tools[0]");
        assert_eq!(param(json!({"tools": [{"type": "function"}]})), "tools[0].function");
        assert_eq!(param(json!({"tools": [{"type": "web_search"}]})), "tools[0].type");
        assert_eq!(
            param(json!({"tools": [{"type": "function", "function": {}}]})),
            "tools[0].function.name"
        );
        for bad in ["", "a b", "é", &"x".repeat(65)] {
            assert_eq!(with("name", bad.into()), "tools[0].function.name");
        }
        assert_eq!(with("name", 7.into()), "tools[0].function.name");
        assert_eq!(with("description", 7.into()), "tools[0].function.description");
        assert_eq!(with("strict", "yes".into()), "tools[0].function.strict");
        assert_eq!(with("parameters", "none".into()), "tools[0].function.parameters");
        assert_eq!(
            with("parameters", json!({"type": "array"})),
            "tools[0].function.parameters.type"
        );
        assert_eq!(with("returns", json!({})), "tools[0].function.returns");
        let deep = (0..SCHEMA_DEPTH_MAX).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert_eq!(with("parameters", deep), "tools[0].function.parameters");
        let long = json!({"description": "x".repeat(SCHEMA_BYTES_MAX)});
        assert_eq!(with("parameters", long), "tools[0].function.parameters");
        let twice = json!({"tools": [function("f"), function("f")]});
        assert_eq!(param(twice), "tools[1].function.name");
        let many: Vec<Value> = (0..=TOOLS_MAX).map(|n| function(&format!("f{n}"))).collect();
        assert_eq!(param(json!({ "tools": many })), "tools");
        let choice =
            |choice: Value| param(json!({"tools": [function("f")], "tool_choice": choice}));
        assert_eq!(choice(json!("sometimes")), "tool_choice");
        assert_eq!(choice(json!(7)), "tool_choice");
        assert_eq!(choice(json!({"type": "allowed_tools"})), "tool_choice.type");
        assert_eq!(choice(json!({"type": "function"})), "tool_choice.function");
        let other = json!({"type": "function", "function": {"name": "g"}});
        assert_eq!(choice(other), "tool_choice.function.name");
        assert_eq!(param(json!({"parallel_tool_calls": 1})), "parallel_tool_calls");
    }
}
