//! The fields that say whether a model thinks before it answers, how much, and where that goes.
//!
//! | field | says |
//! | --- | --- |
//! | `enable_thinking`, `think`, `reasoning.enabled` | whether; `think` may also be a level |
//! | `reasoning_effort`, `reasoning.effort` | how much; `none` is not at all |
//! | `reasoning_format` | `none` or `raw`: it stays in the text; `auto`, `deepseek` or `parsed`: beside it; `hidden` |
//! | `include_reasoning`, `reasoning.exclude` | whether it is sent |
//!
//! A level is for templates that read one; where there is only a switch, every level but `none` is on. What
//! the template cannot do is refused, unless it is what happens anyway.

use super::fields::{Fields, expected};
use crate::chat_formats::Reasoning;
use crate::http::error::ApiError;
use serde_json::{Map, Value};

/// The variables with which templates turn thinking on and off (Qwen3, DeepSeek).
const SWITCHES: [&str; 2] = ["enable_thinking", "thinking"];
/// Characters of a word such as `low`.
const WORD_CHARS_MAX: usize = 32;

/// What a template can do.
pub(super) struct Can<'a> {
    /// Which variables it reads.
    pub reads: &'a dyn Fn(&str) -> bool,
    /// The model shows what it thinks.
    pub thinks: bool,
}

/// Takes the fields; what the template has to be told of them goes into its `variables`, unless they say it
/// already.
///
/// # Errors
///
/// 400 naming the field.
pub(super) fn take(
    fields: &mut Fields,
    variables: &mut Map<String, Value>,
    can: &Can<'_>,
) -> Result<Reasoning, ApiError> {
    let mut asked = Asked::default();
    if let Some(on) = fields.bool("enable_thinking")? {
        asked.switch("enable_thinking", on);
    }
    match fields.take("think") {
        None => {}
        Some(Value::Bool(on)) => asked.switch("think", on),
        Some(Value::String(level)) => asked.level("think", level),
        Some(other) => {
            let wanted = "true, false or a level such as \"low\"";
            return Err(expected("think", wanted, &other));
        }
    }
    if let Some(level) = fields.string("reasoning_effort", WORD_CHARS_MAX)? {
        asked.level("reasoning_effort", level);
    }
    let excluded = of_object(fields, &mut asked)?;
    let shown = fields.bool("include_reasoning")?.unwrap_or(true);
    let format = format(fields)?;
    asked.tell(variables, can)?;
    Ok(if shown && !excluded { format } else { Reasoning::Hidden })
}

/// What was asked for first of each kind, and by which field.
#[derive(Default)]
struct Asked {
    switch: Option<(String, bool)>,
    level: Option<(String, String)>,
}

impl Asked {
    fn switch(&mut self, field: &str, on: bool) {
        self.switch.get_or_insert((field.to_owned(), on));
    }

    fn level(&mut self, field: &str, level: String) {
        match level.as_str() {
            "none" => self.switch(field, false),
            _ => drop(self.level.get_or_insert((field.to_owned(), level))),
        }
    }

    /// Tells the template.
    fn tell(mut self, variables: &mut Map<String, Value>, can: &Can<'_>) -> Result<(), ApiError> {
        let switch = SWITCHES.into_iter().find(|name| (can.reads)(name));
        if let Some((field, level)) = self.level {
            if (can.reads)("reasoning_effort") {
                variables.entry("reasoning_effort").or_insert(level.into());
            } else if switch.is_some() {
                self.switch.get_or_insert((field, true));
            } else {
                let text = format!(
                    "The model's chat template knows no level of thinking: leave '{field}' out or set \
                     it to \"none\"."
                );
                return Err(ApiError::unsupported(&field, text));
            }
        }
        let Some((field, on)) = self.switch else { return Ok(()) };
        match switch {
            Some(switch) => drop(variables.entry(switch).or_insert(on.into())),
            None if on == can.thinks => {}
            None => {
                let text = format!(
                    "The model's chat template has no switch for thinking: leave '{field}' out."
                );
                return Err(ApiError::unsupported(&field, text));
            }
        }
        Ok(())
    }
}

/// OpenRouter's `reasoning`: whether it is left out of the answer.
fn of_object(fields: &mut Fields, asked: &mut Asked) -> Result<bool, ApiError> {
    let Some(value) = fields.take("reasoning") else { return Ok(false) };
    let mut inner = Fields::of_value(value, "reasoning")?;
    if let Some(on) = inner.bool("enabled")? {
        asked.switch("reasoning.enabled", on);
    }
    if let Some(level) = inner.string("effort", WORD_CHARS_MAX)? {
        asked.level("reasoning.effort", level);
    }
    let excluded = inner.bool("exclude")?.unwrap_or(false);
    for name in ["max_tokens", "summary", "generate_summary"] {
        let path = inner.path(name);
        if inner.take(name).is_some() {
            let text = format!("'{path}' is not supported: leave it out.");
            return Err(ApiError::unsupported(&path, text));
        }
    }
    inner.finish()?;
    Ok(excluded)
}

