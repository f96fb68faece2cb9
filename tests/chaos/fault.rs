//! The faults, each as a value that says what is done, when, and how long a stream may then stand still.

use crate::bed::{Bed, calm_conditions};
use crate::client::Client;
use crate::weather::Weather;
use std::fmt;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use woolly_tests::numbers::Numbers;
use woolly_tests::relay::fate::Conditions;
use woolly_tests::relay::{BOTH, Way};

/// How long a stream may take to come to the token at which a fault is done.
const TOKEN_LIMIT: Duration = Duration::from_secs(20);
/// How long after a kill a worker comes that was not there before.
const LATE: Duration = Duration::from_secs(1);
/// How late an answer may be that is not lost: no worker is given up for it.
const LATE_BY: Duration = Duration::from_millis(1200);
/// How long a worker may take to end after SIGTERM.
const LEAVE_LIMIT: Duration = Duration::from_secs(15);
/// How long a spare may take until a plan names it.
const NAMED_LIMIT: Duration = Duration::from_secs(20);
/// How long a stuck worker is watched: until it has gone on.
const STUCK_FOR: Duration = Duration::from_secs(8);
/// The status of a worker whose mapped files are not there any more.
const LOST_PAGES: i32 = 70;
/// How long a worker whose files were cut is left to notice.
const NOTICED: Duration = Duration::from_secs(3);
/// How long nobody reaches a worker: longer than it takes to do without.
const UNREACHABLE: Duration = Duration::from_secs(8);
/// How long the weather is bad.
const WEATHER: Duration = Duration::from_secs(3);

/// A stage by where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// It embeds the tokens.
    First,
    /// Between two others.
    Middle,
    /// It samples.
    Last,
}

/// When a worker is killed, by what the client has seen of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// When this many tokens have come.
    Token(usize),
    /// When all but one have come.
    LastButOne,
    /// So long after a long prompt was sent.
    Prefill(Duration),
}

/// Who can take the seat of a killed worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spare {
    /// A worker that has joined before.
    Waiting,
    /// One that joins after the kill.
    Late,
    /// Nobody: those who are left must.
    None,
}

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a stage's worker.
    Kill {
        /// Which stage.
        place: Place,
        /// When.
        moment: Moment,
        /// Who follows.
        spare: Spare,
    },
    /// SIGKILL of a worker between two others while the answers of the last one are long on their way and
    /// overtake each other: some come when another plan is in force.
    KillWhileLate,
    /// SIGKILL of two workers at once, with new ones later; their machines vanish as well.
    KillTwo,
    /// SIGKILL of a worker with its machine, and of the one that takes its seat as soon as a plan names it.
    KillReplacement(Place),
    /// SIGKILL of a worker whose waiting spare kills itself, or is stuck, at this failpoint.
    SpareFails(Place, &'static str),
    /// SIGSTOP, and SIGCONT so much later.
    Stop(Place, Duration),
    /// The link between coordinator and a worker is cut, one way or both.
    Cut(Place, &'static [Way], Duration),
    /// The link between two stages is cut.
    CutBetween(Duration),
    /// No other worker reaches this one any more, though it reaches them and the coordinator. The first
    /// stage is dialled by nobody, so it is one of the others.
    Unreachable(Place, Spare),
    /// The coordinator's link to a worker is cut for a second and whole for a second, so often.
    Flap(Place, u32),
    /// All links are bad for some seconds.
    Bad(Weather),
    /// The ports change from which the coordinator and the neighbours of a worker are talked to.
    Rebind(Place),
    /// SIGTERM of a worker.
    Leave(Place, Spare),
    /// The slices that a stage has mapped are cut to nothing, as by somebody who cleans a disk up.
    Truncate(Place),
    /// Many clients come and leave early.
    Storm,
}

/// All places.
pub const PLACES: [Place; 3] = [Place::First, Place::Middle, Place::Last];
/// All spares.
pub const SPARES: [Spare; 3] = [Spare::Waiting, Spare::Late, Spare::None];
/// Where a spare dies that takes a seat: with a loaded stage before it has said so, at the first forward of
/// the replay, and a little later. Or it says that it lives, and computes nothing for long; it says what it
/// has computed twice; its disk is full.
pub const SPARE_FAILS: [&str; 6] = [
    "worker.loaded=1:kill",
    "worker.forward=1:kill",
    "worker.forward=4:kill",
    "worker.forward=9:sleep:6000",
    "worker.answer=9:wrong",
    "worker.chunk=1:wrong",
];
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Kill { place, moment, spare } => {
                write!(f, "kill {place:?} at {moment:?}, spare {spare:?}")
            }
            Fault::KillTwo => write!(f, "kill two"),
            Fault::KillWhileLate => write!(f, "kill Middle while answers are late"),
            Fault::KillReplacement(place) => write!(f, "kill {place:?} and its replacement"),
            Fault::SpareFails(place, failpoint) => write!(f, "kill {place:?}, spare {failpoint}"),
            Fault::Stop(place, length) => write!(f, "stop {place:?} for {length:?}"),
            Fault::Cut(place, ways, length) => write!(f, "cut {place:?} {ways:?} for {length:?}"),
            Fault::CutBetween(length) => write!(f, "cut between stages for {length:?}"),
            Fault::Unreachable(place, spare) => write!(f, "unreachable {place:?}, spare {spare:?}"),
            Fault::Flap(place, times) => write!(f, "flap {place:?} {times} times"),
            Fault::Bad(weather) => write!(f, "weather {weather:?}"),
            Fault::Rebind(place) => write!(f, "rebind {place:?}"),
            Fault::Leave(place, spare) => write!(f, "SIGTERM {place:?}, spare {spare:?}"),
            Fault::Truncate(place) => write!(f, "truncate {place:?}"),
            Fault::Storm => write!(f, "storm of cancels"),
        }
    }
}

