//! House rules that rustfmt and clippy do not know. Exceptions stand in one list, each with a reason.

use std::fs;
use std::path::Path;
use woolly_tests::source::{SourceFile, files, line_of, words, workspace_root};

/// Lines of a Rust file at most.
const FILE_LINES_MAX: usize = 450;
/// Lines of one that holds tests alone.
const TEST_LINES_MAX: usize = 500;

/// Exceptions as (file, rule, reason); the list may only shrink.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

/// What must not stand in code on main.
const NOT_IN_CODE: [&str; 6] =
    ["todo!", "unimplemented!", "dbg!", "ignore", "access_unchecked", "unbounded_channel"];

/// What must not stand in comments either. In two halves, so that this file does not name them.
const NOT_IN_TEXT: [(&str, &str); 3] = [("TO", "DO"), ("FIX", "ME"), ("XX", "X")];

/// Folders that exist only on somebody's machine.
const NOT_IN_PATHS: [(&str, &str); 5] =
    [("/wo", "rk/"), ("/fa", "rm/"), ("/ro", "ot/"), ("/User", "s/"), ("/tmp/", "bash_jobs")];

/// Extensions of the project's text files.
const TEXT: [&str; 18] = [
    "rs", "md", "toml", "sh", "py", "js", "mjs", "css", "html", "yml", "yaml", "json", "service",
    "c", "conf", "env", "tpl", "",
];

fn excepted(path: &str, rule: &str) -> bool {
    EXCEPTIONS.iter().any(|(file, excepted, _)| *file == path && *excepted == rule)
}

fn refuse(rule: &str, wrong: Vec<(String, String)>) {
    let left: Vec<String> = wrong
        .iter()
        .filter(|(path, _)| !excepted(path, rule))
        .map(|(path, what)| format!("{path}{what}"))
        .collect();
    assert!(left.is_empty(), "{rule}:\n  {}", left.join("\n  "));
    for (path, _, _) in EXCEPTIONS.iter().filter(|(_, excepted, _)| *excepted == rule) {
        assert!(wrong.iter().any(|(found, _)| found == path), "{path} needs no exception: {rule}");
    }
}

fn rust_files() -> Vec<SourceFile> {
    files("", &["rs"])
}

#[test]
fn files_are_short() {
    let long = rust_files().into_iter().filter_map(|file| {
        let lines = file.text.lines().count();
        let most = if file.is_test() { TEST_LINES_MAX } else { FILE_LINES_MAX };
        (lines > most).then(|| (file.path, format!(": {lines} lines")))
    });
    refuse("a Rust file has at most 450 lines, and 500 if it is all tests", long.collect());
}

#[test]
fn files_begin_with_a_sentence() {
    let bare = rust_files().into_iter().filter_map(|file| {
        let first = file.text.lines().next().unwrap_or_default();
        let says = first.strip_prefix("//! ").is_some_and(|text| text.len() > 10);
        (!says).then(|| (file.path, format!(": {first}")))
    });
    refuse("the first line of a Rust file is `//!` and a sentence", bare.collect());
}

#[test]
fn nothing_unfinished_is_left() {
    let mut wrong = Vec::new();
    for file in rust_files() {
        let code = file.code();
        for word in NOT_IN_CODE {
            for at in words(&code, word) {
                // Lint and attribute names are part of longer words; a method `.ignore(` is not ours.
                if word != "ignore" || code[..at].ends_with("#[") {
                    wrong.push((file.path.clone(), format!(":{}: {word}", line_of(&code, at))));
                }
            }
        }
    }
    for file in files("", &TEXT) {
        for (head, tail) in NOT_IN_TEXT {
            let word = format!("{head}{tail}");
            for at in words(&file.text, &word) {
                wrong.push((file.path.clone(), format!(":{}: {word}", line_of(&file.text, at))));
            }
        }
    }
    refuse("nothing unfinished, ignored, unchecked or unbounded", wrong);
}

