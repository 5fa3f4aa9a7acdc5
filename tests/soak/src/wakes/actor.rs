//! The side that acts, and so wakes the other.

use std::path::PathBuf;

use super::combination::Combination;
use super::notes::Notes;
use super::plan::{BURST_PAUSE, Round};
use crate::counters::Counters;
use crate::ends::{AnyReceiver, AnySender, EIGHTH_LEN, Side};
use crate::figures;
use crate::stream::join;
use crate::{Failure, required};

/// What it is called, and what it finds out.
pub(super) const NAME: &str = "wakes.act";
pub(super) const UNFENCED: &str = "bursts at whose end the sender went without fences";

/// Acts: path, notes, rounds, seed, what it found out, combination.
pub(super) fn act(arguments: &[String]) -> Result<(), Failure> {
    let combination = Combination::parse(arguments, 5)?;
    let (rounds, seed): (u64, u64) = (required(arguments, 2)?, required(arguments, 3)?);
    combination.enter(seed)?;
    let (path, found): (String, PathBuf) = (required(arguments, 0)?, required(arguments, 4)?);
    let notes = Notes::at(&required::<PathBuf>(arguments, 1)?)?;
    let counters = Counters::new(path.as_ref(), combination.end.kind)?;
    let mut region = join(&path)?;
    let (place, kind) = (combination.place, combination.end.kind);
    let mut unfenced = 0;
    let each = (1..=rounds).map(|number| {
        notes.look_for(number, place);
        (number, Round::draw(seed, number, combination.end))
    });
    match combination.end.side {
        Side::Receiving => {
            let mut sender = AnySender::claim(&mut region, kind)?;
            for (number, round) in each {
                unfenced += send_burst(&mut sender, round, &counters)?;
                round.actor.take();
                sender.send(&number.to_le_bytes())?;
                notes.act(number);
            }
        }
        Side::Sending => {
            let mut receiver = AnyReceiver::claim(&mut region, kind)?;
            for (number, round) in each {
                round.actor.take();
                receiver.try_recv_into(&mut [0; EIGHTH_LEN])?;
                notes.act(number);
            }
        }
    }
    figures::save(&found, &[(UNFENCED, unfenced)])
}

/// Sends the burst of `round`, if any, and gives 1 where the receiver asked for no fences at its end.
fn send_burst(sender: &mut AnySender, round: Round, counters: &Counters) -> Result<u64, Failure> {
    if round.burst == 0 {
        return Ok(0);
    }
    let mut send_some = |count| {
        (0..count).try_for_each(|_| {
            BURST_PAUSE.take();
            sender.send(&[0; 8])
        })
    };
    send_some(round.burst - 1)?;
    let word = counters.control()?.rx_wake; // the receiver is awake until it has the last one
    send_some(1)?;
    Ok(u64::from(word == 0))
}
