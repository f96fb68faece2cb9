//! Loading a stage: its tensors found and checked, its buffers allocated.

use std::sync::Arc;

use super::{Stage, StageConfig};
use crate::arch::Arch;
use crate::arch::layer::CacheGroup;
use crate::batch::BatchLimits;
use crate::gguf::Gguf;
use crate::kernels::activations::Forms;
use crate::kv::{Cache, CacheShape, GroupBlocks};
use crate::memory::Buffer;
use crate::model::embedding::Embedding;
use crate::model::error::LoadError;
use crate::model::head::Head;
use crate::model::layer::Layer;
use crate::model::rope::Ropes;
use crate::model::run::Scratch;
use crate::model::tensor::Finder;
use crate::pool::Pool;
use crate::weights::Weights;

impl Stage {
    /// Finds and checks the stage's tensors and allocates everything a forward needs.
    ///
    /// # Errors
    ///
    /// A hyper-parameter or tensor that is missing, damaged or not supported.
    pub fn load(
        gguf: &Gguf,
        weights: Weights,
        config: &StageConfig,
        pool: Arc<Pool>,
    ) -> Result<Self, LoadError> {
        let arch = Arch::new(gguf)?;
        let groups = arch.cache_groups();
        let Arch { hyper, layers: shapes, .. } = arch;
        let range = config.layers.clone();
        if range.is_empty() || range.end > hyper.layers {
            return Err(LoadError::Layers { range, layers: hyper.layers });
        }
        let sizes = [config.ctx_size as usize, config.rows_max, config.chunks_max];
        if sizes.contains(&0) || config.caches.iter().any(|group| group.count == 0) {
            return Err(LoadError::Empty);
        }
        check_groups(&groups, &config.caches)?;
        let of_layer = |layer: u32| {
            let group = groups.iter().position(|group| group.layers.contains(&layer));
            let group = group.expect("every layer is in a group");
            (group, config.caches[group].count)
        };
        let find = Finder { gguf, weights: &weights };
        let embedding = (range.start == 0).then(|| Embedding::load(&find, &hyper));
        let head = (range.end == hyper.layers).then(|| Head::load(&find, &hyper, &pool));
        let shapes = &shapes[range.start as usize..range.end as usize];
        let layers =
            range.clone().zip(shapes).map(|(index, shape)| Layer::load(&find, shape, index));
        let layers = layers.collect::<Result<Vec<_>, _>>()?;
        let ropes = Ropes::load(&find, &hyper, shapes, config.ctx_size)?;
        let angles = vec![[0.0; 2]; ropes.iter().len() * config.rows_max * ropes.pairs()];
        let forms = layers.iter().fold(Forms::default(), |f, layer| f.or(layer.forms()));
        let (rows, hidden) = (config.rows_max, hyper.hidden as usize);
        let cache = CacheShape {
            kv_heads: shapes[0].kv_heads,
            head_dim: shapes[0].key_dim,
            ty: config.kv_type,
        };
        Ok(Self {
            embedding: embedding.transpose()?,
            head: head.transpose()?,
            cache: Cache::new(range.map(of_layer), cache),
            scratch: Scratch::new(shapes, rows, forms),
            x: Buffer::new(rows * hidden),
            angles,
            limits: BatchLimits {
                ctx_size: config.ctx_size,
                caches: config.caches.clone(),
                rows_max: rows,
                chunks_max: config.chunks_max,
            },
            hidden,
            eps: hyper.rms_eps,
            pool,
            weights,
            ropes,
            layers,
        })
    }
}

/// Whether the blocks are those of the model's cache groups.
fn check_groups(groups: &[CacheGroup], caches: &[GroupBlocks]) -> Result<(), LoadError> {
    let expected: Vec<_> = groups.iter().map(|group| group.forgetting.window()).collect();
    let found: Vec<_> = caches.iter().map(|blocks| blocks.window).collect();
    if expected == found {
        return Ok(());
    }
    let names = |windows: &[Option<u32>]| {
        let name = |window: &Option<u32>| match window {
            None => "all positions".to_owned(),
            Some(window) => format!("a window of {window} positions"),
        };
        windows.iter().map(name).collect::<Vec<_>>().join(", then ")
    };
    Err(LoadError::CacheGroups { expected: names(&expected), found: names(&found) })
}
