//! Arrows between the files of a crate: who names whom.
//!
//! An arrow goes from a file to each file of its crate that it names an item of (`crate::a::b::Item`,
//! `super::Item`, a child's `b::Item`). Arrows form no circle, a parent module and one child of its own
//! apart; and between the folders of a crate they point down only. Tests are left out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use woolly_tests::source::{SourceFile, files, words};

const CRATES: [&str; 4] = ["protocol", "engine", "worker", "coordinator"];

/// The folders of each crate, and those of a folder that has some, from bottom to top: one names those
/// before it only. What lies beside them in the same folder is shared, and bound by the circles alone.
const FOLDERS: [(&str, &[&str]); 5] = [
    ("protocol", &["failpoint", "settings"]),
    (
        "engine",
        &[
            "memory",
            "quant",
            "pool",
            "kernels",
            "probe",
            "gguf",
            "arch",
            "plan",
            "weights",
            "sampler",
            "model",
            "stage",
            "tokenizer",
            "chat_template",
            "invariance",
        ],
    ),
    (
        "worker",
        &[
            "machine",
            "weights",
            "stage",
            "bench",
            "config",
            "peers",
            "coordinator",
            "metrics",
            "app",
        ],
    ),
    (
        "coordinator",
        &[
            "metrics",
            "trust",
            "guides",
            "fetch",
            "chat_formats",
            "models",
            "journal",
            "scheduler",
            "links",
            "cluster",
            "admin",
            "http",
            "driver",
            "bench",
            "inspect",
            "planning",
            "config",
            "app",
        ],
    ),
    ("coordinator/http", &["server", "output", "input", "api"]),
];

/// Arrows between folders that point up, and why. The list may only shrink.
const UPWARD: [(&str, &str, &str); 1] =
    [("engine/pool", "kernels", "a thread owns the buffers that the kernels compute in")];

/// The files of a crate by the path of their module, without those of tests.
fn modules(krate: &str) -> BTreeMap<Vec<String>, SourceFile> {
    let root = format!("{krate}/src/");
    let found = files(&root, &["rs"]).into_iter().filter(|file| !file.is_test());
    let named = found.filter_map(|file| {
        let path = file.path.strip_prefix(&root)?.strip_suffix(".rs")?;
        let mut names: Vec<String> = path.split('/').map(str::to_owned).collect();
        names.pop_if(|last| last == "mod");
        match names[..].first().map(String::as_str) {
            Some("lib") => names.clear(),
            // A binary is no module of the crate: nobody can name it.
            Some("main") => return None,
            _ => {}
        }
        Some((names, file))
    });
    named.collect()
}

/// The paths of a `use` tree: `a::{b, c::d}` gives `a::b` and `a::c::d`.
fn paths_of_tree(tree: &str) -> Vec<String> {
    let tree = tree.trim();
    let Some(open) = tree.find('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![path.split_whitespace().collect()];
    };
    let (head, rest) = tree.split_at(open);
    let inner = &rest[1..rest.rfind('}').unwrap_or(rest.len())];
    let (mut depth, mut start, mut found) = (0, 0, Vec::new());
    let ends = inner.char_indices().chain([(inner.len(), ',')]);
    for (at, c) in ends {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let part = inner[start..at].trim();
                if !part.is_empty() {
                    found.extend(paths_of_tree(&format!("{head}{part}")));
                }
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

/// All paths in a file's code that may lead to its own crate.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for at in words(code, "use") {
        let tree = code[at + "use".len()..].split(';').next().unwrap_or_default();
        found.extend(paths_of_tree(tree));
    }
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for first in ["crate", "super", "self"] {
        for at in words(code, first) {
            let path = code[at..].split(|c| !is_path(c)).next().unwrap_or_default();
            // `pub(super)` and `pub(in crate::a)` say who may see, and name nothing.
            if path.contains("::") && !code[..at].ends_with("pub(in ") {
                found.push(path.to_owned());
            }
        }
    }
    found
}

/// The module in which the item of a path lies, seen from the module `from`; `None` if it is not of this
/// crate.
fn target(
    path: &str,
    from: &[String],
    modules: &BTreeMap<Vec<String>, SourceFile>,
) -> Option<Vec<String>> {
    let mut names = path.split("::").peekable();
    let mut at = match *names.peek()? {
        "crate" => Vec::new(),
        "self" | "super" => from.to_vec(),
        child => {
            let mut at = from.to_vec();
            at.push(child.to_owned());
            modules.contains_key(&at).then(|| from.to_vec())?
        }
    };
    for name in names {
        match name {
            "crate" | "self" => {}
            "super" => drop(at.pop()),
            name => {
                at.push(name.to_owned());
                if !modules.contains_key(&at) {
                    at.pop();
                    break;
                }
            }
        }
    }
    Some(at)
}

