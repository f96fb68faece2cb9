//! A look at a template's source before it is compiled: how deep and how long its tags are.
//!
//! The template engine parses by recursion, so what nests without end would overflow the stack.
//! This scan needs none. It also turns the tags `generation` and `endgeneration`, which mark
//! training data and mean nothing here, into comments of the same white space control.

use super::error::ChatTemplateError;

/// Blocks (`if`, `for`, `macro`, …, and each `elif`) that may be open at once.
pub const BLOCKS_MAX: usize = 100;
/// Brackets that may be open at once in one tag.
pub const BRACKETS_MAX: usize = 64;
/// Names, numbers, strings and signs of one tag.
pub const TAG_WORDS_MAX: usize = 8_192;

/// Tags that are closed by an `end…` tag.
const OPENING: [&str; 9] =
    ["if", "for", "macro", "call", "filter", "with", "block", "autoescape", "generation"];

/// Checks the limits and returns the source to compile.
pub(super) fn scan(source: &str) -> Result<String, ChatTemplateError> {
    let mut out = String::with_capacity(source.len());
    let mut copied = 0;
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
        if kind == b'%' {
            let (name, rest) = first_word(&source[body..end]);
            blocks.tag(name, rest)?;
            if matches!(name, "generation" | "endgeneration") && end + 2 <= source.len() {
                out.push_str(&source[copied..start]);
                out.push_str(&comment_like(&source[body..end]));
                copied = end + 2;
            } else if name == "raw" {
                at = end_of_raw(source, end);
                continue;
            }
        }
        at = (end + 2).min(source.len());
    }
    out.push_str(&source[copied..]);
    Ok(out)
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
    let mut words = 0;
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
            _ if is_word(byte) => {
                while at + 1 < bytes.len() && is_word(bytes[at + 1]) {
                    at += 1;
                }
            }
            _ => {}
        }
        if brackets > BRACKETS_MAX {
            return Err(ChatTemplateError::TooDeep { what: "open brackets", max: BRACKETS_MAX });
        }
        at += 1;
    }
    Ok(bytes.len())
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// The position of the quote that ends the string beginning at `at`, or the last byte.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let quote = bytes[at];
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end.min(bytes.len() - 1)
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

/// The open blocks, each with the number of its `elif` branches: they nest in the parser too.
#[derive(Default)]
struct Blocks {
    branches: Vec<usize>,
    depth: usize,
}

impl Blocks {
    fn tag(&mut self, name: &str, rest: &str) -> Result<(), ChatTemplateError> {
        if OPENING.contains(&name) || (name == "set" && !rest.contains('=')) {
            self.branches.push(0);
            self.depth += 1;
        } else if name == "elif" {
            if let Some(open) = self.branches.last_mut() {
                *open += 1;
            }
            self.depth += 1;
        } else if name.starts_with("end")
            && let Some(branches) = self.branches.pop()
        {
            self.depth = self.depth.saturating_sub(1 + branches);
        }
        if self.depth > BLOCKS_MAX {
            return Err(ChatTemplateError::TooDeep { what: "open blocks", max: BLOCKS_MAX });
        }
        Ok(())
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
        let source = "{# {% if #}{% if a %}{{ {'k': {'x': '}}'}} }}{% elif b %}{%- set x = 1 %}\
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
