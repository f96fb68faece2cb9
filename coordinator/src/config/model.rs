//! Flags about which model is served.

use crate::exit::Fatal;
use crate::fetch::Source;
use clap::Args;
use std::path::{Path, PathBuf};

/// Models that are known to be good for what people have, for those who have none.
pub const GOOD_MODELS: &str = "A model is a GGUF file or is downloaded by its name. Good ones: with 8 GB of memory \
    hf:Qwen/Qwen3-4B-GGUF:Q4_K_M, with 32 GB hf:ggml-org/gpt-oss-20b-GGUF or hf:Qwen/Qwen3-30B-A3B-GGUF:Q4_K_M, \
    with 4 machines of 64 GB hf:unsloth/Qwen3-235B-A22B-Instruct-2507-GGUF:Q4_K_M; to start: woolly-coordinator \
    serve NAME (docs/getting_models.md)";

/// Which model is served.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model: a GGUF file, any part of a split one (NAME-00001-of-0000N.gguf), or what is downloaded once:
    /// hf:OWNER/REPO, hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE.gguf, `https://HOST/FILE.gguf`
    #[arg(value_name = "MODEL", conflicts_with = "model")]
    pub file: Option<PathBuf>,
    /// The same as MODEL
    #[arg(short, long, env = "WOOLLY_MODEL", value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// A file with the chat template (Jinja) to use instead of the model's own
    #[arg(long, env = "WOOLLY_CHAT_TEMPLATE_FILE", value_name = "FILE")]
    pub chat_template_file: Option<PathBuf>,
}

impl ModelArgs {
    /// Whether a model is named.
    pub fn is_named(&self) -> bool {
        self.file.is_some() || self.model.is_some()
    }

    /// The model to serve from the start; `None` starts without one.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] for a name that is no file but the way in which other programs name what they
    /// download, and for a template without a model.
    pub fn source(&self) -> Result<Option<Source>, Fatal> {
        let Some(path) = self.file.as_deref().or(self.model.as_deref()) else {
            if self.chat_template_file.is_some() {
                let text = "--chat-template-file is for the model that is named, and none is";
                return Err(Fatal::usage(text));
            }
            return Ok(None);
        };
        if let Some(text) = path.to_str().filter(|text| Source::is_remote(text)) {
            return Source::parse(text).map(Some).map_err(Fatal::usage);
        }
        if path.exists() || !looks_like_a_download(path) {
            return Ok(Some(Source::File(path.to_owned())));
        }
        let shown = path.display();
        Err(Fatal::usage(format!(
            "there is no file {shown}, and a download's name begins with hf: or https://. {GOOD_MODELS}"
        )))
    }
}

/// `smollm2`, `llama3:8b`, `org/model`: no file's name.
fn looks_like_a_download(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let is_file = text.ends_with(".gguf") || path.is_absolute() || text.starts_with('.');
    !is_file && text.matches('/').count() <= 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Result<Source, String> {
        let args = ModelArgs { file: Some(text.into()), ..ModelArgs::default() };
        args.source().map(|source| source.unwrap()).map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn other_programs_names_of_downloads_get_a_hint() {
        for text in ["smollm2", "llama3:8b", "org/model"] {
            let error = source(text).unwrap_err();
            assert!(error.contains(text) && error.contains("hf:Qwen/"), "{error}");
        }
        for text in ["missing.gguf", "/nowhere/at/all", "./model", "a/b/c"] {
            let file = Ok(Source::File(text.into()));
            assert_eq!(source(text), file, "a missing file is its reader's to report");
        }
        assert!(matches!(ModelArgs::default().source(), Ok(None)));
        let template = Some("t.jinja".into());
        let lonely = ModelArgs { chat_template_file: template, ..ModelArgs::default() };
        assert!(lonely.source().unwrap_err().to_string().contains("--chat-template-file"));
    }

    #[test]
    fn what_can_be_downloaded_is_understood_and_what_cannot_be_is_refused() {
        assert!(matches!(source("hf:org/model"), Ok(Source::Hub(_))));
        assert!(matches!(source("https://a/b/c.gguf"), Ok(Source::Url(_))));
        for text in ["hf:model", "hf:org/model:", "https://a/b/c", "ftp://a/b.gguf"] {
            assert!(source(text).unwrap_err().contains("expected"), "{text}");
        }
    }

    #[test]
    fn the_good_models_have_names_that_are_understood() {
        let names = GOOD_MODELS.split([' ', ',', ';']).filter(|word| word.starts_with("hf:"));
        let names: Vec<&str> = names.filter(|word| word.len() > 3).collect();
        assert_eq!(names.len(), 4, "{GOOD_MODELS}");
        for name in names {
            assert!(matches!(Source::parse(name), Ok(Source::Hub(_))), "{name}");
        }
    }
}
