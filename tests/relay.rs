//! The relay of the chaos tests: what it decides, and that it does it.

use std::net::{Ipv4Addr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};
use woolly_tests::relay::fate::{Arrival, Burst, Conditions, Dice};
use woolly_tests::relay::{BOTH, Relay, Way};

/// How long a datagram is waited for that must not come.
const SILENCE: Duration = Duration::from_millis(150);

/// Everything that can happen, each with a chance.
fn bad_weather() -> Conditions {
    Conditions {
        delay: Duration::from_millis(5),
        jitter: Duration::from_millis(10),
        loss: 0.1,
        burst: Some(Burst { begin: 0.02, end: 0.3 }),
        duplicate: 0.1,
        reorder: 0.1,
        corrupt: 0.1,
        ..Conditions::default()
    }
}

/// The decisions over many datagrams that come a millisecond apart.
fn decided(seed: u64, conditions: &Conditions) -> Vec<[Option<Arrival>; 2]> {
    let mut dice = Dice::new(seed, 0);
    (0..10_000).map(|at| dice.cast(Duration::from_millis(at), 1000, conditions)).collect()
}

/// The part of the decisions for which it is so.
fn part(decided: &[[Option<Arrival>; 2]], is_so: impl Fn(&[Option<Arrival>; 2]) -> bool) -> f64 {
    decided.iter().filter(|fate| is_so(fate)).count() as f64 / decided.len() as f64
}

#[test]
fn a_seed_decides_the_same_twice() {
    let conditions = bad_weather();
    assert_eq!(decided(7, &conditions), decided(7, &conditions));
    assert_ne!(decided(7, &conditions), decided(8, &conditions));
    let mut back = Dice::new(7, 1);
    let other = (0..10_000).map(|at| back.cast(Duration::from_millis(at), 1000, &conditions));
    assert!(other.ne(decided(7, &conditions)), "each direction has its own decisions");
}

#[test]
fn each_condition_happens_as_often_as_it_says() {
    let near = |got: f64, wanted: f64| assert!((got - wanted).abs() < 0.015, "{got}, not {wanted}");
    let only = |conditions: Conditions| decided(1, &conditions);
    let lost = |fate: &[Option<Arrival>; 2]| fate[0].is_none();
    near(part(&only(Conditions { loss: 0.05, ..Conditions::default() }), lost), 0.05);
    let twice = Conditions { duplicate: 0.05, ..Conditions::default() };
    near(part(&only(twice), |fate| fate[1].is_some()), 0.05);
    let wrong = Conditions { corrupt: 0.05, ..Conditions::default() };
    near(part(&only(wrong), |fate| fate[0].is_some_and(|one| one.flipped.is_some())), 0.05);
    let late = Conditions { reorder: 0.25, ..Conditions::default() };
    near(part(&only(late), |fate| fate[0].is_some_and(|one| !one.after.is_zero())), 0.25);
    // A share of time in bursts of begin ÷ (begin + end).
    let burst = Burst { begin: 0.02, end: 0.18 };
    let bursts = only(Conditions { burst: Some(burst), ..Conditions::default() });
    assert!((part(&bursts, lost) - 0.1).abs() < 0.03, "{}", part(&bursts, lost));
    let runs = bursts.windows(2).filter(|pair| lost(&pair[0]) && !lost(&pair[1])).count();
    let mean = part(&bursts, lost) * bursts.len() as f64 / runs as f64;
    assert!((3.0..8.0).contains(&mean), "bursts of {mean} datagrams");
}

#[test]
fn a_burst_is_no_cut_even_where_little_is_sent() {
    // It would never end by itself.
    let burst = Some(Burst { begin: 0.05, end: 0.0 });
    let conditions = Conditions { burst, ..Conditions::default() };
    let mut dice = Dice::new(3, 0);
    let mut lost = 0;
    for at in 0..2_000 {
        let fate = dice.cast(Duration::from_millis(400 * at), 1000, &conditions);
        lost = if fate[0].is_none() { lost + 1 } else { 0 };
        // By chance one burst may begin where another ends.
        assert!(lost <= 9, "{lost} datagrams in a row, 0.4 s apart");
    }
}

