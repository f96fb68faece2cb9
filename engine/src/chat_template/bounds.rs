//! The memory of texts that a template builds and does not put out.
//!
//! The engine counts steps, not bytes, and a text can be doubled in three of them. So what a template
//! keeps under a name, puts into a captured block or gets of a filter that multiplies texts is counted
//! here: one text may have [`OUTPUT_BYTES_MAX`] bytes, all that one rendering keeps together
//! [`KEPT_BYTES_MAX`]. `rewrite` makes the template ask for it. Between two such places there is one
//! tag, whose operators [`super::scan`] bounds.
//!
//! Not counted is the text of a list that is repeated with `*` and turned into text in the same tag.

use std::cell::Cell;
use std::fmt::{self, Write};

use minijinja::value::{Kwargs, Rest, StringInput, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, Output, State};

use super::OUTPUT_BYTES_MAX;

/// Bytes that one rendering may keep under names, in captured blocks and in what it puts out.
pub const KEPT_BYTES_MAX: usize = 256 << 20;
/// Values that one rendering may have looked through for their texts.
const LOOKS_MAX: usize = 4_000_000;
/// Items of a list that is made into text or copied.
const ITEMS_MAX: usize = 1_000_000;
/// Digits of a number in a format: no line is a hundred thousand columns wide.
const WIDTH_DIGITS_MAX: u32 = 5;

/// The filter that counts a value which is about to be kept.
pub(super) const KEEP: &str = "__woolly_keep";
/// The filter that looks at a value which a loop goes through: it keeps nothing new for long.
pub(super) const LOOK: &str = "__woolly_look";
/// The filter that counts as many bytes as its value says.
pub(super) const COUNT: &str = "__woolly_count";

/// A limit that a rendering broke; the source of the error that ends it.
#[derive(Debug, thiserror::Error)]
#[error("too much text")]
pub(super) struct TooMuch;

thread_local! {
    /// What the rendering on this thread may still keep, in bytes, and look through, in values. A
    /// rendering has a thread for itself.
    static LEFT: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
}

/// Begins the account of a rendering on this thread.
pub(super) fn begin() {
    LEFT.set((KEPT_BYTES_MAX, LOOKS_MAX));
}

/// Puts the counting filters, functions and the formatter into `environment`.
pub(super) fn install(environment: &mut Environment<'static>) {
    environment.add_filter(KEEP, keep);
    environment.add_filter(LOOK, |value: Value| look(value, &|_| Ok(())));
    environment.add_filter(COUNT, take_bytes);
    environment.add_filter("replace", replace);
    environment.add_filter("join", join);
    environment.add_filter("format", format);
    environment.add_filter("indent", indent);
    environment.add_filter("sum", sum);
    environment.add_filter("list", list);
    environment.add_filter("string", string);
    environment.add_filter("pprint", |value: &Value| text_of(&format_args!("{value:#?}")));
    environment.set_formatter(put_out);
    environment.set_unknown_method_callback(method);
}

fn too_much() -> Error {
    Error::new(ErrorKind::InvalidOperation, "too much text").with_source(TooMuch)
}

/// Takes `bytes` of what may be kept.
fn take(bytes: usize) -> Result<(), Error> {
    let (left, looks) = LEFT.get();
    let left = left.checked_sub(bytes).ok_or_else(too_much)?;
    LEFT.set((left, looks));
    Ok(())
}

/// Takes the texts of a value, those in lists and maps too.
fn keep(value: Value) -> Result<Value, Error> {
    look(value, &take)
}

/// Looks at the texts of a value and gives the length of each to `each`.
fn look(value: Value, each: &dyn Fn(usize) -> Result<(), Error>) -> Result<Value, Error> {
    let mut waiting = vec![value.clone()];
    while let Some(value) = waiting.pop() {
        let (bytes, looks) = LEFT.get();
        LEFT.set((bytes, looks.checked_sub(1).ok_or_else(too_much)?));
        if let Some(text) = value.as_str() {
            within(text.len())?;
            each(text.len())?;
            continue;
        }
        match value.kind() {
            ValueKind::Map => {
                for key in value.try_iter()? {
                    waiting.extend(value.get_item(&key).ok());
                    waiting.push(key);
                    enough(waiting.len())?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    waiting.push(item);
                    enough(waiting.len())?;
                }
            }
            _ => {}
        }
    }
    Ok(value)
}

