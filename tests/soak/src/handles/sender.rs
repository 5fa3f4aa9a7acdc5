//! Sends until it is killed.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use tombolo::{Discipline, SendTimeoutError, Sender};
use tombolo_abi::RingKind;

use super::content::Content;
use super::{Arguments, soon};
use crate::Failure;

pub(super) const NAME: &str = "handles.sender";

/// Where some of them die, in a build that has crash points.
pub(super) const POINTS: [&str; 4] =
    ["carry.before-hand-over", "carry.after-hand-over", "send.before-commit", "send.after-commit"];

/// How long it waits before it looks whether the message came back whole.
const A_WHILE: Duration = Duration::from_millis(20);

pub(super) fn send(arguments: &[String]) -> Result<(), Failure> {
    let arguments = Arguments::parse(arguments)?;
    let mut region = arguments.region()?;
    match arguments.kind {
        RingKind::Mpsc | RingKind::Lane => run(&mut region.split_mpsc()?.0, arguments),
        _ => run(&mut region.split_spsc()?.0, arguments),
    }
}

fn run<K: Discipline>(tx: &mut Sender<K>, mut arguments: Arguments) -> Result<(), Failure> {
    soon(|| tx.claim())?;
    let fifo = File::options().write(true).open(arguments.directory.join("witness"))?;
    let notes = File::create(arguments.directory.join(format!("sent-{}", arguments.life)))?;
    for number in 0u64.. {
        let content = Content::draw(arguments.life, number, &mut arguments.rng);
        let mut packet = content.packet(&fifo)?;
        loop {
            match tx.try_send_packet_deadline(packet, A_WHILE) {
                Ok(()) => break,
                Err(
                    SendTimeoutError::Timeout(back)
                    | SendTimeoutError::NoReceiver(back)
                    | SendTimeoutError::Disconnected(back),
                ) if back.handles.len() == content.count() => packet = back,
                Err(SendTimeoutError::Failed {
                    message,
                    source: tombolo::Error::Stalled { .. },
                }) => packet = message,
                Err(error) => {
                    let text = format!("sending {content:?}: {error}");
                    fs::write(arguments.directory.join("failure"), &text)?;
                    return Err(text.into());
                }
            }
        }
        notes.write_all_at(&(number + 1).to_le_bytes(), 0)?;
    }
    Ok(())
}
