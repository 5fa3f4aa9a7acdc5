//! SIGKILL of the sender and the receiver of a ring at random moments of streaming, again and
//! again, each followed by a successor: no committed message is lost, reordered or torn, and only
//! one that was not freed comes twice, at the same position.
//!
//! What is the truth: a sender notes in a file how far it is after each send that returned; a
//! receiver logs each message before it frees it; the dead leave the ring's bytes. The run compares
//! the three after each kill, and tells the next sender where to go on by what is committed.

mod children;
mod ledger;
mod look;
mod pair;
mod plan;

use std::thread;
use std::time::Duration;

use tombolo::inspect::{Health, Image};
use tombolo_abi::RingKind;

use crate::{Failure, Report, Rng, Role, Run, Setting, Size};
use pair::Pair;
use plan::Way;

/// Moments between two looks at the whole region.
const LOOK_EVERY: u64 = 16;
/// Of a hundred moments, how many at least must lie between a message's first byte and its commit,
/// in full size; in a hundredth of it, one moment must. A lane lends no room that could be filled
/// slowly: there, one must in full size.
const UNDER_WAY_PERCENT: u64 = 5;

const UNDER_WAY: &str = "between the first payload byte and the commit";

/// The run.
pub(crate) const RUN: Run = Run {
    name: "kills",
    about: "SIGKILL of sender and receiver at 2,000 moments of streaming: nothing lost or torn",
    body,
    roles: &[
        Role { name: "kills.send", body: children::send },
        Role { name: "kills.receive", body: children::receive },
    ],
};

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Sender,
    Receiver,
    Both,
}

impl Victim {
    fn draw(rng: &mut Rng) -> Self {
        use Victim::{Both, Receiver, Sender};
        rng.choose(&[Sender, Sender, Sender, Sender, Receiver, Receiver, Receiver, Both])
    }
}

/// What was hit.
#[derive(Clone, Copy, Debug, Default)]
struct Hits {
    senders: u64,
    receivers: u64,
    both: u64,
    /// Between the first byte of a payload and its commit, by the way of sending.
    in_single: u64,
    in_batch: u64,
    in_slow: u64,
    starting: u64,
    looks: u64,
}

impl Hits {
    fn under_way(&self) -> u64 {
        self.in_single + self.in_batch + self.in_slow
    }
}

/// The same on a lane.
pub(crate) const LANE: Run = Run {
    name: "kills-lane",
    about: "the same on a lane, whose next sender gets it when it is drained",
    body: body_of_lane,
    roles: &[],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    run(setting, RingKind::Spsc)
}

fn body_of_lane(setting: &Setting) -> Result<Report, Failure> {
    run(setting, RingKind::Lane)
}

fn run(setting: &Setting, kind: RingKind) -> Result<Report, Failure> {
    let mut rng = Rng::new(setting.seed);
    let mut pair = Pair::start(setting, kind)?;
    let mut hits = Hits::default();
    let moments = setting.count(2000, 100);
    for moment in 0..moments {
        if rng.percent(10) {
            hits.starting += strike_early(&mut pair, &mut rng)?;
        }
        pair.wait_for_stream()?;
        thread::sleep(pause(&mut rng));
        strike(&mut pair, Victim::draw(&mut rng), &mut hits)?;
        if moment.is_multiple_of(LOOK_EVERY) {
            hits.looks += 1;
            expect_sound(&pair)?;
        }
    }
    let lends = kind == RingKind::Spsc;
    let mut report = report(moments, &hits);
    match lends || setting.size == Size::Full {
        true => report.count(UNDER_WAY, hits.under_way()),
        false => report.note(UNDER_WAY, hits.under_way()),
    }
    pair.finish(&mut report)?;
    let found = hits.under_way();
    if lends && setting.size == Size::Full && found * 100 < moments * UNDER_WAY_PERCENT {
        return Err(format!("only {found} of {moments} kills met a message under way").into());
    }
    Ok(report)
}

/// A while, often shorter than a message takes.
fn pause(rng: &mut Rng) -> Duration {
    let longest = rng.choose(&[100, 1000, 5000]);
    Duration::from_micros(rng.below(longest))
}

/// Kills at a moment of streaming.
fn strike(pair: &mut Pair, victim: Victim, hits: &mut Hits) -> Result<(), Failure> {
    let (count, under_way) = match victim {
        Victim::Sender => (&mut hits.senders, pair.replace_sender()?),
        Victim::Receiver => {
            pair.replace_receiver()?;
            (&mut hits.receivers, None)
        }
        Victim::Both => (&mut hits.both, pair.replace_both()?),
    };
    *count += 1;
    match under_way {
        Some(Way::Single) => hits.in_single += 1,
        Some(Way::Batch) => hits.in_batch += 1,
        Some(Way::Slow) => hits.in_slow += 1,
        None => {}
    }
    Ok(())
}

/// Kills before there is a stream: while its end is being claimed, or shortly before or after.
fn strike_early(pair: &mut Pair, rng: &mut Rng) -> Result<u64, Failure> {
    thread::sleep(Duration::from_micros(rng.below(3000)));
    if rng.percent(50) {
        pair.replace_sender()?;
    } else {
        pair.replace_receiver()?;
    }
    Ok(1)
}

/// The region shows no damage, with ends alive or dead.
fn expect_sound(pair: &Pair) -> Result<(), Failure> {
    let image = Image::open(&pair.path())?;
    match image.health() {
        Health::Healthy => Ok(()),
        health => Err(format!("the region is {health:?}: {:?}", image.problems()).into()),
    }
}

fn report(moments: u64, hits: &Hits) -> Report {
    let mut report = Report::new();
    report.count("moments of streaming with a kill", moments);
    report.count("of the sender", hits.senders);
    report.count("of the receiver", hits.receivers);
    report.count("of both", hits.both);
    report.note("of those under way in a send", hits.in_single);
    report.note("in a batch", hits.in_batch);
    report.note("in a claim that was being filled slowly", hits.in_slow);
    report.count("looks at the whole region", hits.looks);
    report.note("more kills, while an end was starting", hits.starting);
    report
}
