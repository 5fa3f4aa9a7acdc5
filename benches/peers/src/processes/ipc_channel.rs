//! ipc-channel with bytes instead of typed values, which saves serialising them. Each message is a
//! system call on either side, and a vector in the receiver.
//!
//! Busy waiting is `try_recv`; sleeping is `recv`. Who sends into a full channel sleeps in either.
//! While the two sides meet there is a socket in a directory of its own below the temporary
//! directory, which stays behind (as `.tmp…`) if they are killed just then.

use std::fs;

use ::ipc_channel::TryRecvError;
use ::ipc_channel::ipc::{self, IpcBytesReceiver, IpcBytesSender, IpcOneShotServer, IpcSender};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting};

use crate::{meet, wait};

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry.processes::<IpcChannel>()
}

struct IpcChannel;

impl ProcessSystem for IpcChannel {
    const NAME: &'static str = "ipc-channel";
    const PRODUCERS_MAX: usize = 64;
    type Sender = Sender;
    type Receiver = Receiver;

    fn takes(meeting: &Meeting) -> bool {
        meeting.waiting != Waiting::SpinSleep
    }

    fn sender(meeting: &Meeting) -> Result<Sender, Failure> {
        let (server, name) = IpcOneShotServer::<IpcBytesSender>::new()?;
        let invitation = meet::path(meeting).with_extension(std::process::id().to_string());
        let unfinished = invitation.with_extension("new");
        fs::write(&unfinished, name)?;
        fs::rename(unfinished, invitation)?;
        let (_, sender) = server.accept()?;
        Ok(Sender(sender))
    }

    fn receiver(meeting: &Meeting) -> Result<Receiver, Failure> {
        let (sender, receiver) = ipc::bytes_channel()?;
        for server in wait::for_peer("the senders", || invitations(meeting))? {
            IpcSender::connect(server)?.send(sender.clone())?;
        }
        Ok(Receiver { receiver, waiting: meeting.waiting })
    }
}

/// The names of the servers that the senders wait with, once all of them do.
fn invitations(meeting: &Meeting) -> Option<Vec<String>> {
    let mut servers = vec![];
    for entry in fs::read_dir(meeting.directory).ok()?.flatten() {
        let path = entry.path();
        let is_of_meeting = path.file_stem() == Some(meeting.name.as_ref());
        if is_of_meeting && path.extension().is_some_and(|extension| extension != "new") {
            servers.push(fs::read_to_string(path).ok()?);
        }
    }
    (servers.len() == meeting.producers).then_some(servers)
}

struct Sender(IpcBytesSender);

impl Transmit for Sender {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        Ok(self.0.send(payload)?)
    }
}

struct Receiver {
    receiver: IpcBytesReceiver,
    waiting: Waiting,
}

impl Receive for Receiver {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let message = if self.waiting == Waiting::Sleep {
            self.receiver.recv()?
        } else {
            wait::for_message(|| match self.receiver.try_recv() {
                Err(TryRecvError::Empty) => None,
                result => Some(result),
            })?
        };
        look.at_slice(&message);
        Ok(())
    }
}
