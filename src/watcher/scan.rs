//! One look at everything that is watched, and what to sleep on until the next.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peers::Step;
use super::{Coverage, Start, Table, Task, Watched};
use crate::os::futex::{Sleeping, WORDS_MAX};
use crate::region::Region;
use crate::region::slot_table::{byte_is_held, is_seen_as};

/// How long at the most until the next look, where a liveness word covers every peer.
const TICK: Duration = Duration::from_secs(1);
/// And where not.
pub(super) const TICK_UNCOVERED: Duration = Duration::from_millis(250);

/// Something to be done every so often.
#[derive(Debug, Default)]
pub(super) struct Tick {
    /// When it is due; at once where that was never said.
    due: Option<Instant>,
}

impl Tick {
    /// Whether it is due, which it then no longer is.
    fn is_due(&mut self, now: Instant) -> bool {
        self.due.take_if(|due| *due <= now);
        self.due.is_none()
    }

    /// When it is due next: `every` so often, or sooner where that was said before.
    fn next(&mut self, now: Instant, every: Duration) -> Instant {
        let latest = now + every;
        *self.due.insert(self.due.map_or(latest, |due| due.min(latest)))
    }
}

/// What a look found.
#[derive(Debug)]
pub(super) struct Found {
    /// The words to sleep on, one place left for the watcher's own.
    pub(super) words: Vec<Sleeping>,
    /// When to look again at the latest.
    pub(super) next: Instant,
    /// Whether anybody had come or gone.
    pub(super) has_news: bool,
    /// What is to be done now, without the table's lock.
    pub(super) due: Vec<Task>,
    /// Whether there is a peer whose death no word would tell.
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
    /// Looks at everything, tells who is to be told, and says what to sleep on.
    pub(super) fn scan(&mut self, now: Instant) -> Found {
        if let Start::Done(Some(list)) = &mut self.start {
            list.unlink_cut();
        }
        let has_uncovered = self.coverage == Coverage::ByTick;
        let (words, due) = (Vec::new(), Vec::new());
        let mut found = Found { words, next: now + TICK, has_news: false, due, has_uncovered };
        let present = |watched: &Watched| watched.region.upgrade();
        let regions: Vec<_> = self.watched.iter().map(present).collect();
        distinct(&regions).for_each(|region| {
            // Before the slots are looked at: whatever changes from here on ends the sleep.
            found.sleep_on(Sleeping::at_present(region.membership()));
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
            let mut step = self.peers.look(region, slot, now, &mut || departed = true);
            if matches!(step, Step::Probe) {
                if self.is_free(region, slot..slot + 1) {
                    self.peers.gone(slot);
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
            found.has_news = true;
            self.tell(region);
        }
    }

    /// Asks the kernel about all peers at once.
    fn ask_after_all(&mut self, region: &Region, found: &mut Found) {
        if self.peers.is_anybody_there() && self.is_free(region, self.peers.slots.clone()) {
            self.peers.all_gone();
            found.has_news = true;
            self.tell(region);
        }
    }

    /// Asks the kernel about each peer of whom no word tells, and whether it still shows our own lock:
    /// where it doesn't, whoever waits will find that out, too.
    fn ask_after_each(&mut self, region: &Region, found: &mut Found) {
        let mut departed = !self.is_self_seen(region);
        for slot in self.peers.uncovered(region) {
            if self.is_free(region, slot..slot + 1) {
                self.peers.gone(slot);
                (departed, found.has_news) = (true, true);
            }
        }
        if departed {
            self.tell(region);
        }
    }

    /// Whether the kernel says that nobody holds a byte of `slots`, and can be believed: that is asked
    /// only where it does.
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

    use super::*;

    /// What is said of a peer, if the questions `elsewhere` are answered for another file, in which no
    /// process has a lock.
    fn verdict(is_alive: bool, elsewhere: Range<u32>) -> bool {
        let asked = Cell::new(0);
        let is_elsewhere = || elsewhere.contains(&asked.replace(asked.get() + 1));
        is_surely_free(|| is_elsewhere() || !is_alive, || !is_elsewhere())
    }

    #[test]
    fn nobody_alive_is_gone_whenever_the_descriptor_stands_for_another_file() {
        for (start, end) in (0..5).flat_map(|start| (start..6).map(move |end| (start, end))) {
            assert!(!verdict(true, start..end), "gone, elsewhere from {start} to {end}");
        }
        assert!(verdict(false, 0..0));
    }
}
