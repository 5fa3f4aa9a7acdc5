//! Messages that are built where they lie.

use std::time::Duration;

use tombolo::ends::Spsc;
use tombolo::{Error, Reservation};

use super::context::Context;
use super::model::Fit;
use super::play::Play;
use super::sends::{LONG, Split};
use crate::Failure;

/// What is done with a claim.
#[derive(Clone, Copy, Debug)]
enum Use {
    Commit,
    Shorten,
    Fill,
    Abort,
    Forget,
    Overrun,
}

impl Use {
    const ALL: [Self; 6] =
        [Self::Commit, Self::Shorten, Self::Fill, Self::Abort, Self::Forget, Self::Overrun];

    fn name(self) -> &'static str {
        match self {
            Self::Commit => "claim committed",
            Self::Shorten => "claim shortened",
            Self::Fill => "claim filled",
            Self::Abort => "claim aborted",
            Self::Forget => "claim forgotten",
            Self::Overrun => "claim overrun",
        }
    }
}

impl Play<Spsc> {
    /// Claims space and uses it in one way or another.
    pub(super) fn reserve(&mut self, context: &mut Context) -> Result<(), Failure> {
        let (number, claimed) = (context.number(), self.draw_len(0, context));
        let what = context.rng.choose(&Use::ALL);
        let len = match what {
            Use::Shorten => context.rng.below(claimed as u64 + 1) as usize,
            _ => claimed,
        };
        let message = context.message(number, len);
        let fit = self.lines[0].fit(claimed, false);
        let call = context.rng.below(if fit == Fit::Surely { 3 } else { 2 });
        context.trace(|| format!("SPSC: {what:?} {number}: {claimed} bytes, then {len}; {fit:?}"));
        self.count(context, what.name());
        let end = &mut self.txs[0].end;
        let wait = if fit == Fit::Surely { LONG } else { Duration::ZERO };
        let claim = match call {
            0 => end.try_reserve(claimed).map_err(Split::split),
            1 => end.reserve_timeout(claimed, wait).map_err(Split::split),
            _ => end.reserve(claimed).map_err(Split::split),
        };
        let used = claim.map(|claim| (claim.len(), use_claim(claim, what, &message)));
        let (found, is_sent) = match used {
            Ok(used) => used,
            Err(refused) => return self.check_refused(0, fit, refused?.0, context),
        };
        if fit == Fit::No || found != claimed {
            return Err(format!("{found} bytes were claimed").into());
        }
        if !is_sent? {
            return Ok(());
        }
        context.tally.sent += 1;
        let wraps = self.lines[0].wraps;
        self.lines[0].push_claimed(number, claimed, len, Vec::new());
        if self.lines[0].wraps > wraps {
            self.count(context, "position at 2^64");
        }
        Ok(())
    }
}

/// Uses a claim, and gives whether that sent a message.
fn use_claim(mut claim: Reservation<'_>, what: Use, message: &[u8]) -> Result<bool, Failure> {
    let half = message.len() / 2;
    match what {
        Use::Fill => {
            let filled = claim.fill_from(message)?;
            if filled != message.len() {
                return Err(format!("{filled} of {} bytes were filled", message.len()).into());
            }
        }
        _ => {
            claim.write_at(half, &message[half..])?;
            claim.write_at(0, &message[..half])?;
        }
    }
    match what {
        Use::Commit | Use::Fill => claim.commit().map(|()| true)?,
        Use::Shorten => claim.commit_len(message.len()).map(|()| true)?,
        Use::Abort => {
            drop(claim);
            false
        }
        Use::Forget => {
            std::mem::forget(claim);
            false
        }
        Use::Overrun => {
            let len = claim.len();
            let beyond = claim.write_at(len, b"x");
            let longer = claim.commit_len(len + 1);
            match (beyond, longer) {
                (Err(Error::BufferTooSmall { .. }), Err(Error::BufferTooSmall { .. })) => false,
                other => return Err(format!("more than was claimed: {other:?}").into()),
            }
        }
    };
    Ok(matches!(what, Use::Commit | Use::Fill | Use::Shorten))
}
