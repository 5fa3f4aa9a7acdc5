//! How a waiter waits: in a call that blocks, or elsewhere, by an end's readiness.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo::Readiness;

use crate::Failure;

/// How a waiter waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Blocks,
    Level,
    Edge,
    Poll,
    Task,
}

impl How {
    /// All but the call that blocks.
    pub(crate) const ELSEWHERE: [Self; 4] = [Self::Level, Self::Edge, Self::Poll, Self::Task];
    const ALL: [Self; 5] = [Self::Blocks, Self::Level, Self::Edge, Self::Poll, Self::Task];

    /// As [`Self::name`] says it.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|how| how.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Blocks => "blocking",
            Self::Level => "epoll",
            Self::Edge => "epoll-edges",
            Self::Poll => "poll",
            Self::Task => "task",
        }
    }
}

/// What waits for one end.
#[derive(Debug)]
pub(crate) struct Waiting {
    ready: Readiness,
    means: Means,
}

#[derive(Debug)]
enum Means {
    Epoll(OwnedFd),
    Poll,
    Task(Arc<Flag>, Waker),
}

impl Waiting {
    /// Waits so for what `ready` tells of.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn new(ready: Readiness, how: How) -> Result<Self, Failure> {
        let means = match how {
            How::Level => Means::Epoll(epoll_of(&ready, EventFlags::IN)?),
            How::Edge => Means::Epoll(epoll_of(&ready, EventFlags::IN | EventFlags::ET)?),
            How::Poll => Means::Poll,
            How::Task => {
                let flag = Arc::<Flag>::default();
                Means::Task(flag.clone(), flag.into())
            }
            How::Blocks => return Err("a call that blocks waits by itself".into()),
        };
        Ok(Self { ready, means })
    }

    /// Waits until it is ready, for `limit` at most. Gives whether it is.
    ///
    /// # Errors
    /// The system's refusal.
    pub(crate) fn wait(&self, limit: Duration) -> Result<bool, Failure> {
        let time = Timespec::try_from(limit)?;
        let count = match &self.means {
            Means::Epoll(epoll) => {
                let mut events =
                    [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
                epoll::wait(epoll, &mut events[..], Some(&time))?
            }
            Means::Poll => poll(&mut [PollFd::new(&self.ready, PollFlags::IN)], Some(&time))?,
            Means::Task(flag, waker) => {
                match self.ready.poll_ready(&mut Context::from_waker(waker)) {
                    Poll::Ready(()) => 1,
                    Poll::Pending => flag.wait(limit).into(),
                }
            }
        };
        Ok(count > 0)
    }
}

fn epoll_of(ready: &Readiness, flags: EventFlags) -> Result<OwnedFd, Failure> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, ready, EventData::new_u64(0), flags)?;
    Ok(epoll)
}

/// What a waker sets.
#[derive(Debug, Default)]
struct Flag(Mutex<bool>, Condvar);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.1.notify_one();
    }
}

impl Flag {
    /// Waits until it is set, and takes it back; `false` if it was not until `limit` was over.
    fn wait(&self, limit: Duration) -> bool {
        let is_set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.1.wait_timeout_while(is_set, limit, |is_set| !*is_set);
        std::mem::take(&mut *waited.unwrap_or_else(PoisonError::into_inner).0)
    }
}
