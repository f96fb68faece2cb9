//! A file of machines: TOML, of which every mistake is told with its place. `docs/planning.md` explains it.

use super::machines::{ANY, COORDINATOR, End, Machine, Machines, USUAL_WIRE, Wire};
use crate::cluster::WORKERS_MAX;
use crate::units::{parse_bandwidth, parse_rate, parse_round_trip, parse_size};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use woolly_protocol::settings::nearest;

/// Bytes of a file at most.
const FILE_MAX: u64 = 1 << 20;
/// Mistakes that are told.
const MISTAKES_MAX: usize = 50;
/// Threads of a worker at most.
const THREADS_MAX: u64 = 1024;
/// Characters of a name at most.
const NAME_MAX: usize = 64;

const TOP_KEYS: [&str; 3] = ["machine", "link", "between"];
const MACHINE_KEYS: [&str; 9] =
    ["name", "count", "memory", "may-use", "kv-memory", "threads", "read", "read-1", "multiply"];
const LINK_KEYS: [&str; 2] = ["round-trip", "bandwidth"];
const BETWEEN_KEYS: [&str; 3] = ["machines", "round-trip", "bandwidth"];

/// Reads a file of machines.
///
/// # Errors
/// Every mistake, a sentence each with its place.
pub fn read(path: &Path) -> Result<Machines, Vec<String>> {
    let shown = path.display().to_string();
    let wrong = |why: String| vec![format!("{shown}: {why}")];
    let len = std::fs::metadata(path).map_err(|why| wrong(format!("cannot be read: {why}")))?.len();
    if len > FILE_MAX {
        return Err(wrong(format!("expected at most {FILE_MAX} bytes of TOML, and it has {len}")));
    }
    let text = std::fs::read_to_string(path);
    read_text(&text.map_err(|why| wrong(format!("cannot be read: {why}")))?, &shown)
}

/// Reads the text of such a file, which `path` names in mistakes.
///
/// # Errors
/// Every mistake, a sentence each with its place.
pub fn read_text(text: &str, path: &str) -> Result<Machines, Vec<String>> {
    let mut reader = Reader { text, path, mistakes: Vec::new(), more: 0 };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let message = error.message().trim_end().replace('\n', " ");
        reader.note(error.span().map_or(0, |span| span.start), &message);
    }
    // What does not read as TOML makes others look wrong that are not.
    if !reader.mistakes.is_empty() {
        return Err(reader.mistakes);
    }
    let machines = reader.machines(table.get_ref());
    if reader.more > 0 {
        reader.mistakes.push(format!("{path}: and {} more mistakes", reader.more));
    }
    if reader.mistakes.is_empty() { Ok(machines) } else { Err(reader.mistakes) }
}

/// A text being read, and what was found wrong with it.
struct Reader<'a> {
    text: &'a str,
    path: &'a str,
    mistakes: Vec<String>,
    /// Further ones.
    more: usize,
}

/// A table, and where it begins.
struct Place<'a> {
    table: &'a DeTable<'a>,
    at: usize,
    /// What it is, for sentences.
    what: &'static str,
}

impl<'a> Place<'a> {
    fn get(&self, key: &str) -> Option<(usize, &'a Spanned<DeValue<'a>>)> {
        let found = self.table.iter().find(|(name, _)| name.get_ref().as_ref() == key);
        found.map(|(name, value)| (name.span().start, value))
    }
}

impl<'a> Reader<'a> {
    fn note(&mut self, offset: usize, why: &str) {
        if self.mistakes.len() >= MISTAKES_MAX {
            self.more += 1;
            return;
        }
        let before = self.text.get(..offset).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let (line, column) =
            (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1);
        self.mistakes.push(format!("{}:{line}:{column}: {why}", self.path));
    }

