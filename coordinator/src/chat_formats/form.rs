//! How a family of models writes calls: the marks, what reads them, and the grammar that forces them.

use super::history::History;
use super::lark::Lark;
use super::reader::CallReader;
use super::tools::{Tool, Tools};
use std::fmt::{self, Debug};
use std::sync::Arc;

/// How a family writes calls.
pub(super) struct Form {
    /// For people.
    pub name: &'static str,
    /// Each of these begins a block of calls.
    pub open: &'static [&'static str],
    /// A block may also begin with `{`, as the first character of an answer or after a block.
    pub bare: bool,
    /// Marks that a reader knows besides.
    pub inner: &'static [&'static str],
    /// Marks that may stand after a block and say nothing.
    pub after: &'static [&'static str],
    /// What may stand between two blocks, white space apart.
    pub between: &'static str,
    /// What its templates want of a history.
    pub history: History,
    /// A reader of one block, before the mark that opens it.
    pub reader: fn(&Arc<Tools>) -> Box<dyn CallReader>,
    /// Adds the rules of a grammar: `calls` is one call or, if `many`, several.
    pub grammar: fn(&mut Lark<'_>, tools: &[&Tool], many: bool),
}

impl Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Form").field(&self.name).finish()
    }
}

impl Form {
    /// All marks of the family.
    pub fn marks(&self) -> impl Iterator<Item = &'static str> {
        self.open.iter().chain(self.inner).chain(self.after).copied()
    }
}