#[test]
fn a_limited_rate_delays_and_then_loses() {
    // 1,000 bytes each millisecond where half of it passes.
    let half = Conditions { rate: Some(500_000.0), ..Conditions::default() };
    let fates = decided(1, &half);
    let after: Vec<Duration> = fates.iter().flatten().flatten().map(|one| one.after).collect();
    assert_eq!(after[0], Duration::from_millis(2));
    assert_eq!(after[1], Duration::from_millis(3));
    assert!(after.iter().all(|after| *after <= Duration::from_millis(402)));
    let passed = after.len() as f64 / fates.len() as f64;
    assert!((passed - 0.5).abs() < 0.05, "{passed} passed");
}

/// A relay with a socket at each end; the back end answers at once with the same bytes.
fn link(seed: u64) -> (Relay, UdpSocket) {
    let bound = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (target, dialler) = (bound(), bound());
    let relay = Relay::start(target.local_addr().unwrap(), seed);
    dialler.connect(relay.address()).unwrap();
    dialler.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((bytes, from)) = target.recv_from(&mut buffer) {
            // The port that it came from, for the test that changes it.
            let mut answer = from.port().to_le_bytes().to_vec();
            answer.extend_from_slice(&buffer[..bytes]);
            target.send_to(&answer, from).unwrap();
        }
    });
    (relay, dialler)
}

/// Sends a word and gives the port that it came from and what came back.
fn echoed(dialler: &UdpSocket, word: &[u8]) -> (u16, Vec<u8>) {
    dialler.send(word).unwrap();
    let mut buffer = [0; 2048];
    let bytes = dialler.recv(&mut buffer).expect("an answer comes");
    (u16::from_le_bytes([buffer[0], buffer[1]]), buffer[2..bytes].to_vec())
}

fn nothing_comes(dialler: &UdpSocket) {
    dialler.set_read_timeout(Some(SILENCE)).unwrap();
    assert!(dialler.recv(&mut [0; 2048]).is_err(), "something came");
    dialler.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
}

#[test]
fn a_relay_passes_both_ways_and_delays() {
    let (relay, dialler) = link(1);
    assert_eq!(echoed(&dialler, b"there and back").1, b"there and back");
    assert_eq!((relay.passed(Way::Out), relay.passed(Way::Back)), (1, 1));
    relay.set(&BOTH, &Conditions::delayed(Duration::from_millis(40)));
    let begun = Instant::now();
    echoed(&dialler, b"slow");
    let took = begun.elapsed();
    assert!((80..500).contains(&took.as_millis()), "{took:?} for two times 40 ms");
}

#[test]
fn a_way_that_is_cut_passes_nothing_and_the_other_one_does() {
    let cut = Conditions { cut: true, ..Conditions::default() };
    for (way, out) in [(Way::Out, 0), (Way::Back, 1)] {
        let (relay, dialler) = link(2);
        relay.set(&[way], &cut);
        dialler.send(b"lost").unwrap();
        nothing_comes(&dialler);
        assert_eq!((relay.passed(Way::Out), relay.passed(Way::Back)), (out, 0));
        relay.set(&BOTH, &Conditions::default());
        assert_eq!(echoed(&dialler, b"healed").1, b"healed");
    }
}

#[test]
fn one_bit_is_wrong_and_a_second_one_comes() {
    let (relay, dialler) = link(3);
    relay.set(&[Way::Back], &Conditions { corrupt: 1.0, duplicate: 1.0, ..Conditions::default() });
    dialler.send(&[0; 100]).unwrap();
    let mut two = [[0; 2048], [0; 2048]];
    let lengths = two.each_mut().map(|buffer| dialler.recv(buffer).expect("two come"));
    assert_eq!(lengths, [102, 102]);
    let differ = |(a, b): (&u8, &u8)| (a ^ b).count_ones();
    assert_eq!(two[0].iter().zip(&two[1]).map(differ).sum::<u32>(), 1);
}

#[test]
fn the_target_sees_another_port_after_a_rebind() {
    let (relay, dialler) = link(4);
    let before = echoed(&dialler, b"one").0;
    assert_eq!(echoed(&dialler, b"two").0, before);
    relay.rebind();
    assert_ne!(echoed(&dialler, b"three").0, before);
}

#[test]
fn a_refused_process_gets_nothing_through_and_another_one_does() {
    let (relay, dialler) = link(5);
    echoed(&dialler, b"before");
    // No process has this id.
    relay.refuse(u32::MAX);
    assert_eq!(echoed(&dialler, b"another").1, b"another");
    relay.refuse(std::process::id());
    dialler.send(b"refused").unwrap();
    nothing_comes(&dialler);
}
