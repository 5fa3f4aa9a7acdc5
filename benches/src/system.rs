//! What a system must offer to be measured: two ends, and where they meet.
//!
//! The workloads are generic over these traits and compiled for each system, so nothing is called
//! through a table inside the timed part.
//!
//! Every message of a direction has the same size, 8 bytes or more. Its first eight bytes are its
//! number, little-endian: from 1 on, with the producer in the highest byte.

use std::hint::spin_loop;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Anything that went wrong in a system.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How an end waits for room, or for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// It looks again and again, and gives the processor to nobody.
    Busy,
    /// As the system does it of its own accord, usually looking for a while and then sleeping.
    SpinSleep,
    /// It sleeps at once.
    Sleep,
}

/// Where the two sides of one direction meet. Both sides get the same one.
#[derive(Debug, Clone, Copy)]
pub struct Meeting<'a> {
    /// A directory on tmpfs that only this measurement uses; it is removed afterwards.
    pub directory: &'a Path,
    /// A file name without a dot, different for each direction. For systems with names of their
    /// own, `unique` tells runs apart.
    pub name: &'a str,
    /// Different for each direction of each run on this machine.
    pub unique: &'a str,
    /// Bytes of every message.
    pub size: usize,
    /// Bytes of data that the ring between the two should hold, a power of two.
    pub capacity: usize,
    /// How many senders there will be.
    pub producers: usize,
    /// How both sides wait.
    pub waiting: Waiting,
}

/// The end that messages go in at.
pub trait Transmit {
    /// Sends a copy of these bytes, waiting while there is no room.
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure>;

    /// Sends all of them, in order, at what it costs to send many.
    fn send_batch(&mut self, payloads: &[&[u8]]) -> Result<(), Failure> {
        payloads.iter().try_for_each(|payload| self.send(payload))
    }

    /// Sends a message of `size` bytes built in place, of which only the first eight are written:
    /// what lending costs, without the copy. For systems that say `LENDS`.
    fn lend(&mut self, size: usize, number: u64) -> Result<(), Failure> {
        let _ = (size, number);
        Err("this system lends no room".into())
    }

    /// Makes visible what is still held back.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

/// The end that messages come out of.
pub trait Receive {
    /// Waits for a message and shows it.
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure>;

    /// Waits for a message, and shows up to `limit` of those that are there. Gives how many.
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        let _ = limit;
        self.receive(look)?;
        Ok(1)
    }
}

/// What the harness does with a message: either touch each of its cache lines, or compare it.
pub trait Look {
    /// Looks at a message in a slice: where it lies, if the system lends it soundly, or where it
    /// was copied to.
    fn at_slice(&mut self, message: &[u8]);

    /// Looks at a message of `len` bytes where it lies, through a function that copies the bytes
    /// from an offset on: for systems that lend no slice.
    fn in_place(&mut self, len: usize, read_at: impl FnMut(usize, &mut [u8]));
}

/// A system between processes.
pub trait ProcessSystem: 'static {
    /// Its name in tables and files.
    const NAME: &'static str;
    /// How many may send at once.
    const PRODUCERS_MAX: usize;
    /// The end that messages go in at.
    type Sender: Transmit;
    /// The end that messages come out of.
    type Receiver: Receive;

    /// Whether it can do this at all. Several types may share a name and take different sizes.
    fn takes(meeting: &Meeting) -> bool {
        let _ = meeting;
        true
    }

    /// Whether `send_batch` and `receive_batch` are more than one at a time.
    const BATCHES: bool = false;

    /// Whether `Transmit::lend` works, and a message is received where it lies.
    const LENDS: bool = false;

    /// Comes before both ends, in the process that starts them.
    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        let _ = meeting;
        Ok(())
    }

    /// Opens the sending end. The two sides open theirs at the same time, in processes of their
    /// own, and either may come first: wait for the other where that matters.
    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure>;

    /// Opens the receiving end.
    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure>;

    /// Removes what was left outside the directory. Comes last, in the process that prepared.
    fn clean_up(meeting: &Meeting) {
        let _ = meeting;
    }
}

