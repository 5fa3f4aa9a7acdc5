//! Ends that come and go.

use tombolo::{Error, EventsRegion};

use super::context::Context;
use super::play::{Acquaintance, Kind, Play, Rx, Tx};
use crate::Failure;

/// Clones of one sender.
const CLONES: usize = 3;

impl<K: Kind> Play<K> {
    /// Lets an end come or go.
    pub(super) fn change_ends(
        &mut self,
        region: &mut EventsRegion,
        context: &mut Context,
    ) -> Result<(), Failure> {
        match context.rng.below(10) {
            0 | 1 if self.rx.is_some() => {
                self.drop_receiver(context);
                Ok(())
            }
            0..4 => self.attach_receiver(region, context),
            4 | 5 if !self.txs.is_empty() => {
                self.drop_sender(context);
                Ok(())
            }
            6 | 7 => self.clone_sender(context),
            _ => self.attach_sender(region, context),
        }
    }

    /// Lets both ends come that are not there.
    pub(super) fn attach_all(
        &mut self,
        region: &mut EventsRegion,
        context: &mut Context,
    ) -> Result<(), Failure> {
        self.attach_receiver(region, context)?;
        if self.txs.is_empty() { self.attach_sender(region, context) } else { Ok(()) }
    }

    pub(super) fn attach_receiver(
        &mut self,
        region: &mut EventsRegion,
        context: &mut Context,
    ) -> Result<(), Failure> {
        if self.rx.is_some() {
            return Ok(());
        }
        self.note(context, "receiver attached");
        let (_, mut end) = K::split(region)?;
        end.attach()?;
        self.rx = Some(Rx { end, senders: Acquaintance::new(!self.txs.is_empty()) });
        self.txs.iter().for_each(|tx| tx.receivers.meet());
        Ok(())
    }

    pub(super) fn drop_receiver(&mut self, context: &mut Context) {
        self.note(context, "receiver dropped");
        self.rx = None;
        self.lines.iter_mut().for_each(|line| line.lose_handles());
    }

    /// Lets all senders go, takes what they sent, and waits until the receiver is told.
    pub(super) fn see_senders_off(&mut self, context: &mut Context) -> Result<(), Failure> {
        while !self.txs.is_empty() {
            self.drop_sender(context);
        }
        while self.rx.is_some() && !self.is_empty() {
            self.receive(context)?;
        }
        self.wait_for_departure(context)
    }

    /// Lets so many senders come that there is no place for another: of lanes one is free, but has
    /// messages in it still. Gives whether that could be done.
    pub(super) fn fill_places(
        &mut self,
        region: &mut EventsRegion,
        context: &mut Context,
    ) -> Result<bool, Failure> {
        while self.has_place() {
            self.attach_sender(region, context)?;
        }
        if self.has_lanes() && !self.has_left() {
            let is_to_go = |tx: &Tx<K>| !self.lines[tx.line].is_empty();
            let Some(index) = self.txs.iter().position(is_to_go) else { return Ok(false) };
            self.note(context, "sender dropped");
            self.txs.swap_remove(index);
        }
        Ok(true)
    }

    fn drop_sender(&mut self, context: &mut Context) {
        self.note(context, "sender dropped");
        let index = context.rng.below(self.txs.len() as u64) as usize;
        self.txs.swap_remove(index);
    }

    /// Lines of which no sender has the end, and whose messages were all taken.
    fn free_lines(&self) -> Vec<usize> {
        let is_taken = |line: &usize| self.txs.iter().any(|tx| tx.line == *line);
        let lines = (0..self.lines.len()).filter(|line| !is_taken(line));
        lines.filter(|&line| self.lines[line].is_empty()).collect()
    }

    fn has_lanes(&self) -> bool {
        self.lines.len() > 1
    }