#[test]
fn no_path_of_one_machine_is_named() {
    let mut wrong = Vec::new();
    for file in files("", &TEXT) {
        for (head, tail) in NOT_IN_PATHS {
            let folder = format!("{head}{tail}");
            for (at, _) in file.text.match_indices(&folder) {
                let before = file.text[..at].chars().next_back().unwrap_or(' ');
                if !before.is_alphanumeric() && before != '.' && before != '}' {
                    let line = line_of(&file.text, at);
                    wrong.push((file.path.clone(), format!(":{line}: {folder}")));
                }
            }
        }
    }
    refuse("no path of one machine", wrong);
}

#[test]
fn the_environment_is_read_where_configuration_is() {
    let mut wrong = Vec::new();
    for file in
        ["coordinator/src", "worker/src", "protocol/src"].iter().flat_map(|f| files(f, &["rs"]))
    {
        let config = file.path.ends_with("/config.rs") || file.path.contains("/config/");
        let code = file.code_without_tests();
        for at in words(&code, "env::var").chain(words(&code, "env::var_os")) {
            if !config && !file.is_test() {
                wrong.push((file.path.clone(), format!(":{}", line_of(&code, at))));
            }
        }
    }
    refuse("environment variables are read in config.rs only", wrong);
}

#[test]
fn every_dependency_says_what_for() {
    let mut wrong = Vec::new();
    for file in files("", &["toml"]).iter().filter(|file| file.path.ends_with("Cargo.toml")) {
        let mut inside = false;
        let mut explained = false;
        for (number, line) in file.text.lines().map(str::trim).enumerate() {
            if line.starts_with('[') {
                inside = line.trim_end_matches(']').ends_with("dependencies");
                explained = false;
            } else if line.is_empty() {
                explained = false;
            } else if line.starts_with('#') {
                explained = true;
            } else if inside && !explained && !line.contains(".workspace = true") {
                wrong.push((file.path.clone(), format!(":{}: {line}", number + 1)));
            }
        }
    }
    refuse("a comment above each group of dependencies says what for", wrong);
}

#[test]
fn scripts_can_be_run() {
    use std::os::unix::fs::PermissionsExt;
    let scripts = [".ci/run", "deploy/demo.sh", "tests/scripts/fetch_model.sh"];
    for script in scripts {
        let path = workspace_root().join(script);
        let mode = fs::metadata(&path).unwrap_or_else(|e| panic!("{script}: {e}")).permissions();
        assert!(mode.mode() & 0o111 != 0, "{script} has no run bit");
    }
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut wrong = Vec::new();
    for file in files("", &["md"]) {
        let folder = Path::new(&file.path).parent().unwrap_or(Path::new(""));
        for link in file.text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            let local = !target.is_empty() && !target.contains("://") && !target.contains(' ');
            if local && !workspace_root().join(folder).join(target).exists() {
                wrong.push((file.path.clone(), format!(": {link}")));
            }
        }
    }
    refuse("a link in a Markdown file leads to a file that exists", wrong);
}

#[test]
fn the_architecture_names_files_that_exist() {
    let named = files("ARCHITECTURE.md", &["md"]);
    let text = &named.first().expect("ARCHITECTURE.md exists").text;
    let is_path =
        |name: &&str| name.contains('/') && (name.ends_with(".rs") || name.ends_with('/'));
    // Every second piece between backticks is code.
    let paths = text.split('`').skip(1).step_by(2).filter(is_path);
    let (mut wrong, mut compared) = (Vec::new(), 0);
    for path in paths {
        // The code map names parts of a crate within its paragraph.
        let roots =
            ["", "engine/src/", "worker/src/", "coordinator/src/", "protocol/src/", "tests/"];
        let exists = roots.iter().any(|root| workspace_root().join(root).join(path).exists());
        if !exists {
            wrong.push(("ARCHITECTURE.md".to_owned(), format!(": {path}")));
        }
        compared += 1;
    }
    assert!(compared > 20, "only {compared} paths were found");
    refuse("ARCHITECTURE.md names files that exist", wrong);
}
