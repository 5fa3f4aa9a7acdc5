//! Channels under kills: a process writes, reads, calls, answers, closes with reasons, and hands ends over inside
//! messages, until it is killed, by itself at a crash point or from outside at any moment.
//!
//! The process at the other end survives, round after round, and compares what it has with what the dead one has
//! noted in shared words: each message that was written is there once, in order, with its own handles; each call has
//! its reply or ends; each end is closed or has come back. Handles say whose they are, and some are the writing end of a
//! FIFO, which has no writer when a round is over.

mod ends;
mod letter;
mod notes;
mod plan;
mod round;
mod talk;
mod tally;
mod victim;

use self::plan::Dealer;
use self::tally::Tally;
use crate::{Failure, Report, Rng, Role, Run, Setting};

/// The run.
pub(crate) const RUN: Run = Run {
    name: "channel-kills",
    about: "SIGKILL of 5,000 processes at one end of a channel: no message, call, end or handle is lost or left",
    body,
    roles: &[Role { name: victim::NAME, body: victim::live }],
};

const KILLS: u64 = 5000;
/// Bytes of each direction of a channel, few so that they are full now and then.
const RING_LEN: u64 = 1 << 14;

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut rng = Rng::new(setting.seed);
    let (mut dealer, mut tally) = (Dealer::default(), Tally::default());
    round::warm_up(setting, &mut rng)?;
    for number in 0..setting.count(KILLS, plan::deck_len() as u64) {
        let plan = dealer.deal(&mut rng);
        let played = round::play(setting, plan, &mut rng, &mut tally);
        played.map_err(|error| format!("round {number}, {plan:?}: {error}"))?;
    }
    let mut report = Report::new();
    tally.tell(&mut report);
    Ok(report)
}

/// Why the end `id` is closed, if it is with a reason.
fn reason_of(id: u64) -> (u32, String) {
    (1 + id as u32, format!("end {id} is not needed any more"))
}
