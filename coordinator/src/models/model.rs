//! The model that is served: its header, text tools and fingerprint.

use super::template::Template;
use crate::announce::Announcer;
use crate::exit::Fatal;
use crate::units::{show_count, show_size};
use anyhow::{Context, anyhow};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::{FingerprintMemory, ModelLayout};
use woolly_engine::tokenizer::Tokenizer;
use woolly_protocol::control::ModelPart;
use woolly_protocol::limits::CTX_MAX;
use woolly_protocol::machine::machine_id;

/// The order of operations that every worker must have.
pub use woolly_engine::NUMERICS;

/// The longest sequence unless `--ctx-size` says otherwise.
const CTX_DEFAULT: u32 = 8192;
/// How often reading a model for its fingerprint says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Everything about a model but its weights.
#[derive(Debug)]
pub struct Model {
    /// Metadata and tensor table.
    pub gguf: Arc<Gguf>,
    /// Slices and their sizes.
    pub layout: Arc<ModelLayout>,
    /// Text to tokens and back.
    pub tokenizer: Arc<Tokenizer>,
    /// Messages to text.
    pub template: Template,
    /// The files, in order.
    pub paths: Vec<PathBuf>,
    /// The files as workers are told of them.
    pub parts: Vec<ModelPart>,
}

impl Model {
    /// Reads headers only. Blocks for as long as a few megabytes take.
    ///
    /// # Errors
    ///
    /// [`Fatal::Model`] with the file and what is wrong with it.
    pub fn open(path: &Path) -> Result<Model, Fatal> {
        Self::read(path)
            .with_context(|| format!("cannot serve the model {}", path.display()))
            .map_err(Fatal::Model)
    }

    /// Positions of a sequence, of which `--ctx-size` says how many; 0 is all that the model was trained
    /// for.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] for more than that.
    pub fn ctx_size(&self, asked: Option<u32>) -> Result<u32, Fatal> {
        let size = positions(self.layout.ctx_train, asked);
        match asked {
            Some(asked) if asked > size => Err(Fatal::usage(format!(
                "--ctx-size {asked} is more than the {size} tokens that the model was trained for"
            ))),
            _ => Ok(size),
        }
    }

    /// Whether a cut by hand places every layer once.
    ///
    /// # Errors
    ///
    /// [`Fatal::Usage`] if it does not.
    pub fn check_cut(&self, cut: Option<&[u32]>) -> Result<(), Fatal> {
        let Some(cut) = cut else { return Ok(()) };
        let (sum, layers) = (cut.iter().map(|n| u64::from(*n)).sum::<u64>(), self.layout.layers);
        if sum == u64::from(layers) {
            return Ok(());
        }
        Err(Fatal::usage(format!("--cut places {sum} layers and the model has {layers}")))
    }

    /// The file's name without `.gguf` and the number of a part.
    pub fn file_stem(&self) -> String {
        let path = self.paths.first().map_or(Path::new(""), PathBuf::as_path);
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        match stem.rsplit_once("-of-") {
            Some((head, _)) => {
                head.rsplit_once('-').map_or(stem.clone(), |(name, _)| name.to_owned())
            }
            None => stem,
        }
    }

