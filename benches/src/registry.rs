//! The systems that a program measures.

use crate::actor::{Actor, Role, Side};
use crate::system::{
    CALL_HEAD, CallingSystem, Failure, HandingSystem, Meeting, ProcessSystem, SoloSystem,
    ThreadSystem,
};
use crate::test::Test;
use crate::workload::{
    Answering, Asking, Calls, FanOfThreads, Giving, PairOfThreads, Ping, Pong, Sink, Solo, Source,
    Style, Taking,
};
use crate::{floor, kernel, ours};

/// Tests in which one side asks and the other answers.
pub(crate) const CALLS: &[Test] = &[Test::CallBusy, Test::CallSleep, Test::CallSleepOneCpu];

/// The systems that a program measures, in the order of its tables.
#[derive(Debug, Default)]
pub struct Registry {
    pub(crate) entries: Vec<Entry>,
    pub(crate) looks_at_memory: bool,
}

/// Between whom a system works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Processes,
    Threads,
    Solo,
}

/// A system, as functions that were compiled for it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Where it isn't measured in all that it could.
    tests: Option<&'static [Test]>,
    producers_max: usize,
    batches: bool,
    lends: bool,
    takes: fn(&Meeting) -> bool,
    pub(crate) prepare: fn(&Meeting) -> Result<(), Failure>,
    pub(crate) clean_up: fn(&Meeting),
    pub(crate) actor: fn(&Role) -> Result<Box<dyn Actor>, Failure>,
}

impl Registry {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a system between processes.
    #[must_use]
    pub fn processes<S: ProcessSystem>(self) -> Self {
        self.processes_in::<S>(None)
    }

    /// Adds a system between processes that is measured in some tests only.
    #[must_use]
    pub fn processes_for<S: ProcessSystem>(self, tests: &'static [Test]) -> Self {
        self.processes_in::<S>(Some(tests))
    }

    fn processes_in<S: ProcessSystem>(mut self, tests: Option<&'static [Test]>) -> Self {
        self.entries.push(Entry {
            name: S::NAME,
            kind: Kind::Processes,
            tests,
            producers_max: S::PRODUCERS_MAX,
            batches: S::BATCHES,
            lends: S::LENDS,
            takes: S::takes,
            prepare: S::prepare,
            clean_up: S::clean_up,
            actor: process_actor::<S>,
        });
        self
    }

    /// Adds a system between threads.
    #[must_use]
    pub fn threads<S: ThreadSystem>(mut self) -> Self {
        self.entries.push(Entry {
            name: S::NAME,
            kind: Kind::Threads,
            tests: None,
            producers_max: S::PRODUCERS_MAX,
            batches: S::BATCHES,
            lends: S::LENDS,
            takes: S::takes,
            prepare: |_| Ok(()),
            clean_up: |_| {},
            actor: thread_actor::<S>,
        });
        self
    }

    /// Adds something that one process does alone.
    #[must_use]
    pub fn solo<S: SoloSystem>(mut self, tests: &'static [Test]) -> Self {
        self.entries.push(Entry {
            name: S::NAME,
            kind: Kind::Solo,
            tests: Some(tests),
            producers_max: 1,
            batches: false,
            lends: false,
            takes: |_| true,
            prepare: S::prepare,
            clean_up: S::clean_up,
            actor: |role| {
                role.with_meetings(|there, _| Ok(Box::new(Solo::new(S::start(there)?)) as _))
            },
        });
        self
    }

    /// Adds a way to hand descriptors to another process.
    #[must_use]
    pub fn handing<S: HandingSystem>(mut self) -> Self {
        self.entries.push(Entry {
            name: S::NAME,
            kind: Kind::Processes,
            tests: Some(&[Test::PassHandles]),
            producers_max: 1,
            batches: false,
            lends: false,
            takes: |_| true,
            prepare: |_| Ok(()),
            clean_up: |_| {},
            actor: handing_actor::<S>,
        });
        self
    }

