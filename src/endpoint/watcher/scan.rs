//! One scan of everything that is watched, and what to sleep on until the next.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;
use std::time::{Duration, Instant};

use super::peers::Step;
use super::table::{Coverage, Start, Table, Task, Watched};
use crate::endpoint::{byte_is_held, is_seen_as};
use crate::os::futex::{Sleeping, WORDS_MAX};
use crate::region::Region;

/// The longest time until the next scan, if a liveness word covers every peer.
const TICK: Duration = Duration::from_secs(1);
/// And if not.
pub(super) const TICK_UNCOVERED: Duration = Duration::from_millis(250);

/// What a scan found.
#[derive(Debug)]
pub(super) struct Found {
    /// The words to sleep on, one place left for the watcher's own.
    pub(super) words: Vec<Sleeping>,
    /// The latest time of the next scan.
    pub(super) next: Instant,
    /// Whether a peer had attached or exited.
    pub(super) has_changes: bool,
    /// What is to be done now, without the table's lock.
    pub(super) due: Vec<Task>,
    /// Whether there is a peer whose death no word would report.
    has_uncovered: bool,
}

impl Found {
    fn sleep_on(&mut self, word: Sleeping) {
        if self.words.len() + 1 < WORDS_MAX {
            self.words.push(word);
        } else {
            self.has_uncovered = true;
        }
    }
}

impl Table {
    /// Checks everything, notifies endpoints, and gives what to sleep on.
    pub(super) fn scan(&mut self, now: Instant) -> Found {
        if let Start::Done(Some(list)) = &mut self.start {
            list.unlink_cut();
        }
        let has_uncovered = self.coverage == Coverage::ByTick;
        let (words, due) = (Vec::new(), Vec::new());
        let mut found = Found { words, next: now + TICK, has_changes: false, due, has_uncovered };
        let present = |watched: &Watched| watched.region.upgrade();
        let regions: Vec<_> = self.watched.iter().map(present).collect();
        distinct(&regions).for_each(|region| {
            // Before the slots are read: a change from here on ends the sleep.
            let membership = region.membership();
            found.sleep_on(Sleeping::on(membership, membership.load(Acquire)));
        });
        let (is_tick, is_long_tick) = (self.tick.is_due(now), self.long_tick.is_due(now));
        for (watched, region) in self.watched.iter_mut().zip(&regions) {
            let Some(region) = region.as_deref().filter(|region| !region.mapping().is_cut()) else {
                continue;
            };
            watched.scan(region, now, &mut found);
            if is_tick {
                watched.ask_after_all(region, &mut found);
            }
            if is_long_tick {
                watched.ask_after_each(region, &mut found);
            }
        }
        if is_long_tick {
            found.due.extend(self.upkeep.iter().map(|(_, task)| task.clone()));
        }
        let every = if found.has_uncovered { TICK_UNCOVERED } else { TICK };
        found.next = found.next.min(self.tick.next(now, every)).min(self.long_tick.next(now, TICK));
        found
    }
}

/// The regions, each once, but for those that were cut short.
fn distinct(regions: &[Option<Arc<Region>>]) -> impl Iterator<Item = &Region> {
    let is_other = |region: &Arc<Region>, other: &Option<Arc<Region>>| {
        other.as_ref().is_none_or(|other| !Arc::ptr_eq(other, region))
    };
    let all = regions.iter().enumerate();
    let all = all.filter_map(|(index, region)| Some((index, region.as_ref()?)));
    all.filter(|(_, region)| !region.mapping().is_cut())
        .filter(move |(index, region)| {
            regions[..*index].iter().all(|other| is_other(region, other))
        })
        .map(|(_, region)| &**region)
}

