//! A look at a template's source before it is compiled: how deep and how long its tags are.
//!
//! The template engine parses by recursion, so what nests without end would overflow the stack.
//! This scan needs none. It counts the operators that make texts longer, has what tags keep under names
//! counted (`rewrite`), and turns the tags `generation` and `endgeneration`, which
//! mark training data and mean nothing here, into comments of the same white space control.

use super::error::ChatTemplateError;
use super::lexical::{is_word, string_end};
use super::rewrite;

/// Blocks (`if`, `for`, `macro`, …, and each `elif`) that may be open at once.
pub const BLOCKS_MAX: usize = 100;
/// Brackets that may be open at once in one tag.
pub const BRACKETS_MAX: usize = 64;
/// Names, numbers, strings and signs of one tag.
pub const TAG_WORDS_MAX: usize = 8_192;

/// Signs `+` and `~` of one tag: each may join texts.
pub const JOINS_MAX: usize = 128;
/// Signs `*` of one tag: each may repeat a text.
pub const STARS_MAX: usize = 4;

/// Tags that are closed by an `end…` tag.
const OPENING: [&str; 9] =
    ["if", "for", "macro", "call", "filter", "with", "block", "autoescape", "generation"];

/// Checks the limits and returns the source to compile.
pub(super) fn scan(source: &str) -> Result<String, ChatTemplateError> {
    let tags = block_tags(source)?;
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
    for tag in tags {
        let body = &source[tag.body..tag.end];
        if matches!(tag.name, "generation" | "endgeneration") && tag.end + 2 <= source.len() {
            out.push_str(&source[copied..tag.body - 2]);
            out.push_str(&comment_like(body));
            copied = tag.end + 2;
        } else if let Some(rewritten) = rewrite::rewrite(tag.name, body, tag.block_bytes)
            && tag.end + 2 <= source.len()
        {
            out.push_str(&source[copied..tag.body]);
            out.push_str(&rewritten.body);
            out.push_str("%}");
            out.push_str(&rewritten.behind);
            copied = tag.end + 2;
        }
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

/// A `{% … %}`: where its inside begins and ends.
struct Tag<'a> {
    name: &'a str,
    body: usize,
    end: usize,
    /// Bytes up to the tag that closes it.
    block_bytes: usize,
}

/// The block tags in their order; the limits are checked in all tags.
fn block_tags(source: &str) -> Result<Vec<Tag<'_>>, ChatTemplateError> {
    let mut tags: Vec<Tag<'_>> = Vec::new();
    let mut blocks = Blocks::default();
    let mut at = 0;
    while let Some(start) = next_tag(source, at) {
        let kind = source.as_bytes()[start + 1];
        let body = start + 2;
        if kind == b'#' {
            at = source[body..].find("#}").map_or(source.len(), |end| body + end + 2);
            continue;
        }
        let end = tag_end(source, body, kind == b'%')?;
        at = (end + 2).min(source.len());
        if kind == b'%' {
            let (name, rest) = first_word(&source[body..end]);
            if let Some(opened) = blocks.tag(name, rest, tags.len())?
                && let Some(opened) = tags.get_mut(opened)
            {
                opened.block_bytes = start - opened.end;
            }
            if name == "raw" {
                at = end_of_raw(source, end);
            }
            tags.push(Tag { name, body, end, block_bytes: 0 });
        }
    }
    Ok(tags)
}

/// The start of the next `{{`, `{%` or `{#`.
fn next_tag(source: &str, from: usize) -> Option<usize> {
    let bytes = source.as_bytes();
    let mut at = from;
    while let Some(found) = source.get(at..)?.find('{') {
        let start = at + found;
        if matches!(bytes.get(start + 1), Some(b'{' | b'%' | b'#')) {
            return Some(start);
        }
        at = start + 1;
    }
    None
}

