//! What a search explores: the processes, their ring, what may happen to them, and what is broken
//! on purpose.

use super::super::super::Ring;
use super::super::replay::Replay;
use super::actor::Actor;
use super::words::Words;
use tombolo_abi::RecordRules;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    None,
    /// Whoever takes a lock over goes on at the stored tail.
    NoRoll,
    /// No zero is ever stored to the data area.
    NoZeroing,
    /// The lock is given back by a plain store.
    PlainUnlock,
    /// What a dead holder published is not told of.
    SilentTransfer,
    /// An attacher recovers in the name of the slot's dead owner.
    RecoversInPlace,
    /// An attacher uses its new name before the slot knows it.
    NameBeforeIncarnation,
    /// Whoever probes takes the byte for a moment.
    ProbeTakesByte,
    /// A producer asked to fence doesn't.
    NoProducerFence,
    /// A consumer doesn't fence after arming.
    NoArmingFence,
    /// Where the kernel refuses barriers, only the first arming is taken for untrustworthy.
    TrustsAtOnce,
    /// A request for fences found in the word is taken for one's own.
    BelievesRequest,
    /// A consumer looks at the header before it looks at the lock.
    HeaderBeforeLock,
    /// Armings of blocked producers are not counted.
    NoArmCount,
    /// A consumer has nothing to tell before it has freed something itself.
    SuccessorWithoutNews,
    /// A consumer that finds the ring empty tells nobody.
    SilentWhenEmpty,
    /// A consumer doesn't fence between freeing and looking after blocked producers.
    NoFreeingFence,
    /// A lane becomes idle at the first poll after its bit was cleared.
    ForgetsAtOnce,
    /// A consumer of lanes looks at the active ones only before it sleeps.
    NoScan,
    /// A consumer of lanes that learns of a death looks at the active ones only.
    NoScanAfterDeath,
    /// A consumer of lanes takes those for empty in which it finds nothing when it attaches.
    BelievesSummary,
    /// A blocked producer's poll for space overtakes its arming.
    LookBeforeArming,
    /// Who sleeps in an end's place goes by having been woken, not by the word.
    BridgesWhenWoken,
    /// Who sleeps in a producer's place goes by the armed bit alone, not by the space.
    BridgesByBit,
    /// Who sleeps in an end's place loads the word that it sleeps on without the lock.
    LoadsWordLast,
    /// A descriptor is cleared when the arming stands already.
    ClearsLast,
    /// An arming stands, whatever has become of its word meanwhile.
    TrustsItsArming,
    /// A consumer that waits elsewhere looks before its arming, and not again.
    LooksBeforeArmingOnly,
}

/// What becomes of a barrier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Barriers {
    Work,
    /// The kernel says no.
    Refused,
    /// The kernel says yes and does nothing.
    Pretended,
}

/// Where processes are killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Killed {
    Anywhere,
    /// Between taking the lock and storing that it is free.
    UnderLock,
}

/// What a search explores.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) capacity: u64,
    pub(super) actors: Vec<Actor>,
    /// Which of them may be killed, and how many all in all.
    pub(super) killable: &'static [usize],
    pub(super) kills: u8,
    pub(super) killed: Killed,
    pub(super) barriers: Barriers,
    /// Which of them barriers don't reach.
    pub(super) unregistered: &'static [usize],
    /// Whether the consumer's process watches for deaths.
    pub(super) is_watched: bool,
    /// How many short sleeps end by themselves although somebody else could go on.
    pub(super) naps: u8,
    /// How often producers may arm, and armings stand, all in all; if they would more often, a run is cut
    /// off.
    pub(super) armings: u8,
    pub(super) mutant: Mutant,
    pub(super) order: Order,
}

/// Which steps are tried first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Steps that nobody else can see go first, alone: they commute with all others.
    UnseenFirst,
    /// All steps, in every order.
    Any,
}

impl Setup {
    pub(super) fn new(capacity: u64, actors: Vec<Actor>) -> Self {
        Self {
            capacity,
            actors,
            killable: &[],
            kills: 0,
            killed: Killed::Anywhere,
            barriers: Barriers::Work,
            unregistered: &[],
            is_watched: true,
            naps: 1,
            armings: 6,
            mutant: Mutant::None,
            order: Order::UnseenFirst,
        }
    }

    pub(super) fn kill(self, kills: u8, killable: &'static [usize]) -> Self {
        Self { kills, killable, ..self }
    }

    pub(super) fn mutant(self, mutant: Mutant) -> Self {
        Self { mutant, ..self }
    }

    pub(super) fn rules(&self) -> RecordRules {
        let max_message = self.capacity as u32;
        RecordRules { capacity: self.capacity, align: 8, max_message, max_handles: 0, key: 0x5eed }
    }

    /// The ring, over the words that `replay` answers for.
    pub(super) fn ring<'a>(&self, replay: &'a Replay<'a>) -> Ring<Words<'a>> {
        self.lane(replay, 0)
    }

    /// A lane, over the words that `replay` answers for.
    pub(super) fn lane<'a>(&self, replay: &'a Replay<'a>, lane: u8) -> Ring<Words<'a>> {
        Ring { memory: Words::new(replay, lane), rules: self.rules() }
    }
}
