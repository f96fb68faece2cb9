//! The invariants of ARCHITECTURE.md that can be seen in the source: arrows, cores, unsafe, floats.

use woolly_tests::source::{SourceFile, files, line_of, words};

/// Which of our crates each crate may depend on.
const ARROWS: [(&str, &[&str]); 5] = [
    ("protocol", &[]),
    ("engine", &[]),
    ("worker", &["woolly-engine", "woolly-protocol"]),
    ("coordinator", &["woolly-engine", "woolly-protocol"]),
    ("tests", &["woolly-coordinator", "woolly-engine", "woolly-protocol", "woolly-worker"]),
];

/// What the engine must not know: async, sockets, wire formats.
const NOT_IN_ENGINE: [&str; 8] =
    ["tokio", "quinn", "rustls", "rkyv", "axum", "hyper", "socket2", "futures-util"];

/// What the coordinator uses of the engine: what reads files and text, and arithmetic.
const ENGINE_FOR_COORDINATOR: [&str; 5] =
    ["gguf", "tokenizer", "chat_template", "plan", "NUMERICS"];

/// Files beside `worker/src/convert.rs` that name both a wire type and an engine type, by the
/// beginning of their path, and why. The list may only shrink.
const NAMES_BOTH: [(&str, &str); 3] = [
    (
        "coordinator/src/models/model.rs",
        "says on the wire which files the engine's reader has read",
    ),
    ("coordinator/src/cluster/", "the engine's plan arithmetic over workers that have wire ids"),
    ("coordinator/src/models/slices/", "reads what a wire request names by the engine's layout"),
];

/// Where `unsafe` may stand.
const UNSAFE_PLACES: [&str; 7] = [
    "engine/src/kernels/",
    "engine/src/pool/",
    "engine/src/memory/",
    "engine/src/weights/lost_pages.rs",
    "engine/src/weights/mapping.rs",
    "engine/src/weights/pages.rs",
    "engine/src/probe/loops.rs",
];

/// What the scheduler and the cluster core must not contain: they are told the time and the events,
/// and say what to do. (An address is a value; a socket is not.)
const NOT_IN_CORES: [&str; 21] = [
    "async",
    "await",
    "tokio",
    "quinn",
    "Instant::now",
    "SystemTime",
    "std::thread",
    "thread::spawn",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "std::fs",
    "std::env",
    "getrandom",
    "println!",
    "eprintln!",
    "Mutex",
    "RwLock",
    "static mut",
    "LazyLock",
];

/// Files of `coordinator/src/fetch` that decide and ask nobody.
const CORE_OF_DOWNLOADS: [&str; 7] =
    ["answer.rs", "choose.rs", "course.rs", "link.rs", "parts.rs", "source.rs", "spans.rs"];

/// Functions of std whose last bits differ between platforms, as method and as path.
const STD_FLOAT: [&str; 20] = [
    "exp", "exp2", "exp_m1", "ln", "ln_1p", "log", "log2", "log10", "powf", "powi", "sin", "cos",
    "tan", "sin_cos", "sinh", "cosh", "tanh", "asin", "acos", "cbrt",
];

fn rust_files(folder: &str) -> Vec<SourceFile> {
    let found = files(folder, &["rs"]);
    assert!(!found.is_empty(), "no Rust file under {folder}: was it renamed?");
    found
}

fn refuse(wrong: Vec<String>, rule: &str) {
    assert!(wrong.is_empty(), "{rule}\n  {}", wrong.join("\n  "));
}

/// `path:line` of every whole word of `list` in `code`.
fn places(file: &SourceFile, code: &str, list: &[&str]) -> Vec<String> {
    let found = |word: &&str| -> Vec<String> {
        words(code, word).map(|at| format!("{}:{}: {word}", file.path, line_of(code, at))).collect()
    };
    list.iter().flat_map(found).collect()
}

/// The dependencies of a manifest, over all its dependency tables.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            inside = table.trim_end_matches(']').ends_with("dependencies");
        } else if inside && !line.is_empty() && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
            found.push(name.trim_matches('"').to_owned());
        }
    }
    found
}

