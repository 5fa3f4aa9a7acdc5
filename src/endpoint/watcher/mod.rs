//! The thread by which a process learns of the death of others, and they of its own.
//!
//! Each process that owns endpoints has one such thread, parked in the kernel.
//!
//! * *They of ours.* The thread's robust list holds the liveness words of our endpoints: when the
//!   process exits, the kernel marks them and wakes their sleepers.
//! * *We of theirs.* The thread sleeps on the liveness words of the other side of each of our
//!   endpoints, and on each region's count of changed slots.
//!
//! **A wake-up is a hint; the lock byte decides.** The kernel marks the words when the watcher's thread
//! ends, while others of the process may still store. So the thread polls the byte until that is free,
//! then counts a peer exit and notifies our endpoint. Waiting endpoints check that count between arming
//! and sleeping, so that none misses it.
//!
//! A slow tick covers the rest: peers that the kernel reports nothing of, words that a peer overwrote,
//! more words than the kernel takes at once, locks lost. The upkeep of each second runs with it.
//!
//! | edge | release side | acquire side | carries |
//! |---|---|---|---|
//! | `peer_exit` | watcher: count, fence, wake word | endpoint: wake word, fence, load count | one of the two sees the other |
//!
//! A forked child has none of this; it gets a watcher of its own with its first endpoint.

mod peers;
mod scan;
mod table;
mod thread;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire};

use tombolo_abi::{LockWord, slot_flags};

use self::peers::Peers;
use self::table::{Life, Start, Table, Task, Watched, Watcher};
use crate::endpoint::slot_offset;
use crate::error::Error;
use crate::os::per_process::PerProcess;
use crate::region::Region;

/// Keeps endpoints of this process, of one region, on its robust list.
#[derive(Debug)]
pub(crate) struct Pulse {
    watcher: Arc<Watcher>,
    region: Arc<Region>,
    id: u64,
}

impl Pulse {
    /// Makes the kernel mark the liveness words of `slots` when this process exits, but not if
    /// others than this user have the region: they could cut the list, and would learn addresses.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(region: &Arc<Region>, slots: &[u16]) -> Result<Self, Error> {
        let watcher = running().map_err(|error| region.io_error("watch the peers of", error))?;
        let is_private = region.is_private();
        let mut table = watcher.lock();
        let id = table.new_id();
        let mut flags = table.barrier_flag;
        for slot in slots {
            let life = Life { id, region: Arc::downgrade(region), slot: *slot };
            if let (Start::Done(Some(list)), true) = (&mut table.start, is_private) {
                list.link(region.mapping(), slot_offset(region, *slot, 0));
                flags |= slot_flags::ROBUST_LIVENESS;
            }
            life.flag(flags);
            table.lives.push(life);
        }
        drop(table);
        Ok(Self { watcher, region: region.clone(), id })
    }
}

/// In the process that started it only: the slots must not be touched elsewhere.
impl Drop for Pulse {
    fn drop(&mut self) {
        if !self.watcher.owner.is_here() {
            return;
        }
        let mut table = self.watcher.lock();
        let Table { start, lives, .. } = &mut *table;
        for Life { slot, .. } in lives.extract_if(.., |life| life.id == self.id) {
            if let Start::Done(Some(list)) = start {
                list.unlink(self.region.mapping(), slot_offset(&self.region, slot, 0));
            }
        }
    }
}

/// Watches the other side of an endpoint of this process.
#[derive(Debug)]
pub(crate) struct Watch {
    watcher: Arc<Watcher>,
    id: u64,
    peer_exits: Arc<AtomicU32>,
}

impl Watch {
    /// Watches the owners of `peers` for the endpoint `own`, which sleeps on the wake word at offset
    /// `doorbell`. The thread is told at once if another process may have one of them, and begins with its next
    /// tick otherwise: what happens in this process [is told](tell_of_exits) by who does it.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(
        region: &Arc<Region>,
        own: LockWord,
        peers: Range<u16>,
        doorbell: u64,
    ) -> Result<Self, Error> {
        let watcher = running().map_err(|error| region.io_error("watch the peers of", error))?;
        let peer_exits = Arc::<AtomicU32>::default();
        let mut table = watcher.lock();
        let id = table.new_id();
        table.watched.push(Watched {
            id,
            region: Arc::downgrade(region),
            own,
            peers: Peers::new(peers),
            doorbell,
            peer_exits: peer_exits.clone(),
        });
        drop(table);
        if !region.is_alone() {
            watcher.kick();
        }
        Ok(Self { watcher, id, peer_exits })
    }

    /// Changes the count, for another reason than a peer's exit.
    pub(super) fn note(&self) {
        self.peer_exits.fetch_add(1, AcqRel);
    }

    /// A count that changes when a peer has exited, or when there is another reason to ask the kernel
    /// about peers.
    #[inline]
    pub(crate) fn peer_exits(&self) -> u32 {
        self.peer_exits.load(Acquire) // edge `peer_exit`
    }

    /// That count itself.
    pub(crate) fn counter(&self) -> Arc<AtomicU32> {
        self.peer_exits.clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.watcher.owner.is_here() {
            return;
        }
        let mut table = self.watcher.lock();
        let Some(index) = table.watched.iter().position(|watched| watched.id == self.id) else {
            return;
        };
        let watched = table.watched.remove(index);
        drop(table);
        if !watched.region.upgrade().is_some_and(|region| region.is_alone()) {
            self.watcher.kick(); // it sleeps on the words
        }
    }
}