impl Watched {
    fn scan(&mut self, region: &Region, now: Instant, found: &mut Found) {
        let mut departed = false;
        for slot in self.peers.slots.clone() {
            let mut step = self.peers.check(region, slot, now, &mut || departed = true);
            if matches!(step, Step::Probe) {
                if self.is_free(region, slot..slot + 1) {
                    self.peers.note_exit(slot);
                    departed = true;
                    continue;
                }
                step = self.peers.still_held(slot, now).map_or(Step::Uncovered, Step::ProbeAt);
            }
            match step {
                Step::Wait(word, mark) => found.sleep_on(Sleeping::on(word, mark)),
                Step::ProbeAt(next) => found.next = found.next.min(next),
                Step::Uncovered => found.has_uncovered = true,
                Step::Nothing | Step::Probe => {}
            }
        }
        if departed {
            found.has_changes = true;
            self.notify(region);
        }
    }

    /// Asks the kernel about all peers at once.
    fn ask_after_all(&mut self, region: &Region, found: &mut Found) {
        if self.peers.is_any_left() && self.is_free(region, self.peers.slots.clone()) {
            self.peers.note_all_exited();
            found.has_changes = true;
            self.notify(region);
        }
    }

    /// Asks the kernel about each peer that no word covers, and whether it still shows our own lock: if
    /// it doesn't, the waiting endpoint will find that out, too.
    fn ask_after_each(&mut self, region: &Region, found: &mut Found) {
        let mut departed = !self.is_self_seen(region);
        for slot in self.peers.uncovered(region) {
            if self.is_free(region, slot..slot + 1) {
                self.peers.note_exit(slot);
                (departed, found.has_changes) = (true, true);
            }
        }
        if departed {
            self.notify(region);
        }
    }

    /// Whether the kernel shows every byte of `slots` as free, and can be believed: that is checked only
    /// if it does.
    fn is_free(&self, region: &Region, slots: Range<u16>) -> bool {
        let is_free = || byte_is_held(region, slots.clone()).is_ok_and(|is_held| !is_held);
        is_surely_free(is_free, || self.is_self_seen(region))
    }

    fn is_self_seen(&self, region: &Region) -> bool {
        is_seen_as(region, self.own).unwrap_or(false)
    }
}

