//! Channels: calls between processes, and making them.

use std::time::{Duration, Instant};

use tombolo::object::ChannelError;
use tombolo::{Channel, Deadline, MessagePacket, OpenOptions};

use crate::system::{CALL_HEAD, CallingSystem, Failure, Look, Meeting, SoloSystem, Waiting, relax};

/// Requests by `Channel::call`; the other side reads and writes.
#[derive(Debug)]
pub struct ChannelCalls;

/// How long to spin if neither side is to sleep.
const LONG: Duration = Duration::from_secs(3600);

/// The end that answers.
#[derive(Debug)]
pub struct Answerer {
    channel: Channel,
    waiting: Waiting,
}

impl Answerer {
    #[inline]
    fn read(&self) -> Result<MessagePacket, ChannelError> {
        if self.waiting != Waiting::Busy {
            return self.channel.read_timeout(Deadline::NEVER);
        }
        loop {
            match self.channel.read() {
                Err(ChannelError::ShouldWait) => relax(),
                read => return read,
            }
        }
    }
}

fn open(meeting: &Meeting) -> Result<Channel, Failure> {
    let path = meeting.directory.join("channel.tombolo");
    let options = OpenOptions::new().spsc_capacity(meeting.capacity as u64);
    let channel = Channel::open_path_with(path, options)?;
    match meeting.waiting {
        Waiting::Busy => channel.set_spin_max(LONG),
        Waiting::SpinSleep => {}
        Waiting::Sleep => channel.set_spin_max(Duration::ZERO),
    }
    Ok(channel)
}

impl CallingSystem for ChannelCalls {
    const NAME: &'static str = "tombolo-channel";
    type Caller = Channel;
    type Answerer = Answerer;

    fn caller(meeting: &Meeting) -> Result<Channel, Failure> {
        open(meeting)
    }

    fn answerer(meeting: &Meeting) -> Result<Answerer, Failure> {
        Ok(Answerer { channel: open(meeting)?, waiting: meeting.waiting })
    }

    #[inline]
    fn call(channel: &mut Channel, request: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let reply = channel.call(request.to_vec(), Duration::from_secs(60))?;
        look.at_slice(&reply.data[CALL_HEAD..]);
        Ok(())
    }

    #[inline]
    fn answer(answerer: &mut Answerer, reply: &[u8], look: &mut impl Look) -> Result<(), Failure> {
        let mut message = answerer.read()?;
        look.at_slice(&message.data[CALL_HEAD..]);
        message.data[CALL_HEAD..].copy_from_slice(&reply[CALL_HEAD..]);
        Ok(answerer.channel.write(message)?)
    }
}

/// Makes a channel, passes one message, and drops both ends.
#[derive(Debug)]
pub struct CreateChannel;

impl SoloSystem for CreateChannel {
    const NAME: &'static str = "tombolo-channel";

    fn start(_meeting: &Meeting) -> Result<Self, Failure> {
        Ok(Self)
    }

    fn once(&mut self) -> Result<Duration, Failure> {
        let start = Instant::now();
        let (one, other) = Channel::create()?;
        one.write(&[1; 64])?;
        let read = other.read()?;
        drop((one, other));
        let took = start.elapsed();
        if read.data == [1; 64] { Ok(took) } else { Err("another message came".into()) }
    }
}