/// Tells the endpoints of this process that owners of `slots`, which are of this process too, have exited.
pub(crate) fn tell_of_exits(region: &Arc<Region>, slots: &[u16]) {
    let Ok(watcher) = running() else { return };
    let table = watcher.lock();
    let is_theirs = |watched: &&Watched| {
        std::ptr::eq(watched.region.as_ptr(), Arc::as_ptr(region))
            && slots.iter().any(|slot| watched.peers.slots.contains(slot))
    };
    table.watched.iter().filter(is_theirs).for_each(|watched| watched.notify(region));
}

/// Has something done each second, in the watcher's thread, until it is dropped: what must not depend on
/// whether the process makes calls.
#[derive(Debug)]
pub(crate) struct Upkeep {
    watcher: Arc<Watcher>,
    id: u64,
}

impl Upkeep {
    /// Has `task` done, which must be short and wait for nothing.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(crate) fn start(
        region: &Region,
        task: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let watcher = running().map_err(|error| region.io_error("look after", error))?;
        let mut table = watcher.lock();
        let id = table.new_id();
        table.upkeep.push((id, Task(Arc::new(task))));
        drop(table);
        Ok(Self { watcher, id })
    }
}

/// As with [`Watch`], in the process that started it.
impl Drop for Upkeep {
    fn drop(&mut self) {
        if self.watcher.owner.is_here() {
            self.watcher.lock().upkeep.retain(|(id, _)| *id != self.id);
        }
    }
}

