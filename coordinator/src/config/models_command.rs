//! The words of `models`: what is downloaded, and what a running server is asked about its models.

use super::{CacheDirArgs, StateArgs, parse_cache_type};
use crate::exit::Fatal;
use crate::fetch::Source;
use crate::units::{parse_duration, parse_size};
use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::time::Duration;
use woolly_engine::plan::KvType;

/// How long generations may go on after an unload at most.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

/// The flags of `models`.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// What to do with models.
    #[command(subcommand)]
    pub command: ModelsCommand,
}

/// What to do with models.
#[derive(Debug, Subcommand)]
pub enum ModelsCommand {
    /// List the models that were downloaded, those that are loaded, those of --model-dir, and what the workers'
    /// memory is taken by
    List {
        /// List what was downloaded, and ask no server
        #[arg(long)]
        downloaded: bool,
        /// Where downloaded models are.
        #[command(flatten)]
        cache: CacheDirArgs,
        /// Where the server's state is.
        #[command(flatten)]
        state: StateArgs,
    },
    /// Download a model, or go on with it, and print where it is
    Pull {
        /// hf:OWNER/REPO, hf:OWNER/REPO:QUANT, hf:OWNER/REPO/FILE.gguf or https://HOST/FILE.gguf
        #[arg(value_name = "MODEL")]
        name: String,
        /// Where downloaded models are.
        #[command(flatten)]
        cache: CacheDirArgs,
    },
    /// Remove a downloaded model: unload it first
    Rm {
        /// A name that `models list` shows; hf:OWNER/REPO removes all models of a repository
        #[arg(value_name = "MODEL")]
        name: String,
        /// Where downloaded models are.
        #[command(flatten)]
        cache: CacheDirArgs,
    },
    /// Load a model, and wait until it is ready
    Load(LoadArgs),
    /// Unload a model: requests that ask for it are refused from now on
    Unload {
        /// Any of its names
        name: String,
        /// How long requests that run may go on, such as 30s: 0s to 1h; what is left then ends with an error
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = parse_drain)]
        drain: Duration,
        /// Where the server's state is.
        #[command(flatten)]
        state: StateArgs,
    },
}

/// The flags of `models load`; what is not given is as the flags of `serve` say.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// A name of the server's --model-dir, as `models list` shows it, or one that `models pull` takes: it is
    /// downloaded first, on this machine
    #[arg(required_unless_present = "path", conflicts_with = "path")]
    pub name: Option<String>,
    /// A GGUF file instead
    #[arg(long, value_name = "FILE")]
    pub path: Option<PathBuf>,
    /// Longest sequence in tokens; 0 is all that the model was trained for
    #[arg(short, long, value_name = "TOKENS")]
    pub ctx_size: Option<u32>,
    /// How keys and values are held: f16 or q8_0
    #[arg(long, value_name = "TYPE", value_parser = parse_cache_type)]
    pub cache_type: Option<KvType>,
    /// Memory for its KV cache on each worker, bytes such as 512MiB
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    pub kv_memory: Option<u64>,
    /// Its name in the API; may be given several times: the first is the one that lists show
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub alias: Vec<String>,
    /// Wait for this many workers before its layers are cut
    #[arg(long, value_name = "N")]
    pub workers: Option<u32>,
    /// Do not wait until it is ready
    #[arg(long)]
    pub no_wait: bool,
    /// Where downloaded models are.
    #[command(flatten)]
    pub cache: CacheDirArgs,
    /// Where the server's state is.
    #[command(flatten)]
    pub state: StateArgs,
}

impl LoadArgs {
    /// What is to be downloaded before it can be loaded, if that is what is named.
    ///
    /// # Errors
    ///
    /// A name that looks like a download's and is none.
    pub fn download(&self) -> Result<Option<Source>, Fatal> {
        let path = self.path.as_ref().and_then(|path| path.to_str());
        let named = self.name.as_deref().or(path).filter(|text| Source::is_remote(text));
        named.map(Source::parse).transpose().map_err(Fatal::usage)
    }

    /// What the server is asked.
    ///
    /// # Errors
    ///
    /// A path that cannot be found or is not UTF-8.
    pub fn request(&self) -> Result<Value, Fatal> {
        let mut options = Map::new();
        let mut option = |name: &str, value: Option<Value>| {
            options.extend(value.map(|value| (name.to_owned(), value)));
        };
        option("ctx_size", self.ctx_size.map(Value::from));
        option("cache_type", self.cache_type.map(|ty| ty.name().into()));
        option("kv_memory", self.kv_memory.map(Value::from));
        option("alias", (!self.alias.is_empty()).then(|| self.alias.clone().into()));
        option("workers", self.workers.map(Value::from));
        let mut body = json!({ "options": options, "wait": !self.no_wait });
        match &self.path {
            None => body["name"] = self.name.clone().into(),
            Some(path) => {
                let whole = std::path::absolute(path)
                    .with_context(|| format!("cannot find {}", path.display()))?;
                let text = whole.to_str();
                let text = text.ok_or_else(|| Fatal::usage("the path is not UTF-8"))?;
                body["path"] = text.into();
            }
        }
        Ok(body)
    }
}

fn parse_drain(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text)?;
    if time > DRAIN_MAX { Err("expected at most 1h".to_owned()) } else { Ok(time) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_asked_for() {
        let args = LoadArgs {
            name: Some("org/a".to_owned()),
            path: None,
            ctx_size: Some(4096),
            cache_type: Some(KvType::Q8_0),
            kv_memory: None,
            alias: Vec::new(),
            workers: None,
            no_wait: true,
            cache: CacheDirArgs::default(),
            state: StateArgs { state_dir: None },
        };
        let expected = json!({
            "name": "org/a", "wait": false, "options": {"ctx_size": 4096, "cache_type": "q8_0"},
        });
        assert_eq!(args.request().unwrap(), expected);
        let by_path = LoadArgs { name: None, path: Some("a.gguf".into()), ..args };
        let path = by_path.request().unwrap()["path"].as_str().unwrap().to_owned();
        assert!(path.starts_with('/') && path.ends_with("/a.gguf"), "{path}");
        assert!(parse_drain("2h").is_err() && parse_drain("30s").is_ok());
    }
}
