//! Messages with handles, between processes.

use std::os::fd::OwnedFd;

use tombolo::ends::Topology;
use tombolo::{
    EventsRegion, Handle, MessagePacket, MpscConsumer, MpscProducer, OpenOptions, Receiver, Rights,
    Sender, SpscReceiver, SpscSender, TryRecvError, TrySendError,
};

use crate::system::{Failure, HandingSystem, Meeting, relax};

/// The ring with one sender; handles that were duplicated from others.
#[derive(Debug)]
pub struct HandlesOverSpsc;

/// The same with descriptors of which the library knows nothing: making handles of them counts.
#[derive(Debug)]
pub struct NewHandlesOverSpsc;

/// The ring with many senders; handles that were duplicated from others.
#[derive(Debug)]
pub struct HandlesOverMpsc;

/// The most handles of a message.
const HANDLES_MAX: u16 = 16;

fn open(meeting: &Meeting) -> Result<EventsRegion, Failure> {
    let path = meeting.directory.join("region.tombolo");
    Ok(EventsRegion::open_path_with(path, OpenOptions::new().max_handles(HANDLES_MAX))?)
}

fn claimed<K: Topology>(mut tx: Sender<K>) -> Result<Sender<K>, Failure> {
    tx.attach()?;
    Ok(tx)
}

fn listening<K: Topology>(mut rx: Receiver<K>) -> Result<Receiver<K>, Failure> {
    rx.attach()?;
    Ok(rx)
}

fn duplicate(one: &Handle) -> Result<Handle, Failure> {
    Ok(one.duplicate(Rights::SAME_RIGHTS)?)
}

fn send<K: Topology>(tx: &mut Sender<K>, number: u64, handles: Vec<Handle>) -> Result<(), Failure> {
    let mut packet = MessagePacket::from(&number.to_le_bytes());
    packet.handles = handles;
    loop {
        match tx.try_send_packet(packet) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Full(back) | TrySendError::NoReceiver(back)) => packet = back,
            Err(error) => return Err(error.to_string().into()),
        }
        relax();
    }
}

fn receive<K: Topology>(rx: &mut Receiver<K>) -> Result<(u64, Vec<Handle>), Failure> {
    loop {
        match rx.try_recv() {
            Ok(MessagePacket { data, handles, .. }) => {
                return Ok((u64::from_le_bytes(data.as_slice().try_into()?), handles));
            }
            Err(TryRecvError::Empty) => relax(),
            Err(error) => return Err(error.into()),
        }
    }
}

impl HandingSystem for HandlesOverSpsc {
    const NAME: &'static str = "tombolo-spsc";
    type One = Handle;
    type Giver = SpscSender;
    type Taker = SpscReceiver;

    fn giver(meeting: &Meeting) -> Result<SpscSender, Failure> {
        claimed(open(meeting)?.split_spsc()?.0)
    }

    fn taker(meeting: &Meeting) -> Result<SpscReceiver, Failure> {
        listening(open(meeting)?.split_spsc()?.1)
    }

    fn copy(one: &Handle) -> Result<Handle, Failure> {
        duplicate(one)
    }

    fn give(tx: &mut SpscSender, number: u64, ones: Vec<Handle>) -> Result<(), Failure> {
        send(tx, number, ones)
    }

    fn take(rx: &mut SpscReceiver) -> Result<(u64, Vec<Handle>), Failure> {
        receive(rx)
    }
}

impl HandingSystem for NewHandlesOverSpsc {
    const NAME: &'static str = "tombolo-spsc-new-handles";
    type One = OwnedFd;
    type Giver = SpscSender;
    type Taker = SpscReceiver;

    fn giver(meeting: &Meeting) -> Result<SpscSender, Failure> {
        HandlesOverSpsc::giver(meeting)
    }

    fn taker(meeting: &Meeting) -> Result<SpscReceiver, Failure> {
        HandlesOverSpsc::taker(meeting)
    }

    fn copy(one: &OwnedFd) -> Result<OwnedFd, Failure> {
        Ok(one.try_clone()?)
    }

    fn give(tx: &mut SpscSender, number: u64, ones: Vec<OwnedFd>) -> Result<(), Failure> {
        send(tx, number, ones.into_iter().map(Handle::new).collect())
    }

    fn take(rx: &mut SpscReceiver) -> Result<(u64, Vec<OwnedFd>), Failure> {
        let (number, handles) = receive(rx)?;
        Ok((number, handles.into_iter().map(Handle::into_fd).collect()))
    }
}

impl HandingSystem for HandlesOverMpsc {
    const NAME: &'static str = "tombolo-mpsc";
    type One = Handle;
    type Giver = MpscProducer;
    type Taker = MpscConsumer;

    fn giver(meeting: &Meeting) -> Result<MpscProducer, Failure> {
        claimed(open(meeting)?.split_mpsc()?.0)
    }

    fn taker(meeting: &Meeting) -> Result<MpscConsumer, Failure> {
        listening(open(meeting)?.split_mpsc()?.1)
    }

    fn copy(one: &Handle) -> Result<Handle, Failure> {
        duplicate(one)
    }

    fn give(tx: &mut MpscProducer, number: u64, ones: Vec<Handle>) -> Result<(), Failure> {
        send(tx, number, ones)
    }

    fn take(rx: &mut MpscConsumer) -> Result<(u64, Vec<Handle>), Failure> {
        receive(rx)
    }
}
