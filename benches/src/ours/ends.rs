//! Ends of rings between processes.

use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::{EventsRegion, OpenOptions, Receiver, Sender, TryRecvError, TrySendError};

use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting, relax};

/// The ring with one sender; messages are copied out.
#[derive(Debug)]
pub struct Spsc;

/// The same with a ring that is larger than the processors' caches, as the logs of some peers are.
#[derive(Debug)]
pub struct SpscLarge;

/// Bytes of that ring.
const LARGE: usize = 64 << 20;

/// The ring with one sender; messages are looked at where they lie, by safe calls.
#[derive(Debug)]
pub struct SpscInPlace;

/// The ring with one sender; messages are looked at where they lie, in a slice, as is sound where
/// the sender is trusted.
#[derive(Debug)]
pub struct SpscSlice;

/// The ring with many senders; messages are copied out.
#[derive(Debug)]
pub struct Mpsc;

/// A sending end.
#[derive(Debug)]
pub struct Tx<K: Topology> {
    tx: Sender<K>,
    waiting: Waiting,
}

/// A receiving end, that copies to a buffer.
#[derive(Debug)]
pub struct Rx<K: Topology> {
    rx: Receiver<K>,
    waiting: Waiting,
    room: Vec<u8>,
}

/// A receiving end that looks at messages in place: word by word, or else as a slice.
#[derive(Debug)]
pub struct RxInPlace<K: Topology, const AS_SLICE: bool>(Rx<K>);

impl<K: Topology> Tx<K> {
    pub(super) fn new(mut tx: Sender<K>, meeting: &Meeting) -> Result<Self, Failure> {
        tx.attach()?;
        if meeting.waiting == Waiting::Sleep {
            tx.set_spin_max(Duration::ZERO);
        }
        Ok(Self { tx, waiting: meeting.waiting })
    }
}

impl<K: Topology> Rx<K> {
    pub(super) fn new(mut rx: Receiver<K>, meeting: &Meeting) -> Result<Self, Failure> {
        rx.attach()?;
        if meeting.waiting == Waiting::Sleep {
            rx.set_spin_max(Duration::ZERO);
        }
        Ok(Self { rx, waiting: meeting.waiting, room: vec![0; meeting.size] })
    }
}

/// Repeats a send that doesn't wait until it has sent.
#[inline]
fn until_sent<T>(mut send: impl FnMut() -> Result<T, TrySendError>) -> Result<T, Failure> {
    loop {
        match send() {
            Ok(sent) => return Ok(sent),
            Err(TrySendError::Full(()) | TrySendError::Contended { .. }) => relax(),
            Err(error) => return Err(error.into()),
        }
    }
}

impl<K: Topology> Transmit for Tx<K>
where
    Self: Lend,
{
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        match self.waiting {
            Waiting::Busy => until_sent(|| self.tx.try_send(payload)),
            Waiting::SpinSleep | Waiting::Sleep => Ok(self.tx.send(payload)?),
        }
    }

    #[inline]
    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        if self.waiting != Waiting::Busy {
            return Ok(self.tx.send_batch(payloads)?);
        }
        let mut rest = payloads;
        while !rest.is_empty() {
            let sent = until_sent(|| self.tx.try_send_batch(rest))?;
            rest = &rest[sent..];
        }
        Ok(())
    }

    #[inline]
    fn lend(&mut self, size: usize, number: u64) -> Result<(), Failure> {
        Lend::lend(self, size, number)
    }
}

/// Building a message in place, which the ring with one sender can do.
pub trait Lend {
    /// As [`Transmit::lend`].
    fn lend(&mut self, size: usize, number: u64) -> Result<(), Failure>;
}

