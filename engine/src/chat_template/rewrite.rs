//! Tags that keep texts under names, rewritten so that the texts are counted ([`super::bounds`]):
//! `{% set x = y %}` becomes `{% set x = (y) | __woolly_keep %}`.
//!
//! What cannot be read is left as it is: the template engine refuses it.

use super::bounds::{COUNT, KEEP, LOOK};
use super::lexical::{is_word, string_end};

/// Text of a block that the limit of steps bounds well enough.
const BLOCK_BYTES_FREE: usize = 1024;

/// The inside of the tag `name`, and what to put behind the tag.
pub(super) struct Rewritten {
    pub body: String,
    pub behind: String,
}

/// The tag with the inside `body`, white space control included. `block_bytes` is how much source
/// follows in its block. `None`: it stays as it is.
pub(super) fn rewrite(name: &str, body: &str, block_bytes: usize) -> Option<Rewritten> {
    let (inside, sign) = match body.char_indices().next_back() {
        Some((at, '-' | '+')) => body.split_at(at),
        _ => (body, ""),
    };
    let start = inside.find(name)? + name.len();
    let (head, rest) = inside.split_at(start);
    let (kept, names) = match name {
        "set" => (keep_assigned(rest)?, Vec::new()),
        "with" => (keep_all_assigned(rest)?, Vec::new()),
        "for" => (keep_iterated(rest)?, Vec::new()),
        "macro" | "call" => (rest.to_owned(), parameters(name, rest)),
        _ => return None,
    };
    let mut behind = String::new();
    for name in names {
        behind += &format!("{{% set {name} = {name} | {KEEP} {sign}%}}");
    }
    if matches!(name, "for" | "macro" | "call") && block_bytes > BLOCK_BYTES_FREE {
        behind += &format!("{{% set {COUNT} = {block_bytes} | {COUNT} {sign}%}}");
    }
    Some(Rewritten { body: format!("{head}{kept}{sign}"), behind })
}

/// ` x = y` with the value counted; `None` for a `set` block.
fn keep_assigned(rest: &str) -> Option<String> {
    let equals = words(rest).find(|word| word.text == "=")?.at;
    let (target, value) = rest.split_at(equals + 1);
    (!value.trim().is_empty()).then(|| format!("{target} ({}) | {KEEP} ", value.trim()))
}

/// ` x = y, a = b` with both values counted.
fn keep_all_assigned(rest: &str) -> Option<String> {
    let mut kept = Vec::new();
    for part in split(rest) {
        kept.push(keep_assigned(part)?);
    }
    Some(kept.join(", "))
}

/// ` x in y if z recursive` with the texts in `y` looked at.
fn keep_iterated(rest: &str) -> Option<String> {
    let start = words(rest).find(|word| word.text == "in")?.at + 2;
    let end = words(rest).find(|word| word.at > start && matches!(word.text, "if" | "recursive"));
    let end = end.map_or(rest.len(), |word| word.at);
    let value = rest.get(start..end)?.trim();
    let (head, tail) = (&rest[..start], &rest[end..]);
    (!value.is_empty()).then(|| format!("{head} ({value}) | {LOOK} {tail}"))
}

/// The names between the brackets of `macro f(x)` and of `call(x) f()`; in `call f(x)` there are none.
fn parameters<'a>(tag: &str, rest: &'a str) -> Vec<&'a str> {
    let Some(open) = rest.find('(') else { return Vec::new() };
    if tag == "call" && !rest[..open].trim().is_empty() {
        return Vec::new();
    }
    let close = words(&rest[open..]).find(|word| word.text == ")").map(|word| open + word.at);
    let inside = &rest[open + 1..close.unwrap_or(rest.len())];
    let names = split(inside).into_iter().filter_map(|part| part.split('=').next());
    names.map(str::trim).filter(|name| !name.is_empty() && name.bytes().all(is_word)).collect()
}

/// The parts between the commas outside brackets.
fn split(text: &str) -> Vec<&str> {
    let commas = words(text).filter(|word| word.text == ",").map(|word| word.at);
    let ends: Vec<usize> = commas.chain([text.len()]).collect();
    let starts = [0].into_iter().chain(ends.iter().map(|end| end + 1));
    starts.zip(&ends).filter_map(|(start, &end)| text.get(start..end)).collect()
}

/// A name, or a sign, outside brackets and texts. Brackets that close the outermost count.
struct Word<'a> {
    at: usize,
    text: &'a str,
}

fn words(text: &str) -> impl Iterator<Item = Word<'_>> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    std::iter::from_fn(move || {
        while at < bytes.len() {
            let start = at;
            match bytes[at] {
                b'"' | b'\'' => at = string_end(bytes, at) + 1,
                b'(' | b'[' | b'{' => (at, depth) = (at + 1, depth + 1),
                b')' | b']' | b'}' => (at, depth) = (at + 1, depth.saturating_sub(1)),
                byte if is_word(byte) => {
                    at += bytes[at..].iter().take_while(|byte| is_word(**byte)).count();
                }
                b'=' | b'!' | b'<' | b'>' if bytes.get(at + 1) == Some(&b'=') => at += 2,
                _ => at += 1,
            }
            if depth == 0 {
                return text.get(start..at).map(|text| Word { at: start, text });
            }
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(source: &str) -> String {
        let name = source.trim_start_matches(['-', '+']).split_whitespace().next().unwrap();
        let name = name.split('(').next().unwrap();
        match rewrite(name, source, 0) {
            Some(rewritten) => rewritten.body + &rewritten.behind,
            None => "as it is".to_owned(),
        }
    }

    #[test]
    fn values_are_counted_where_they_get_a_name() {
        for (source, expected) in [
            ("- set x = a == 'b=' -", "- set x = (a == 'b=') | __woolly_keep -"),
            (" set ns.x = [1, 2] ", " set ns.x = ([1, 2]) | __woolly_keep "),
            (" set a, b = 1, 2 ", " set a, b = (1, 2) | __woolly_keep "),
            (" set x ", "as it is"),
            (" set x | replace(old='a', new='b') ", "as it is"),
            (
                " for a, b in c.items() if a in d ",
                " for a, b in (c.items()) | __woolly_look if a in d ",
            ),
            (
                " for a in [b if c else d] recursive -",
                " for a in ([b if c else d]) | __woolly_look recursive -",
            ),
            (
                " with a = 1, b = [2, 3] ",
                " with a = (1) | __woolly_keep ,  b = ([2, 3]) | __woolly_keep ",
            ),
            (" if a = b ", "as it is"),
            (
                " macro f(a, b=(1, 2)) -",
                " macro f(a, b=(1, 2)) -{% set a = a | __woolly_keep -%}{% set b = b | __woolly_keep -%}",
            ),
            (" call(x) f(y) ", " call(x) f(y) {% set x = x | __woolly_keep %}"),
            (" call f(y) ", " call f(y) "),
        ] {
            assert_eq!(body(source), expected, "{source}");
        }
    }

    #[test]
    fn nothing_breaks_the_reader() {
        for source in [
            " set ",
            " set =",
            " for ",
            " for a in",
            " macro",
            " macro f(",
            " call(",
            " with ,",
            " set x = 'é\\",
        ] {
            let _ = body(source);
        }
    }

    #[test]
    fn long_blocks_are_counted_each_time_they_are_entered() {
        let found = rewrite("for", " for a in b -", 2000).unwrap();
        assert_eq!(found.behind, "{% set __woolly_count = 2000 | __woolly_count -%}");
    }
}
