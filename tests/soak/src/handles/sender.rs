//! Sends until it is killed or told to stop.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::{SendTimeoutError, Sender};
use tombolo_abi::RingKind;

use super::content::Content;
use super::receiver::open_count;
use super::{Arguments, soon};
use crate::Failure;

pub(super) const NAME: &str = "handles.sender";

/// Messages between two looks whether to stop.
const MANY: u64 = 32;

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

fn run<K: Topology>(tx: &mut Sender<K>, mut arguments: Arguments) -> Result<(), Failure> {
    soon(|| tx.attach())?;
    let fifo = File::options().write(true).open(arguments.directory.join("witness"))?;
    let notes = File::create(arguments.directory.join(format!("sent-{}", arguments.life)))?;
    let mut before = None;
    for number in 0u64.. {
        if number % MANY == 0 && arguments.directory.join("stop-sending").exists() {
            break;
        }
        let content = Content::draw(arguments.life, number, &mut arguments.rng);
        if let Err(error) = send_whole(tx, content, &fifo) {
            let text = format!("sending {content:?}: {error}");
            fs::write(arguments.directory.join("failure"), &text)?;
            return Err(text.into());
        }
        notes.write_all_at(&(number + 1).to_le_bytes(), 0)?;
        if before.is_none() && content.count() > 0 {
            before = Some(open_count()?); // with the connection
        }
    }
    match (before, open_count()?) {
        (Some(before), after) if after != before => {
            Err(format!("{after} descriptors are open, and were {before}").into())
        }
        _ => Ok(()),
    }
}

/// Tries until it is sent. What comes back has all its handles.
fn send_whole<K: Topology>(
    tx: &mut Sender<K>,
    content: Content,
    fifo: &File,
) -> Result<(), Failure> {
    let mut packet = content.packet(fifo)?;
    loop {
        match tx.send_packet_timeout(packet, A_WHILE) {
            Ok(()) => return Ok(()),
            Err(SendTimeoutError::Disconnected(back)) if back.handles.len() == content.count() => {
                packet = back;
                wait_for_receiver(tx)?;
            }
            Err(
                SendTimeoutError::Timeout(back)
                | SendTimeoutError::NoReceiver(back)
                | SendTimeoutError::Failed { message: back, source: tombolo::Error::Stalled { .. } },
            ) if back.handles.len() == content.count() => packet = back,
            Err(error) => return Err(error.to_string().into()),
        }
    }
}

/// Lets a receiver come back, unless it takes longer than a while.
fn wait_for_receiver<K: Topology>(tx: &mut Sender<K>) -> Result<(), Failure> {
    match tx.wait_for_peer(A_WHILE) {
        Ok(()) | Err(SendTimeoutError::Timeout(())) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
