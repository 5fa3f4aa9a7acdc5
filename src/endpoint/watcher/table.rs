//! What the watcher of a process watches.

use std::fmt;
use std::mem::offset_of;
use std::sync::atomic::Ordering::{AcqRel, SeqCst};
use std::sync::atomic::{AtomicU32, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Weak};
use std::time::{Duration, Instant};

use tombolo_abi::{LockWord, Slot};

use super::peers::Peers;
use crate::endpoint::slot_u32;
use crate::mem::RobustList;
use crate::mutex::lock;
use crate::os::{fork, futex};
use crate::region::Region;

/// A process's watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    pub(super) owner: fork::Owner,
    pub(super) table: Mutex<Table>,
    /// Notified when the thread has its robust list.
    pub(super) started: Condvar,
    /// Changes when the table has, for the thread to scan it.
    pub(super) kick: AtomicU32,
}

/// What the thread watches.
///
/// It keeps no region alive: a forked child inherits it and must not keep what it has dropped. Only one
/// that is forked in the middle of a scan keeps the descriptors of that moment, until it ends or execs.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) start: Start,
    /// What our slots say of barriers; no flag while that is not known.
    pub(super) barrier_flag: u32,
    pub(super) coverage: Coverage,
    /// Endpoints of ours that others watch.
    pub(super) lives: Vec<Life>,
    /// Endpoints of ours that watch others.
    pub(super) watched: Vec<Watched>,
    /// What is to be done each second.
    pub(super) upkeep: Vec<(u64, Task)>,
    /// Asking the kernel about peers.
    pub(super) tick: Tick,
    /// Asking it about ourselves.
    pub(super) long_tick: Tick,
    pub(super) next_id: u64,
}

/// Something to be done again and again. It keeps no region alive, either.
#[derive(Clone)]
pub(super) struct Task(pub(super) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

#[derive(Debug, Default)]
pub(super) enum Start {
    #[default]
    Pending,
    /// `None` if the kernel refuses robust lists: others find out by their tick.
    Done(Option<RobustList>),
}

/// Whether the thread can sleep on more than one word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coverage {
    #[default]
    ByWords,
    /// No: everything is left to the tick.
    ByTick,
}

/// An endpoint of ours.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: u64,
    pub(super) region: Weak<Region>,
    pub(super) slot: u16,
}

/// The other side of an endpoint of ours.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) id: u64,
    pub(super) region: Weak<Region>,
    pub(super) own: LockWord,
    pub(super) peers: Peers,
    /// Offset of the wake word that our side sleeps on.
    pub(super) doorbell: u64,
    pub(super) peer_exits: Arc<AtomicU32>,
}

impl Watched {
    /// Notifies the endpoint that a peer has exited, or that something must be checked.
    pub(super) fn notify(&self, region: &Region) {
        self.peer_exits.fetch_add(1, AcqRel);
        fence(SeqCst); // edge `peer_exit`: the count, the wake word
        futex::disarm_and_wake(region.mapping().word_u32(self.doorbell), i32::MAX as u32);
    }
}

impl Life {
    pub(super) fn flag(&self, flags: u32) {
        if let Some(region) = self.region.upgrade() {
            slot_u32(&region, self.slot, offset_of!(Slot, flags)).fetch_or(flags, AcqRel);
        }
    }
}

impl Watcher {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    pub(super) fn kick(&self) {
        self.kick.fetch_add(1, AcqRel);
        futex::wake_all(&self.kick);
    }
}

impl Table {
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }
}

/// Something to be done every so often.
#[derive(Debug, Default)]
pub(super) struct Tick {
    /// When it is due; at once if that was never said.
    pub(super) due: Option<Instant>,
}

impl Tick {
    /// Whether it is due, which it then no longer is.
    pub(super) fn is_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now);
        self.due.is_none()
    }

    /// When it is due next: `every` so often, or sooner if that was said before.
    pub(super) fn next(&mut self, now: Instant, every: Duration) -> Instant {
        let latest = now + every;
        *self.due.insert(self.due.map_or(latest, |due| due.min(latest)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use tombolo_abi::{RingControl, wake};

    use super::*;
    use crate::os::futex::{Moment, Woken};
    use crate::{EventsRegion, OpenOptions};

    #[test]
    fn an_endpoint_that_sleeps_is_woken_and_finds_the_exit_counted() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let doorbell = region.entries()[0].control_offset + offset_of!(RingControl, tx_wake) as u64;
        let peer_exits = Arc::<AtomicU32>::default();
        let watched = Watched {
            id: 1,
            region: Arc::downgrade(region),
            own: LockWord { slot: 0, incarnation: 0 },
            peers: Peers::new(1..2),
            doorbell,
            peer_exits: peer_exits.clone(),
        };
        let word = region.mapping().word_u32(doorbell);
        word.store(wake::ARMED_FUTEX, Relaxed);
        let woken = std::thread::scope(|scope| {
            let until = Moment::after(Duration::from_secs(5));
            let sleeper = scope.spawn(move || {
                let woken = futex::wait(word, wake::ARMED_FUTEX, until);
                (woken, peer_exits.load(Relaxed))
            });
            std::thread::sleep(Duration::from_millis(100)); // until it sleeps
            watched.notify(region);
            sleeper.join().unwrap()
        });
        assert_eq!(woken, (Woken::Perhaps, 1));
        assert_eq!(word.load(Relaxed), 0, "it is armed still");
    }
}
