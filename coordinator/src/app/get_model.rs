//! Models that are named by where they come from: downloads them, or finds what was downloaded.

use crate::announce::Announcer;
use crate::config::{CacheDirArgs, LogFormat, ServeArgs, network};
use crate::exit::Fatal;
use crate::fetch::{FetchError, Fetcher, Pace, Progress, Source};
use anyhow::Error;
use std::path::{Path, PathBuf};

/// The file of the model that `serve` is to serve; it is downloaded if need be. Blocks.
///
/// # Errors
///
/// It cannot be had.
pub fn local(source: &Source, args: &ServeArgs) -> Result<PathBuf, Fatal> {
    match source {
        Source::File(path) => Ok(path.clone()),
        _ => fetcher(&args.downloads, Announcer(args.log_format))?.get(source).map_err(fatal),
    }
}

/// The file that a path or a downloaded model's name means. Nothing is downloaded.
///
/// # Errors
///
/// It is a name, and nothing that was downloaded has it.
pub fn downloaded(path: &Path, cache: &CacheDirArgs) -> Result<PathBuf, Fatal> {
    let Some(name) = path.to_str().filter(|text| Source::is_remote(text)) else {
        return Ok(path.to_owned());
    };
    cache.store()?.held(&remote(name)?).ok_or_else(|| {
        let what = format!("{name} is not on this machine: woolly-coordinator models pull {name}");
        Fatal::Model(Error::msg(what))
    })
}

/// What gets models, and says how far it is.
///
/// # Errors
///
/// A flag or a variable that is wrong.
pub fn fetcher(cache: &CacheDirArgs, announcer: Announcer) -> Result<Fetcher, Fatal> {
    let bar = announcer.0 == LogFormat::Text;
    Ok(Fetcher {
        network: network()?,
        store: cache.store()?,
        pace: Pace::default(),
        progress: Progress::new(bar, Box::new(move |line| announcer.say(line))),
    })
}

/// A name that something is downloaded by.
///
/// # Errors
///
/// It is none.
pub fn remote(name: &str) -> Result<Source, Fatal> {
    match Source::parse(name).map_err(Fatal::usage)? {
        Source::File(_) => Err(Fatal::usage(format!(
            "expected hf:OWNER/REPO[:QUANT|/FILE.gguf] or https://HOST/FILE.gguf, not {name}"
        ))),
        source => Ok(source),
    }
}

/// How the program ends because of it.
pub fn fatal(error: FetchError) -> Fatal {
    match error {
        FetchError::Usage(_) => Fatal::Usage(error.into()),
        FetchError::Missing(_) => Fatal::Model(error.into()),
        FetchError::Failed(_) | FetchError::NoRoom { .. } => Fatal::Runtime(error.into()),
    }
}
