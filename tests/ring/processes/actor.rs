//! The processes: what each does next, on the real code.

use tombolo_abi::LockWord;

use super::super::replay::Replay;
use super::bridge::{self, How, Reactor};
use super::lane::Lane;
use super::lanes::Lanes;
use super::locked::Locked;
use super::receiver::Receiver;
use super::setup::Setup;
use super::single::Single;

/// What a producer does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Job {
    /// Sends a message of so many bytes, with its number in each.
    Send(u32),
    /// Two of so many bytes, at once.
    Batch(u32),
    /// Starts to send so many bytes, and unwinds out of copying them.
    Abort(u32),
}

/// What a producer does that finds no space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WhenFull {
    Polls,
    Sleeps,
    /// Sleeps, but may give up.
    MayGiveUp,
    /// Waits so while a thread of its process sleeps.
    Stands(How),
}

/// A process between two operations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Actor {
    /// A producer of an MPSC ring.
    Locked(Locked),
    /// The producer of an SPSC ring.
    Single(Single),
    /// The consumer of either.
    Receiver(Receiver),
    /// The producer of a lane.
    Lane(Lane),
    /// The consumer of lanes.
    Lanes(Box<Lanes>),
    /// What sleeps in the place of one of them.
    Reactor(Reactor),
    /// A blocked producer that arms and gives up.
    Armer,
    /// It does nothing more.
    Done,
}

/// What an operation that returned has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It has sent so many messages in all.
    Sent(u8),
    /// It copied this message, from this position.
    Took(u64, u8),
    /// It found no space.
    Refused,
    /// It unwound.
    Unwound,
    /// It let the producer go on without fences.
    Relaxed,
    /// It stopped looking at a lane.
    Forgot,
    Nothing,
}

pub(super) type Ran = Result<(Actor, Event), String>;

impl Actor {
    /// Runs its next operation.
    pub(super) fn run(&self, replay: &Replay<'_>, setup: &Setup) -> Ran {
        match self {
            Self::Locked(locked) => locked.run(replay, setup),
            Self::Single(single) => single.run(replay, setup),
            Self::Receiver(receiver) => receiver.run(replay, setup),
            Self::Lane(lane) => lane.run(replay, setup),
            Self::Lanes(lanes) => lanes.run(replay, setup),
            Self::Reactor(reactor) => Ok(reactor.run(replay, setup)),
            Self::Armer => Ok(bridge::arm_and_give_up(&setup.ring(replay))),
            Self::Done => unreachable!("it does nothing more"),
        }
    }

    /// Whether it receives.
    pub(super) fn is_receiver(&self) -> bool {
        matches!(self, Self::Receiver(_) | Self::Lanes(_))
    }

    /// Whether it sends.
    pub(super) fn is_producer(&self) -> bool {
        matches!(self, Self::Locked(_) | Self::Single(_) | Self::Lane(_))
    }

    /// The slot whose lock byte it holds from the start.
    pub(super) fn held_from_start(&self) -> Option<u16> {
        match self {
            Self::Locked(locked) => locked.held_from_start(),
            _ => None,
        }
    }
}

/// The owner of `slot` in `incarnation`.
pub(super) fn id(slot: u16, incarnation: u32) -> LockWord {
    LockWord { slot, incarnation }
}

/// The payload of message `number`.
pub(super) fn fill(number: u8, len: u32) -> Vec<u8> {
    vec![number; len as usize]
}
