//! The process that is blocked.

use std::path::PathBuf;

use tombolo::options::Disconnect;
use tombolo::{RecvError, SendError};

use super::notes::Notes;
use crate::ends::{AnyReceiver, AnySender, EIGHTH_LEN, End, Side};
use crate::process::leave_no_core;
use crate::stream::join;
use crate::{Failure, required};

/// What it is called.
pub(super) const NAME: &str = "peer-death.wait";

/// Waits again and again: path, end, notes.
pub(super) fn wait(arguments: &[String]) -> Result<(), Failure> {
    let (path, end): (String, End) = (required(arguments, 0)?, required(arguments, 1)?);
    let notes = Notes::at(&required::<PathBuf>(arguments, 2)?)?;
    leave_no_core()?;
    let mut region = join(&path)?;
    match end.side {
        Side::Receiving => receive(&mut AnyReceiver::claim(&mut region, end.kind)?, &notes),
        Side::Sending => send(&mut AnySender::claim(&mut region, end.kind)?, &notes),
    }
}

fn receive(receiver: &mut AnyReceiver, notes: &Notes) -> Result<(), Failure> {
    let mut room = [0; EIGHTH_LEN];
    loop {
        match receiver.recv_into(&mut room) {
            Ok(_) => {
                notes.pass();
                receiver.set_disconnect(Disconnect::Met);
            }
            Err(RecvError::Disconnected) => {
                notes.end();
                receiver.set_disconnect(Disconnect::Never); // until the next victim has come
            }
            Err(error) => return Err(error.into()),
        }
    }
}

fn send(sender: &mut AnySender, notes: &Notes) -> Result<(), Failure> {
    loop {
        match sender.send(&[0; EIGHTH_LEN]) {
            Ok(()) => {
                notes.pass();
                sender.set_disconnect(Disconnect::Met);
            }
            Err(SendError::Disconnected(())) => {
                notes.end();
                sender.set_disconnect(Disconnect::Never); // until the next victim has come
            }
            Err(error) => return Err(error.into()),
        }
    }
}
