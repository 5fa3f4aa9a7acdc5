//! One look at everything that is watched, and what to sleep on until the next.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::peers::Step;
use super::{Start, Table, Watched};
use crate::os::futex::{Sleeping, WORDS_MAX};
use crate::region::Region;
use crate::region::slot_table::{byte_is_held, is_seen_as};

/// How long at the most until the next look, where a liveness word covers every peer.
const TICK: Duration = Duration::from_secs(1);
/// And where not.
const TICK_UNCOVERED: Duration = Duration::from_millis(250);

/// What a look found.
#[derive(Debug)]
pub(super) struct Found {
    /// The words to sleep on, one place left for the watcher's own.
    pub(super) words: Vec<Sleeping>,
    /// When to look again at the latest.
    pub(super) next: Instant,
    /// Whether anybody had come or gone.
    pub(super) has_news: bool,
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
        let mut found =
            Found { words: Vec::new(), next: now + TICK, has_news: false, has_uncovered: false };
        self.regions().for_each(|region| {
            // Before the slots are looked at: whatever changes from here on ends the sleep.
            found.sleep_on(Sleeping::at_present(region.membership()));
        });
        let is_tick = self.next_tick.is_none_or(|tick| tick <= now);
        for watched in self.watched.iter_mut().filter(|watched| !watched.is_cut()) {
            watched.scan(now, &mut found);
            if is_tick {
                watched.tick(&mut found);
            }
        }
        let tick = now + if found.has_uncovered { TICK_UNCOVERED } else { TICK };
        let tick = self.next_tick.filter(|_| !is_tick).map_or(tick, |next| next.min(tick));
        self.next_tick = Some(tick);
        found.next = found.next.min(tick);
        found
    }

    /// The regions watched, each once.
    fn regions(&self) -> impl Iterator<Item = &Region> {
        let is_first = |index: usize| {
            let region = &self.watched[index].region;
            self.watched[..index].iter().all(|other| !Arc::ptr_eq(&other.region, region))
        };
        let whole = self.watched.iter().enumerate().filter(|(_, watched)| !watched.is_cut());
        whole.filter(move |(index, _)| is_first(*index)).map(|(_, watched)| &*watched.region)
    }
}

impl Watched {
    fn is_cut(&self) -> bool {
        self.region.mapping().is_cut()
    }

    fn scan(&mut self, now: Instant, found: &mut Found) {
        let mut departed = false;
        let region = self.region.clone();
        for slot in self.peers.slots.clone() {
            let mut step = self.peers.look(&region, slot, now, &mut || departed = true);
            if matches!(step, Step::Probe) {
                found.has_news = true;
                if self.is_free(slot..slot + 1) {
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
            self.tell();
        }
    }

    /// Asks the kernel about all peers at once, and about ourselves.
    fn tick(&mut self, found: &mut Found) {
        if !self.is_self_seen() {
            self.tell(); // our own lock is lost, as whoever waits will find
        } else if self.peers.is_anybody_there() && self.is_free(self.peers.slots.clone()) {
            self.peers.all_gone();
            found.has_news = true;
            self.tell();
        }
    }

    /// Whether the kernel says, and can be believed, that nobody holds a byte of `slots`.
    fn is_free(&self, slots: Range<u16>) -> bool {
        self.is_self_seen()
            && byte_is_held(&self.region, slots).is_ok_and(|is_held| !is_held)
            && self.is_self_seen()
    }

    fn is_self_seen(&self) -> bool {
        is_seen_as(&self.region, self.own).unwrap_or(false)
    }
}
