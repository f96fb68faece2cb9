//! Preparing a conversation for a template: contents in the form it reads, arguments as objects.

use serde_json::Value as Json;

use super::error::ChatTemplateError;

/// Messages of one conversation.
pub const MESSAGES_MAX: usize = 65_536;

/// The form in which a template reads message contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentForm {
    Text,
    Parts,
}

/// Checks that `messages` is a list of objects and brings their contents into one form. Text parts
/// are joined by newlines.
pub(super) fn prepare(messages: &Json, form: ContentForm) -> Result<Vec<Json>, ChatTemplateError> {
    let list = messages
        .as_array()
        .ok_or_else(|| ChatTemplateError::Messages("messages must be a list".to_owned()))?;
    if list.len() > MESSAGES_MAX {
        let text = format!("{} messages; at most {MESSAGES_MAX} are supported", list.len());
        return Err(ChatTemplateError::Messages(text));
    }
    list.iter().enumerate().map(|(index, message)| prepare_one(index, message, form)).collect()
}

fn prepare_one(index: usize, message: &Json, form: ContentForm) -> Result<Json, ChatTemplateError> {
    let wrong = |text: &str| ChatTemplateError::Messages(format!("messages[{index}]{text}"));
    let object = message.as_object().ok_or_else(|| wrong(" must be an object"))?;
    if !object.get("role").is_some_and(Json::is_string) {
        return Err(wrong(".role must be a text"));
    }
    let mut out = object.clone();
    match object.get("content") {
        None | Some(Json::Null) => {}
        Some(Json::String(text)) => {
            if form == ContentForm::Parts {
                out.insert(
                    "content".to_owned(),
                    serde_json::json!([{"type": "text", "text": text}]),
                );
            }
        }
        Some(Json::Array(parts)) => {
            let texts: Option<Vec<&str>> = parts.iter().map(text_of_part).collect();
            let texts = texts.ok_or_else(|| wrong(".content has a part that is not text"))?;
            if form == ContentForm::Text {
                out.insert("content".to_owned(), Json::String(texts.join("\n")));
            }
        }
        Some(_) => return Err(wrong(".content must be a text or a list of parts")),
    }
    Ok(Json::Object(out))
}

fn text_of_part(part: &Json) -> Option<&str> {
    match part {
        Json::String(text) => Some(text),
        Json::Object(part) if part.get("type").and_then(Json::as_str) == Some("text") => {
            part.get("text")?.as_str()
        }
        _ => None,
    }
}

/// Turns the arguments of tool calls, which clients send as JSON in a string, into objects. Returns
/// whether there were any.
pub(super) fn parse_arguments(messages: &mut [Json]) -> bool {
    let mut any = false;
    let calls = messages
        .iter_mut()
        .filter_map(|message| message.get_mut("tool_calls")?.as_array_mut())
        .flatten();
    for call in calls {
        let Some(arguments) = call.pointer_mut("/function/arguments") else { continue };
        let parsed = arguments.as_str().and_then(|text| serde_json::from_str::<Json>(text).ok());
        if let Some(parsed) = parsed.filter(Json::is_object) {
            *arguments = parsed;
            any = true;
        }
    }
    any
}

/// Calls `visit` with every text in `value`, keys of objects included.
pub(super) fn for_each_text<'a>(value: &'a Json, visit: &mut dyn FnMut(&'a str)) {
    match value {
        Json::String(text) => visit(text),
        Json::Array(items) => items.iter().for_each(|item| for_each_text(item, visit)),
        Json::Object(fields) => fields.iter().for_each(|(key, field)| {
            visit(key);
            for_each_text(field, visit);
        }),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

/// `value` with every text replaced, keys of objects included.
pub(super) fn map_texts(value: &Json, map: &dyn Fn(&str) -> String) -> Json {
    match value {
        Json::String(text) => Json::String(map(text)),
        Json::Array(items) => items.iter().map(|item| map_texts(item, map)).collect(),
        Json::Object(fields) => {
            fields.iter().map(|(key, field)| (map(key), map_texts(field, map))).collect()
        }
        other => other.clone(),
    }
}