/// Where the tag whose body begins at `body` ends: the position of its closing sign, or the end of
/// the source.
fn tag_end(source: &str, body: usize, is_block: bool) -> Result<usize, ChatTemplateError> {
    let bytes = source.as_bytes();
    let closing: &[u8] = if is_block { b"%}" } else { b"}}" };
    let mut brackets = 0;
    let (mut words, mut joins, mut stars) = (0, 0, 0);
    let mut at = body;
    while at < bytes.len() {
        if brackets == 0 && bytes[at..].starts_with(closing) {
            return Ok(at);
        }
        let byte = bytes[at];
        words += usize::from(!byte.is_ascii_whitespace());
        if words > TAG_WORDS_MAX {
            return Err(ChatTemplateError::TooDeep { what: "words in a tag", max: TAG_WORDS_MAX });
        }
        match byte {
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = usize::saturating_sub(brackets, 1),
            b'"' | b'\'' => at = string_end(bytes, at),
            b'+' | b'~' => joins += 1,
            b'*' => stars += 1,
            _ if is_word(byte) => {
                while at + 1 < bytes.len() && is_word(bytes[at + 1]) {
                    at += 1;
                }
            }
            _ => {}
        }
        for (found, what, max) in [
            (brackets, "open brackets", BRACKETS_MAX),
            (joins, "signs + and ~ in a tag", JOINS_MAX),
            (stars, "signs * in a tag", STARS_MAX),
        ] {
            if found > max {
                return Err(ChatTemplateError::TooDeep { what, max });
            }
        }
        at += 1;
    }
    Ok(bytes.len())
}

/// The name of a block tag and what follows it, white space control left out.
fn first_word(body: &str) -> (&str, &str) {
    let body = body.trim_start_matches(['-', '+']).trim_start();
    let end = body.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(body.len());
    body.split_at(end)
}

/// `{# #}` with the white space control of the tag whose body is given.
fn comment_like(body: &str) -> String {
    let sign = |c: Option<char>| c.filter(|c| matches!(c, '-' | '+')).map(String::from);
    let before = sign(body.chars().next()).unwrap_or_default();
    let after = sign(body.chars().next_back()).unwrap_or_default();
    format!("{{#{before} {after}#}}")
}

/// Where scanning goes on after a `raw` tag.
fn end_of_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(found) = source.get(at..).and_then(|rest| rest.find("{%")) {
        let body = at + found + 2;
        if first_word(&source[body..]).0 == "endraw" {
            return body;
        }
        at = body;
    }
    source.len()
}

/// The open blocks.
#[derive(Default)]
struct Blocks {
    open: Vec<Block>,
    depth: usize,
}

/// An open block, with the number of its `elif` branches: they nest in the parser too.
struct Block {
    branches: usize,
    tag: usize,
}

impl Blocks {
    /// The tag with the number `tag`. If it closes a block: the number of the tag that opened it.
    fn tag(
        &mut self,
        name: &str,
        rest: &str,
        tag: usize,
    ) -> Result<Option<usize>, ChatTemplateError> {
        let mut opened = None;
        if OPENING.contains(&name) || (name == "set" && !rest.contains('=')) {
            self.open.push(Block { branches: 0, tag });
            self.depth += 1;
        } else if name == "elif" {
            if let Some(open) = self.open.last_mut() {
                open.branches += 1;
            }
            self.depth += 1;
        } else if name.starts_with("end")
            && let Some(block) = self.open.pop()
        {
            self.depth = self.depth.saturating_sub(1 + block.branches);
            opened = Some(block.tag);
        }
        if self.depth > BLOCKS_MAX {
            return Err(ChatTemplateError::TooDeep { what: "open blocks", max: BLOCKS_MAX });
        }
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generation_tags_become_comments() {
        let source = "a {%- generation -%} b {% endgeneration %} {{ '{% generation %}' }}";
        assert_eq!(scan(source).unwrap(), "a {#- -#} b {# #} {{ '{% generation %}' }}");
    }

    #[test]
    fn ordinary_templates_are_not_changed() {
        let source = "{# {% if #}{% if a %}{{ {'k': {'x': '}}'}} }}{% elif b %}\
                      {% set y %}t{% endset %}{% endif %}{% raw %}{{ ((({% endraw %} {";
        assert_eq!(scan(source).unwrap(), source);
    }

    #[test]
    fn unfinished_tags_end_the_scan() {
        for source in
            ["{", "{{", "{%", "{#", "{{ 'a", "{{ \"\\", "{% raw %}", "{% generation", "x{"]
        {
            assert!(scan(source).is_ok(), "{source}");
        }
    }

    #[test]
    fn closed_blocks_do_not_count() {
        let many = "{% if a %}{% elif b %}x{% endif %}".repeat(10_000);
        assert!(scan(&many).is_ok());
        let nested = "{% if a %}".repeat(BLOCKS_MAX + 1);
        assert!(scan(&nested).is_err());
        let branches = format!("{{% if a %}}{}", "{% elif b %}".repeat(BLOCKS_MAX));
        assert!(scan(&branches).is_err());
    }
}
