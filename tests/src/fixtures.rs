//! Models and golden files: where they are, and fetching those that are not committed.

use crate::source::workspace_root;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// SmolLM2-135M-Instruct, Q4_1.
const SMOLLM2_SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
/// gemma-3-270m, Q4_K_M.
const GEMMA3_SHA256: &str = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818";
/// `models/granite-tiny.gguf`.
const GRANITE_TINY_SHA256: &str =
    "1e3527b0893b82732928565f3e96fb899a41b05574862ec07f546f4ef155c867";
/// The file that a folder named by `WOOLLY_TEST_MODELS` may hold.
const QWEN_FILE: &str = "qwen2.5-coder-1.5b-q4_k_m.gguf";
/// Qwen2.5-Coder-1.5B-Instruct, Q4_K_M.
const QWEN_SHA256: &str = "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046";

/// `tests/fixtures`.
pub fn folder() -> PathBuf {
    workspace_root().join("tests/fixtures")
}

/// A model that is committed, by its name without `.gguf`.
pub fn committed(name: &str) -> PathBuf {
    let path = folder().join("models").join(format!("{name}.gguf"));
    assert!(path.is_file(), "{} is missing: is the checkout complete?", path.display());
    path
}

/// The names of all committed models whose name begins with `prefix`, in order.
pub fn committed_names(prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder().join("models")).expect("tests/fixtures/models exists");
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".gguf")?.to_owned()))
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    assert!(!names.is_empty(), "no model named {prefix}* is committed");
    names
}

/// granite-tiny, checked once.
pub fn granite_tiny() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| checked(committed("granite-tiny"), GRANITE_TINY_SHA256))
}

/// SmolLM2-135M-Instruct; fetched by the first test that needs it, kept for the next time, checked.
pub fn smollm2() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| checked(fetch("fetch_model.sh"), SMOLLM2_SHA256))
}

/// gemma-3-270m, Q4_K_M; fetched by the first test that needs it, kept for the next time, checked.
pub fn gemma3() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| checked(fetch("fetch_gemma3_270m.sh"), GEMMA3_SHA256))
}

/// Qwen2.5-Coder-1.5B-Instruct if `WOOLLY_TEST_MODELS` names a folder that has it.
pub fn qwen() -> Option<&'static Path> {
    static PATH: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || {
        let path = PathBuf::from(std::env::var_os("WOOLLY_TEST_MODELS")?).join(QWEN_FILE);
        path.is_file().then(|| checked(path, QWEN_SHA256))
    };
    PATH.get_or_init(find).as_deref()
}

/// The model that the golden files `name.*.json` were made with; `None` if it is not here.
pub fn model_of_golden(name: &str) -> Option<PathBuf> {
    match name {
        "smollm2-135m" => Some(smollm2().to_owned()),
        "gemma-3-270m" => Some(gemma3().to_owned()),
        "granite-tiny" => Some(granite_tiny().to_owned()),
        "qwen2.5-coder-1.5b" => qwen().map(Path::to_owned),
        tiny => Some(committed(tiny)),
    }
}

fn fetch(script: &str) -> PathBuf {
    let script = workspace_root().join("tests/scripts").join(script);
    let out = Command::new(&script).stderr(std::process::Stdio::inherit()).output();
    let out = out.unwrap_or_else(|error| panic!("cannot run {}: {error}", script.display()));
    assert!(out.status.success(), "{} failed ({}); see above", script.display(), out.status);
    let path = String::from_utf8(out.stdout).expect("the script prints a path");
    PathBuf::from(path.trim_end())
}

fn checked(path: PathBuf, expected: &str) -> PathBuf {
    let mut hasher = Sha256::new();
    let mut file = File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    io::copy(&mut file, &mut hasher).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let found = hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    });
    assert_eq!(found, expected, "SHA-256 of {}; remove it to fetch it again", path.display());
    path
}
