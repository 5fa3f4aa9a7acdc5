//! The receiver: judges each message, and counts those of each life.

use std::path::PathBuf;
use std::time::Duration;

use tombolo::RecvTimeoutError;
use tombolo::options::Disconnect;

use super::notes::{Notes, Phase};
use super::plan;
use crate::content::{Content, HEAD_LEN, MESSAGE_LEN_MAX, number_of, word_at};
use crate::stream::join;
use crate::{Failure, required};

/// How long to wait for a message before looking whether there will be more.
const SLICE: Duration = Duration::from_millis(20);

/// Receives: path, seed, notes, how many lives at most.
pub(super) fn receive(arguments: &[String]) -> Result<(), Failure> {
    let (path, seed): (String, u64) = (required(arguments, 0)?, required(arguments, 1)?);
    let (notes, lives): (PathBuf, usize) = (required(arguments, 2)?, required(arguments, 3)?);
    let notes = Notes::open(&notes)?;
    let content = Content::new(seed);
    let mut received = vec![0; lives + 1];
    let mut region = join(&path)?;
    let (_, mut receiver) = region.split_mpsc()?;
    receiver.set_disconnect(Disconnect::Never); // killed producers come back
    let mut room = [0; MESSAGE_LEN_MAX];
    loop {
        let ended = notes.has_reached(Phase::Ended); // before looking: nothing comes after it
        match receiver.recv_into_timeout(&mut room, SLICE) {
            Ok(len) => {
                let (life, number) = judge(&content, &room[..len], &mut received)?;
                notes.receive(life, number);
            }
            Err(RecvTimeoutError::Timeout) if ended => break,
            Err(RecvTimeoutError::Timeout) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Whether `message` is whole and its life's next. Gives the life and how many came of it.
fn judge(content: &Content, message: &[u8], received: &mut [u64]) -> Result<(u64, u64), Failure> {
    if message.len() < HEAD_LEN {
        return Err(format!("a message of {} bytes", message.len()).into());
    }
    let key = number_of(word_at(message, 0));
    content.check(key, message)?;
    let (life, number) = plan::split(key);
    let count = received.get_mut(life as usize).ok_or_else(|| format!("from life {life}"))?;
    if number != *count + 1 {
        return Err(format!("message {number} of life {life} after {count}").into());
    }
    if message.len() != plan::len(content, key) {
        return Err(format!("message {number} of life {life}: {} bytes", message.len()).into());
    }
    *count = number;
    Ok((life, number))
}