fn take_bytes(bytes: usize) -> Result<Value, Error> {
    take(bytes).map(|()| Value::UNDEFINED)
}

/// One text may not be longer than what may be put out.
fn within(bytes: usize) -> Result<(), Error> {
    if bytes > OUTPUT_BYTES_MAX { Err(too_much()) } else { Ok(()) }
}

fn enough(items: usize) -> Result<(), Error> {
    if items > ITEMS_MAX { Err(too_much()) } else { Ok(()) }
}

/// Writes a value into the text or into the block that is captured.
fn put_out(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    if let Some(text) = value.as_str() {
        take(text.len())?;
        return out.write_str(text).map_err(Error::from);
    }
    let text = text_of(value)?;
    take(text.len())?;
    out.write_str(&text).map_err(Error::from)
}

/// A text with an end.
#[derive(Default)]
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.0.len() + text.len() > OUTPUT_BYTES_MAX {
            return Err(fmt::Error);
        }
        self.0.push_str(text);
        Ok(())
    }
}

fn text_of(value: &impl fmt::Display) -> Result<String, Error> {
    let mut out = Bounded::default();
    write!(out, "{value}").map_err(|_| too_much())?;
    Ok(out.0)
}

/// The length of `value` with `old` replaced by `new`, at most `most` times.
fn check_replace(value: &str, old: &str, new: &str, most: usize) -> Result<(), Error> {
    let times = value.matches(old).count().min(most);
    within((value.len() - times * old.len()).saturating_add(times.saturating_mul(new.len())))
}

fn replace(
    state: &mut State<'_, '_>,
    value: StringInput<'_>,
    old: StringInput<'_>,
    new: StringInput<'_>,
) -> Result<Value, Error> {
    check_replace(value.as_str(), old.as_str(), new.as_str(), usize::MAX)?;
    minijinja::filters::replace(state, value, old, new)
}

/// The length of all items as text with `joiner` between them.
fn check_join(values: &Value, joiner: &str) -> Result<(), Error> {
    let Ok(items) = values.try_iter() else { return Ok(()) };
    let mut bytes = 0_usize;
    for (number, item) in items.enumerate() {
        enough(number)?;
        let item = match item.as_str() {
            Some(text) => text.len(),
            None => text_of(&item)?.len(),
        };
        bytes = bytes.saturating_add(item + joiner.len());
        within(bytes)?;
    }
    Ok(())
}

fn join(
    state: &mut State<'_, '_>,
    value: &Value,
    joiner: Option<StringInput<'_>>,
    attribute: Option<&str>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let named: Option<StringInput<'_>> = kwargs.peek("d")?;
    let between = joiner.as_ref().or(named.as_ref()).map_or("", StringInput::as_str);
    check_join(value, between)?;
    minijinja::filters::join(state, value, joiner, attribute, kwargs)
}

/// Refuses widths beyond all sense, and arguments that the format could name too often.
fn check_format(format: &str, args: &[Value]) -> Result<(), Error> {
    let mut digits = 0;
    for c in format.chars() {
        digits = if c.is_ascii_digit() { digits + 1 } else { 0 };
        if digits > WIDTH_DIGITS_MAX {
            return Err(too_much());
        }
    }
    let places = format.matches(['%', '{']).count();
    let wide = 10_usize.pow(WIDTH_DIGITS_MAX).saturating_mul(usize::from(has_width(format)));
    let mut longest = wide;
    for arg in args {
        longest = longest.max(text_of(arg)?.len());
    }
    within(format.len().saturating_add(longest.saturating_mul(places)))
}

/// Whether a width may stand in the format; `%*d` takes it from an argument.
fn has_width(format: &str) -> bool {
    format.contains(|c: char| c.is_ascii_digit() || c == '*')
}