    fn machines(&mut self, table: &'a DeTable<'a>) -> Machines {
        let top = Place { table, at: 0, what: "the file" };
        self.refuse_unknown(&top, &TOP_KEYS);
        let mut machines = Machines { list: Vec::new(), usual: USUAL_WIRE, between: Vec::new() };
        let mut kinds: BTreeMap<String, Range<usize>> = BTreeMap::new();
        let listed = self.tables(&top, "machine", "a [[machine]]");
        for place in &listed {
            self.add_machine(place, &mut machines.list, &mut kinds);
        }
        if listed.is_empty() && self.mistakes.is_empty() {
            self.note(0, "expected at least one [[machine]], and there is none");
        }
        if machines.list.len() > WORKERS_MAX {
            self.note(0, &format!("expected at most {WORKERS_MAX} machines in all, got more"));
        }
        if let Some((at, value)) = top.get("link") {
            match value.get_ref() {
                DeValue::Table(table) => {
                    let place = Place { table, at, what: "[link]" };
                    self.refuse_unknown(&place, &LINK_KEYS);
                    machines.usual = self.wire(&place, machines.usual);
                }
                _ => self.note(at, "link: expected a table [link]"),
            }
        }
        for place in self.tables(&top, "between", "a [[between]]") {
            self.refuse_unknown(&place, &BETWEEN_KEYS);
            let wire = self.wire(&place, machines.usual);
            if let Some((one, other)) = self.ends(&place, &kinds) {
                machines.between.push((one, other, wire));
            }
        }
        machines
    }

