//! Flags about which model is served.

use crate::exit::Fatal;
use clap::Args;
use std::path::{Path, PathBuf};

/// Where models come from, for those who have none.
const WHERE_FROM: &str = "A model is a GGUF file, such as those that Hugging Face lists under the \
                          library GGUF: download one, for instance a Q4_K_M of the llama, qwen2, \
                          qwen3 or granite family, and name it: woolly-coordinator serve FILE";

/// Which model is served.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Model")]
pub struct ModelArgs {
    /// The model: a GGUF file, or any part of a split one (NAME-00001-of-0000N.gguf)
    #[arg(value_name = "FILE", conflicts_with = "model")]
    pub file: Option<PathBuf>,
    /// The same as FILE
    #[arg(short, long, env = "WOOLLY_MODEL", value_name = "FILE")]
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

    /// The file to serve from the start; `None` starts without a model.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] for a name that is no file but the way in which other programs name what they
    /// download, and for a template without a model.
    pub fn path(&self) -> Result<Option<&Path>, Fatal> {
        let Some(path) = self.file.as_deref().or(self.model.as_deref()) else {
            if self.chat_template_file.is_some() {
                let text = "--chat-template-file is for the model that is named, and none is";
                return Err(Fatal::usage(text));
            }
            return Ok(None);
        };
        if path.exists() || !looks_like_a_download(path) {
            return Ok(Some(path));
        }
        let shown = path.display();
        Err(Fatal::usage(format!(
            "there is no file {shown}, and Woolly downloads nothing. {WHERE_FROM}"
        )))
    }
}

/// `smollm2`, `llama3:8b`, `hf:org/model`, `org/model`, `https://…`: no file's name.
fn looks_like_a_download(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let is_file = text.ends_with(".gguf") || path.is_absolute() || text.starts_with('.');
    !is_file && text.matches('/').count() <= 1 || text.contains("://")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Result<PathBuf, String> {
        let args = ModelArgs { file: Some(text.into()), ..ModelArgs::default() };
        args.path().map(|path| path.unwrap().to_owned()).map_err(|fatal| fatal.to_string())
    }

    #[test]
    fn names_of_downloads_get_a_hint() {
        for text in ["smollm2", "llama3:8b", "hf:org/model", "org/model", "https://a/b/c.gguf"] {
            let error = path(text).unwrap_err();
            assert!(error.contains(text) && error.contains("GGUF file"), "{error}");
        }
        for text in ["missing.gguf", "/nowhere/at/all", "./model", "a/b/c"] {
            assert_eq!(path(text), Ok(text.into()), "a missing file is its reader's to report");
        }
        assert!(matches!(ModelArgs::default().path(), Ok(None)));
        let template = Some("t.jinja".into());
        let lonely = ModelArgs { chat_template_file: template, ..ModelArgs::default() };
        assert!(lonely.path().unwrap_err().to_string().contains("--chat-template-file"));
    }
}
