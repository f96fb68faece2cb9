//! What it costs to compute a stage whose weights do not all fit the memory. Knows no plan and no peer.

use crate::machine::direct::read_bytes_per_s;
use crate::units::show_size;
use crate::weights::source::Model;
use woolly_engine::plan::scratch_bytes;
use woolly_engine::stage::StageConfig;

/// What a disk is taken to give that cannot be measured.
const ASSUMED_BYTES_PER_S: u64 = 200_000_000;

/// What a token reads from the disk, and of how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Reads {
    /// Bytes that may be left on the disk.
    all: u64,
    /// Those of them that do not fit the memory.
    missing: u64,
    /// Bytes that a token is expected to read from the disk.
    per_token: u64,
}

impl Reads {
    /// Of a stage on a worker that may use `allowance` bytes.
    fn new(model: &Model, config: &StageConfig, allowance: u64) -> Reads {
        let (layout, layers) = (&model.layout, || config.layers.clone());
        let rows = u32::try_from(config.rows_max).unwrap_or(u32::MAX);
        let kv = layout.kv_bytes(&layers(), config.kv_type, &config.caches);
        let own = kv + scratch_bytes(layout, &layers(), rows);
        let all = layout.stage_disk_bytes(layers());
        let in_memory = layout.stage_bytes(layers()) - all + own;
        let missing = all.saturating_sub(allowance.saturating_sub(in_memory));
        let read = layout.stage_disk_read(layers(), 1);
        let per_token = if layout.is_mixture() {
            let part = u128::from(read) * u128::from(missing) / u128::from(all.max(1));
            u64::try_from(part).unwrap_or(u64::MAX)
        } else if missing > 0 {
            // What is needed next is always what was in memory longest ago.
            read
        } else {
            0
        };
        Reads { all, missing, per_token }
    }
}

/// Says what the stage leaves on the disk and how fast it can be at most; measures the disk for it, so it is not
/// for an async thread. `allowance` is what this worker may use.
pub fn warning(model: &Model, config: &StageConfig, allowance: u64) -> String {
    let reads = Reads::new(model, config, allowance);
    let place = model.weights.on_disk();
    let measured = place.and_then(|place| read_bytes_per_s(&place.path, &place.range));
    say(model.layout.is_mixture(), reads, allowance, measured)
}

fn say(is_mixture: bool, reads: Reads, allowance: u64, measured: Option<u64>) -> String {
    let Reads { all, missing, per_token } = reads;
    let (all, what) = (show_size(all), if is_mixture { "experts" } else { "weights" });
    if per_token == 0 {
        return format!(
            "weights are read from the disk when they are needed: other workers of this machine may take \
             the memory that {all} of {what} need"
        );
    }
    let (speed, how) = match measured {
        Some(speed) => (speed, "measured past the page cache"),
        None => (ASSUMED_BYTES_PER_S, "assumed, as it could not be measured"),
    };
    let seconds = per_token as f64 / speed as f64;
    format!(
        "weights are read from the disk when they are needed: {} of {all} of {what} do not fit the {} that \
         this worker may use, so a token reads about {}. At {:.2} GB/s ({how}) this stage computes at most \
         about {:.1} tokens per second of one stream",
        show_size(missing),
        show_size(allowance),
        show_size(per_token),
        speed as f64 / 1e9,
        1.0 / seconds
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_is_what_the_disk_gives_of_what_a_token_reads() {
        let gib = 1 << 30;
        let reads = Reads { all: 16 * gib, missing: 8 * gib, per_token: gib / 2 };
        let text = say(true, reads, 9 * gib, Some(gib));
        for part in ["8 GiB of 16 GiB of experts", "the 9 GiB that", "512 MiB", "1.07 GB/s"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(text.ends_with("about 2.0 tokens per second of one stream"), "{text}");
        let text = say(false, Reads { per_token: 400_000_000, ..reads }, gib, None);
        assert!(text.contains("0.20 GB/s (assumed") && text.contains("about 0.5 tokens"), "{text}");
        let text = say(true, Reads { missing: 0, per_token: 0, ..reads }, gib, None);
        assert!(text.contains("other workers of this machine"), "{text}");
    }
}