/// The watcher of this process, which is started if there is none.
fn running() -> io::Result<Arc<Watcher>> {
    static WATCHER: PerProcess<Arc<Watcher>> = PerProcess::new();

    WATCHER.get_or_make(thread::start).cloned()
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;
    use std::sync::atomic::Ordering::Relaxed;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use tombolo_abi::Slot;

    use super::*;
    use crate::endpoint::slot_u32;
    use crate::os::futex::{self, Moment, Woken};
    use crate::os::staged;
    use crate::{EventsRegion, OpenOptions};

    #[test]
    fn a_task_is_done_each_second_until_its_upkeep_is_dropped() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let count = Arc::<AtomicU32>::default();
        let tasks = count.clone();
        let upkeep = Upkeep::start(region.shared(), move || {
            tasks.fetch_add(1, AcqRel);
        });
        let start = Instant::now();
        let wait_while = |is_to_wait: &dyn Fn() -> bool| {
            while is_to_wait() {
                assert!(start.elapsed() < LONG);
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        wait_while(&|| count.load(Acquire) < 3);
        assert!(start.elapsed() > Duration::from_millis(1500), "it is done all the time");
        drop(upkeep);
        wait_while(&|| Arc::strong_count(&count) > 1);
    }

    #[test]
    fn what_is_dropped_is_neither_watched_nor_done_nor_flagged_any_more() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let pulses = [0, 1].map(|slot| Pulse::start(region, &[slot]).unwrap());
        let own = LockWord { slot: 0, incarnation: 0 };
        let kicks = running().unwrap().kick.load(Relaxed);
        let watches = [(); 2].map(|()| Watch::start(region, own, 1..2, 0).unwrap());
        assert!(running().unwrap().kick.load(Relaxed) >= kicks + 2, "it is not told to look");
        let tasks = [(); 2].map(|()| Upkeep::start(region, || ()).unwrap());
        let is_there = |id: u64| {
            let watcher = running().unwrap();
            let table = watcher.lock();
            let lives = table.lives.iter().filter(|one| one.id == id).count();
            let watched = table.watched.iter().filter(|one| one.id == id).count();
            lives + watched + table.upkeep.iter().filter(|(one, _)| *one == id).count()
        };
        let ids = |one: usize| [pulses[one].id, watches[one].id, tasks[one].id];
        let ((first, second), kicks) = ((ids(0), ids(1)), running().unwrap().kick.load(Relaxed));
        assert_eq!(first.map(is_there), [1; 3]);
        let ([_pulse, pulse], [_watch, watch], [_task, task]) = (pulses, watches, tasks);
        drop((pulse, watch, task));
        assert_eq!((first.map(is_there), second.map(is_there)), ([1; 3], [0; 3]));
        assert!(running().unwrap().kick.load(Relaxed) > kicks, "its words are slept on still");
    }

    /// Creating and closing a channel wakes no thread for that.
    #[test]
    fn the_thread_is_told_only_if_another_process_may_have_an_end() {
        assert!(staged::in_child(|| {
            let told = |region: &Arc<Region>| {
                let kick = &running().unwrap().kick;
                let before = kick.load(Relaxed);
                let own = LockWord { slot: 0, incarnation: 0 };
                let watch = Watch::start(region, own, 1..2, 0).unwrap();
                let at_first = kick.load(Relaxed) - before;
                drop(watch);
                [at_first, kick.load(Relaxed) - before]
            };
            let options = OpenOptions::new().of_channel().unwrap();
            let region = EventsRegion::anonymous(options).unwrap();
            let alone = told(region.shared());
            region.shared().note_shared();
            (alone, told(region.shared())) == ([0, 0], [1, 2])
        }));
    }

    const LONG: Duration = Duration::from_secs(20);

    /// What a child does with what is its parent's must not wait for a lock that another thread of the
    /// parent may have had.
    #[test]
    fn a_child_drops_what_its_parent_watches_without_the_tables_lock() {
        let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let region = region.shared();
        let pulse = Pulse::start(region, &[0]).unwrap();
        let watch = Watch::start(region, LockWord { slot: 0, incarnation: 0 }, 1..2, 0).unwrap();
        let upkeep = Upkeep::start(region, || ()).unwrap();
        let watcher = running().unwrap();
        assert!(staged::in_child(|| {
            let _table = watcher.lock();
            let (dropped, is_dropped) = mpsc::channel();
            std::thread::spawn(move || {
                drop((pulse, watch, upkeep));
                dropped.send(()).unwrap();
            });
            is_dropped.recv_timeout(LONG).is_ok()
        }));
    }

    fn watcher_threads() -> usize {
        let names = std::fs::read_dir("/proc/self/task").into_iter().flatten();
        let names = names.map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")));
        names.filter(|name| name.as_ref().is_ok_and(|name| name == "tombolo-watch\n")).count()
    }

    #[test]
    fn each_process_starts_one_watcher_of_its_own() {
        let parents = running().unwrap();
        let is_one_alone = || {
            let own = running().unwrap();
            let is_one = Arc::ptr_eq(&own, &running().unwrap()) && watcher_threads() == 1;
            is_one && !Arc::ptr_eq(&own, &parents)
        };
        assert!(staged::in_child(|| is_one_alone() && staged::in_child(is_one_alone)));
    }

    #[test]
    fn a_kick_wakes_the_thread() {
        let watcher = running().unwrap();
        let before = watcher.kick.load(Acquire);
        let woken = std::thread::scope(|scope| {
            let sleeper = scope.spawn(|| futex::wait(&watcher.kick, before, Moment::after(LONG)));
            std::thread::sleep(Duration::from_millis(100)); // until it sleeps
            watcher.kick();
            sleeper.join().unwrap()
        });
        assert_eq!(woken, Woken::Perhaps);
    }

    #[test]
    fn only_a_region_that_no_other_user_has_is_on_the_robust_list_and_its_slots_say_so() {
        if matches!(running().unwrap().lock().start, Start::Done(None)) {
            return eprintln!("skipped: the kernel refuses robust lists");
        }
        let start = Instant::now();
        while running().unwrap().lock().barrier_flag == 0 {
            assert!(start.elapsed() < LONG); // in a process of many threads it comes later
            std::thread::sleep(Duration::from_millis(1));
        }
        for (mode, is_listed) in [(0o600, true), (0o660, false), (0o606, false)] {
            let region = EventsRegion::anonymous(OpenOptions::new().mode(mode)).unwrap();
            let region = region.shared();
            let _pulse = Pulse::start(region, &[1]).unwrap();
            let word = |offset| slot_u32(region, 1, offset).load(Relaxed);
            assert_eq!(word(offset_of!(Slot, liveness)) != 0, is_listed, "{mode:o}");
            let flags = word(offset_of!(Slot, flags));
            assert_eq!(flags & slot_flags::ROBUST_LIVENESS != 0, is_listed, "{mode:o}");
            let barriers = slot_flags::MEMBARRIER_OK | slot_flags::FENCES_ALWAYS;
            assert_ne!(flags & barriers, 0);
        }
    }

    #[test]
    fn an_endpoint_is_on_the_robust_list_for_as_long_as_it_is_owned() {
        let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        let region = region.shared();
        let liveness = slot_u32(region, 1, offset_of!(Slot, liveness));
        if matches!(running().unwrap().lock().start, Start::Done(None)) {
            return eprintln!("skipped: the kernel refuses robust lists");
        }
        assert_ne!(liveness.load(Relaxed), 0);
        drop(tx); // its mapping may go next, and the kernel must not come there
        assert_eq!(liveness.load(Relaxed), 0);
    }
}
