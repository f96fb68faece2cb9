//! A draft is what the core does when workers like these are there.

use super::*;
use crate::cluster::{Drafts, Imagined};
use woolly_engine::plan::{Member, PlanError};

fn imagined(hellos: &[Hello]) -> Vec<Imagined> {
    let of = |hello: &Hello| Imagined {
        name: hello.name.clone(),
        member: Member {
            memory_bytes: hello.memory_bytes,
            memory_is_own: hello.memory_is_own,
            machine: hello.machine,
            kv_memory_bytes: hello.kv_memory_bytes,
            read_bytes_per_s: hello.read_bytes_per_s,
            macs_per_s: hello.macs_per_s,
            threads: hello.threads,
            weights_from_disk: hello.weights_from_disk,
        },
    };
    hellos.iter().map(of).collect()
}

/// A worker of some speed and memory.
fn worker(id: WorkerId, times: u64, memory_bytes: u64) -> Hello {
    let read_bytes_per_s = times * 10 * GIB;
    Hello { read_bytes_per_s, macs_per_s: read_bytes_per_s, memory_bytes, ..hello(id) }
}

/// (worker, layers) of a draft, by the order in which workers were given.
fn drafted(drafts: &Drafts, gone: Option<usize>, ids: &[WorkerId]) -> Vec<(WorkerId, u32, u32)> {
    let draft = gone.map_or_else(|| drafts.plan(), |gone| drafts.plan_without(gone));
    let draft = draft.expect("nobody is waited for").unwrap();
    let stages = draft.workers.iter().zip(&draft.cut.layers);
    stages.map(|(worker, layers)| (ids[*worker], layers.start, layers.end)).collect()
}

#[test]
fn a_draft_is_the_plan_that_is_made_and_the_one_after_a_loss() {
    let ids = [A, B, C, WorkerId(0xd)];
    let kinds: [[(u64, u64); 4]; 4] = [
        [(1, GIB); 4],
        [(1, GIB), (4, GIB), (2, GIB), (1, GIB)],
        [(3, GIB), (1, 2 << 20), (1, GIB), (2, 3 << 20)],
        [(1, 3 << 20), (1, GIB), (8, 4 << 20), (1, GIB)],
    ];
    for (kind, wanted) in kinds.iter().flat_map(|kind| [2, 4].map(|wanted| (kind, wanted))) {
        let hellos: Vec<Hello> = ids
            .iter()
            .zip(kind)
            .map(|(id, (times, memory))| worker(*id, *times, *memory))
            .collect();
        let drafts = Drafts::new(&imagined(&hellos), placement(wanted)).unwrap();
        for gone in 0..ids.len() {
            let mut cluster = empty(config(wanted).timeouts);
            for (id, hello) in ids.iter().zip(&hellos) {
                cluster.handle_hello(s(0), *id, hello).unwrap();
            }
            cluster.handle_lane(s(0), LANE, placement(wanted), [7; 32], Vec::new());
            let plan = places(&actions(&mut cluster));
            assert_eq!(drafted(&drafts, None, &ids), plan, "{kind:?} {wanted}");
            let epoch = cluster.latest();
            for (id, ..) in &plan {
                cluster.handle_ready(s(0), *id, &ready(epoch));
            }
            actions(&mut cluster);
            cluster.handle_lost(s(1), ids[gone], "gone");
            let todo = actions(&mut cluster);
            let assigned: Vec<Action> =
                todo.into_iter().filter(|action| matches!(action, Action::Assign { .. })).collect();
            if plan.iter().any(|(id, ..)| *id == ids[gone]) {
                let expected = places(&assigned);
                assert_eq!(
                    drafted(&drafts, Some(gone), &ids),
                    expected,
                    "{kind:?} {wanted} {gone}"
                );
            } else {
                assert!(assigned.is_empty(), "a spare is no loss");
            }
        }
    }
}

#[test]
fn a_draft_says_what_is_missing_and_who_is_waited_for() {
    let small: Vec<Hello> = [A, B].map(|id| worker(id, 1, 1 << 20)).into();
    let drafts = Drafts::new(&imagined(&small), placement(2)).unwrap();
    assert!(matches!(drafts.plan(), Some(Err(PlanError::Memory { .. }))));
    assert!(drafts.plan_without(0).is_none(), "nothing was served");
    let drafts = Drafts::new(&imagined(&small), placement(3)).unwrap();
    assert!(drafts.plan().is_none(), "a third is waited for");
    let one = Drafts::new(&imagined(&[worker(A, 1, GIB)]), placement(1)).unwrap();
    assert!(one.plan().unwrap().is_ok());
    assert!(one.plan_without(0).is_none(), "nobody is left");
    let many: Vec<Hello> = (0..1025).map(|at| worker(WorkerId(at), 1, GIB)).collect();
    assert!(Drafts::new(&imagined(&many), placement(1)).unwrap_err().contains("1024"));
}
