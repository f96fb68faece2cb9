//! The text of a grammar to its rules.

use super::{DEPTH_MAX, GbnfError, Part, REPEATS_MAX, RULES_MAX};
use std::collections::HashMap;

/// The rules of a grammar. Parts name rules by their index.
#[derive(Debug)]
pub(super) struct Rules {
    /// What each rule says.
    pub(super) bodies: Vec<Part>,
    /// Which one is `root`.
    pub(super) root: usize,
}

/// Reads the rules.
pub(super) fn rules(text: &str) -> Result<Rules, GbnfError> {
    let mut parser = Parser { rest: text, line: 1, names: HashMap::new(), bodies: Vec::new() };
    parser.space(true);
    while !parser.rest.is_empty() {
        parser.rule()?;
        parser.space(true);
    }
    let whole = |text: String| GbnfError { line: 0, text };
    let missing = parser.names.iter().filter(|(_, index)| parser.bodies[**index].is_none());
    if let Some(name) = missing.map(|(name, _)| name).min() {
        return Err(whole(format!("the grammar uses the rule '{name}' and has none of that name")));
    }
    let Some(root) = parser.names.get("root").copied() else {
        return Err(whole("the grammar has no rule 'root'".to_owned()));
    };
    Ok(Rules { bodies: parser.bodies.into_iter().flatten().collect(), root })
}

struct Parser<'a> {
    rest: &'a str,
    /// Of the next character, from 1.
    line: usize,
    names: HashMap<&'a str, usize>,
    bodies: Vec<Option<Part>>,
}

impl<'a> Parser<'a> {
    fn fails<T>(&self, text: impl Into<String>) -> Result<T, GbnfError> {
        Err(GbnfError { line: self.line, text: text.into() })
    }

