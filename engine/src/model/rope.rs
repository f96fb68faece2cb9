//! Rotary positions: the angle of each pair of a head at a position.
//!
//! Frequencies are `base^(−2i/n)`, stretched as the metadata say: linear (Chen et al. 2023), per pair
//! by the file's `rope_freqs.weight` (Llama 3), or YaRN (Peng et al. 2023) with ggml's conventions.

use super::error::LoadError;
use super::tensor::Finder;
use crate::arch::hyper::{HyperParameters, RopeScaling};
use crate::arch::layer::{LayerShape, RopeKind};
use crate::arch::tensors::{ROPE_FREQS, ROPE_LONG, ROPE_SHORT};
use crate::math;

/// The rotations of a stage: one for each kind that its layers have.
#[derive(Clone, Debug)]
pub struct Ropes {
    kinds: Vec<(RopeKind, Rope)>,
}

impl Ropes {
    /// The rotations of layers of these shapes, for contexts of `ctx_size` positions.
    ///
    /// # Errors
    ///
    /// The file's factors of the frequencies have another type or length than the hyper-parameters say.
    pub fn load(
        find: &Finder<'_>,
        hyper: &HyperParameters,
        shapes: &[LayerShape],
        ctx_size: u32,
    ) -> Result<Self, LoadError> {
        let of_context = match hyper.rope_scaling {
            RopeScaling::OfContext { orig_ctx, .. } if ctx_size > orig_ctx => Some(ROPE_LONG),
            RopeScaling::OfContext { .. } => Some(ROPE_SHORT),
            _ => None,
        };
        let pairs = hyper.rope_dim as usize / 2;
        let mut factors = find.optional_vector(ROPE_FREQS, pairs)?;
        if let (None, Some(name)) = (&factors, of_context) {
            factors = find.optional_vector(name, pairs)?;
        }
        let mut kinds: Vec<(RopeKind, Rope)> = Vec::new();
        for shape in shapes {
            if !kinds.iter().any(|(kind, _)| *kind == shape.rope) {
                kinds.push((shape.rope, Rope::new(hyper, shape.rope, factors.as_deref())));
            }
        }
        Ok(Self { kinds })
    }

    /// The rotations.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rope> {
        self.kinds.iter().map(|(_, rope)| rope)
    }

    /// Which of them a layer has.
    ///
    /// # Panics
    ///
    /// If the layer's shape is none of those that they were made for.
    pub fn place(&self, kind: RopeKind) -> usize {
        let place = self.kinds.iter().position(|(own, _)| *own == kind);
        place.expect("they were made for all layers of the stage")
    }

    /// Pairs of a head that are rotated, the same in all.
    pub fn pairs(&self) -> usize {
        self.kinds.first().map_or(0, |(_, rope)| rope.frequencies.len())
    }
}

/// Angles per position of every pair, and the length that rotated pairs are scaled to.
#[derive(Clone, Debug)]
pub struct Rope {
    frequencies: Vec<f64>,
    magnitude: f64,
}

impl Rope {
    /// The frequencies of a kind of layers; `factors` has one divisor per pair.
    pub fn new(hyper: &HyperParameters, kind: RopeKind, factors: Option<&[f32]>) -> Self {
        let pairs = hyper.rope_dim as usize / 2;
        let base = f64::from(kind.base);
        let step = -2.0 / f64::from(hyper.rope_dim) * math::ln64(base);
        let mut frequencies: Vec<f64> = (0..pairs).map(|i| math::exp64(step * i as f64)).collect();
        if let Some(factors) = factors {
            for (frequency, factor) in frequencies.iter_mut().zip(factors) {
                *frequency /= f64::from(*factor);
            }
        }
        let magnitude =
            if kind.is_stretched { stretch(&mut frequencies, hyper, base) } else { 1.0 };
        Self { frequencies, magnitude }
    }

    /// `[cos, sin]` of every pair at `position`.
    pub fn angles(&self, position: usize, out: &mut [[f32; 2]]) {
        for (out, frequency) in out.iter_mut().zip(&self.frequencies) {
            let (sin, cos) = math::sin_cos64(position as f64 * frequency);
            *out = [(cos * self.magnitude) as f32, (sin * self.magnitude) as f32];
        }
    }
}