/// The first answer only spares the living all other questions. A descriptor may stand for another
/// file for a moment, as one of the first three does while a program redirects its output, so an
/// answer counts between two others that find our own lock.
fn is_surely_free(is_free: impl Fn() -> bool, is_self_seen: impl Fn() -> bool) -> bool {
    is_free() && is_self_seen() && is_free() && is_self_seen()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs::File;
    use std::mem::offset_of;
    use std::os::fd::{AsFd, OwnedFd};
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::Relaxed;

    use rustix::thread::futex::OWNER_DIED;
    use tombolo_abi::{LockWord, RingControl, Slot, SlotState};

    use super::super::table::Tick;
    use super::*;
    use crate::endpoint::watcher::peers::Peers;
    use crate::endpoint::{Upkeep, byte, slot_u32};
    use crate::mem::RobustList;
    use crate::os::{ofd, staged};
    use crate::{EventsRegion, OpenOptions};

    /// What a liveness word holds while its owner lives.
    const MARK: u32 = 0x8000_1234;
    /// Slots: ours, and two peers'.
    const OWN: u16 = 3;
    const PEERS: Range<u16> = 4..6;
    const FIRST: u16 = PEERS.start;

    fn anonymous() -> EventsRegion {
        EventsRegion::anonymous(OpenOptions::new()).unwrap()
    }

    fn word(region: &Region, slot: u16, offset: usize) -> &AtomicU32 {
        slot_u32(region, slot, offset)
    }

    /// The owner of a slot, as the kernel and others see it.
    struct Owner<'a>(&'a Region, u16, OwnedFd);

    impl<'a> Owner<'a> {
        fn of(region: &'a Region, slot: u16, liveness: u32) -> Self {
            let file = region.reopen().unwrap();
            let byte = byte(slot..slot + 1);
            assert!(ofd::try_lock(file.as_fd(), byte, ofd::Mode::Exclusive).unwrap());
            word(region, slot, offset_of!(Slot, incarnation)).fetch_add(1, Relaxed);
            word(region, slot, offset_of!(Slot, liveness)).store(liveness, Relaxed);
            word(region, slot, offset_of!(Slot, state)).store(SlotState::Attached as u32, Relaxed);
            Self(region, slot, file)
        }

        /// Gives the byte back. Children of other tests have copies of the descriptor.
        fn die(self) {
            ofd::unlock(self.2.as_fd(), byte(self.1..self.1 + 1)).unwrap();
        }

        fn is_marked(&self) {
            let liveness = word(self.0, self.1, offset_of!(Slot, liveness));
            liveness.fetch_or(OWNER_DIED, Relaxed);
        }
    }

    /// A table that watches the peers for our slot, and the count of peer exits that it reports.
    fn table(region: &EventsRegion) -> (Table, Arc<AtomicU32>) {
        let region = region.shared();
        let peer_exits = Arc::<AtomicU32>::default();
        let wake = region.entries()[1].control_offset + offset_of!(RingControl, tx_wake) as u64;
        let incarnation = word(region, OWN, offset_of!(Slot, incarnation)).load(Relaxed);
        let mut table = Table::default();
        table.watched.push(Watched {
            id: 1,
            region: Arc::downgrade(region),
            own: LockWord { slot: OWN, incarnation },
            peers: Peers::new(PEERS),
            doorbell: wake,
            peer_exits: peer_exits.clone(),
        });
        (table, peer_exits)
    }

    const NEVER_EARLY: Duration = Duration::from_millis(1);

    #[test]
    fn a_tick_is_due_first_of_all_and_then_as_soon_as_was_ever_said() {
        let (mut tick, now) = (Tick::default(), Instant::now());
        let ms = Duration::from_millis;
        assert!(tick.is_due(now));
        assert_eq!(tick.next(now, ms(1000)), now + ms(1000));
        assert!(!tick.is_due(now + ms(999)));
        assert_eq!(tick.next(now + ms(100), ms(250)), now + ms(350));
        assert_eq!(tick.next(now + ms(200), ms(1000)), now + ms(350));
        assert!(tick.is_due(now + ms(350)));
        assert_eq!(tick.next(now + ms(350), ms(1000)), now + ms(1350));
    }

    #[test]
    fn as_many_words_are_slept_on_as_the_kernel_takes_and_the_rest_is_asked_about() {
        let now = Instant::now();
        let (words, due) = (Vec::new(), Vec::new());
        let mut found = Found { words, next: now, has_changes: false, due, has_uncovered: false };
        let word = AtomicU32::new(0);
        (1..WORDS_MAX).for_each(|_| found.sleep_on(Sleeping::on(&word, 0)));
        assert_eq!((found.words.len(), found.has_uncovered), (WORDS_MAX - 1, false));
        found.sleep_on(Sleeping::on(&word, 0));
        assert_eq!((found.words.len(), found.has_uncovered), (WORDS_MAX - 1, true));
    }

    #[test]
    fn each_region_and_each_peer_alive_has_a_word_to_sleep_on() {
        let region = anonymous();
        let _ours = Owner::of(region.shared(), OWN, MARK);
        let _peers = PEERS.map(|slot| Owner::of(region.shared(), slot, MARK)).collect::<Vec<_>>();
        let (mut all, peer_exits) = table(&region);
        all.watched.append(&mut table(&region).0.watched);
        let now = Instant::now();
        let found = all.scan(now);
        assert_eq!((found.words.len(), found.has_uncovered), (1 + 4, false));
        assert_eq!(found.next, now + TICK);
        assert_eq!((found.has_changes, peer_exits.load(Relaxed)), (false, 0));
        let other = anonymous();
        all.watched.append(&mut table(&other).0.watched);
        assert_eq!(all.scan(now).words.len(), 2 + 4, "another region has a word of its own");
    }

    #[test]
    fn peers_of_whom_no_word_tells_are_asked_about_more_often() {
        let region = anonymous();
        let _ours = Owner::of(region.shared(), OWN, MARK);
        let _covered = Owner::of(region.shared(), FIRST, MARK);
        let _uncovered = Owner::of(region.shared(), FIRST + 1, 0);
        let now = Instant::now();
        let found = table(&region).0.scan(now);
        assert_eq!((found.words.len(), found.has_uncovered), (1 + 1, true));
        assert_eq!(found.next, now + TICK_UNCOVERED);

        let mut by_tick = Table { coverage: Coverage::ByTick, ..Table::default() };
        assert_eq!(by_tick.scan(now).next, now + TICK_UNCOVERED);
        assert_eq!(Table::default().scan(now).next, now + TICK);
    }

    #[test]
    fn the_long_tick_is_not_put_off_if_the_short_one_becomes_rarer() {
        let mut table = Table { coverage: Coverage::ByTick, ..Table::default() };
        let now = Instant::now();
        table.scan(now);
        table.coverage = Coverage::ByWords;
        assert_eq!(table.scan(now + TICK_UNCOVERED).next, now + TICK);
    }

    #[test]
    fn a_peer_that_is_marked_is_gone_once_its_byte_is_free() {
        let region = anonymous();
        let _ours = Owner::of(region.shared(), OWN, MARK);
        let _living = Owner::of(region.shared(), FIRST + 1, MARK);
        let dying = Owner::of(region.shared(), FIRST, MARK);
        let (mut table, peer_exits) = table(&region);
        let now = Instant::now();
        table.scan(now);
        dying.is_marked();
        let found = table.scan(now);
        assert_eq!((found.has_changes, peer_exits.load(Relaxed)), (false, 0), "it has its byte");
        let next = found.next;
        assert!(next > now && next < now + NEVER_EARLY, "asked again in {:?}", next - now);
        assert!(!table.scan(now).has_changes);
        dying.die();
        assert!(!table.scan(now).has_changes, "it is asked after before it is time");
        let found = table.scan(next);
        assert_eq!((found.has_changes, peer_exits.load(Relaxed)), (true, 1));
        assert_eq!(found.words.len(), 1 + 1);
        assert_eq!((table.scan(next).has_changes, peer_exits.load(Relaxed)), (false, 1));
    }

    #[test]
    fn one_of_whom_no_word_tells_is_found_gone_by_the_long_tick_and_all_by_the_short_one() {
        let region = anonymous();
        let _ours = Owner::of(region.shared(), OWN, MARK);
        let peers = PEERS.map(|slot| Owner::of(region.shared(), slot, 0)).collect::<Vec<_>>();
        let [first, second] = <[_; 2]>::try_from(peers).ok().unwrap();
        let (mut table, peer_exits) = table(&region);
        let now = Instant::now();
        let mut look = |after: Duration| {
            let has_changes = table.scan(now + after).has_changes;
            (has_changes, peer_exits.load(Relaxed))
        };
        assert_eq!(look(Duration::ZERO), (false, 0));
        first.die();
        assert_eq!(look(TICK_UNCOVERED), (false, 0), "each is asked about by the long tick only");
        assert_eq!(look(TICK), (true, 1));
        assert_eq!(look(2 * TICK), (false, 1), "it is told once");
        second.die();
        assert_eq!(look(2 * TICK + NEVER_EARLY), (false, 1), "it isn't time");
        assert_eq!(look(2 * TICK + TICK_UNCOVERED), (true, 2));
        assert_eq!(look(3 * TICK), (false, 2));
    }

    #[test]
    fn without_our_own_lock_no_peer_is_called_gone_and_we_are_told_each_second() {
        let region = anonymous();
        let ours = Owner::of(region.shared(), OWN, MARK);
        let peer = Owner::of(region.shared(), FIRST, MARK);
        let (mut table, peer_exits) = table(&region);
        let now = Instant::now();
        table.scan(now);
        peer.is_marked();
        ours.die();
        peer.die();
        let found = table.scan(now + NEVER_EARLY);
        assert_eq!((found.has_changes, peer_exits.load(Relaxed)), (false, 0));
        let found = table.scan(now + TICK);
        assert_eq!((found.has_changes, peer_exits.load(Relaxed)), (false, 1));
        assert_eq!(table.scan(now + TICK + NEVER_EARLY).words.len(), 1);
        assert_eq!(peer_exits.load(Relaxed), 1);
    }

    #[test]
    fn tasks_are_due_with_the_long_tick() {
        let mut table = Table::default();
        table.upkeep.push((1, Task(Arc::new(|| ()))));
        let now = Instant::now();
        let mut due = |after| table.scan(now + after).due.len();
        let found = [Duration::ZERO, TICK_UNCOVERED, TICK - NEVER_EARLY, TICK].map(&mut due);
        assert_eq!(found, [1, 0, 0, 1]);
    }

    /// A region in a file, and the file.
    fn in_file() -> (tempfile::TempDir, EventsRegion, File) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("name");
        let region = EventsRegion::open_path(&path).unwrap();
        let file = File::options().write(true).open(path).unwrap();
        (dir, region, file)
    }

    #[test]
    fn a_region_that_was_cut_short_is_left_alone() {
        let (_dir, region, file) = in_file();
        let _ours = Owner::of(region.shared(), OWN, MARK);
        let _peer = Owner::of(region.shared(), FIRST, MARK);
        let (mut table, peer_exits) = table(&region);
        let now = Instant::now();
        assert_eq!(table.scan(now).words.len(), 2);
        file.set_len(0).unwrap();
        assert_eq!(region.shared().state(), 0); // which notices
        assert!(region.shared().mapping().is_cut());
        let found = table.scan(now + TICK);
        assert_eq!((found.words.len(), found.has_changes, peer_exits.load(Relaxed)), (0, false, 0));
    }

    /// What is left of a region that was cut short must not end the kernel's walk through the others.
    #[test]
    fn the_kernel_marks_the_words_of_a_process_that_has_a_region_that_was_cut_short() {
        let (dir, ours, _) = in_file();
        let (_other_dir, cut, file) = in_file();
        let paths = [&ours, &cut].map(|region| region.path().unwrap().to_owned());
        drop(cut);
        assert!(staged::in_child(|| {
            let mut regions = paths.each_ref().map(|path| EventsRegion::open_path(path).unwrap());
            let mut ends = regions.each_mut().map(|region| region.split_spsc().unwrap().0);
            ends.iter_mut().for_each(|end| end.attach().unwrap());
            file.set_len(0).unwrap();
            assert!(ends[1].try_send(b"notice").is_err());
            let count = Arc::<AtomicU32>::default();
            let looks = count.clone();
            let _upkeep = Upkeep::start(regions[0].shared(), move || {
                looks.fetch_add(1, Relaxed);
            });
            while count.load(Acquire) < 2 {
                std::thread::sleep(Duration::from_millis(10)); // a scan that began after the cut
            }
            std::mem::forget(ends);
            true // and the process ends here
        }));
        drop(dir);
        if !staged::in_child(|| RobustList::install().is_ok()) {
            return eprintln!("skipped: the kernel refuses robust lists");
        }
        let liveness = word(ours.shared(), 1, offset_of!(Slot, liveness)).load(Acquire);
        assert_ne!(liveness & OWNER_DIED, 0, "{liveness:#x}");
    }

    /// The verdict on a peer, if the questions with bits in `elsewhere` are answered for another file, in
    /// which no process has a lock.
    fn verdict(is_alive: bool, elsewhere: u32) -> bool {
        let asked = Cell::new(0);
        let is_elsewhere = || elsewhere >> asked.replace(asked.get() + 1) & 1 != 0;
        is_surely_free(|| is_elsewhere() || !is_alive, || !is_elsewhere())
    }

    #[test]
    fn no_living_peer_is_gone_unless_the_descriptor_strays_just_when_its_byte_is_asked_for_and_twice()
     {
        for elsewhere in (0..1 << 4).filter(|elsewhere| *elsewhere != 0b0101) {
            assert!(!verdict(true, elsewhere), "gone, elsewhere at {elsewhere:04b}");
        }
        assert!(verdict(false, 0));
    }
}