    /// Adds a way to ask another process.
    #[must_use]
    pub fn calling<S: CallingSystem>(mut self) -> Self {
        self.entries.push(Entry {
            name: S::NAME,
            kind: Kind::Processes,
            tests: Some(CALLS),
            producers_max: 1,
            batches: false,
            lends: false,
            takes: |meeting| meeting.size >= 2 * CALL_HEAD,
            prepare: S::prepare,
            clean_up: S::clean_up,
            actor: calling_actor::<S>,
        });
        self
    }

    /// What the machine asks for.
    #[must_use]
    pub fn floors(self) -> Self {
        use Test::{
            CallBusy, CallSleep, CallSleepOneCpu, Create, FanIn, Join, OneWayBusy, PassDescriptors,
            RoundTripBusy, RoundTripSleep, RoundTripSleepOneCpu,
        };
        const STREAM: &[Test] = &[OneWayBusy, FanIn];
        const SLEEP: &[Test] = &[RoundTripSleep, RoundTripSleepOneCpu, CallSleep, CallSleepOneCpu];
        self.processes_for::<floor::Line>(&[RoundTripBusy])
            .processes_for::<floor::FreshLine>(&[RoundTripBusy, CallBusy])
            .processes_for::<floor::FreshLineBare>(&[RoundTripBusy])
            .processes_for::<floor::Stream>(STREAM)
            .processes_for::<floor::FutexWake>(SLEEP)
            .processes_for::<floor::FutexWaitvWake>(SLEEP)
            .processes_for::<floor::EventfdWake>(SLEEP)
            .solo::<floor::OpenMmap>(&[Join])
            .solo::<floor::BareChannel>(&[Create])
            .solo::<floor::PassDescriptors<1>>(&[PassDescriptors])
            .solo::<floor::PassDescriptors<16>>(&[PassDescriptors])
            .handing::<floor::Rights>()
            .handing::<floor::RightsTold>()
    }

    /// The rings of this crate.
    #[must_use]
    pub fn ours(self) -> Self {
        use Test::{Create, FanIn, Join, OneWayBusy, RoundTripBusy, RoundTripInPlace};
        const IN_PLACE: &[Test] = &[RoundTripBusy, RoundTripInPlace, OneWayBusy];
        self.ours_copying()
            .processes_for::<ours::SpscInPlace>(IN_PLACE)
            .processes_for::<ours::SpscSlice>(IN_PLACE)
            .processes_for::<ours::ManyLanes>(&[FanIn])
            .solo::<ours::Join>(&[Join])
            .solo::<ours::CreateChannel>(&[Create])
            .handing::<ours::HandlesOverSpsc>()
            .handing::<ours::NewHandlesOverSpsc>()
            .handing::<ours::HandlesOverMpsc>()
    }

    /// The rings of this crate as they are mostly used, to be measured beside others.
    #[must_use]
    pub fn ours_copying(self) -> Self {
        use Test::{FanIn, OneWayBatch, OneWayBusy, OneWaySpinSleep, RoundTripBusy};
        const LANES: &[Test] = &[RoundTripBusy, OneWayBusy, OneWayBatch, OneWaySpinSleep, FanIn];
        self.processes::<ours::Spsc>()
            .processes_for::<ours::SpscLarge>(&[OneWayBusy, OneWayBatch])
            .processes::<ours::Mpsc>()
            .processes_for::<ours::Lanes>(LANES)
            .processes_for::<ours::Spsc>(CALLS)
            .calling::<ours::ChannelCalls>()
    }

    /// Pipes and sockets.
    #[must_use]
    pub fn kernel(self) -> Self {
        self.processes::<kernel::Pipe>().processes::<kernel::Seqpacket>().kernel_calls()
    }

    /// Sockets by which one process asks another.
    #[must_use]
    pub fn kernel_calls(self) -> Self {
        self.processes_for::<kernel::Seqpacket>(CALLS)
    }

    /// Also looks at allocations and resident bytes. The program's allocator must be
    /// [`Counting`](crate::Counting).
    #[must_use]
    pub fn memory(mut self) -> Self {
        self.looks_at_memory = true;
        self
    }

    /// Whether there is a system of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.name == name)
    }

    /// The system that a child is to be a side of.
    pub(crate) fn find(&self, role: &Role) -> Option<&Entry> {
        let takes = |entry: &Entry| role.with_meetings(|there, _| (entry.takes)(there));
        let is_it = |entry: &&Entry| entry.name == role.system && entry.is_in(role.test);
        self.entries.iter().filter(is_it).find(|entry| takes(entry))
    }
}

