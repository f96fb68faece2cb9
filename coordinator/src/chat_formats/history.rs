//! What templates of a family want of the calls in a history.

use serde_json::Value;

/// Letters and digits of an id that Mistral's templates accept.
const ID_CHARS: usize = 9;

/// What a family wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct History {
    /// Ids of calls have nine letters and digits. Others are replaced, the same by the same.
    pub short_ids: bool,
    /// Beside calls, no text is `null` and not the empty text.
    pub null_content: bool,
}

impl History {
    /// Nothing in particular.
    pub const PLAIN: History = History { short_ids: false, null_content: false };
}

/// Brings messages to what a family wants.
pub(super) fn fit(messages: &mut [Value], wants: History) {
    for message in messages {
        if wants.short_ids {
            shorten(message.get_mut("tool_call_id"));
            let calls = message.get_mut("tool_calls").and_then(Value::as_array_mut);
            calls.into_iter().flatten().for_each(|call| shorten(call.get_mut("id")));
        }
        if wants.null_content && message.get("tool_calls").is_some() && message["content"] == "" {
            message["content"] = Value::Null;
        }
    }
}

fn shorten(id: Option<&mut Value>) {
    let Some(id) = id else { return };
    let Some(text) = id.as_str() else { return };
    let is_short = text.len() == ID_CHARS && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_short {
        *id = blake3::hash(text.as_bytes()).to_hex()[..ID_CHARS].into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_and_silence_are_what_the_family_wants() {
        let call = json!({"id": "call_0123456789", "function": {"name": "f"}});
        let given = vec![
            json!({"role": "assistant", "content": "", "tool_calls": [call]}),
            json!({"role": "tool", "content": "x", "tool_call_id": "call_0123456789"}),
            json!({"role": "tool", "content": "x", "tool_call_id": "abc123DEF"}),
        ];
        let mut messages = given.clone();
        fit(&mut messages, History::PLAIN);
        assert_eq!(messages, given);
        fit(&mut messages, History { short_ids: true, null_content: true });
        let id = messages[0]["tool_calls"][0]["id"].as_str().unwrap();
        assert_eq!(id.len(), ID_CHARS);
        assert_eq!(messages[1]["tool_call_id"], id);
        assert_eq!(messages[2], given[2]);
        assert_eq!(messages[0]["content"], Value::Null);
    }
}
