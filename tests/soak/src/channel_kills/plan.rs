//! Where and when the next process dies.

use std::time::Duration;

use crate::Rng;

/// A crash point, and at which of its visits at most a process dies. The more often a process comes there, the more
/// there are.
pub(super) const POINTS: [(&str, u64); 39] = [
    ("attach.slot-renewed", 12),
    ("attach.locked", 6),
    ("attach.filled", 6),
    ("attach.slot-attached", 12),
    ("detach.detaching", 6),
    ("detach.without-pulse", 6),
    ("detach.freed", 6),
    (MEET, 1),
    ("send.before-payload", 150),
    ("send.before-commit", 150),
    ("send.after-commit", 150),
    ("carry.before-hand-over", 50),
    ("carry.after-hand-over", 50),
    ("recv.before-free", 150),
    ("recv.before-take", 30),
    ("recv.before-count", 30),
    ("call.registered", 30),
    ("call.sent", 30),
    ("withdraw.before-mark", 12),
    ("withdraw.before-count", 12),
    ("reply.before-take", 8),
    ("reply.withdrawn", 8),
    ("reply.after-take", 8),
    ("reply.before-delivery", 20),
    ("close.before-reason", 3),
    ("close.after-text", 3),
    ("close.after-reason", 3),
    ("close.between-halves", 6),
    ("release.after-lock", 6),
    ("release.after-sockets", 6),
    ("release.gave-inbox-up", 6),
    ("release.before-pass-on", 6),
    ("release.slot-passed-on", 12),
    ("release.after-pass-on", 6),
    ("adopt.before-slots", 6),
    ("adopt.after-slots", 6),
    ("join.after-map", 1),
    ("create.before-linkat", 1),
    ("create.after-linkat", 1),
];

/// Passed once, by the end that is opened later.
const MEET: &str = "meet.connected";

/// Of so many kills, one is at a random moment.
const RANDOM_SHARE: usize = 5;

/// How a process dies.
#[derive(Clone, Copy, Debug)]
pub(super) enum Death {
    /// By itself, at that visit of a crash point.
    At { point: &'static str, visit: u64 },
    /// This long after it was started.
    Young(Duration),
    /// This long after it has begun to talk.
    Later(Duration),
}

/// One round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) death: Death,
    /// Whether the survivor is the first to open the channel.
    pub(super) opens_first: bool,
    /// Whether they talk over a channel of which the end is carried to the process that is to die.
    pub(super) is_carried: bool,
}

/// Deals deaths: each point comes as often as the others.
#[derive(Debug, Default)]
pub(super) struct Dealer {
    left: Vec<Option<(&'static str, u64)>>,
}

impl Dealer {
    /// The next round.
    pub(super) fn deal(&mut self, rng: &mut Rng) -> Plan {
        if self.left.is_empty() {
            self.left = deck();
        }
        let drawn = self.left.swap_remove(rng.below(self.left.len() as u64) as usize);
        let (mut opens_first, is_carried) = (rng.percent(50), rng.percent(40));
        let death = match drawn {
            Some((point, most)) => {
                match point.split_once('.') {
                    Some(("meet" | "join", _)) => opens_first = true,
                    Some(("create", _)) => opens_first = false,
                    _ => {}
                }
                Death::At { point, visit: 1 + rng.below(most) }
            }
            None if rng.percent(25) => Death::Young(Duration::from_micros(rng.below(6000))),
            None => Death::Later(Duration::from_micros(rng.below(20_000))),
        };
        Plan { death, opens_first, is_carried }
    }
}

/// How many kills come to each point once.
pub(super) fn deck_len() -> usize {
    deck().len()
}

fn deck() -> Vec<Option<(&'static str, u64)>> {
    let points: &[_] = if cfg!(feature = "__crash_points") { &POINTS } else { &[] };
    let random = (points.len() / RANDOM_SHARE).max(1);
    points.iter().copied().map(Some).chain((0..random).map(|_| None)).collect()
}
