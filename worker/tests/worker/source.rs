//! Where weights come from: the coordinator's own file, an equal file, or slices; always the same.

use crate::support::{LAYERS, write_model};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use woolly_engine::gguf::{FileIdentity, Gguf};
use woolly_engine::plan::{ModelLayout, SliceId, SlicePiece, fingerprint};
use woolly_engine::weights::Resident;
use woolly_protocol::limits::SLICE_CHUNK;
use woolly_protocol::slices::{SliceKey, SliceManifest};
use woolly_worker::counters::Counters;
use woolly_worker::weights::model_files::{ModelFiles, PartFile};
use woolly_worker::weights::slice_store::{ChunkSource, FetchError, SliceStore};
use woolly_worker::weights::source::{Model, Places, SourceError, open};

/// A coordinator that reads the slices from the file and counts what it is asked for.
struct FromFile {
    file: Vec<u8>,
    layout: ModelLayout,
    asked: AtomicU32,
}

impl FromFile {
    fn slice(&self, key: SliceKey) -> Result<Vec<u8>, FetchError> {
        let id = match key {
            SliceKey::Header(part) => SliceId::Header(part),
            SliceKey::Embedding => SliceId::Embedding,
            SliceKey::Layer(layer) => SliceId::Layer(layer),
            SliceKey::Head => SliceId::Head,
        };
        if !self.layout.has_slice(id) {
            return Err(FetchError::Refused(format!("no slice {key:?}")));
        }
        self.asked.fetch_add(1, Relaxed);
        let mut bytes = Vec::new();
        for piece in self.layout.slice_ranges(id) {
            match piece {
                SlicePiece::Zeros(len) => {
                    bytes.resize(bytes.len() + usize::try_from(len).unwrap(), 0);
                }
                SlicePiece::Source(range) => {
                    let start = usize::try_from(range.offset).unwrap();
                    let end = start + usize::try_from(range.len).unwrap();
                    bytes.extend_from_slice(&self.file[start..end]);
                }
            }
        }
        Ok(bytes)
    }
}

impl ChunkSource for FromFile {
    async fn manifest(&self, slice: SliceKey) -> Result<SliceManifest, FetchError> {
        let bytes = self.slice(slice)?;
        let chunks = bytes.chunks(SLICE_CHUNK).map(|chunk| *blake3::hash(chunk).as_bytes());
        Ok(SliceManifest { length: bytes.len() as u64, chunks: chunks.collect() })
    }

    async fn chunk(&self, slice: SliceKey, chunk: u32) -> Result<Vec<u8>, FetchError> {
        let bytes = self.slice(slice)?;
        Ok(bytes.chunks(SLICE_CHUNK).nth(chunk as usize).unwrap().to_vec())
    }
}

struct Setting {
    dir: tempfile::TempDir,
    path: PathBuf,
    files: ModelFiles,
    places: Places,
    source: Arc<FromFile>,
}

fn setting() -> Setting {
    let dir = tempfile::tempdir().unwrap();
    let path = write_model(dir.path());
    let id = FileIdentity::of(&path.metadata().unwrap());
    let ns = |time: i128| u64::try_from(time).unwrap();
    let part = PartFile {
        file_name: "tiny.gguf".to_owned(),
        path: path.clone(),
        size: id.size,
        stat: [id.device, id.inode, ns(id.modified_ns), ns(id.changed_ns)],
    };
    let files = ModelFiles {
        fingerprint: fingerprint(std::slice::from_ref(&path), &AtomicU64::new(0)).unwrap(),
        same_machine: true,
        parts: vec![part],
    };
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let places = Places {
        model_dir: None,
        no_local_files: false,
        verify: false,
        store: SliceStore::open(&state.join("slices")).unwrap(),
        memory_dir: state,
        boot: [7; 16],
    };
    let layout = ModelLayout::new(&Gguf::open(&path).unwrap()).unwrap();
    let file = std::fs::read(&path).unwrap();
    let source = Arc::new(FromFile { file, layout, asked: AtomicU32::new(0) });
    Setting { dir, path, files, places, source }
}

impl Setting {
    async fn open(&self, layers: std::ops::Range<u32>) -> Result<Model, SourceError> {
        let counters = Arc::new(Counters::default());
        counters.begin_load(0);
        let held = Resident::new();
        let model = open(&self.files, layers, &self.places, &self.source, &counters, &held).await?;
        // As whoever loads it does.
        counters.extend_load(model.weights.bytes_to_populate());
        model.weights.populate(&counters.loaded);
        let (done, total) = counters.load();
        assert!(done == total && total > 0, "{done} of {total} bytes were counted");
        Ok(model)
    }

    fn asked(&self) -> u32 {
        self.source.asked.swap(0, Relaxed)
    }

