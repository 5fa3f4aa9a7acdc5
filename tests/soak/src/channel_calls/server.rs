//! The process that serves until it is killed.

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Release;

use tombolo::Channel;

use super::ANSWERED;
use super::message::{Message, Wish};
use crate::process::leave_no_core;
use crate::sending::PATIENCE;
use crate::shared_words::SharedWords;
use crate::{Failure, Rng, required};

pub(super) const NAME: &str = "channel-calls.server";

/// What the server notes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Note {
    Opened = 0,
    /// Requests that get no reply.
    Unanswered = 1,
    /// Requests to be answered late.
    Late = 2,
    /// Replies written before that to an earlier request.
    OutOfOrder = 3,
}

pub(super) fn note(words: &SharedWords, note: Note) -> &AtomicU64 {
    words.word(0, note as usize)
}

/// Path, notes, seed.
pub(super) fn serve(arguments: &[String]) -> Result<(), Failure> {
    leave_no_core()?;
    let path: PathBuf = required(arguments, 0)?;
    let words = SharedWords::open(&required::<PathBuf>(arguments, 1)?)?;
    let mut rng = Rng::new(required(arguments, 2)?);
    let channel = Channel::open_path(path)?;
    note(&words, Note::Opened).store(1, Release);
    let (mut to_answer, mut late) = (Vec::new(), Vec::new());
    loop {
        let message = Message::from_bytes(&channel.read_timeout(PATIENCE)?.data)?;
        match message.wish {
            Wish::Reply => to_answer.push(message),
            Wish::Nothing => drop(note(&words, Note::Unanswered).fetch_add(1, Release)),
            Wish::LateReply => {
                late.push(message);
                note(&words, Note::Late).store(late.len() as u64, Release);
            }
            Wish::Late => reply(&channel, &words, &mut late, &mut rng)?,
        }
        if to_answer.len() == ANSWERED {
            reply(&channel, &words, &mut to_answer, &mut rng)?;
        }
    }
}

/// Answers all, in any order.
fn reply(
    channel: &Channel,
    words: &SharedWords,
    messages: &mut Vec<Message>,
    rng: &mut Rng,
) -> Result<(), Failure> {
    while !messages.is_empty() {
        let index = rng.below(messages.len() as u64) as usize;
        note(words, Note::OutOfOrder).fetch_add(u64::from(index > 0), Release);
        channel.write(messages.remove(index).to_bytes())?;
    }
    Ok(())
}
