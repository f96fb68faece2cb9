//! How a stage's weights are held in memory: in huge pages, and locked if asked for.

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};
use woolly_engine::weights::Weights;

/// What the flags say about the pages of the weights.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pages {
    /// Huge pages for the mapped weights: memory is read faster in them. `auto` takes what the
    /// system gives; `force` has it first forget what it keeps of the file in small pages, and reads
    /// that from the disk again; `off` takes small pages
    #[arg(long, value_name = "HOW", env = "WOOLLY_HUGE_PAGES", default_value = "auto")]
    pub huge_pages: HugePages,
    /// Keep the weights and the KV cache in memory, whatever else the machine needs memory for. The
    /// limit of locked memory (`ulimit -l`) must allow it
    #[arg(long, env = "WOOLLY_MLOCK", value_parser = BoolishValueParser::new())]
    pub mlock: bool,
}

/// When the mapped weights are in huge pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HugePages {
    /// Where the system gives them.
    #[value(help = None)]
    Auto,
    /// Where it gives them, read again from the disk if it must be.
    #[value(help = None)]
    Force,
    /// Never.
    #[value(help = None)]
    Off,
}

impl Pages {
    /// Says to the system which pages are wanted, before any is read. `fetched`: files of the
    /// weights were written just now.
    pub fn prepare(&self, weights: &Weights, fetched: bool) {
        match self.huge_pages {
            HugePages::Off => weights.use_small_pages(),
            // A file that was written piece by piece is in the system's cache in small pages.
            HugePages::Auto if fetched => {
                let again = weights.read_again();
                tracing::debug!("fetched slices read again into huge pages: {again}");
            }
            HugePages::Auto => {}
            HugePages::Force => {
                if !weights.read_again() {
                    tracing::warn!(
                        "--huge-pages force: the system gives none for these files; they are used \
                         as they are"
                    );
                }
            }
        }
    }
}
