//! What is measured.

use clap::ValueEnum;

use crate::system::Waiting;

/// A test. Its name in tables and files is its name here, with dashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, ValueEnum)]
pub enum Test {
    /// There and back, both sides looking all the time.
    RoundTripBusy,
    /// There and back, both sides sleeping whenever they wait, on two processors.
    RoundTripSleep,
    /// The same on one processor.
    RoundTripSleepOneCpu,
    /// There and back with messages built in place and not touched.
    RoundTripInPlace,
    /// As many as go through, both sides looking all the time.
    OneWayBusy,
    /// The same, many messages in one call.
    OneWayBatch,
    /// The same one at a time, both sides waiting as the system does it of its own accord.
    OneWaySpinSleep,
    /// Several senders on one processor, one receiver on another, all looking all the time.
    FanIn,
    /// A request and its reply, both sides looking all the time.
    CallBusy,
    /// The same, both sides sleeping whenever they wait, on two processors.
    CallSleep,
    /// The same on one processor.
    CallSleepOneCpu,
    /// Opening what another process has made.
    Join,
    /// Making both ends, the first message, and dropping them.
    Create,
    /// Descriptors through a socket and closing them.
    PassDescriptors,
    /// A message with handles to another process, closed there and here.
    PassHandles,
}

use Test::*;

impl Test {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 15] = [
        RoundTripBusy,
        RoundTripSleep,
        RoundTripSleepOneCpu,
        RoundTripInPlace,
        OneWayBusy,
        OneWayBatch,
        OneWaySpinSleep,
        FanIn,
        CallBusy,
        CallSleep,
        CallSleepOneCpu,
        Join,
        Create,
        PassDescriptors,
        PassHandles,
    ];

    pub(crate) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().into())
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            RoundTripBusy => "there and back, busy-poll",
            RoundTripSleep => "there and back, both sides always sleep, two CPUs",
            RoundTripSleepOneCpu => "there and back, both sides always sleep, one CPU",
            RoundTripInPlace => "there and back, built in place and not touched, busy-poll",
            OneWayBusy => "one way, busy-poll",
            OneWayBatch => "one way, many in a call, busy-poll",
            OneWaySpinSleep => "one way, each side spins and then sleeps",
            FanIn => "several senders on one CPU, one receiver on another, busy-poll",
            CallBusy => "a request and its reply, busy-poll",
            CallSleep => "a request and its reply, both sides always sleep, two CPUs",
            CallSleepOneCpu => "a request and its reply, both sides always sleep, one CPU",
            Join => "opening what another process has made",
            Create => "making both ends, the first message, dropping them",
            PassDescriptors => "descriptors through a socket, received and closed",
            PassHandles => "a message with handles to another process, closed there and here",
        }
    }

    pub(crate) fn waiting(self) -> Waiting {
        match self {
            RoundTripSleep | RoundTripSleepOneCpu | CallSleep | CallSleepOneCpu => Waiting::Sleep,
            OneWaySpinSleep => Waiting::SpinSleep,
            _ => Waiting::Busy,
        }
    }

    /// Bytes of a message, or how many handles it has.
    pub(crate) fn sizes(self) -> &'static [usize] {
        match self {
            RoundTripBusy | OneWayBusy | OneWayBatch | OneWaySpinSleep => {
                &[8, 64, 256, 1024, 4096, 65536]
            }
            RoundTripSleep | RoundTripSleepOneCpu => &[8, 64, 4096],
            CallBusy => &[64, 4096],
            CallSleep | CallSleepOneCpu => &[8, 64, 4096], // 8 for a floor that has no more
            RoundTripInPlace => &[64, 65536],
            FanIn => &[64],
            Join | Create | PassDescriptors => &[0],
            PassHandles => &[0, 1, 16],
        }
    }

    pub(crate) fn producers(self) -> &'static [usize] {
        if self == FanIn { &[1, 2, 4] } else { &[1] }
    }

    /// The system that shows what the machine asks for.
    pub(crate) fn floor(self) -> Option<&'static str> {
        match self {
            RoundTripBusy => Some("fresh-line"),
            RoundTripSleep | RoundTripSleepOneCpu => Some("futex-wake"),
            OneWayBusy | OneWayBatch | OneWaySpinSleep | FanIn => Some("stream"),
            CallBusy | CallSleep | CallSleepOneCpu => Some("tombolo-spsc"),
            Join => Some("open-mmap"),
            Create => Some("bare-channel"),
            PassHandles => Some("scm-rights"),
            RoundTripInPlace | PassDescriptors => None,
        }
    }

    pub(crate) fn is_round_trip(self) -> bool {
        matches!(self, RoundTripBusy | RoundTripSleep | RoundTripSleepOneCpu | RoundTripInPlace)
            || self.is_call()
    }

    /// Whether it is a round trip in which one side asks and the other answers.
    pub(crate) fn is_call(self) -> bool {
        matches!(self, CallBusy | CallSleep | CallSleepOneCpu)
    }

    pub(crate) fn is_one_way(self) -> bool {
        matches!(self, OneWayBusy | OneWayBatch | OneWaySpinSleep | FanIn)
    }

    /// Cells with the same key take turns.
    pub(crate) fn turn(self, size: usize) -> (Self, usize) {
        match self {
            RoundTripBusy | CallBusy | PassHandles => (self, size),
            OneWayBusy | OneWayBatch | OneWaySpinSleep => (OneWayBusy, size),
            _ => (self, 0),
        }
    }
}
