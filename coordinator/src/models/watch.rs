//! Looks after the model's files while they are served: whoever writes to them is noticed, and what
//! they hold is verified before anything more is computed with them.
//!
//! Equal bytes (a `touch`, a copy of the same file over itself) are told with the files' new times,
//! so that workers take the files for what they are. Other bytes are another model under the same
//! name: this process cannot go on, and says so. A look that is asked for, as when a worker could not load
//! its stage, is for weights that stand for no number, too: no worker will ever load those.

use super::model::{Model, part};
use super::slices::{SliceServer, SliceSource};
use crate::announce::Announcer;
use crate::exit::Fatal;
use crate::generation::ModelId;
use anyhow::{Context, anyhow};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use woolly_protocol::control::ModelPart;

/// How often the files are looked at: a few calls of the system.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A file that was written to so recently may be in the middle of it: other bytes are believed later.
const SETTLED: Duration = Duration::from_secs(2);
/// Pause between two readings of a file that is being written.
const READ_AGAIN: Duration = Duration::from_millis(500);

/// What became of a model's files.
#[derive(Debug)]
pub enum ModelNews {
    /// They were read: this is what they hold.
    Fingerprint([u8; 32]),
    /// They were written to, and are being read.
    Unsure,
    /// They hold what they held; this is how they are told to workers.
    Verified(Vec<ModelPart>),
    /// They cannot be read, or hold something else.
    Unusable(Fatal),
}

/// A model that is to be read.
#[derive(Debug)]
pub struct Reading {
    /// Its place among those served.
    pub id: ModelId,
    /// The model.
    pub model: Arc<Model>,
    /// The folder where its fingerprint is remembered.
    pub memory: PathBuf,
    /// Read it whatever is remembered.
    pub verify: bool,
    /// Who is told how far it is.
    pub announcer: Announcer,
    /// Asks for a look at the files now.
    pub look: Arc<Notify>,
    /// The model was unloaded: nobody looks at its files any more.
    pub unloaded: CancellationToken,
}

/// Computes a model's fingerprint beside everything else: it can take as long as the files are large.
/// Its slices are served from then on, and its files looked after when somebody asks for it and every
/// second, until it is unloaded. A reading that is under way then ends by itself, and nobody hears of it.
pub fn read_and_watch(
    reading: Reading,
    slices: Arc<SliceServer>,
    news: mpsc::Sender<(ModelId, ModelNews)>,
) {
    let (id, model) = (reading.id, Arc::clone(&reading.model));
    let (look, unloaded) = (Arc::clone(&reading.look), reading.unloaded.clone());
    let served = Arc::clone(&slices);
    let found = tokio::task::spawn_blocking(move || {
        let Reading { model, memory, verify, announcer, .. } = reading;
        let fingerprint = model.fingerprint(&memory, verify, announcer)?;
        let source = SliceSource::open(Arc::clone(&model.layout), &model.paths, fingerprint)
            .context("cannot open the model to serve its slices")
            .map_err(Fatal::Model)?;
        Ok(slices.offer(source))
    });
    tokio::spawn(async move {
        let found = found.await.unwrap_or_else(|error| Err(Fatal::Runtime(error.into())));
        // Nobody waits any more when the server ends early.
        match found {
            Ok(source) => {
                let fingerprint = *source.fingerprint();
                let _ = news.send((id, ModelNews::Fingerprint(fingerprint))).await;
                let watched = Arc::clone(&source);
                let watch = ModelWatch { id, model, source, look, news, is_searched: false };
                tokio::select! {
                    () = watch.run() => {}
                    () = unloaded.cancelled() => {}
                }
                served.withdraw(&watched);
            }
            Err(fatal) => _ = news.send((id, ModelNews::Unusable(fatal))).await,
        }
    });
}

/// What is looked after.
struct ModelWatch {
    /// Its place among those served.
    pub id: ModelId,
    /// The model.
    pub model: Arc<Model>,
    /// Who has the files open, and says what they must hold.
    pub source: Arc<SliceSource>,
    /// Asks for a look now; it is answered with news in any case.
    pub look: Arc<Notify>,
    /// Who is told.
    pub news: mpsc::Sender<(ModelId, ModelNews)>,
    /// Whether its weights were searched for such as stand for no number.
    pub is_searched: bool,
}