    /// Whether one more sender, of a new endpoint, finds a place.
    fn has_place(&self) -> bool {
        if self.has_lanes() {
            return !self.free_lines().is_empty();
        }
        let is_first = |(index, tx): &(usize, &Tx<K>)| {
            self.txs[..*index].iter().all(|other| !other.receivers.is_shared_with(&tx.receivers))
        };
        self.txs.iter().enumerate().filter(is_first).count() < self.places
    }

    pub(super) fn attach_sender(
        &mut self,
        region: &mut EventsRegion,
        context: &mut Context,
    ) -> Result<(), Failure> {
        if !self.has_place() {
            return Ok(());
        }
        self.note(context, "sender attached");
        let (mut end, _) = K::split(region)?;
        end.attach()?;
        let receivers = Acquaintance::new(self.rx.is_some());
        self.add_sender(Tx { end, line: 0, receivers })
    }

    fn clone_sender(&mut self, context: &mut Context) -> Result<(), Failure> {
        let Some(tx) = self.txs.first() else { return Ok(()) };
        let clones = self.txs.iter().filter(|other| other.receivers.is_shared_with(&tx.receivers));
        if if self.has_lanes() { !self.has_place() } else { clones.count() >= CLONES } {
            return Ok(());
        }
        let Some(mut end) = K::clone_of(&tx.end) else { return Ok(()) };
        let shared = tx.receivers.clone();
        self.note(context, "clone");
        end.attach()?;
        if self.has_lanes() {
            let receivers = Acquaintance::new(self.rx.is_some());
            return self.add_sender(Tx { end, line: 0, receivers });
        }
        self.txs.push(Tx { end, line: 0, receivers: shared });
        Ok(())
    }

    /// Takes a sender in that has just got an endpoint of its own.
    fn add_sender(&mut self, mut tx: Tx<K>) -> Result<(), Failure> {
        let is_its = |&line: &usize| self.lines[line].ring == tx.end.ring();
        let line = self.free_or_first().into_iter().find(is_its);
        tx.line = line.ok_or_else(|| format!("a sender of ring {}", tx.end.ring()))?;
        if (tx.end.max_message(), tx.end.max_handles()) != (self.max_message, self.max_handles) {
            return Err("a sender has other limits than the region".into());
        }
        self.txs.push(tx);
        if let Some(rx) = &self.rx {
            rx.senders.meet();
        }
        Ok(())
    }

    fn free_or_first(&self) -> Vec<usize> {
        if self.has_lanes() { self.free_lines() } else { vec![0] }
    }

    /// Asks for ends that are taken. Each refusal takes 100 ms.
    pub(super) fn ask_for_taken(
        &mut self,
        region: &mut EventsRegion,
        context: &mut Context,
    ) -> Result<(), Failure> {
        self.note(context, "end taken");
        let (mut tx, mut rx) = K::split(region)?;
        match rx.attach() {
            Err(Error::Busy { role: "receiver", .. }) if self.rx.is_some() => {}
            other => return Err(format!("a second receiver: {other:?}").into()),
        }
        if self.has_place() {
            return Ok(());
        }
        match tx.attach() {
            Err(Error::Busy { role: "sender", .. }) if !self.has_left() => Ok(()),
            Err(Error::LaneNotEmpty { ring, .. }) if self.is_left(ring) => {
                self.count(context, "lane not empty");
                Ok(())
            }
            other => Err(format!("one sender too many: {other:?}").into()),
        }
    }

    /// Whether a lane without a sender has messages still.
    pub(super) fn has_left(&self) -> bool {
        self.lines.iter().any(|line| self.is_left(line.ring))
    }

    fn is_left(&self, ring: u32) -> bool {
        let mut lines = self.lines.iter().enumerate();
        let line = lines.find(|(_, line)| line.ring == ring);
        self.has_lanes()
            && line.is_some_and(|(index, line)| {
                !line.is_empty() && self.txs.iter().all(|tx| tx.line != index)
            })
    }

    pub(super) fn note(&self, context: &mut Context, what: &str) {
        context.trace(|| format!("{}: {what}", self.name));
        self.count(context, what);
    }
}
