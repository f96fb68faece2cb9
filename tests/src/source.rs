//! The project's own files as text, for the tests that look at how it is written.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing written by hand, wherever they are.
const FOLDERS_LEFT_OUT: [&str; 4] = [".git", "target", "fixtures", "__pycache__"];
/// The same in the workspace's own folder: models that were fetched.
const MODELS: &str = "models";

/// The folder of the workspace.
pub fn workspace_root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("the tests crate lies in the workspace").to_owned()
}

/// A file of the project.
#[derive(Clone, Debug)]
pub struct SourceFile {
    /// Path from the workspace's folder, with `/`.
    pub path: String,
    /// The text as it stands.
    pub text: String,
}

impl SourceFile {
    /// The Rust code alone: comments and the contents of strings are blank, lines stay where they
    /// are.
    pub fn code(&self) -> String {
        code_of(&self.text)
    }

    /// Like [`code`](Self::code), without a unit-test module at the end of the file.
    pub fn code_without_tests(&self) -> String {
        let code = self.code();
        let mut at = 0;
        while let Some(found) = code[at..].find("#[cfg(test)]") {
            let after = &code[at + found + "#[cfg(test)]".len()..];
            if after.trim_start().starts_with("mod ") {
                return code[..at + found].to_owned();
            }
            at += found + 1;
        }
        code
    }

    /// Whether the whole file is test code.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| matches!(part, "tests" | "tests.rs" | "testing.rs"))
    }
}

/// Every text file with one of the `extensions` under `folder` (from the workspace's folder; "" is
/// all of it), in order of their paths. Files without an extension count as "".
pub fn files(folder: &str, extensions: &[&str]) -> Vec<SourceFile> {
    let root = workspace_root();
    let mut found = Vec::new();
    collect(&root, &root.join(folder), extensions, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn collect(root: &Path, path: &Path, extensions: &[&str], found: &mut Vec<SourceFile>) {
    if path.is_file() {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if extensions.contains(&extension)
            && let Ok(text) = fs::read_to_string(path)
        {
            let relative = path.strip_prefix(root).expect("the walk starts at the root");
            found.push(SourceFile { path: relative.to_string_lossy().replace('\\', "/"), text });
        }
        return;
    }
    let Ok(entries) = fs::read_dir(path) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let left_out = FOLDERS_LEFT_OUT.iter().any(|left_out| name == *left_out)
            || (path == root && name == MODELS);
        if !left_out && !entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            collect(root, &entry.path(), extensions, found);
        }
    }
}

/// Positions of `word` in `text` where it is not part of a longer identifier.
pub fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    text.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let begins_inside = before.is_some_and(part) && word.starts_with(part);
        let ends_inside = after.is_some_and(part) && word.ends_with(part);
        !begins_inside && !ends_inside
    })
}

/// The line number of a position, from 1.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Blanks comments and the insides of strings and characters; newlines stay.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (kept, skipped) = match first {
            '/' if rest.starts_with("//") => (0, rest.find('\n').unwrap_or(rest.len())),
            '/' if rest.starts_with("/*") => (0, block_comment(rest)),
            '"' => (0, string(rest)),
            'r' | 'b' | 'c' if !ends_in_word(&out) => (0, prefixed_string(rest)),
            '\'' => (0, character(rest)),
            _ => (first.len_utf8(), 0),
        };
        let taken = if kept + skipped == 0 { first.len_utf8() } else { kept + skipped };
        if skipped == 0 {
            out.push_str(&rest[..taken]);
        } else {
            out.push(' ');
            out.extend(rest[..taken].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[taken..];
    }
    out
}

fn ends_in_word(text: &str) -> bool {
    text.chars().next_back().is_some_and(|c| c.is_alphanumeric() || c == '_')
}

/// Bytes of the (nested) block comment that `text` starts with.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            match text[at..].chars().next() {
                None => return at,
                Some(c) => at += c.len_utf8(),
            }
        }
    }
}

/// Bytes of the plain string that `text` starts with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of the raw, byte or C string that `text` starts with; 0 if it is none.
fn prefixed_string(text: &str) -> usize {
    let prefix = text.len() - text.trim_start_matches(['r', 'b', 'c']).len();
    let after = &text[prefix..];
    if prefix > 2 {
        return 0;
    }
    let raw = text[..prefix].contains('r');
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') || (!raw && hashes > 0) {
        return 0;
    }
    if !raw {
        return prefix + string(after);
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let body = prefix + hashes + 1;
    text[body..].find(&end).map_or(text.len(), |at| body + at + end.len())
}

/// Bytes of the character literal that `text` starts with; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            chars.next();
            chars.find(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1)
        }
        Some((at, c)) if text[at + c.len_utf8()..].starts_with('\'') => at + c.len_utf8() + 1,
        _ => 0,
    }
}
