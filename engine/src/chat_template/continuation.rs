//! Continuing the last message instead of answering it: the text of a conversation is cut where that
//! message's own text ends.
//!
//! The template is not asked to leave the end of a turn out, as few know how. A character that stands
//! nowhere else is put behind the message's text; what the template writes after it is cut away. The
//! character also keeps white space at the end of the text from being trimmed.

use super::error::ChatTemplateError;
use serde_json::Value as Json;

/// Puts `end` behind the text of the last message.
pub(super) fn mark_end(messages: &mut [Json], end: char) -> Result<(), ChatTemplateError> {
    let content = messages.last_mut().and_then(|message| message.get_mut("content"));
    let text = match content {
        Some(Json::Array(parts)) => parts.last_mut().and_then(|part| part.get_mut("text")),
        content => content,
    };
    match text {
        Some(Json::String(text)) => {
            text.push(end);
            Ok(())
        }
        _ => Err(ChatTemplateError::NotContinued),
    }
}

/// The text before the last `end`.
pub(super) fn cut(mut text: String, end: char) -> Result<String, ChatTemplateError> {
    let at = text.rfind(end).ok_or(ChatTemplateError::NotContinued)?;
    text.truncate(at);
    // A template may show a message's text more than once.
    text.retain(|c| c != end);
    Ok(text)
}
