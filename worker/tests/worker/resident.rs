//! Slices in memory: what is held, what is needed, and what goes first when memory is short.

use crate::support::write_model;
use woolly_engine::gguf::Gguf;
use woolly_engine::plan::SliceId;
use woolly_engine::weights::{Resident, Weights};
use woolly_worker::stage::resident::Residents;

const MODEL: [u8; 32] = [1; 32];
const OTHER: [u8; 32] = [2; 32];
const MEMORY: u64 = 1 << 30;

fn weights(gguf: &Gguf, slices: &[SliceId], held: &Resident) -> Weights {
    Weights::from_model(gguf, slices, held).unwrap()
}

fn held(residents: &Residents, model: &[u8; 32]) -> Vec<SliceId> {
    residents.of(model).slices().map(|slice| slice.id()).collect()
}

#[test]
fn the_least_recently_needed_slices_go_first_and_none_that_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let gguf = Gguf::open(&write_model(dir.path())).unwrap();
    let none = Resident::new();
    let mut residents = Residents::new(MEMORY);
    let (a, b) = (SliceId::Layer(0), SliceId::Layer(1));
    residents.hold(MODEL, &weights(&gguf, &[a], &none), []);
    let needed = weights(&gguf, &[b], &none);
    residents.hold(OTHER, &needed, []);
    residents.hold(OTHER, &weights(&gguf, &[a], &none), []);
    residents.hold(MODEL, &weights(&gguf, &[b], &none), []);
    let layer = residents.of(&MODEL).bytes() / 2;
    let all = MEMORY - 4 * layer;
    assert_eq!(residents.shortage(all), 0);
    assert_eq!(residents.make_room(all), 0);
    assert_eq!((held(&residents, &MODEL), held(&residents, &OTHER)), (vec![a, b], vec![a, b]));
    // One byte more takes the one that was not needed for the longest time, then the next.
    assert_eq!(residents.make_room(all + 1), 0);
    assert_eq!((held(&residents, &MODEL), held(&residents, &OTHER)), (vec![b], vec![a, b]));
    assert_eq!(residents.make_room(all + layer + 1), 0);
    assert_eq!((held(&residents, &MODEL), held(&residents, &OTHER)), (vec![b], vec![b]));
    assert_eq!(residents.make_room(MEMORY), layer);
    assert_eq!((held(&residents, &MODEL), held(&residents, &OTHER)), (vec![], vec![b]));
    drop(needed);
    assert_eq!(residents.make_room(MEMORY), 0);
    assert_eq!(held(&residents, &OTHER), []);
}

#[test]
fn what_stages_have_of_their_own_counts_while_they_live() {
    let residents = Residents::new(100);
    let stage = residents.reserve(70);
    assert_eq!((residents.shortage(30), residents.shortage(31)), (0, 1));
    drop(stage);
    assert_eq!(residents.shortage(100), 0);
}

#[test]
fn slices_of_a_file_that_was_changed_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let gguf = Gguf::open(&write_model(dir.path())).unwrap();
    let mut residents = Residents::new(u64::MAX);
    let slices = [SliceId::Layer(0), SliceId::Layer(1)];
    residents.hold(MODEL, &weights(&gguf, &slices, &Resident::new()), []);
    let again = weights(&gguf, &slices[..1], &residents.of(&MODEL));
    residents.hold(MODEL, &again, []);
    assert_eq!(held(&residents, &MODEL), slices);
    // Mapped anew although it was held: what was held is not what is in the file.
    residents.hold(MODEL, &weights(&gguf, &slices[..1], &Resident::new()), []);
    assert_eq!(held(&residents, &MODEL), slices[..1]);
}
