//! Why a machine has no stage.

use super::machines::Machine;
use super::report::Spare;
use crate::cluster::{Draft, PlacementConfig, STAGES_MAX};
use crate::units::show_size;
use woolly_engine::plan::{BLOCK_LEN, scratch_bytes};

/// The machines that have no stage in the plan.
pub(super) fn spares(machines: &[Machine], draft: &Draft, config: &PlacementConfig) -> Vec<Spare> {
    let least = least_bytes(config, draft.rows_max);
    let spare = machines.iter().enumerate().filter(|(place, _)| !draft.workers.contains(place));
    let spare = spare.map(|(place, machine)| Spare {
        machine: machine.name.clone(),
        why: why(place, machine, draft, config, least),
    });
    spare.collect()
}

fn why(
    place: usize,
    machine: &Machine,
    draft: &Draft,
    config: &PlacementConfig,
    least: u64,
) -> String {
    let (stages, layers) = (draft.workers.len(), config.layout.layers as usize);
    let may_use = machine.allowance_bytes();
    let wanted = config.workers_wanted as usize;
    if least > may_use {
        let (least, may_use) = (show_size(least), show_size(may_use));
        return format!("a stage of one layer takes {least} at least, and it may use {may_use}");
    }
    if stages >= layers {
        return format!("the model has {layers} layers, and each stage needs one");
    }
    if config.cut.is_some() {
        return format!("the cut that was given has {stages} stages");
    }
    if place >= wanted && wanted <= STAGES_MAX {
        return format!("the plan is made when the first {wanted} have joined, and fits them");
    }
    if stages >= STAGES_MAX {
        return format!("a plan has at most {STAGES_MAX} stages, and those before it joined first");
    }
    "no cut that fits the memory of all has a stage for it".to_owned()
}

/// Bytes of the smallest stage that there can be, with the cache of one sequence of full length.
fn least_bytes(config: &PlacementConfig, rows_max: u32) -> u64 {
    let layout = &config.layout;
    let caches = layout.equal_caches(config.ctx_size.div_ceil(BLOCK_LEN));
    let of = |first: u32| {
        let layers = first..first + 1;
        let full = layout.kv_bytes(&layers, config.kv_type, &caches);
        // What layers with a window keep is less; a little is enough to say that even that does not fit.
        let kv = if caches.iter().all(|group| group.window.is_none()) { full } else { 0 };
        layout.stage_bytes(layers.clone()) + scratch_bytes(layout, &layers, rows_max) + kv
    };
    (0..layout.layers).map(of).min().unwrap_or(0)
}