impl Entry {
    /// Whether it can be measured in that test, apart from sizes.
    pub(crate) fn is_in(&self, test: Test) -> bool {
        match self.tests {
            Some(tests) => tests.contains(&test),
            None => match test {
                Test::OneWayBatch => self.batches,
                Test::RoundTripInPlace => self.lends,
                Test::FanIn => self.producers_max > 1,
                Test::Join | Test::Create | Test::PassDescriptors | Test::PassHandles => false,
                _ if test.is_call() => false,
                _ => true,
            },
        }
    }

    /// Whether it takes part at that size and with so many producers.
    pub(crate) fn takes(&self, role: &Role) -> bool {
        role.producers <= self.producers_max && role.with_meetings(|there, _| (self.takes)(there))
    }
}

fn style(test: Test) -> Style {
    if test == Test::RoundTripInPlace { Style::Lent } else { Style::Copied }
}

fn calls(test: Test) -> Calls {
    if test == Test::OneWayBatch { Calls::Batched } else { Calls::Single }
}

fn process_actor<S: ProcessSystem>(role: &Role) -> Result<Box<dyn Actor>, Failure> {
    let (size, style, calls) = (role.size, style(role.test), calls(role.test));
    role.with_meetings(|there, back| {
        Ok(match (role.test.is_round_trip(), role.side) {
            (true, Side::Lead) => {
                let ends = (S::sender(there)?, S::receiver(back)?);
                Box::new(Ping::new(ends, size, style)) as Box<dyn Actor>
            }
            (true, _) => {
                let receiver = S::receiver(there)?;
                Box::new(Pong::new((S::sender(back)?, receiver), size, style))
            }
            (false, Side::Lead) => {
                Box::new(Source::new(S::sender(there)?, size, calls, role.index))
            }
            (false, _) => Box::new(Sink::new(S::receiver(there)?, size, calls, role.producers)),
        })
    })
}

fn handing_actor<S: HandingSystem>(role: &Role) -> Result<Box<dyn Actor>, Failure> {
    role.with_meetings(|there, back| {
        Ok(match role.side {
            Side::Lead => {
                let giver = S::giver(there)?;
                Box::new(Giving::<S>::new(giver, role.size, back)?) as Box<dyn Actor>
            }
            _ => Box::new(Taking::<S>::new(S::taker(there)?, role.size, back)?),
        })
    })
}

fn calling_actor<S: CallingSystem>(role: &Role) -> Result<Box<dyn Actor>, Failure> {
    role.with_meetings(|there, _| {
        Ok(match role.side {
            Side::Lead => {
                Box::new(Asking::<S>::new(S::caller(there)?, role.size)) as Box<dyn Actor>
            }
            _ => Box::new(Answering::<S>::new(S::answerer(there)?, role.size)),
        })
    })
}

fn thread_actor<S: ThreadSystem>(role: &Role) -> Result<Box<dyn Actor>, Failure> {
    let (size, style, calls) = (role.size, style(role.test), calls(role.test));
    let cpus = (role.cpu, role.other_cpu);
    role.with_meetings(|there, back| {
        let (mut senders, receiver) = S::ends(there)?;
        if !role.test.is_round_trip() {
            let sources = senders.into_iter().enumerate();
            let sources = sources.map(|(index, tx)| Source::new(tx, size, calls, index)).collect();
            let sink = Sink::new(receiver, size, calls, role.producers);
            return Ok(Box::new(FanOfThreads { sources, sink, cpus }) as Box<dyn Actor>);
        }
        let (mut back_senders, back_receiver) = S::ends(back)?;
        let none = || Failure::from("the system made no sender");
        let (tx, back_tx) = (senders.pop().ok_or_else(none)?, back_senders.pop().ok_or_else(none)?);
        let lead = Ping::new((tx, back_receiver), size, style);
        let follow = Pong::new((back_tx, receiver), size, style);
        Ok(Box::new(PairOfThreads { lead, follow, cpus }))
    })
}
