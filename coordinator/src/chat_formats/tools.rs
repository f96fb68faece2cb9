//! The tools of a request, in no API's words.

use serde_json::Value;
use std::sync::Arc;

/// A function that the model may call.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// 1 to 64 letters, digits, `_` and `-`; no two tools of a request have the same.
    pub name: String,
    /// The JSON Schema of its arguments, an object.
    pub parameters: Value,
    /// Its arguments have to be what the schema says.
    pub strict: bool,
    /// As templates expect it: `{"type": "function", "function": {…}}`.
    pub template: Value,
}

/// Whether tools are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// No tool is called.
    None,
    /// The model decides.
    #[default]
    Auto,
    /// At least one is called.
    Required,
    /// This one is called.
    Named(String),
}

/// What a request says about tools.
#[derive(Clone, Debug, PartialEq)]
pub struct Tools {
    /// The tools, at least one.
    pub list: Arc<[Tool]>,
    /// Whether they are called.
    pub choice: ToolChoice,
    /// Several may be called in one answer.
    pub parallel: bool,
}

impl Tools {
    /// The tool of this name.
    pub fn find(&self, name: &str) -> Option<&Tool> {
        self.list.iter().find(|tool| tool.name == name)
    }

    /// The tools that the choice leaves.
    pub fn callable(&self) -> Vec<&Tool> {
        let is_callable = |tool: &&Tool| match &self.choice {
            ToolChoice::None => false,
            ToolChoice::Auto | ToolChoice::Required => true,
            ToolChoice::Named(name) => tool.name == *name,
        };
        self.list.iter().filter(is_callable).collect()
    }

    /// Whether an answer has to call one.
    pub fn is_forced(&self) -> bool {
        matches!(self.choice, ToolChoice::Required | ToolChoice::Named(_))
    }

    /// As templates expect them.
    pub fn for_template(&self) -> Value {
        self.list.iter().map(|tool| tool.template.clone()).collect()
    }
}
