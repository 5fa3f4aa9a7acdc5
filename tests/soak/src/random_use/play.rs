//! One ring, or all lanes, with its ends and what the model knows of it.

use std::cell::Cell;
use std::rc::Rc;

use tombolo::ends::{Mpsc, Spsc, Topology};
use tombolo::{Error, EventsRegion, Receiver, Sender};

use super::context::Context;
use super::model::{Line, Queued};
use crate::Failure;

/// The kinds of ends.
pub(super) trait Kind: Topology {
    /// Both ends of a region's ring.
    fn split(region: &mut EventsRegion) -> Result<(Sender<Self>, Receiver<Self>), Error>;

    /// A clone, of what has any.
    fn clone_of(_end: &Sender<Self>) -> Option<Sender<Self>> {
        None
    }

    /// Builds a message in place, if that can be done, and gives whether it was.
    fn build(_play: &mut Play<Self>, _context: &mut Context) -> Result<bool, Failure> {
        Ok(false)
    }
}

impl Kind for Spsc {
    fn split(region: &mut EventsRegion) -> Result<(Sender<Self>, Receiver<Self>), Error> {
        region.split_spsc()
    }

    fn build(play: &mut Play<Self>, context: &mut Context) -> Result<bool, Failure> {
        play.reserve(context).map(|()| true)
    }
}

impl Kind for Mpsc {
    fn split(region: &mut EventsRegion) -> Result<(Sender<Self>, Receiver<Self>), Error> {
        region.split_mpsc()
    }

    fn clone_of(end: &Sender<Self>) -> Option<Sender<Self>> {
        Some(end.clone())
    }
}

/// What an end knows of the other side.
#[derive(Clone, Debug, Default)]
pub(super) struct Acquaintance {
    /// Whether it has met any. Clones of a sender share that.
    met: Rc<Cell<bool>>,
}

impl Acquaintance {
    /// That of an end that attaches, while there is one on the other side, or none.
    pub(super) fn new(is_other_there: bool) -> Self {
        Self { met: Rc::new(Cell::new(is_other_there)) }
    }

    /// Notes that one has attached, or that something of it was taken.
    pub(super) fn meet(&self) {
        self.met.set(true);
    }

    pub(super) fn has_met(&self) -> bool {
        self.met.get()
    }

    /// Whether these are ends of one endpoint.
    pub(super) fn is_shared_with(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.met, &other.met)
    }
}

/// A sender.
#[derive(Debug)]
pub(super) struct Tx<K: Kind> {
    pub(super) end: Sender<K>,
    /// Which line it sends on.
    pub(super) line: usize,
    pub(super) receivers: Acquaintance,
}

/// The receiver.
#[derive(Debug)]
pub(super) struct Rx<K: Kind> {
    pub(super) end: Receiver<K>,
    pub(super) senders: Acquaintance,
}

/// The ring, or all lanes.
#[derive(Debug)]
pub(super) struct Play<K: Kind> {
    /// `SPSC`, `MPSC` or `lanes`.
    pub(super) name: &'static str,
    pub(super) lines: Vec<Line>,
    pub(super) txs: Vec<Tx<K>>,
    pub(super) rx: Option<Rx<K>>,
    pub(super) max_message: usize,
    pub(super) max_handles: usize,
    /// Whether most messages are so small that many are in the ring at once.
    pub(super) are_small: bool,
    /// Endpoints for senders.
    pub(super) places: usize,
}

impl<K: Kind> Play<K> {
    /// Of several lines each has lengths of its own, so that a message that is only told of is known:
    /// those that leave the line's number if divided by their count.
    pub(super) fn len_on(&self, line: usize, len: usize) -> usize {
        let lines = self.lines.len();
        let len = len / lines * lines + line;
        if len <= self.max_message { len } else { len - lines }
    }

    /// The first message of the line whose messages may have this length.
    pub(super) fn front_of(&self, len: usize) -> Result<(usize, &Queued), Failure> {
        let line = len % self.lines.len();
        match self.lines[line].queue.front() {
            Some(front) if front.len == len => Ok((line, front)),
            front => {
                let fronts: Vec<_> = self.lines.iter().map(|line| line.queue.front()).collect();
                Err(format!("a message of {len} bytes instead of {front:?}; first are {fronts:?}")
                    .into())
            }
        }
    }

    /// Judges bytes that came: they must be the first message of a line, which is given.
    pub(super) fn check_bytes(&self, context: &Context, bytes: &[u8]) -> Result<usize, Failure> {
        let (line, front) = self.front_of(bytes.len())?;
        context.content.check(front.number, bytes)?;
        Ok(line)
    }

    /// Notes that the first message of a line was taken.
    pub(super) fn take(&mut self, line: usize) -> Result<Queued, Failure> {
        let taken = self.lines[line].pop().ok_or("a message came from an empty line")?;
        if let Some(rx) = &self.rx {
            rx.senders.meet();
        }
        Ok(taken)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lines.iter().all(Line::is_empty)
    }

    pub(super) fn count(&self, context: &mut Context, what: &str) {
        context.tally.of(self.name, what);
    }

    /// Judges that nothing came.
    pub(super) fn check_empty(&self) -> Result<(), Failure> {
        match self.lines.iter().find_map(|line| line.queue.front()) {
            None => Ok(()),
            Some(front) => Err(format!("nothing came, but {front:?} is there").into()),
        }
    }
}
