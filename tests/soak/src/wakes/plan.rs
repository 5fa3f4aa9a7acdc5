//! What happens in each round, which both sides draw alike from the seed.

use std::{hint, thread};

use tombolo_abi::RingKind;

use super::waiting::How;
use crate::Rng;
use crate::ends::{End, Side};

/// Messages of a burst: more than enough of them come without a sleep for the receiver to let its
/// sender go on without fences.
pub(super) const BURST: u64 = 1000;
/// The wait of the actor between two of them: all together take a few milliseconds.
pub(super) const BURST_PAUSE: Pause = Pause::Spins(200);
/// Of a hundred rounds, how many begin with a burst.
const BURST_PERCENT: u64 = 1;
/// The longest delays, in looks of a spinning thread, of 10 to 60 ns each.
const ACTOR_SPINS: u64 = 2047;
const WAITER_SPINS: u64 = 255;

/// A delay.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pause {
    Spins(u64),
    /// The processor is offered to others that many times.
    Yields(u64),
}

impl Pause {
    pub(super) fn take(self) {
        match self {
            Self::Spins(count) => (0..count).for_each(|_| hint::spin_loop()),
            Self::Yields(count) => (0..count).for_each(|_| thread::yield_now()),
        }
    }

    fn draw(rng: &mut Rng, longest: u64) -> Self {
        match rng.below(8) {
            0 => Self::Spins(0),
            1 => Self::Yields(1 + rng.below(3)),
            2 | 3 => Self::Spins(longest + rng.below(longest)),
            _ => Self::Spins(rng.length(longest)),
        }
    }
}

/// A round.
#[derive(Clone, Copy, Debug)]
pub(super) struct Round {
    /// Messages before the one that is waited for.
    pub(super) burst: u64,
    /// Between the announcement and the wait.
    pub(super) waiter: Pause,
    /// Between seeing the announcement, or the end of the burst, and the act.
    pub(super) actor: Pause,
}

impl Round {
    /// Round `number` of a run in which `end` waits.
    pub(super) fn draw(seed: u64, number: u64, end: End) -> Self {
        let mut rng = Rng::of_part(seed, number);
        let has_burst = end.side == Side::Receiving && rng.percent(BURST_PERCENT);
        Self {
            burst: if has_burst { BURST } else { 0 },
            waiter: Pause::draw(&mut rng, WAITER_SPINS),
            actor: Pause::draw(&mut rng, ACTOR_SPINS),
        }
    }
}

/// Whether senders to `end` may ever go on without fences. One that is waited for elsewhere arms each time
/// that it finds nothing, also in a burst.
pub(super) fn may_be_unfenced(end: End, how: How) -> bool {
    end.side == Side::Receiving && end.kind != RingKind::Mpsc && how == How::Blocks
}