fn format(
    state: &mut State<'_, '_>,
    value: &Value,
    args: Rest<ValueOrKwargs>,
) -> Result<Value, Error> {
    let values: Vec<Value> = args.iter().map(|arg| Value::clone(arg)).collect();
    check_format(value.as_str().unwrap_or_default(), &values)?;
    minijinja::filters::format(state, value, args)
}

fn indent(
    value: StringInput<'_>,
    width: Option<usize>,
    first: Option<bool>,
    blank: Option<bool>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let columns = width.or(kwargs.peek("width")?).unwrap_or(4);
    let lines = value.as_str().split('\n').count();
    within(lines.saturating_mul(columns).saturating_add(value.as_str().len()))?;
    minijinja::filters::indent(value, width, first, blank, kwargs)
}

/// As Python's: texts are joined, not summed.
fn sum(
    state: &State<'_, '_>,
    values: Value,
    attribute: Option<&str>,
    start: Option<Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    for (number, item) in values.try_iter()?.enumerate() {
        enough(number)?;
        if attribute.is_none() && matches!(item.kind(), ValueKind::String | ValueKind::Seq) {
            let text = "sum: texts and lists cannot be added; use join".to_owned();
            return Err(Error::new(ErrorKind::InvalidOperation, text));
        }
    }
    let total = minijinja::filters::sum(state, values, attribute, start, kwargs)?;
    keep(total)
}

fn list(state: &State<'_, '_>, value: Value) -> Result<Value, Error> {
    enough(value.len().unwrap_or(0))?;
    minijinja::filters::list(state, value)
}

fn string(state: &State<'_, '_>, value: &Value) -> Result<Value, Error> {
    if value.as_str().is_some() || value.is_undefined() {
        return minijinja::filters::string(state, value);
    }
    text_of(value).map(Value::from)
}