impl Fault {
    /// Workers that wait without a seat when it begins.
    pub fn spares(&self) -> usize {
        match self {
            Fault::Kill { spare, .. } | Fault::Leave(_, spare) | Fault::Unreachable(_, spare) => {
                usize::from(*spare == Spare::Waiting)
            }
            Fault::KillReplacement(_) => 1,
            _ => 0,
        }
    }

    /// Whether no worker may be given up for it.
    pub fn is_gentle(&self) -> bool {
        match self {
            Fault::Stop(_, length) | Fault::Cut(_, _, length) | Fault::CutBetween(length) => {
                *length < Duration::from_secs(2)
            }
            Fault::Flap(..) | Fault::Bad(_) | Fault::Rebind(_) | Fault::Storm => true,
            _ => false,
        }
    }

    /// How long a stream may stand still. What is promised on a quiet machine is 5 s and the replay; these
    /// are processors that others use too.
    pub fn stall_max(&self) -> Duration {
        let seconds = match self {
            Fault::Stop(_, length) if self.is_gentle() => length.as_secs() + 4,
            Fault::KillTwo
            | Fault::KillWhileLate
            | Fault::KillReplacement(_)
            | Fault::SpareFails(..) => 20,
            Fault::Cut(_, _, length) | Fault::CutBetween(length) => length.as_secs().min(5) + 7,
            Fault::Rebind(_) => 6,
            Fault::Leave(..) => 8,
            _ => 10,
        };
        Duration::from_secs(seconds)
    }

    /// The kind of the request whose stream decides when it begins.
    pub fn trigger(&self) -> &'static str {
        match self {
            Fault::Kill { moment: Moment::Prefill(_), .. } => "long prompt",
            Fault::Kill { .. } | Fault::SpareFails(..) | Fault::Leave(..) => "log-probabilities",
            // So long that it is under way until the fault is over.
            _ => "long answer",
        }
    }

    /// Does it, with all that belongs to it, and comes back when it is over; `trigger` is a stream of so many
    /// tokens. Gives what went wrong otherwise than it should.
    pub fn inject(
        &self,
        bed: &mut Bed,
        trigger: &Client,
        tokens: usize,
        numbers: &mut Numbers,
    ) -> Vec<String> {
        let mut wrong = Vec::new();
        let moment = match self {
            Fault::Kill { moment, .. } => *moment,
            _ => Moment::Token(1 + numbers.below(40)),
        };
        if let Err(late) = moment.wait(trigger, tokens) {
            wrong.push(late);
        }
        let stages = bed.stages();
        let at = |place: Place| stages[place.index(stages.len())].clone();
        match *self {
            Fault::Kill { place, spare, .. } => {
                bed.kill(&at(place));
                follow(bed, spare);
            }
            Fault::KillTwo => {
                let left = numbers.below(stages.len());
                for (_, name) in stages.iter().enumerate().filter(|(stage, _)| *stage != left) {
                    bed.vanish(name);
                }
                follow(bed, Spare::Late);
                follow(bed, Spare::Late);
            }
            Fault::KillWhileLate => {
                let late = Conditions { jitter: LATE_BY, ..calm_conditions() };
                bed.seat(&at(Place::Last)).up.set(&[Way::Out], &late);
                thread::sleep(LATE_BY / 3);
                bed.kill(&at(Place::Middle));
                thread::sleep(2 * LATE_BY);
            }
            Fault::KillReplacement(place) => kill_twice(bed, &at(place), &stages, &mut wrong),
            Fault::SpareFails(place, failpoint) => {
                // It has taken no seat, so that it has reached nothing.
                wrong.extend(fail_twice(bed, &at(place), failpoint));
            }
            Fault::Stop(place, length) => stop(bed, &at(place), length),
            Fault::Cut(place, ways, length) => cut(&bed.seat(&at(place)).up, ways, length),
            Fault::CutBetween(length) => {
                let second = 1 + numbers.below(stages.len() - 1);
                cut(&bed.seat(&stages[second]).peer, &BOTH, length);
            }
            Fault::Unreachable(place, spare) => {
                let name = at(place);
                bed.seat(&name).peer.set(&BOTH, &Conditions { cut: true, ..calm_conditions() });
                follow(bed, spare);
                thread::sleep(UNREACHABLE);
            }
            Fault::Flap(place, times) => flap(bed, &at(place), times),
            Fault::Bad(weather) => {
                for relay in bed.seats.iter().flat_map(|seat| [&seat.up, &seat.peer]) {
                    relay.set(&BOTH, &weather.conditions());
                }
                thread::sleep(WEATHER);
            }
            Fault::Rebind(place) => {
                let seat = bed.seat(&at(place));
                seat.up.rebind();
                seat.peer.rebind();
            }
            Fault::Leave(place, spare) => leave(bed, &at(place), spare, &mut wrong),
            Fault::Truncate(place) => wrong.extend(truncate(bed, &at(place))),
            // Its clients are the fault.
            Fault::Storm => {}
        }
        bed.calm();
        wrong
    }
}

