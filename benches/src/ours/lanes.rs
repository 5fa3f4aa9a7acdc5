//! Ends of lanes, one for each sender, between processes.

use tombolo::options::MpscOrder;
use tombolo::{EventsRegion, MpscProducer, OpenOptions};

use super::ends::{Rx, Tx};
use crate::system::{Failure, Look, Meeting, ProcessSystem, Receive};

/// A lane for each of up to four senders; messages are copied out.
#[derive(Debug)]
pub struct Lanes;

/// The same with 256 lanes, all owned, of which two are used.
#[derive(Debug)]
pub struct ManyLanes;

/// Lanes that are owned, in the region of the latter.
const MANY: usize = 256;
/// Those of them that are used.
const BUSY: usize = 2;
/// Bytes of a lane: as by default, but for long messages.
const CAPACITY: u64 = 1 << 18;
/// From how many bytes on a message is long.
const LONG: usize = 4096;

/// A receiving end whose process also owns lanes on which nothing is sent.
#[derive(Debug)]
pub struct RxBesideIdle {
    rx: Rx<tombolo::ends::Mpsc>,
    #[expect(dead_code, reason = "held for being owned")]
    idle: Vec<MpscProducer>,
}

impl Receive for RxBesideIdle {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        self.rx.receive(look)
    }

    #[inline]
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        self.rx.receive_batch(limit, look)
    }
}

fn open(meeting: &Meeting, lanes: usize) -> Result<EventsRegion, Failure> {
    let capacity = meeting.capacity as u64;
    let lane = if meeting.size < LONG { capacity.min(CAPACITY) } else { capacity };
    let options = OpenOptions::new().mpsc_order(MpscOrder::PerProducer).producers(lanes as u16);
    let options = options.spsc_capacity(capacity).mpsc_capacity(lane);
    let path = meeting.directory.join(format!("{}.tombolo", meeting.name));
    Ok(EventsRegion::open_path_with(path, options)?)
}

impl ProcessSystem for Lanes {
    const NAME: &'static str = "tombolo-lanes";
    const PRODUCERS_MAX: usize = 4;
    const BATCHES: bool = true;
    type Sender = Tx<tombolo::ends::Mpsc>;
    type Receiver = Rx<tombolo::ends::Mpsc>;

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Tx::new(open(meeting, Self::PRODUCERS_MAX)?.split_mpsc()?.0, meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        Rx::new(open(meeting, Self::PRODUCERS_MAX)?.split_mpsc()?.1, meeting)
    }
}

impl ProcessSystem for ManyLanes {
    const NAME: &'static str = "tombolo-lanes-256";
    const PRODUCERS_MAX: usize = BUSY;
    type Sender = Tx<tombolo::ends::Mpsc>;
    type Receiver = RxBesideIdle;

    fn takes(meeting: &Meeting) -> bool {
        meeting.producers == BUSY
    }

    fn sender(meeting: &Meeting) -> Result<Self::Sender, Failure> {
        Tx::new(open(meeting, MANY)?.split_mpsc()?.0, meeting)
    }

    fn receiver(meeting: &Meeting) -> Result<Self::Receiver, Failure> {
        let (tx, rx) = open(meeting, MANY)?.split_mpsc()?;
        let mut idle = vec![tx; MANY - BUSY];
        idle.iter_mut().try_for_each(MpscProducer::attach)?;
        Ok(RxBesideIdle { rx: Rx::new(rx, meeting)?, idle })
    }
}