    fn read(path: &Path) -> anyhow::Result<Model> {
        let gguf = Gguf::open(path)?;
        let layout = ModelLayout::new(&gguf)?;
        let tokenizer = Tokenizer::from_metadata(gguf.metadata())?;
        let template = Template::of_model(gguf.metadata(), &tokenizer);
        let paths = gguf
            .parts()
            .iter()
            .map(|part| part.path.as_deref().context("a part has no path").and_then(absolute))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let parts = paths.iter().map(|path| part(path)).collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Model {
            gguf: Arc::new(gguf),
            layout: Arc::new(layout),
            tokenizer: Arc::new(tokenizer),
            template,
            paths,
            parts,
        })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let layout = &self.layout;
        let skipped = layout.skipped;
        let rest = match skipped.layers {
            0 => String::new(),
            layers => format!(
                "; not used: the last {layers} of the file's layers, which predict further tokens ({} tensors, {})",
                skipped.tensors,
                show_size(skipped.bytes)
            ),
        };
        format!(
            "Model {}: {}, {} parameters, {}, {} layers, {}, trained for {} tokens{rest}",
            layout.name,
            layout.architecture,
            show_count(layout.parameters),
            layout.file_type,
            layout.layers,
            show_size(layout.file_bytes),
            show_count(u64::from(layout.ctx_train)),
        )
    }

    /// The model's fingerprint, from memory if its files are what they were. Reads all of them
    /// otherwise, and says on stderr how far it is. Blocks meanwhile.
    ///
    /// # Errors
    ///
    /// [`Fatal::Model`] when a file cannot be read.
    pub fn fingerprint(
        &self,
        memory: &Path,
        verify: bool,
        announcer: Announcer,
    ) -> Result<[u8; 32], Fatal> {
        let (progress, done) = (AtomicU64::new(0), AtomicBool::new(false));
        let bytes = self.layout.file_bytes;
        std::thread::scope(|scope| {
            let reporter = scope.spawn(|| report(&progress, &done, bytes, announcer));
            let memory = FingerprintMemory::new(memory, machine_id());
            let found = memory.fingerprint(&self.paths, verify, &progress);
            done.store(true, Ordering::Relaxed);
            reporter.thread().unpark();
            found
        })
        .context("cannot read the model for its fingerprint")
        .map_err(Fatal::Model)
    }
}

/// Positions of a sequence of a model that was trained for so many, if `--ctx-size` asks for so many: of more
/// than there are, all.
pub fn positions(trained: u32, asked: Option<u32>) -> u32 {
    let trained = trained.min(CTX_MAX);
    match asked {
        None => trained.min(CTX_DEFAULT),
        Some(0) => trained,
        Some(asked) => asked.min(trained),
    }
}

/// Says how far a fingerprint is, if it takes long enough for anyone to wonder.
fn report(progress: &AtomicU64, done: &AtomicBool, bytes: u64, announcer: Announcer) {
    let mut last = Instant::now();
    while !done.load(Ordering::Relaxed) {
        std::thread::park_timeout(PROGRESS_EVERY.saturating_sub(last.elapsed()));
        if last.elapsed() >= PROGRESS_EVERY {
            let read = progress.load(Ordering::Relaxed);
            announcer.say(format_args!(
                "Reading the model for its fingerprint (first start only): {} of {}",
                show_size(read),
                show_size(bytes)
            ));
            last = Instant::now();
        }
    }
}

/// The path from the root, links unresolved: a part of a split model keeps its name, which says that it
/// is one, although the file may lie elsewhere under another (as in Hugging Face's cache).
fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}

/// A file as workers are told of it.
pub(crate) fn part(path: &Path) -> anyhow::Result<ModelPart> {
    let data = path.metadata().with_context(|| format!("cannot read {}", path.display()))?;
    let name = path.file_name().and_then(|name| name.to_str());
    let nanoseconds = |seconds: i64, rest: i64| {
        u64::try_from(i128::from(seconds) * 1_000_000_000 + i128::from(rest)).unwrap_or(0)
    };
    Ok(ModelPart {
        file_name: name
            .ok_or_else(|| anyhow!("the file name of {} is not UTF-8", path.display()))?
            .to_owned(),
        path: path
            .to_str()
            .ok_or_else(|| anyhow!("the path {} is not UTF-8", path.display()))?
            .to_owned(),
        size: data.len(),
        stat: [
            data.dev(),
            data.ino(),
            nanoseconds(data.mtime(), data.mtime_nsec()),
            nanoseconds(data.ctime(), data.ctime_nsec()),
        ],
    })
}
