//! Flags about models that are loaded and unloaded while the server runs, and about who may do that.

use crate::exit::Fatal;
use crate::models::shelf::Shelf;
use anyhow::Context;
use clap::Args;
use std::path::PathBuf;
use woolly_protocol::hidden::Hidden;

/// Bytes of an admin key at least: who guesses it can unload everything.
const ADMIN_KEY_MIN: usize = 16;
/// Bytes of an admin key at most.
const ADMIN_KEY_MAX: usize = 512;

/// Which models can be loaded at run time, and who may load them.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Models at run time")]
pub struct RuntimeArgs {
    /// A folder of GGUF files: each can be loaded by its path below the folder, without .gguf, while the
    /// server runs. Each model then has KV memory of its own: --kv-memory on each worker, or what 4
    /// sequences of full length take
    #[arg(long, env = "WOOLLY_MODEL_DIR", value_name = "DIR")]
    pub model_dir: Option<PathBuf>,
    /// Load a model of --model-dir when a request names it; the request waits
    #[arg(long, env = "WOOLLY_LOAD_ON_DEMAND")]
    #[arg(value_parser = clap::builder::BoolishValueParser::new())]
    pub load_on_demand: bool,
    /// A key of at least 16 bytes that opens the admin API over HTTP, too (Authorization: Bearer KEY): it
    /// loads and unloads models, and is no API key. Without it the admin API is for this machine: a
    /// socket in the state directory. Other users of this machine can see it: --admin-key-file hides it
    #[arg(long, env = "WOOLLY_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    #[arg(value_parser = parse_admin_key, conflicts_with = "admin_key_file")]
    pub admin_key: Option<Hidden>,
    /// A file whose first line is that key
    #[arg(long, env = "WOOLLY_ADMIN_KEY_FILE", value_name = "FILE")]
    pub admin_key_file: Option<PathBuf>,
}

impl RuntimeArgs {
    /// The folder of models, if there is one.
    ///
    /// # Errors
    ///
    /// It is no folder, or models are to be loaded on demand from none.
    pub fn shelf(&self) -> Result<Option<Shelf>, Fatal> {
        let Some(path) = &self.model_dir else {
            if self.load_on_demand {
                let text = "--load-on-demand loads models of --model-dir, which is not given";
                return Err(Fatal::usage(text));
            }
            return Ok(None);
        };
        let shelf = Shelf::open(path)
            .with_context(|| format!("--model-dir {} cannot be used", path.display()));
        shelf.map(Some).map_err(Fatal::Usage)
    }

    /// The key of the admin API over HTTP, if it answers there.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds no such key.
    pub fn admin_key(&self) -> Result<Option<Hidden>, Fatal> {
        let Some(path) = &self.admin_key_file else { return Ok(self.admin_key.clone()) };
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the admin key in {}", path.display()))?;
        let line = text.lines().next().unwrap_or_default().trim();
        let key = parse_admin_key(line);
        key.map(Some).map_err(|error| Fatal::usage(format!("{}: {error}", path.display())))
    }
}

fn parse_admin_key(text: &str) -> Result<Hidden, String> {
    let is_key = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    if !(ADMIN_KEY_MIN..=ADMIN_KEY_MAX).contains(&text.len()) || !is_key(text) {
        return Err(format!(
            "expected {ADMIN_KEY_MIN} to {ADMIN_KEY_MAX} printable characters without spaces"
        ));
    }
    Ok(Hidden::from(text.to_owned()))
}
