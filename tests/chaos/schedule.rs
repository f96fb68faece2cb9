//! Which faults come in which order: the short list of every change, the whole matrix, and random ones.

use crate::fault::{Fault, Moment, PLACES, Place, SPARE_FAILS, SPARES, Spare};
use crate::weather::WEATHERS;
use std::time::Duration;
use woolly_tests::numbers::Numbers;
use woolly_tests::relay::{BOTH, Way};

const MOMENTS: [Moment; 5] = [
    Moment::Token(1),
    Moment::Token(2),
    Moment::Token(17),
    Moment::LastButOne,
    Moment::Prefill(Duration::from_millis(60)),
];

/// Every kind of fault and every point of a kill once; stages and spares are drawn, no two kills with the same.
pub fn short(seed: u64) -> Vec<Fault> {
    let mut numbers = Numbers::of(&[seed, 1]);
    let mut seats: Vec<(Place, Spare)> =
        PLACES.iter().flat_map(|place| SPARES.map(|spare| (*place, spare))).collect();
    numbers.shuffle(&mut seats);
    let mut faults: Vec<Fault> = MOMENTS
        .iter()
        .zip(&seats)
        .map(|(moment, (place, spare))| Fault::Kill {
            place: *place,
            moment: *moment,
            spare: *spare,
        })
        .collect();
    faults.extend([Fault::KillTwo, Fault::KillWhileLate]);
    let draw = |numbers: &mut Numbers| *numbers.pick(&PLACES);
    faults.push(Fault::KillReplacement(draw(&mut numbers)));
    faults.extend(SPARE_FAILS.map(|failpoint| Fault::SpareFails(draw(&mut numbers), failpoint)));
    for length in [300, 1000, 10_000] {
        faults.push(Fault::Stop(draw(&mut numbers), Duration::from_millis(length)));
    }
    // The coordinator sends its tokens to the first worker and hears of those sampled from the last.
    faults.push(Fault::Cut(Place::First, &[Way::Back], Duration::from_secs(1)));
    faults.push(Fault::Cut(Place::Last, &[Way::Out], Duration::from_secs(1)));
    let ways = *numbers.pick(&[&[Way::Out], &[Way::Back]]);
    faults.push(Fault::Cut(draw(&mut numbers), ways, Duration::from_secs(7)));
    faults.extend([1000, 6000].map(|length| Fault::CutBetween(Duration::from_millis(length))));
    let dialled = *numbers.pick(&PLACES[1..]);
    faults.push(Fault::Unreachable(dialled, *numbers.pick(&SPARES)));
    faults.push(Fault::Flap(draw(&mut numbers), 2));
    faults.push(Fault::Rebind(draw(&mut numbers)));
    faults.push(Fault::Leave(draw(&mut numbers), *numbers.pick(&SPARES)));
    faults.push(Fault::Truncate(draw(&mut numbers)));
    faults.push(Fault::Storm);
    faults.extend(WEATHERS.map(Fault::Bad));
    numbers.shuffle(&mut faults);
    faults
}

/// Every point of a kill at every stage with every kind of spare, and each stage's departure.
pub fn matrix() -> Vec<Fault> {
    let mut faults = Vec::new();
    for place in PLACES {
        for spare in SPARES {
            let kill = |moment| Fault::Kill { place, moment, spare };
            faults.extend(MOMENTS.map(kill));
            faults.push(Fault::Leave(place, spare));
            faults.extend((place != Place::First).then_some(Fault::Unreachable(place, spare)));
        }
        faults.extend([Fault::KillReplacement(place), Fault::Truncate(place)]);
        faults.extend(SPARE_FAILS.map(|failpoint| Fault::SpareFails(place, failpoint)));
        for length in [300, 1000, 10_000] {
            faults.push(Fault::Stop(place, Duration::from_millis(length)));
        }
        for ways in [&[Way::Out][..], &[Way::Back], &BOTH] {
            faults.extend(
                [1, 7].map(|seconds| Fault::Cut(place, ways, Duration::from_secs(seconds))),
            );
        }
    }
    faults
}

/// Any fault, the kills half of them.
pub fn random(numbers: &mut Numbers) -> Fault {
    let place = *numbers.pick(&PLACES);
    let spare = *numbers.pick(&SPARES);
    match numbers.below(27) {
        0..=9 => {
            let moment = match numbers.below(4) {
                0 => *numbers.pick(&MOMENTS),
                1 => Moment::Prefill(Duration::from_millis(numbers.below(300) as u64)),
                _ => Moment::Token(1 + numbers.below(190)),
            };
            Fault::Kill { place, moment, spare }
        }
        10 => Fault::KillTwo,
        11 => Fault::KillReplacement(place),
        12..=13 => Fault::Stop(place, Duration::from_millis(*numbers.pick(&[300, 1000, 10_000]))),
        14..=15 => {
            let ways = *numbers.pick(&[&[Way::Out][..], &[Way::Back], &BOTH]);
            Fault::Cut(place, ways, Duration::from_secs(*numbers.pick(&[1, 7])))
        }
        16 => Fault::CutBetween(Duration::from_secs(*numbers.pick(&[1, 6]))),
        17 => Fault::Flap(place, 1 + numbers.below(5) as u32),
        18 => Fault::Rebind(place),
        19 => Fault::Leave(place, spare),
        20 => *numbers.pick(&[Fault::Storm, Fault::KillWhileLate]),
        21 => Fault::SpareFails(place, SPARE_FAILS[numbers.below(SPARE_FAILS.len())]),
        22 => Fault::Truncate(place),
        23 if place != Place::First => Fault::Unreachable(place, spare),
        _ => Fault::Bad(*numbers.pick(&WEATHERS)),
    }
}
