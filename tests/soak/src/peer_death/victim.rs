//! The process that is killed.

use std::path::PathBuf;
use std::thread;

use super::notes::Notes;
use crate::ends::{AnyReceiver, AnySender, EIGHTH_LEN, End, Side};
use crate::process::leave_no_core;
use crate::stream::join;
use crate::{Failure, required};

/// What it is called.
pub(super) const NAME: &str = "peer-death.attend";

/// Passes one message and does nothing more: path, end, notes, which victim.
pub(super) fn attend(arguments: &[String]) -> Result<(), Failure> {
    let (path, end): (String, End) = (required(arguments, 0)?, required(arguments, 1)?);
    let notes = Notes::at(&required::<PathBuf>(arguments, 2)?)?;
    leave_no_core()?;
    let mut region = join(&path)?;
    let (mut receiver, mut sender) = (None, None);
    match end.side {
        Side::Receiving => {
            let receiver = receiver.insert(AnyReceiver::claim(&mut region, end.kind)?);
            receiver.recv_into(&mut [0; EIGHTH_LEN])?;
        }
        Side::Sending => {
            let sender = sender.insert(AnySender::claim(&mut region, end.kind)?);
            sender.send(&[0; EIGHTH_LEN])?;
        }
    }
    notes.settle(required(arguments, 3)?);
    loop {
        thread::park();
    }
}