/// The names that follow `krate::` in code, lists in braces included: `x::{a::b, c}` gives a and c.
fn names_used<'a>(code: &'a str, krate: &'a str) -> Vec<(usize, &'a str)> {
    let ident = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for at in words(code, krate) {
        let after = code[at + krate.len()..].trim_start();
        let Some(path) = after.strip_prefix("::") else {
            found.push((at, "(the crate itself)"));
            continue;
        };
        let path = path.trim_start();
        let Some(list) = path.strip_prefix('{') else {
            found.push((at, path.split(|c| !ident(c)).next().unwrap_or_default()));
            continue;
        };
        let mut depth = 1;
        let mut start_of_item = true;
        for (i, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => start_of_item = depth == 1,
                c if start_of_item && depth == 1 && ident(c) => {
                    found.push((at, list[i..].split(|c| !ident(c)).next().unwrap_or_default()));
                    start_of_item = false;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
        }
    }
    found
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut wrong = Vec::new();
    for (krate, allowed) in ARROWS {
        let manifest = files(krate, &["toml"]);
        let manifest = manifest.iter().find(|file| file.path == format!("{krate}/Cargo.toml"));
        let manifest = manifest.unwrap_or_else(|| panic!("{krate}/Cargo.toml is missing"));
        for name in dependencies(&manifest.text) {
            if name.starts_with("woolly-") && !allowed.contains(&name.as_str()) {
                wrong.push(format!("{krate} depends on {name}"));
            }
            if krate == "engine" && NOT_IN_ENGINE.contains(&name.as_str()) {
                wrong.push(format!("engine depends on {name}"));
            }
        }
    }
    refuse(
        wrong,
        "protocol and engine know nobody; worker and coordinator know both but not each other:",
    );
}

#[test]
fn every_dependency_is_used() {
    let mut wrong = Vec::new();
    for krate in ["protocol", "engine", "worker", "coordinator", "tests"] {
        let manifest = files(krate, &["toml"]);
        let manifest = manifest.iter().find(|file| file.path == format!("{krate}/Cargo.toml"));
        let manifest = manifest.unwrap_or_else(|| panic!("{krate}/Cargo.toml is missing"));
        let code: Vec<String> = rust_files(krate).iter().map(SourceFile::code).collect();
        for name in dependencies(&manifest.text) {
            let word = name.replace('-', "_");
            if !code.iter().any(|code| words(code, &word).next().is_some()) {
                wrong.push(format!("{krate}: {name}"));
            }
        }
    }
    refuse(wrong, "a dependency is named in the code of its crate:");
}

#[test]
fn the_coordinator_uses_of_the_engine_only_what_reads_files_and_text() {
    let mut wrong = Vec::new();
    for file in rust_files("coordinator/src") {
        // Tests may make models to serve.
        if file.is_test() {
            continue;
        }
        let code = file.code();
        for (at, name) in names_used(&code, "woolly_engine") {
            if !ENGINE_FOR_COORDINATOR.contains(&name) {
                wrong.push(format!("{}:{}: woolly_engine::{name}", file.path, line_of(&code, at)));
            }
        }
    }
    refuse(wrong, &format!("the coordinator may name {ENGINE_FOR_COORDINATOR:?} of the engine:"));
}

#[test]
fn one_file_converts_between_wire_and_engine() {
    let mut wrong = Vec::new();
    let mut used = Vec::new();
    for file in rust_files("worker/src").into_iter().chain(rust_files("coordinator/src")) {
        let code = file.code_without_tests();
        let both = words(&code, "woolly_protocol").next().is_some()
            && words(&code, "woolly_engine").next().is_some();
        if !both || file.path == "worker/src/convert.rs" || file.is_test() {
            continue;
        }
        match NAMES_BOTH.iter().find(|(path, _)| file.path.starts_with(path)) {
            Some((path, _)) => used.push(*path),
            None => wrong.push(file.path),
        }
    }
    refuse(wrong, "only worker/src/convert.rs names both wire types and engine types:");
    let unused: Vec<String> = NAMES_BOTH
        .iter()
        .filter(|(path, _)| !used.contains(path))
        .map(|e| e.0.to_owned())
        .collect();
    refuse(unused, "these exceptions are not needed any more:");
}

#[test]
fn the_cores_have_no_clock_socket_thread_or_chance() {
    let mut wrong = Vec::new();
    for folder in ["coordinator/src/scheduler", "coordinator/src/cluster"] {
        for file in rust_files(folder) {
            wrong.extend(places(&file, &file.code(), &NOT_IN_CORES));
        }
    }
    for file in rust_files("coordinator/src/fetch") {
        let name = file.path.rsplit('/').next().unwrap_or_default();
        if CORE_OF_DOWNLOADS.contains(&name) {
            wrong.extend(places(&file, &file.code(), &NOT_IN_CORES));
        }
    }
    refuse(wrong, "the cores are state machines; these belong into the shell:");
}

#[test]
fn no_file_excuses_all_of_its_unsafe_code() {
    let excused = ["unsafe_code", "undocumented_unsafe_blocks"];
    let mut wrong = Vec::new();
    for file in rust_files("") {
        let code = file.code();
        for (at, _) in code.match_indices("#![allow(") {
            let list = &code[at..at + code[at..].find(")]").unwrap_or(0)];
            if excused.iter().any(|lint| words(list, lint).next().is_some()) {
                wrong.push(format!("{}:{}", file.path, line_of(&code, at)));
            }
        }
    }
    refuse(wrong, "what is allowed is said where a module is declared, or at the site:");
}

#[test]
fn unsafe_stands_only_in_kernels_pool_and_mappings() {
    let mut wrong = Vec::new();
    for file in files("", &["rs"]) {
        if !UNSAFE_PLACES.iter().any(|place| file.path.starts_with(place)) {
            wrong.extend(places(&file, &file.code(), &["unsafe"]));
        }
    }
    refuse(wrong, &format!("unsafe code may stand only in {UNSAFE_PLACES:?}:"));
}

#[test]
fn the_engine_computes_no_float_with_std() {
    let calls: Vec<String> = STD_FLOAT
        .iter()
        .flat_map(|name| [format!(".{name}("), format!("f32::{name}"), format!("f64::{name}")])
        .collect();
    let calls: Vec<&str> = calls.iter().map(String::as_str).collect();
    let mut wrong = Vec::new();
    for file in rust_files("engine/src") {
        if !file.is_test() {
            wrong.extend(places(&file, &file.code_without_tests(), &calls));
        }
    }
    refuse(wrong, "the last bits of these differ between platforms; use engine/src/math.rs:");
}

/// The structs of coordinator and worker that have all of these fields, tests apart.
fn records_with(fields: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in ["coordinator/src/", "worker/src/"].into_iter().flat_map(rust_files) {
        if file.is_test() {
            continue;
        }
        let code = file.code();
        for (at, _) in code.match_indices("struct ") {
            let rest = &code[at + "struct ".len()..];
            let Some(open) = rest.find(['{', ';']).filter(|open| rest[*open..].starts_with('{'))
            else {
                continue;
            };
            let body = &rest[open..rest.find("\n}").unwrap_or(rest.len()).max(open)];
            let has = |field: &&str| body.contains(&format!(" {field}: "));
            if fields.iter().all(has) {
                let name = rest[..open].trim();
                found.push(format!("{}:{}: {name}", file.path, line_of(&code, at)));
            }
        }
    }
    found
}

#[test]
fn what_is_on_its_way_has_one_record_outside_protocol_and_engine() {
    let things: [(&str, &[&str], usize); 3] = [
        ("a token with its log-probability", &["token", "logprob"], 1),
        ("how tokens are chosen", &["temperature", "top_p"], 0),
        ("a chunk", &["sequence", "scored"], 1),
    ];
    for (thing, fields, expected) in things {
        let found = records_with(fields);
        assert_eq!(found.len(), expected, "records of {thing}: {found:#?}");
    }
}

#[test]
fn names_used_sees_paths_and_lists() {
    let code = "use woolly_engine::gguf::Gguf; use woolly_engine::{plan::{A, B}, kv, stage as s}; \
                woolly_engine ::NUMERICS; use woolly_engine as e;";
    let names: Vec<&str> =
        names_used(code, "woolly_engine").into_iter().map(|(_, name)| name).collect();
    assert_eq!(names, ["gguf", "plan", "kv", "stage", "NUMERICS", "(the crate itself)"]);
}
