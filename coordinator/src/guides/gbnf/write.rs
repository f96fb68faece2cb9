//! Rules to Lark's notation.

use super::Part;
use super::parse::Rules;
use std::fmt::Write;

/// The whole grammar; terminals are `T` and a number, rules `r` and a number.
pub(super) fn lark(rules: &Rules) -> String {
    let is_terminal = terminals(&rules.bodies);
    let mut out = format!("start: {}\n", name(rules.root, &is_terminal));
    for (index, body) in rules.bodies.iter().enumerate() {
        let _ = write!(out, "{}: ", name(index, &is_terminal));
        write_part(&mut out, body, &is_terminal);
        out.push('\n');
    }
    out
}

fn name(rule: usize, is_terminal: &[bool]) -> String {
    if is_terminal[rule] { format!("T{rule}") } else { format!("r{rule}") }
}

/// Which rules are terminals: those that reach no circle and no token. What is left when rules that name
/// terminals only are taken for terminals, again and again.
fn terminals(bodies: &[Part]) -> Vec<bool> {
    let mut is_terminal = vec![false; bodies.len()];
    let mut users: Vec<Vec<usize>> = vec![Vec::new(); bodies.len()];
    // Names of rules in each body that are not known to be terminals.
    let mut open = Vec::with_capacity(bodies.len());
    for (index, body) in bodies.iter().enumerate() {
        let (mut named, mut has_token) = (Vec::new(), false);
        look(body, &mut named, &mut has_token);
        named.iter().for_each(|rule| users[*rule].push(index));
        open.push(named.len() + usize::from(has_token));
    }
    let mut found: Vec<usize> = (0..bodies.len()).filter(|index| open[*index] == 0).collect();
    while let Some(rule) = found.pop() {
        is_terminal[rule] = true;
        for user in &users[rule] {
            open[*user] -= 1;
            if open[*user] == 0 {
                found.push(*user);
            }
        }
    }
    is_terminal
}

fn look(part: &Part, named: &mut Vec<usize>, has_token: &mut bool) {
    match part {
        Part::Text(_) | Part::Class { .. } | Part::Any => {}
        Part::Rule(rule) => named.push(*rule),
        Part::Token(_) => *has_token = true,
        Part::Either(parts) | Part::Sequence(parts) => {
            parts.iter().for_each(|part| look(part, named, has_token));
        }
        Part::Repeat(part, ..) => look(part, named, has_token),
    }
}

fn write_part(out: &mut String, part: &Part, is_terminal: &[bool]) {
    match part {
        Part::Text(text) => {
            let _ = write!(out, "{}", serde_json::Value::from(text.as_str()));
        }
        Part::Class { negated, ranges } => {
            out.push_str(if *negated { "/[^" } else { "/[" });
            for (first, last) in ranges {
                let _ = write!(out, "\\x{{{:x}}}-\\x{{{:x}}}", u32::from(*first), u32::from(*last));
            }
            out.push_str("]/");
        }
        Part::Any => out.push_str("/(?s:.)/"),
        Part::Rule(rule) => out.push_str(&name(*rule, is_terminal)),
        Part::Token(token) => {
            let _ = write!(out, "<{token}>");
        }
        Part::Either(parts) => write_list(out, parts, " | ", is_terminal),
        Part::Sequence(parts) if parts.is_empty() => out.push_str("\"\""),
        Part::Sequence(parts) => write_list(out, parts, " ", is_terminal),
        Part::Repeat(part, least, most) => {
            out.push('(');
            write_part(out, part, is_terminal);
            out.push(')');
            match (least, most) {
                (0, None) => out.push('*'),
                (1, None) => out.push('+'),
                (0, Some(1)) => out.push('?'),
                (least, None) => {
                    let _ = write!(out, "{{{least},}}");
                }
                (least, Some(most)) => {
                    let _ = write!(out, "{{{least},{most}}}");
                }
            }
        }
    }
}

fn write_list(out: &mut String, parts: &[Part], between: &str, is_terminal: &[bool]) {
    out.push('(');
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            out.push_str(between);
        }
        write_part(out, part, is_terminal);
    }
    out.push(')');
}