/// Stops a process for some time.
fn stop(bed: &Bed, name: &str, length: Duration) {
    let process = &bed.seat(name).process;
    process.stop();
    thread::sleep(length);
    process.resume();
}

/// Cuts a worker's link to the coordinator for a second, and leaves it whole for one, so often.
fn flap(bed: &Bed, name: &str, times: u32) {
    for _ in 0..times {
        cut(&bed.seat(name).up, &BOTH, Duration::from_secs(1));
        thread::sleep(Duration::from_secs(1));
    }
}

/// Lets a worker join if it is to join now.
fn follow(bed: &mut Bed, spare: Spare) {
    if spare == Spare::Late {
        thread::sleep(LATE);
        bed.add();
    }
}

/// Cuts the ways of a relay for some time; then it is as calm as before.
fn cut(relay: &woolly_tests::relay::Relay, ways: &[Way], length: Duration) {
    relay.set(ways, &Conditions { cut: true, ..calm_conditions() });
    thread::sleep(length);
    relay.set(ways, &calm_conditions());
}

fn kill_twice(bed: &mut Bed, first: &str, before: &[String], wrong: &mut Vec<String>) {
    bed.vanish(first);
    let until = Instant::now() + NAMED_LIMIT;
    let newcomer = loop {
        if let Some(name) = bed.stages().into_iter().find(|name| !before.contains(name)) {
            break name;
        }
        if Instant::now() >= until {
            wrong.push("no plan names the spare".to_owned());
            return;
        }
        thread::sleep(Duration::from_millis(2));
    };
    bed.kill(&newcomer);
    follow(bed, Spare::Late);
}

/// Kills a worker for which one is waiting that fails as well, and lets another one follow.
fn fail_twice(bed: &mut Bed, name: &str, failpoint: &str) -> Option<String> {
    let spare = bed.add_failing(failpoint);
    bed.kill(name);
    if !failpoint.ends_with("kill") {
        thread::sleep(STUCK_FOR);
        return None;
    }
    let until = Instant::now() + NAMED_LIMIT;
    while bed.seat_mut(&spare).process.status().is_none() {
        if Instant::now() >= until {
            return Some(format!("the spare does not come to {failpoint}"));
        }
        thread::sleep(Duration::from_millis(10));
    }
    bed.kill(&spare);
    bed.add();
    None
}

fn leave(bed: &mut Bed, name: &str, spare: Spare, wrong: &mut Vec<String>) {
    let at = bed.seats.iter().position(|seat| seat.name == name).expect("it is there");
    let mut seat = bed.seats.remove(at);
    seat.process.terminate();
    follow(bed, spare);
    // Its links stay until it has ended: it may have work to hand over.
    let status = seat.process.wait(LEAVE_LIMIT);
    if !status.success() {
        wrong.push(format!("after SIGTERM it ends with {status}\n{}", seat.process.log()));
    }
}

/// Cuts the slices of a worker. Before a forward it sees that they have changed, and fetches them again; in
/// the middle of one it ends with the status for it.
fn truncate(bed: &mut Bed, name: &str) -> Option<String> {
    for slice in bed.cluster.slices(name) {
        let file = fs::File::options().write(true).open(slice);
        file.and_then(|file| file.set_len(0)).expect("a slice can be cut");
    }
    thread::sleep(NOTICED);
    let status = bed.seat_mut(name).process.status()?;
    let log = bed.seat(name).process.log();
    bed.kill(name);
    bed.add();
    (status.code() != Some(LOST_PAGES)).then(|| format!("it ends with {status}\n{log}"))
}

impl Place {
    /// Its number among so many stages; the middle of two is the last.
    fn index(self, stages: usize) -> usize {
        match self {
            Place::First => 0,
            Place::Middle => stages / 2,
            Place::Last => stages - 1,
        }
    }
}

impl Moment {
    /// Waits for it; an error if the stream does not come so far.
    fn wait(self, trigger: &Client, tokens: usize) -> Result<(), String> {
        let wanted = match self {
            Moment::Token(token) => token,
            Moment::LastButOne => tokens - 1,
            Moment::Prefill(after) => {
                thread::sleep(trigger.visit.at + after);
                return Ok(());
            }
        };
        let until = Instant::now() + TOKEN_LIMIT;
        while trigger.tokens() < wanted {
            if trigger.has_ended() || Instant::now() >= until {
                return Err(format!("the stream has {} tokens, not {wanted}", trigger.tokens()));
            }
            thread::sleep(Duration::from_micros(300));
        }
        Ok(())
    }
}