/// Python's methods.
fn method(
    state: &mut State<'_, '_>,
    value: &Value,
    name: &str,
    args: &[Value],
) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        match (name, args) {
            ("replace", [old, new, most @ ..]) => {
                let most = most.first().and_then(Value::as_usize).unwrap_or(usize::MAX);
                let (old, new) = (old.as_str().unwrap_or("\0"), new.as_str().unwrap_or_default());
                check_replace(text, old, new, most)?;
            }
            ("join", [values]) => check_join(values, text)?,
            ("format", args) => check_format(text, args)?,
            _ => {}
        }
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use crate::chat_template::ChatTemplateError;
    use crate::chat_template::tests::{SOON, render};

    /// Each of these would fill any memory in thirty rounds or fewer.
    #[test]
    fn a12_texts_that_grow_and_are_not_put_out_are_bounded() {
        let rounds = |before: &str, each: &str| {
            format!("{before}{{% for i in range(60) %}}{each}{{% endfor %}}")
        };
        let ns = "{% set ns = namespace(x='abcdefgh', l=[]) %}";
        let macros = "{% macro f(x, n) %}{% if n %}{{ f(x ~ x, n - 1) }}{% endif %}{% endmacro %}";
        let long = "{% set x = 'a' * 4000000 %}";
        for source in [
            rounds(ns, "{% set ns.x = ns.x ~ ns.x %}"),
            rounds(ns, "{% set ns.x = ns.x + ns.x %}"),
            rounds(ns, "{% set ns.x = ns.x|replace('a', ns.x) %}"),
            rounds(ns, "{% set ns.x = ns.x.replace('', ns.x) %}"),
            rounds(ns, "{% set ns.x = [ns.x, ns.x]|join(ns.x) %}"),
            rounds(ns, "{% set ns.x = ns.x.join([ns.x, ns.x]) %}"),
            rounds(ns, "{% set ns.x = '%s%s'|format(ns.x, ns.x) %}"),
            rounds(ns, "{% set ns.x = '{}{}'.format(ns.x, ns.x) %}"),
            rounds(ns, "{% set ns.x = [ns.x, ns.x]|string %}"),
            rounds(ns, "{% set ns.x = {'a': ns.x, 'b': ns.x}|tojson %}"),
            rounds(ns, "{% set ns.x = (ns.x ~ '\n' ~ ns.x)|indent(1000) %}"),
            rounds(ns, "{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}"),
            rounds(ns, "{% set ns.l = ns.l + [ns.x * 300000] %}"),
            rounds(ns, "{% set ns.y = namespace(x=(ns.y or ns).x ~ (ns.y or ns).x) %}"),
            rounds(ns, "{% with y = ns.x ~ ns.x %}{% set ns.x = y %}{% endwith %}"),
            format!("{macros}{{{{ f('abcdefgh', 60) }}}}"),
            format!("{long}{{% set y = [x, x, x]|sum %}}"),
            format!("{long}{{% set y = ([x] * 1000)|pprint %}}"),
            format!(
                "{long}{{% for i in range(9999) %}}{{% set y %}}{{{{ x }}}}{{% endset %}}{{% endfor %}}"
            ),
            format!(
                "{{% set y %}}{{% for i in range(60000) %}}{}{{% endfor %}}{{% endset %}}",
                "text ".repeat(2000)
            ),
            format!("{long}{{{{ '%99999999d'|format(1) }}}}"),
            format!("{{{{ a{} }}}}", " ~ a".repeat(200)),
        ] {
            let start = Instant::now();
            let error = render(&source).expect_err(&source[..source.len().min(200)]);
            let bounded = matches!(
                error,
                ChatTemplateError::TooMuchText { .. } | ChatTemplateError::TooDeep { .. }
            );
            // Recursion and Python's own rules end some of them first.
            let shown = source.chars().take(120).collect::<String>();
            let ended =
                error.to_string().contains("recursion") || error.to_string().contains("sum:");
            assert!(bounded || ended, "{shown}: {error}");
            assert!(start.elapsed() < SOON, "{shown} took {:?}", start.elapsed());
        }
    }

    #[test]
    fn a12_ordinary_work_with_texts_gives_what_it_gave() {
        for (source, expected) in [
            ("{% set x = 'a' ~ 1 ~ true %}{{ x }}", "a1True"),
            ("{% set a, b = 'x', 'y' %}{{ b ~ a }}", "yx"),
            ("{% for k, v in {'a': 1}.items() if v %}{{ k }}{{ v }}{% endfor %}", "a1"),
            (
                "{% for x in [[1], [2]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}",
                "12",
            ),
            ("{%- macro f(a, b='c') -%}  {{ a }}{{ b }}  {%- endmacro -%} {{ f('x') }}", "xc"),
            ("{% macro f(a) %}{{ a is defined }}{% endmacro %}{{ f() }}", "False"),
            (
                "{% macro f() %}[{{ caller('y') }}]{% endmacro %}{% call(x) f() %}{{ x }}{% endcall %}",
                "[y]",
            ),
            ("{% with a = [1, 2], b = 3 %}{{ a|length + b }}{% endwith %}", "5"),
            ("{% set x %}a{{ 1 }}{% endset %}{{ x|replace('a', 'b') }}", "b1"),
            ("{{ ['a', 1]|join('-') }}{{ ', '.join(['b', 'c']) }}", "a-1b, c"),
            ("{{ [{'n': 'a'}, {'n': 'b'}]|join('+', attribute='n') }}", "a+b"),
            ("{{ '%s is %d'|format('a', 7) }}{{ ' {}'.format('b') }}", "a is 7 b"),
            ("{{ 'a\nb'|indent }}{{ 'a\nb'|indent(2, true) }}", "a\n    b  a\n  b"),
            ("{{ [1, 2, 3]|sum }}{{ 'abc'|list|length }}{{ [1]|string }}", "63[1]"),
            ("{{ [none, true, 'a'] }}{{ none }}", "[None, True, 'a']None"),
            ("{% set ns = namespace(a=1) %}{% set ns.a = 'z' %}{{ ns.a }}", "z"),
            ("{% set x = missing %}{{ x is defined }}", "False"),
        ] {
            assert_eq!(render(source).as_deref().unwrap_or("an error"), expected, "{source}");
        }
    }
}