/// Applies the scaling to the frequencies; returns the magnitude.
fn stretch(frequencies: &mut [f64], hyper: &HyperParameters, base: f64) -> f64 {
    match hyper.rope_scaling {
        RopeScaling::None => 1.0,
        RopeScaling::OfContext { attn_factor, .. } => f64::from(attn_factor.unwrap_or(1.0)),
        RopeScaling::Linear { factor } => {
            for frequency in frequencies {
                *frequency /= f64::from(factor);
            }
            1.0
        }
        RopeScaling::Yarn { factor, orig_ctx, ext_factor, attn_factor, beta_fast, beta_slow } => {
            let attn_factor = f64::from(attn_factor.unwrap_or(1.0));
            let ext_factor = f64::from(ext_factor.unwrap_or(1.0));
            let factor = f64::from(factor);
            // The pair whose wave turns `beta` times over the trained context.
            let dims = f64::from(hyper.rope_dim);
            let pair = |beta: f32| {
                let turns = f64::from(orig_ctx) / (f64::from(beta) * 2.0 * std::f64::consts::PI);
                dims * math::ln64(turns) / (2.0 * math::ln64(base))
            };
            let low = pair(beta_fast).floor().max(0.0);
            let high = pair(beta_slow).ceil().min(dims - 1.0);
            for (i, frequency) in frequencies.iter_mut().enumerate() {
                let ramp = ((i as f64 - low) / (high - low).max(0.001)).clamp(0.0, 1.0);
                let kept = (1.0 - ramp) * ext_factor;
                *frequency = *frequency / factor * (1.0 - kept) + *frequency * kept;
            }
            if ext_factor == 0.0 || factor <= 1.0 {
                return attn_factor;
            }
            attn_factor * (1.0 + 0.1 * math::ln64(factor))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::gguf::Gguf;
    use crate::plan::ModelLayout;
    use crate::weights::{Resident, Weights};
    use std::path::Path;

    /// The frequencies of the model's rotations in a context of so many positions.
    fn frequencies(model: &str, ctx_size: u32) -> Vec<(Vec<f64>, f64)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/models");
        let gguf = Gguf::open(&folder.join(model)).expect("it opens");
        let arch = Arch::new(&gguf).expect("it is known");
        let layout = ModelLayout::new(&gguf).expect("it has a layout");
        let slices = layout.stage_slices(0..layout.layers);
        let weights = Weights::from_model(&gguf, &slices, &Resident::new()).expect("it maps");
        let find = Finder { gguf: &gguf, weights: &weights };
        let ropes = Ropes::load(&find, &arch.hyper, &arch.layers, ctx_size).expect("they load");
        ropes.iter().map(|rope| (rope.frequencies.clone(), rope.magnitude)).collect()
    }

    #[test]
    fn the_context_says_which_factors_divide_the_frequencies() {
        let (short, long) =
            (frequencies("tiny-phi3-long.gguf", 64), frequencies("tiny-phi3-long.gguf", 65));
        let plain = |pair: usize| math::exp64(-2.0 * pair as f64 / 24.0 * math::ln64(10_000.0));
        for (found, step) in [(&short, 0.02), (&long, 0.25)] {
            let [(found, magnitude)] = &found[..] else { panic!("one rotation: {found:?}") };
            assert_eq!((found.len(), *magnitude), (12, f64::from(1.19f32)));
            for (pair, found) in found.iter().enumerate() {
                let factor = 1.0 + step * pair as f64;
                assert!((found * factor / plain(pair) - 1.0).abs() < 1e-6, "pair {pair}");
            }
        }
    }

    #[test]
    fn layers_with_a_window_have_a_rotation_of_their_own() {
        let found = frequencies("tiny-gemma3.gguf", 1024);
        let [(windowed, _), (full, _)] = &found[..] else { panic!("two rotations: {found:?}") };
        // Bases 20,000 and 1,000,000; only the second is stretched, by 4.
        assert_eq!((windowed[0], full[0]), (1.0, 0.25));
        let second = |base: f64| math::exp64(-2.0 / 32.0 * math::ln64(base));
        assert!((windowed[1] / second(20_000.0) - 1.0).abs() < 1e-9);
        assert!((full[1] * 4.0 / second(1e6) - 1.0).abs() < 1e-9);
    }
}