fn format(fields: &mut Fields) -> Result<Reasoning, ApiError> {
    const NAME: &str = "reasoning_format";
    match fields.string(NAME, WORD_CHARS_MAX)?.as_deref() {
        None | Some("auto" | "deepseek" | "parsed") => Ok(Reasoning::Split),
        Some("none" | "raw") => Ok(Reasoning::InText),
        Some("hidden") => Ok(Reasoning::Hidden),
        Some(other) => {
            let wanted = "\"auto\", \"deepseek\", \"parsed\", \"none\", \"raw\" or \"hidden\"";
            Err(expected(NAME, wanted, &Value::from(other)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn asked(reads: &[&str], thinks: bool, body: Value) -> Result<(Value, Reasoning), ApiError> {
        let mut fields = Fields::of_body(body)?;
        let mut variables = Map::new();
        let can = Can { reads: &|name| reads.contains(&name), thinks };
        let reasoning = take(&mut fields, &mut variables, &can)?;
        fields.finish()?;
        Ok((variables.into(), reasoning))
    }

    #[test]
    fn a_switch_is_told_by_any_of_its_words() {
        let variables = |body: Value| asked(&["enable_thinking"], true, body).unwrap().0;
        let (on, off) = (json!({"enable_thinking": true}), json!({"enable_thinking": false}));
        for body in [
            json!({"enable_thinking": false}),
            json!({"think": false}),
            json!({"think": "none"}),
            json!({"reasoning_effort": "none"}),
            json!({"reasoning": {"enabled": false}}),
            json!({"reasoning": {"effort": "none"}}),
            json!({"enable_thinking": false, "reasoning_effort": "high"}),
        ] {
            assert_eq!(variables(body), off);
        }
        for body in
            [json!({"think": true}), json!({"reasoning_effort": "low"}), json!({"think": "high"})]
        {
            assert_eq!(variables(body), on);
        }
        assert_eq!(variables(json!({})), json!({}));
        let deepseek = asked(&["thinking"], true, json!({"think": true})).unwrap().0;
        assert_eq!(deepseek, json!({"thinking": true}));
    }

    #[test]
    fn a_level_is_for_templates_that_read_one() {
        let variables = |body: Value| asked(&["reasoning_effort"], true, body).unwrap().0;
        let low = json!({"reasoning_effort": "low"});
        for body in [low.clone(), json!({"think": "low"}), json!({"reasoning": {"effort": "low"}})]
        {
            assert_eq!(variables(body), low);
        }
    }

    #[test]
    fn what_the_template_cannot_do_is_refused_unless_it_happens_anyway() {
        let param = |thinks: bool, body: Value| match asked(&[], thinks, body) {
            Ok((variables, _)) => {
                assert_eq!(variables, json!({}));
                String::new()
            }
            Err(error) => error.body()["error"]["param"].as_str().unwrap().to_owned(),
        };
        assert_eq!(param(false, json!({"think": false})), "");
        assert_eq!(param(false, json!({"reasoning_effort": "none"})), "");
        assert_eq!(param(false, json!({"think": true})), "think");
        assert_eq!(param(true, json!({"think": true})), "");
        assert_eq!(param(true, json!({"think": false})), "think");
        assert_eq!(param(true, json!({"enable_thinking": false})), "enable_thinking");
        assert_eq!(param(true, json!({"reasoning_effort": "high"})), "reasoning_effort");
        assert_eq!(param(false, json!({"reasoning": {"effort": "high"}})), "reasoning.effort");
        assert_eq!(param(false, json!({"reasoning": {"max_tokens": 9}})), "reasoning.max_tokens");
        assert_eq!(param(false, json!({"reasoning": {"loud": true}})), "reasoning.loud");
        assert_eq!(param(false, json!({"think": 1})), "think");
        assert_eq!(
            param(false, json!({"reasoning_format": "deepseek-legacy"})),
            "reasoning_format"
        );
        assert_eq!(param(false, json!({"include_reasoning": "no"})), "include_reasoning");
    }

    #[test]
    fn where_it_goes() {
        let reasoning = |body: Value| asked(&[], true, body).unwrap().1;
        assert_eq!(reasoning(json!({})), Reasoning::Split);
        assert_eq!(reasoning(json!({"reasoning_format": "auto"})), Reasoning::Split);
        assert_eq!(reasoning(json!({"reasoning_format": "none"})), Reasoning::InText);
        assert_eq!(reasoning(json!({"reasoning_format": "hidden"})), Reasoning::Hidden);
        assert_eq!(reasoning(json!({"include_reasoning": false})), Reasoning::Hidden);
        assert_eq!(reasoning(json!({"reasoning": {"exclude": true}})), Reasoning::Hidden);
        assert_eq!(
            reasoning(json!({"reasoning": {}, "include_reasoning": true})),
            Reasoning::Split
        );
    }
}