    /// A folder with a file of the model's name.
    fn model_dir(&mut self, bytes: &[u8]) -> PathBuf {
        let dir = self.dir.path().join("models");
        let _ = std::fs::create_dir(&dir);
        std::fs::write(dir.join("tiny.gguf"), bytes).unwrap();
        self.places.model_dir = Some(dir.clone());
        dir
    }
}

/// The tensors of these layers are mapped with the file's bytes, and no other layer is.
fn check(model: &Model, path: &Path, layers: std::ops::Range<u32>) {
    let file = std::fs::read(path).unwrap();
    let gguf = Gguf::open(path).unwrap();
    let mut count = 0;
    for tensor in gguf.tensors() {
        let layer = tensor.name.strip_prefix("blk.").and_then(|rest| rest.split('.').next());
        let wanted =
            match (layer.map(|number| number.parse::<u32>().unwrap()), tensor.name.as_str()) {
                (Some(layer), _) => layers.contains(&layer),
                (None, "token_embd.weight") => layers.start == 0,
                (None, _) => layers.end == LAYERS,
            };
        let start = usize::try_from(tensor.offset).unwrap();
        let bytes = &file[start..start + usize::try_from(tensor.len).unwrap()];
        assert_eq!(model.weights.bytes(&tensor.name), wanted.then_some(bytes), "{}", tensor.name);
        count += u32::from(wanted);
    }
    assert!(count >= 9);
}

#[tokio::test]
async fn the_coordinators_own_file_is_mapped_and_nothing_is_fetched() {
    let setting = setting();
    let model = setting.open(0..1).await.unwrap();
    check(&model, &setting.path, 0..1);
    assert_eq!((model.fetched_bytes, setting.asked()), (0, 0));
}

#[tokio::test]
async fn slices_are_fetched_once_and_only_those_of_the_stage() {
    let mut setting = setting();
    setting.files.same_machine = false;
    let model = setting.open(1..2).await.unwrap();
    check(&model, &setting.path, 1..2);
    let layout = &setting.source.layout;
    let slices = [SliceId::Header(0), SliceId::Layer(1), SliceId::Head];
    assert_eq!(model.fetched_bytes, slices.iter().map(|id| layout.slice_len(*id)).sum::<u64>());
    assert!(setting.asked() > 0);
    drop(model);
    // A second start, and a stage that shares slices with the first.
    let again = setting.open(1..2).await.unwrap();
    assert_eq!((again.fetched_bytes, setting.asked()), (0, 0));
    let whole = setting.open(0..2).await.unwrap();
    check(&whole, &setting.path, 0..2);
    let new = layout.slice_len(SliceId::Embedding) + layout.slice_len(SliceId::Layer(0));
    assert_eq!(whole.fetched_bytes, new);
}

#[tokio::test]
async fn a_changed_file_is_not_taken_for_the_coordinators() {
    let setting = setting();
    let mut bytes = std::fs::read(&setting.path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    let original = setting.dir.path().join("original.gguf");
    std::fs::rename(&setting.path, &original).unwrap();
    std::fs::write(&setting.path, bytes).unwrap();
    let model = setting.open(0..2).await.unwrap();
    check(&model, &original, 0..2);
    assert!(model.fetched_bytes > 0);
}

#[tokio::test]
async fn an_equal_file_in_the_model_dir_is_mapped_and_another_is_not() {
    let mut setting = setting();
    setting.files.same_machine = false;
    let bytes = std::fs::read(&setting.path).unwrap();
    setting.model_dir(&bytes);
    let model = setting.open(0..2).await.unwrap();
    check(&model, &setting.path, 0..2);
    assert_eq!((model.fetched_bytes, setting.asked()), (0, 0));
    let mut other = bytes.clone();
    *other.last_mut().unwrap() ^= 1;
    for wrong in [&other[..], &bytes[..bytes.len() - 1]] {
        setting.model_dir(wrong);
        let model = setting.open(0..2).await.unwrap();
        check(&model, &setting.path, 0..2);
    }
    assert!(setting.asked() > 0);
}

#[tokio::test]
async fn local_files_are_passed_over_if_asked() {
    let mut setting = setting();
    setting.places.no_local_files = true;
    let model = setting.open(0..1).await.unwrap();
    check(&model, &setting.path, 0..1);
    assert!(model.fetched_bytes > 0);
}

#[tokio::test]
async fn a_header_longer_than_its_file_and_layers_beyond_the_model_are_refused() {
    let mut setting = setting();
    setting.files.same_machine = false;
    assert!(matches!(setting.open(1..3).await, Err(SourceError::Model(_))));
    setting.files.fingerprint = [1; 32];
    setting.files.parts[0].size = 100;
    let error = setting.open(0..2).await.unwrap_err();
    assert!(matches!(error, SourceError::Slice(_)), "{error}");
}