    /// What is wrong if something else stands here.
    fn expected<T>(&self, what: &str) -> Result<T, GbnfError> {
        let found: String = self.rest.chars().take(12).collect();
        if found.is_empty() {
            self.fails(format!("expected {what}; the grammar ends here"))
        } else {
            self.fails(format!("expected {what}; found {found:?}"))
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.line += self.rest[..bytes].matches('\n').count();
        self.rest = &self.rest[bytes..];
    }

    /// Passes `text` if it stands here.
    fn takes(&mut self, text: &str) -> bool {
        let found = self.rest.starts_with(text);
        if found {
            self.skip(text.len());
        }
        found
    }

    /// Passes blanks and comments, and line ends if they do not matter here.
    fn space(&mut self, line_ends: bool) {
        loop {
            if self.rest.starts_with('#') {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            }
            let blank = |c: char| c == ' ' || c == '\t' || (line_ends && (c == '\n' || c == '\r'));
            match self.rest.find(|c| !blank(c)) {
                Some(0) => return,
                Some(bytes) => self.skip(bytes),
                None => return self.skip(self.rest.len()),
            }
        }
    }

    /// A rule's number, for a name that stands here.
    fn name(&mut self) -> Result<Option<usize>, GbnfError> {
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        if end == 0 {
            return Ok(None);
        }
        let name = &self.rest[..end];
        self.skip(end);
        if let Some(index) = self.names.get(name) {
            return Ok(Some(*index));
        }
        let index = self.bodies.len();
        if index >= RULES_MAX {
            return self.fails(format!("more than {RULES_MAX} rules"));
        }
        self.names.insert(name, index);
        self.bodies.push(None);
        Ok(Some(index))
    }

    fn rule(&mut self) -> Result<(), GbnfError> {
        let Some(index) = self.name()? else { return self.expected("the name of a rule") };
        self.space(false);
        if !self.takes("::=") {
            return self.expected("'::='");
        }
        if self.bodies[index].is_some() {
            return self.fails("a rule of this name stands above");
        }
        self.space(true);
        let body = self.either(0)?;
        self.bodies[index] = Some(body);
        if self.rest.is_empty() || self.rest.starts_with(['\n', '\r']) {
            return Ok(());
        }
        self.expected("the end of the line")
    }

    fn either(&mut self, depth: usize) -> Result<Part, GbnfError> {
        if depth > DEPTH_MAX {
            return self.fails(format!("parentheses deeper than {DEPTH_MAX}"));
        }
        let mut options = vec![self.sequence(depth)?];
        while self.bar() {
            self.space(true);
            options.push(self.sequence(depth)?);
        }
        Ok(one_or(options, Part::Either))
    }

    /// Passes a bar, on the next line too.
    fn bar(&mut self) -> bool {
        let (rest, line) = (self.rest, self.line);
        self.space(true);
        if self.takes("|") {
            return true;
        }
        (self.rest, self.line) = (rest, line);
        false
    }

    fn sequence(&mut self, depth: usize) -> Result<Part, GbnfError> {
        let mut parts = Vec::new();
        while let Some(part) = self.part(depth)? {
            parts.push(self.repeated(part)?);
            self.space(depth > 0);
        }
        Ok(one_or(parts, Part::Sequence))
    }

    fn part(&mut self, depth: usize) -> Result<Option<Part>, GbnfError> {
        if self.takes("\"") {
            return self.text().map(Some);
        }
        if self.takes("[") {
            return self.class().map(Some);
        }
        if self.takes(".") {
            return Ok(Some(Part::Any));
        }
        if self.takes("(") {
            self.space(true);
            let inner = self.either(depth + 1)?;
            self.space(true);
            return if self.takes(")") { Ok(Some(inner)) } else { self.expected("')'") };
        }
        let negated = self.takes("!");
        if self.takes("<") {
            return self.token(negated).map(Some);
        }
        if negated {
            return self.expected("a token such as <[42]>");
        }
        Ok(self.name()?.map(Part::Rule))
    }

    fn token(&mut self, negated: bool) -> Result<Part, GbnfError> {
        let Some(end) = self.rest.find('>').filter(|end| *end > 0) else {
            return self.expected("a token's name or [number] and '>'");
        };
        let inner = &self.rest[..end];
        let digits = inner.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
        let is_number = digits.is_some_and(|digits| digits.parse::<u32>().is_ok());
        let token = match (digits, negated) {
            (Some(digits), true) if is_number => format!("[^{digits}]"),
            (Some(_), false) if is_number => inner.to_owned(),
            (None, false) if inner.chars().all(|c| c.is_ascii_graphic() && c != '<') => {
                inner.to_owned()
            }
            _ => {
                return self
                    .fails("a token is <[number]> or <name>, and !<[number]> is any other one");
            }
        };
        self.skip(end + 1);
        Ok(Part::Token(token))
    }

    fn text(&mut self) -> Result<Part, GbnfError> {
        let mut text = String::new();
        while !self.takes("\"") {
            text.push(self.character("'\"'")?);
        }
        Ok(Part::Text(text))
    }

    fn class(&mut self) -> Result<Part, GbnfError> {
        let negated = self.takes("^");
        let mut ranges = Vec::new();
        while !self.takes("]") {
            let first = self.character("']'")?;
            let is_range = self.rest.starts_with('-') && !self.rest.starts_with("-]");
            let last = if is_range && self.takes("-") { self.character("']'")? } else { first };
            if last < first {
                return self.fails(format!("the range {first:?} to {last:?} is empty"));
            }
            ranges.push((first, last));
        }
        if ranges.is_empty() {
            return if negated { Ok(Part::Any) } else { self.fails("an empty [] allows nothing") };
        }
        Ok(Part::Class { negated, ranges })
    }

    /// The next character of a text or a class, which `end` ends.
    fn character(&mut self, end: &str) -> Result<char, GbnfError> {
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else { return self.expected(end) };
        if first != '\\' {
            self.skip(first.len_utf8());
            return Ok(first);
        }
        let digits = match chars.next() {
            Some('x') => 2,
            Some('u') => 4,
            Some('U') => 8,
            Some(escaped) => {
                self.skip(1 + escaped.len_utf8());
                return match escaped {
                    'n' => Ok('\n'),
                    'r' => Ok('\r'),
                    't' => Ok('\t'),
                    '\\' | '"' | '[' | ']' | '-' | '^' => Ok(escaped),
                    other => self.fails(format!("'\\{other}' is no escape")),
                };
            }
            None => return self.expected("an escape"),
        };
        let code = self.rest.get(2..2 + digits).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let Some(found) = code.and_then(char::from_u32) else {
            return self.fails(format!("expected {digits} hexadecimal digits of a character"));
        };
        self.skip(2 + digits);
        Ok(found)
    }

    fn repeated(&mut self, mut part: Part) -> Result<Part, GbnfError> {
        loop {
            let (least, most) = if self.takes("*") {
                (0, None)
            } else if self.takes("+") {
                (1, None)
            } else if self.takes("?") {
                (0, Some(1))
            } else if self.takes("{") {
                self.counts()?
            } else {
                return Ok(part);
            };
            part = Part::Repeat(Box::new(part), least, most);
        }
    }

    fn counts(&mut self) -> Result<(u32, Option<u32>), GbnfError> {
        let Some(end) = self.rest.find('}') else { return self.expected("'}'") };
        let inner = &self.rest[..end];
        let number = |text: &str| {
            let number: Option<u32> = text.trim().parse().ok();
            number.filter(|number| *number <= REPEATS_MAX)
        };
        let counts = match inner.split_once(',') {
            None => number(inner).map(|n| (n, Some(n))),
            Some((least, most)) if most.trim().is_empty() => number(least).map(|n| (n, None)),
            Some((least, most)) => {
                let least = if least.trim().is_empty() { Some(0) } else { number(least) };
                least.zip(number(most)).map(|(least, most)| (least, Some(most)))
            }
        };
        match counts.filter(|(least, most)| most.is_none_or(|most| *least <= most)) {
            Some(counts) => {
                self.skip(end + 1);
                Ok(counts)
            }
            None => self.fails(format!(
                "'{{m,n}}' needs numbers up to {REPEATS_MAX}, the first not above the second"
            )),
        }
    }
}

fn one_or(mut parts: Vec<Part>, many: fn(Vec<Part>) -> Part) -> Part {
    if parts.len() == 1 { parts.remove(0) } else { many(parts) }
}