type Arrows = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

fn arrows(krate: &str) -> Arrows {
    let modules = modules(krate);
    let mut arrows = Arrows::new();
    for (name, file) in &modules {
        let named = paths(&file.code_without_tests());
        let targets = named.iter().filter_map(|path| target(path, name, &modules));
        let others = targets.filter(|target| target != name && modules.contains_key(target));
        arrows.insert(name.clone(), others.collect());
    }
    arrows
}

/// Whether one of the two is the other's parent module.
fn are_parent_and_child(a: &[String], b: &[String]) -> bool {
    let is_child =
        |a: &[String], b: &[String]| b.split_last().is_some_and(|(_, parent)| parent == a);
    is_child(a, b) || is_child(b, a)
}

/// The shortest way back along the arrows from `to` to `from`, if there is one that makes a circle.
fn way_back<'a>(
    arrows: &'a Arrows,
    from: &'a Vec<String>,
    to: &'a Vec<String>,
) -> Option<Vec<&'a Vec<String>>> {
    let mut came_from = BTreeMap::from([(to, to)]);
    let mut waiting = VecDeque::from([to]);
    while let Some(at) = waiting.pop_front() {
        for next in &arrows[at] {
            let is_pair = at == to && next == from && are_parent_and_child(from, to);
            if is_pair || came_from.contains_key(next) {
                continue;
            }
            came_from.insert(next, at);
            if next == from {
                let mut way = vec![from];
                while way.last() != Some(&to) {
                    way.push(came_from[way[way.len() - 1]]);
                }
                way.reverse();
                return Some(way);
            }
            waiting.push_back(next);
        }
    }
    None
}

#[test]
fn files_form_no_circle() {
    let mut wrong = BTreeSet::new();
    for krate in CRATES {
        let arrows = arrows(krate);
        let count: usize = arrows.values().map(BTreeSet::len).sum();
        assert!(count > 20, "only {count} arrows were found in {krate}");
        for (from, targets) in &arrows {
            for to in targets {
                let Some(mut way) = way_back(&arrows, from, to) else { continue };
                // Each circle once, whichever of its arrows was looked at.
                let least = way.iter().min().copied();
                while way.first().copied() != least {
                    way.rotate_left(1);
                }
                let names: Vec<String> = way.iter().map(|name| name.join("::")).collect();
                wrong.insert(format!("{krate}: {}", names.join(" -> ")));
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "files name each other in a circle:\n  {}", wrong.join("\n  "));
}

#[test]
fn arrows_between_folders_point_down() {
    let (mut wrong, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (parent, folders) in FOLDERS {
        let (krate, above) = parent.split_once('/').unwrap_or((parent, ""));
        let above: Vec<&str> = above.split_terminator('/').collect();
        // The module's path from the parent folder on.
        let inner = |name: &[String]| {
            let is_inside =
                name.len() >= above.len() && name.iter().zip(&above).all(|(a, b)| a == b);
            is_inside.then(|| name[above.len()..].to_vec())
        };
        let place = |name: &[String]| {
            let first = inner(name)?.into_iter().next()?;
            folders.iter().position(|folder| *folder == first)
        };
        let arrows = arrows(krate);
        for (from, targets) in &arrows {
            if let Some(inner) = inner(from).filter(|inner| inner.len() > 1)
                && place(from).is_none()
            {
                wrong.insert(format!("{parent}/{} is not in the list of folders", inner[0]));
            }
            for to in targets {
                let (Some(a), Some(b)) = (place(from), place(to)) else { continue };
                if a >= b {
                    continue;
                }
                let (folder, other) = (format!("{parent}/{}", folders[a]), folders[b]);
                match UPWARD.iter().find(|(f, o, _)| *f == folder && *o == other) {
                    Some(exception) => drop(used.insert(exception)),
                    None => drop(wrong.insert(format!("{folder} names {other}"))),
                }
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "folders name those below them only:\n  {}", wrong.join("\n  "));
    assert_eq!(used.len(), UPWARD.len(), "an exception is not needed any more");
}

#[test]
fn the_reader_of_paths_reads_them() {
    let tree = paths_of_tree(" super::{a::{B, c}, self, D as E}");
    assert_eq!(tree, ["super::a::B", "super::a::c", "super::self", "super::D"]);
    let found = paths("use crate::x::Y;\npub(in crate::w) fn f() { super::z::g(); }");
    assert_eq!(found, ["crate::x::Y", "crate::x::Y", "super::z::g"]);
}
