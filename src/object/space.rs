//! Whether writing makes sense, as the two halves of an end know it together.

use std::sync::Mutex;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::task::Waker;

use crate::ends::NotSent;
use crate::mem::RingSpan;
use crate::mutex::lock;
use crate::ring::doorbell::{Polled, SpaceWanted, is_comfortable, notify_of_signals, poll};
use crate::ring::{Memory, Ring, Word};

/// What the sending half tells the receiving one, which knows the signals.
#[derive(Debug)]
pub(super) struct Space {
    /// The ring on which this end sends. It keeps the mapping, and not the end.
    ring: Ring<RingSpan>,
    /// What the last message wanted that was refused, unless so much has been seen since.
    refused: Mutex<Option<SpaceWanted>>,
    /// Whether there is one.
    is_short: AtomicBool,
    /// Whether a write has found that the peer has gone.
    has_peer_gone: AtomicBool,
    /// Told if either becomes so.
    observer: Mutex<Option<Waker>>,
    /// How often something that waited for space was told.
    tellings: AtomicU32,
}

impl Space {
    pub(super) fn new(ring: Ring<RingSpan>) -> Self {
        let (is_short, has_peer_gone) = (AtomicBool::new(false), AtomicBool::new(false));
        let (refused, observer, tellings) = <_>::default();
        Self { ring, refused, is_short, has_peer_gone, observer, tellings }
    }

    /// Notes why a message was not sent, for the signals: enough space is an eighth of the ring, or more if the message
    /// is longer. Gives whom to tell once there is no lock.
    pub(super) fn note(&self, error: &NotSent) -> Option<Waker> {
        let is_new = match error {
            NotSent::Full(wanted) => {
                *lock(&self.refused) = Some(SpaceWanted { needed: wanted.comfortable, ..*wanted });
                !self.is_short.swap(true, Release)
            }
            NotSent::Disconnected => !self.has_peer_gone.swap(true, Relaxed),
            _ => false,
        };
        if is_new { lock(&self.observer).clone() } else { None }
    }

    /// Has `observer` told of what is noted from now on.
    pub(super) fn set_observer(&self, observer: Waker) {
        let before = lock(&self.observer).replace(observer);
        drop(before);
    }

    /// What is still missing.
    pub(super) fn missing(&self) -> Option<SpaceWanted> {
        if !self.is_short.load(Acquire) {
            return None;
        }
        let mut refused = lock(&self.refused);
        if refused.is_some_and(|wanted| is_comfortable(&self.ring, &wanted)) {
            *refused = None;
        }
        if refused.is_none() {
            self.is_short.store(false, Release);
        }
        *refused
    }

    /// Whether a write has found that the peer has gone.
    pub(super) fn has_peer_gone(&self) -> bool {
        self.has_peer_gone.load(Relaxed)
    }

    /// Notes that what stood for space has ended.
    pub(super) fn note_telling(&self) {
        self.tellings.fetch_add(1, Release);
    }

    pub(super) fn tellings(&self) -> u32 {
        self.tellings.load(Acquire)
    }

    /// Notifies the other end of a change of its signals.
    pub(super) fn notify_peer(&self) {
        notify_of_signals(&self.ring);
    }

    /// Whether there is something that the other end has not taken yet.
    pub(super) fn is_unread_there(&self) -> bool {
        poll(&self.ring, self.ring.memory.load(Word::Head, Acquire)) == Polled::Something
    }
}