impl Lend for Tx<tombolo::ends::Spsc> {
    #[inline]
    fn lend(&mut self, size: usize, number: u64) -> Result<(), Failure> {
        loop {
            match self.tx.try_reserve(size) {
                Ok(mut claim) => {
                    claim.write_at(0, &number.to_le_bytes())?;
                    return Ok(claim.commit()?);
                }
                Err(TrySendError::Full(())) => relax(),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Lend for Tx<tombolo::ends::Mpsc> {
    fn lend(&mut self, _size: usize, _number: u64) -> Result<(), Failure> {
        Err("the ring with many senders lends no room".into())
    }
}

impl<K: Topology> Receive for Rx<K> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let len = match self.waiting {
            Waiting::Busy => loop {
                match self.rx.try_recv_into(&mut self.room) {
                    Ok(len) => break len,
                    Err(TryRecvError::Empty) => relax(),
                    Err(error) => return Err(error.into()),
                }
            },
            Waiting::SpinSleep | Waiting::Sleep => self.rx.recv_into(&mut self.room)?,
        };
        look.at_slice(&self.room[..len]);
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        loop {
            let room = &mut self.room;
            let taken = self.rx.drain(limit, |record| {
                let len = record.copy_to(room).unwrap_or_default(); // then the order is wrong
                look.at_slice(&room[..len]);
            })?;
            match (taken, self.waiting) {
                (0, Waiting::Busy) => relax(),
                (0, _) => return self.receive(look).map(|()| 1),
                (taken, _) => return Ok(taken),
            }
        }
    }
}

impl<K: Topology, const AS_SLICE: bool> Receive for RxInPlace<K, AS_SLICE> {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        let Rx { rx, waiting, .. } = &mut self.0;
        let is_busy = *waiting == Waiting::Busy;
        let record = match is_busy {
            true => loop {
                match rx.try_recv_ref() {
                    Ok(record) => break record,
                    Err(TryRecvError::Empty) => relax(),
                    Err(error) => return Err(error.into()),
                }
            },
            false => rx.recv_ref()?,
        };
        if AS_SLICE {
            // SAFETY: the sender is this very program, which keeps to the protocol: it doesn't
            // write the message while it is lent.
            look.at_slice(unsafe { record.as_slice() });
        } else {
            look.in_place(record.len(), |at, room| _ = record.read_at(at, room));
        }
        Ok(())
    }
}

fn open(meeting: &Meeting) -> Result<EventsRegion, Failure> {
    let capacity = meeting.capacity as u64;
    let options = OpenOptions::new().spsc_capacity(capacity).mpsc_capacity(capacity);
    let path = meeting.directory.join(format!("{}.tombolo", meeting.name));
    Ok(EventsRegion::open_path_with(path, options)?)
}

impl ProcessSystem for Spsc {
    const NAME: &'static str = "tombolo-spsc";
    const PRODUCERS_MAX: usize = 1;
    const BATCHES: bool = true;
    type Sender = Tx<tombolo::ends::Spsc>;
    type Receiver = Rx<tombolo::ends::Spsc>;

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Tx::new(open(meeting)?.split_spsc()?.0, meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        Rx::new(open(meeting)?.split_spsc()?.1, meeting)
    }
}

impl ProcessSystem for SpscLarge {
    const NAME: &'static str = "tombolo-spsc-64m";
    const PRODUCERS_MAX: usize = 1;
    const BATCHES: bool = true;
    type Sender = Tx<tombolo::ends::Spsc>;
    type Receiver = Rx<tombolo::ends::Spsc>;

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Spsc::sender(&Meeting { capacity: LARGE, ..*meeting })
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        Spsc::receiver(&Meeting { capacity: LARGE, ..*meeting })
    }
}

impl ProcessSystem for SpscInPlace {
    const NAME: &'static str = "tombolo-spsc-in-place";
    const PRODUCERS_MAX: usize = 1;
    const LENDS: bool = true;
    type Sender = Tx<tombolo::ends::Spsc>;
    type Receiver = RxInPlace<tombolo::ends::Spsc, false>;

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Spsc::sender(meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        Spsc::receiver(meeting).map(RxInPlace)
    }
}

impl ProcessSystem for SpscSlice {
    const NAME: &'static str = "tombolo-spsc-slice";
    const PRODUCERS_MAX: usize = 1;
    const LENDS: bool = true;
    type Sender = Tx<tombolo::ends::Spsc>;
    type Receiver = RxInPlace<tombolo::ends::Spsc, true>;

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Spsc::sender(meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        Spsc::receiver(meeting).map(RxInPlace)
    }
}

impl ProcessSystem for Mpsc {
    const NAME: &'static str = "tombolo-mpsc";
    const PRODUCERS_MAX: usize = 4;
    const BATCHES: bool = true;
    type Sender = Tx<tombolo::ends::Mpsc>;
    type Receiver = Rx<tombolo::ends::Mpsc>;

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Tx::new(open(meeting)?.split_mpsc()?.0, meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        Rx::new(open(meeting)?.split_mpsc()?.1, meeting)
    }
}