/// A way in which one process hands descriptors to another.
pub trait HandingSystem: 'static {
    /// Its name in tables and files.
    const NAME: &'static str;
    /// A descriptor as its user holds it.
    type One: AsFd + From<OwnedFd>;
    /// The end of who has them.
    type Giver;
    /// The end of who gets them.
    type Taker;

    /// Opens the end of who has them. The other side opens its own at the same time.
    fn giver(meeting: &Meeting) -> Result<Self::Giver, Failure>;

    /// Opens the end of who gets them.
    fn taker(meeting: &Meeting) -> Result<Self::Taker, Failure>;

    /// One more on the same file. Takes no time that counts.
    fn copy(one: &Self::One) -> Result<Self::One, Failure>;

    /// Sends a message of eight bytes with all of them, and closes them here.
    fn give(giver: &mut Self::Giver, number: u64, ones: Vec<Self::One>) -> Result<(), Failure>;

    /// Waits for a message and takes it, with descriptors of one's own.
    fn take(taker: &mut Self::Taker) -> Result<(u64, Vec<Self::One>), Failure>;
}

/// Bytes at the start of a request, and of its reply, that are the system's own.
pub const CALL_HEAD: usize = 8;

/// A way to ask another process and to get its reply.
///
/// The message proper, with its number first, begins behind [`CALL_HEAD`] bytes, which the system may use.
pub trait CallingSystem: 'static {
    /// Its name in tables and files.
    const NAME: &'static str;
    /// The end of who asks.
    type Caller;
    /// The end of who answers.
    type Answerer;

    /// Comes before both ends, in the process that starts them.
    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        let _ = meeting;
        Ok(())
    }

    /// Opens the end of who asks. The other side opens its own at the same time.
    fn caller(meeting: &Meeting) -> Result<Self::Caller, Failure>;

    /// Opens the end of who answers.
    fn answerer(meeting: &Meeting) -> Result<Self::Answerer, Failure>;

    /// Sends a copy of `request`, waits for the reply, and shows it from behind its head.
    fn call(caller: &mut Self::Caller, request: &[u8], look: &mut impl Look)
    -> Result<(), Failure>;

    /// Waits for a request, shows it from behind its head, and answers with a copy of `reply`.
    fn answer(
        answerer: &mut Self::Answerer,
        reply: &[u8],
        look: &mut impl Look,
    ) -> Result<(), Failure>;

    /// Removes what was left outside the directory. Comes last, in the process that prepared.
    fn clean_up(meeting: &Meeting) {
        let _ = meeting;
    }
}

/// A system between threads of one process.
pub trait ThreadSystem: 'static {
    /// Its name in tables and files.
    const NAME: &'static str;
    /// How many may send at once.
    const PRODUCERS_MAX: usize;
    /// The end that messages go in at.
    type Sender: Transmit + Send;
    /// The end that messages come out of.
    type Receiver: Receive + Send;

    /// Whether it can do this at all. Several types may share a name and take different sizes.
    fn takes(meeting: &Meeting) -> bool {
        let _ = meeting;
        true
    }

    /// Whether `send_batch` and `receive_batch` are more than one at a time.
    const BATCHES: bool = false;

    /// Whether `Transmit::lend` works, and a message is received where it lies.
    const LENDS: bool = false;

    /// Makes `meeting.producers` sending ends and the receiving end.
    fn ends(meeting: &Meeting) -> Result<(Vec<Self::Sender>, Self::Receiver), Failure>;
}

/// Something that one process does alone, again and again.
pub trait SoloSystem: 'static + Sized {
    /// Its name in tables and files.
    const NAME: &'static str;

    /// Comes before, in the process that starts the other, and stays in force while it runs.
    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        let _ = meeting;
        Ok(())
    }

    /// Comes first in the process that is measured.
    fn start(meeting: &Meeting) -> Result<Self, Failure>;

    /// Does it once, and gives how long it took without what doesn't count.
    fn once(&mut self) -> Result<Duration, Failure>;

    /// Removes what was left outside the directory. Comes last, in the process that prepared.
    fn clean_up(meeting: &Meeting) {
        let _ = meeting;
    }
}

/// Whether those who take part have to share a processor.
static IS_CROWDED: AtomicBool = AtomicBool::new(false);

/// Comes between two looks of a busy wait: a hint to the processor, or a yield where those who take
/// part outnumber the processors.
#[inline]
pub fn relax() {
    if IS_CROWDED.load(Relaxed) {
        std::thread::yield_now();
    } else {
        spin_loop();
    }
}

/// Makes [`relax`] yield.
pub(crate) fn set_crowded(is_crowded: bool) {
    IS_CROWDED.store(is_crowded, Relaxed);
}