    /// The tables of a list of them.
    fn tables(&mut self, top: &Place<'a>, key: &str, what: &'static str) -> Vec<Place<'a>> {
        let Some((at, value)) = top.get(key) else { return Vec::new() };
        let DeValue::Array(list) = value.get_ref() else {
            self.note(at, &format!("{key}: expected [[{key}]], one for each"));
            return Vec::new();
        };
        let mut places = Vec::new();
        for item in list.iter() {
            match item.get_ref() {
                DeValue::Table(table) => {
                    places.push(Place { table, at: item.span().start, what });
                }
                _ => self.note(item.span().start, &format!("{key}: expected tables [[{key}]]")),
            }
        }
        places
    }

    fn refuse_unknown(&mut self, place: &Place<'a>, known: &[&str]) {
        for (key, _) in place.table.iter() {
            let name = key.get_ref().as_ref();
            if known.contains(&name) {
                continue;
            }
            let near = nearest(&name.replace('_', "-"), known.iter().copied());
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            let shown: String = name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
            let (what, keys) = (place.what, known.join(", "));
            let why = format!("{shown}: {what} has no such key, but {keys}{near}");
            self.note(key.span().start, &why);
        }
    }

    /// A text that stands under a key, read; `None` if it is not there or was found wrong.
    fn read<T>(
        &mut self,
        place: &Place<'a>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (at, value) = place.get(key)?;
        let found = match value.get_ref() {
            DeValue::String(text) => parse(text),
            DeValue::Integer(_) | DeValue::Float(_) => {
                parse(self.text.get(value.span()).unwrap_or_default())
            }
            _ => parse(""),
        };
        match found {
            Ok(value) => Some(value),
            Err(why) => {
                let got = self.text.get(value.span()).unwrap_or("something else");
                let got: String =
                    got.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                self.note(at, &format!("{key}: {why}, got {got}"));
                None
            }
        }
    }

    /// As [`read`](Self::read), of a key that must be there.
    fn need<T>(
        &mut self,
        place: &Place<'a>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        if place.get(key).is_none() {
            self.note(place.at, &format!("{} needs the key {key}", place.what));
        }
        self.read(place, key, parse)
    }

    fn add_machine(
        &mut self,
        place: &Place<'a>,
        list: &mut Vec<Machine>,
        kinds: &mut BTreeMap<String, Range<usize>>,
    ) {
        self.refuse_unknown(place, &MACHINE_KEYS);
        let whole = |most: u64| move |text: &str| parse_whole(text, most);
        let name = self.need(place, "name", parse_name);
        let count = self.read(place, "count", whole(WORKERS_MAX as u64)).unwrap_or(1);
        let memory = self.need(place, "memory", parse_size);
        let may_use = self.read(place, "may-use", parse_size);
        let kv_memory = self.read(place, "kv-memory", parse_size);
        let threads = self.need(place, "threads", whole(THREADS_MAX));
        let read = self.need(place, "read", parse_bandwidth);
        let read_1 = self.read(place, "read-1", parse_bandwidth);
        let macs = self.need(place, "multiply", parse_rate);
        if let (Some(memory), Some(may_use)) = (memory, may_use)
            && may_use > memory
        {
            self.note(place.at, "may-use: expected at most what memory says");
        }
        if let (Some(read), Some(read_1)) = (read, read_1)
            && read_1 > read
        {
            self.note(
                place.at,
                "read-1: expected at most what read says: one thread is not faster",
            );
        }
        let Some(name) = name else { return };
        if kinds.contains_key(&name) {
            self.note(place.at, &format!("the name {name} is given twice"));
            return;
        }
        let first = list.len();
        let machine = Machine {
            name: name.clone(),
            memory_bytes: memory.unwrap_or(1),
            may_use_bytes: may_use,
            kv_memory_bytes: kv_memory.unwrap_or(0),
            threads: threads.map_or(1, |threads| threads as u32),
            read_bytes_per_s: read.unwrap_or(1),
            read_1_bytes_per_s: read_1,
            macs_per_s: macs.unwrap_or(1),
        };
        // One too many is enough to say so.
        let count = if first > WORKERS_MAX { 0 } else { count };
        for number in 1..=count {
            let name = if count == 1 { name.clone() } else { format!("{name}-{number}") };
            if count > 1 && kinds.insert(name.clone(), list.len()..list.len() + 1).is_some() {
                self.note(place.at, &format!("the name {name} is given twice"));
            }
            list.push(Machine { name, ..machine.clone() });
        }
        kinds.insert(name, first..list.len());
    }

    fn wire(&mut self, place: &Place<'a>, usual: Wire) -> Wire {
        let round_trip = self.read(place, "round-trip", parse_round_trip);
        let bandwidth = self.read(place, "bandwidth", parse_bandwidth);
        if place.get("round-trip").is_none() && place.get("bandwidth").is_none() {
            self.note(place.at, &format!("{} needs round-trip or bandwidth", place.what));
        }
        Wire {
            round_trip: round_trip.unwrap_or(usual.round_trip),
            bytes_per_s: bandwidth.unwrap_or(usual.bytes_per_s),
        }
    }

    /// The two ends of a link, by the names of machines.
    fn ends(
        &mut self,
        place: &Place<'a>,
        kinds: &BTreeMap<String, Range<usize>>,
    ) -> Option<(End, End)> {
        let Some((at, value)) = place.get("machines") else {
            self.note(place.at, &format!("{} needs the key machines", place.what));
            return None;
        };
        let names: Option<Vec<&str>> = match value.get_ref() {
            DeValue::Array(list) => list
                .iter()
                .map(|item| match item.get_ref() {
                    DeValue::String(name) => Some(name.as_ref()),
                    _ => None,
                })
                .collect(),
            _ => None,
        };
        let Some([one, other]) = names.as_deref() else {
            self.note(at, "machines: expected two names, such as [\"desk\", \"server\"]");
            return None;
        };
        let mut end = |name: &str| match kinds.get(name) {
            _ if name == COORDINATOR => Some(End::Coordinator),
            _ if name == ANY => Some(End::Any),
            Some(places) => Some(End::Machines(places.clone())),
            None => {
                let known = kinds.keys().map(String::as_str).chain([COORDINATOR, ANY]);
                let near = nearest(name, known);
                let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
                let shown: String =
                    name.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect();
                self.note(at, &format!("machines: there is no machine {shown}{near}"));
                None
            }
        };
        let (one, other) = (end(one), end(other));
        one.zip(other)
    }
}

fn parse_whole(text: &str, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("expected a whole number from 1 to {most}"))
}

fn parse_name(text: &str) -> Result<String, String> {
    let is_fine = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.chars().count() > NAME_MAX || !text.chars().all(is_fine) {
        return Err(format!("expected a name of 1 to {NAME_MAX} letters, digits, - _ and ."));
    }
    if text == COORDINATOR || text == ANY {
        return Err(format!("expected another name: {COORDINATOR} and {ANY} mean something here"));
    }
    Ok(text.to_owned())
}