impl ModelWatch {
    /// Looks until the files hold another model or nobody listens any more.
    async fn run(mut self) {
        let source = Arc::clone(&self.source);
        loop {
            let asked = tokio::select! {
                () = self.look.notified() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
                () = self.news.closed() => return,
            };
            let news = match source.is_unchanged() {
                Ok(true) if !asked => continue,
                Ok(true) => match self.search().await {
                    Some(fatal) => ModelNews::Unusable(fatal),
                    None => ModelNews::Verified(self.parts(&source)),
                },
                Ok(false) | Err(_) => {
                    tracing::warn!("the model's file was written to: it is read again");
                    if self.news.send((self.id, ModelNews::Unsure)).await.is_err() {
                        return;
                    }
                    self.is_searched = false;
                    self.verify(&source).await
                }
            };
            let ends = matches!(news, ModelNews::Unusable(_));
            if self.news.send((self.id, news)).await.is_err() || ends {
                return;
            }
        }
    }

    /// Searches the weights once for such as stand for no number. A file that cannot be read is not this one's
    /// to tell of.
    async fn search(&mut self) -> Option<Fatal> {
        if std::mem::replace(&mut self.is_searched, true)
            || !self.model.gguf.may_have_wrong_scales()
        {
            return None;
        }
        let gguf = Arc::clone(&self.model.gguf);
        let found = tokio::task::spawn_blocking(move || gguf.wrong_scales()).await;
        let first = found.ok()?.ok()?.into_iter().next()?;
        let name = self.model.paths.first().map(|path| path.display().to_string());
        let text = format!("cannot serve the model {}", name.unwrap_or_default());
        Some(Fatal::Model(anyhow::Error::new(first).context(text)))
    }

    /// Reads the files, again and again while they are being written.
    async fn verify(&self, source: &Arc<SliceSource>) -> ModelNews {
        loop {
            let (reader, then) = (Arc::clone(source), source.identities_now());
            let hashed = tokio::task::spawn_blocking(move || reader.fingerprint_now());
            let found = hashed.await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
            let same_since =
                then.is_ok() && then.as_ref().ok() == source.identities_now().ok().as_ref();
            match found {
                Ok(found) if found == *source.fingerprint() && same_since => {
                    tracing::info!("the model's file holds what it held");
                    source.accept(then.unwrap_or_default());
                    return ModelNews::Verified(self.parts(source));
                }
                found if same_since && self.is_settled(source) => {
                    return ModelNews::Unusable(self.changed(found.err()));
                }
                _ => tokio::time::sleep(READ_AGAIN).await,
            }
        }
    }

    fn is_settled(&self, source: &SliceSource) -> bool {
        let written =
            source.files().iter().filter_map(|file| file.metadata().ok()?.modified().ok());
        let age = |time| SystemTime::now().duration_since(time).unwrap_or(SETTLED);
        written.map(age).all(|age| age >= SETTLED)
    }

    fn changed(&self, error: Option<std::io::Error>) -> Fatal {
        let name = self.model.paths.first().map(|path| path.display().to_string());
        let name = name.unwrap_or_default();
        let text = format!(
            "the model {name} was written to while it was served, and holds other bytes now: start the \
             coordinator again to serve what it holds"
        );
        match error {
            None => Fatal::Changed(anyhow!(text)),
            Some(error) => Fatal::Changed(anyhow::Error::new(error).context(text)),
        }
    }

    /// The files as workers are told of them: with their present times where the path still leads to
    /// the file that is open, else as they were.
    fn parts(&self, source: &SliceSource) -> Vec<ModelPart> {
        let told = self.model.paths.iter().zip(&self.model.parts).zip(source.files());
        told.map(|((path, before), file)| {
            let open = file.metadata().ok().map(|data| (data.dev(), data.ino()));
            let named = path.metadata().ok().map(|data| (data.dev(), data.ino()));
            let now = part(path).ok().filter(|_| open.is_some() && open == named);
            now.unwrap_or_else(|| before.clone())
        })
        .collect()
    }
}
