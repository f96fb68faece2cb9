//! `inspect`: what a model file is, what it takes, and all because of which it would be refused. Reads files;
//! knows no worker, no request and nobody who serves.
//!
//! ```text
//! read.rs      files → Report: what can be read of them, whether Woolly runs them or not
//!   ├─► reckon.rs  bytes: by format, by role, of the cache
//!   └─► keys.rs    what metadata say under any architecture's name
//! report.rs    the Report, which is the JSON object
//! text.rs      Report → lines for people
//! ```

pub mod config;
mod keys;
mod read;
mod reckon;
pub mod report;
mod text;

use crate::announce::stdout_line;
use crate::exit::Fatal;
use anyhow::{Context, anyhow};
use config::InspectArgs;

/// Prints what the model is, to stdout.
///
/// # Errors
///
/// [`Fatal::Model`] after all was printed, if `serve` would refuse the model.
pub fn run(args: &InspectArgs) -> Result<(), Fatal> {
    let report = read::report(&args.file, args.ctx_size, args.weights);
    if args.json {
        let json = serde_json::to_string_pretty(&report).context("cannot write the report")?;
        stdout_line(json);
    } else {
        stdout_line(text::lines(&report).join("\n"));
    }
    match report.not_supported.len() {
        0 => Ok(()),
        1 => Err(Fatal::Model(anyhow!("{} cannot be served: see above", args.file.display()))),
        n => Err(Fatal::Model(anyhow!(
            "{} cannot be served, for {n} reasons: see above",
            args.file.display()
        ))),
    }
}

#[cfg(test)]
mod tests;
