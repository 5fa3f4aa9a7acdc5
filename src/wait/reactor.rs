//! The threads that sleep in the place of ends whose armings stand: see [`super::bridge`].
//!
//! A thread sleeps on the wake words of so many ends as the kernel takes at once; with more ends there are
//! more threads. They are not the watcher, as they run wakers, which are not ours: one that takes its time
//! must not keep a process from learning of deaths. A forked child has none; it gets its own with the
//! first end that needs one.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;
use std::sync::{Arc, Mutex, Weak};
use std::task::Waker;
use std::thread::Builder;
use std::time::{Duration, Instant};
use std::{io, mem};

use super::bridge::{Bridge, Look, wake};
use crate::endpoint::Attached;
use crate::error::Error;
use crate::mutex::lock;
use crate::os::fork;
use crate::os::futex::{self, InVain, Moment, Sleeping, WORDS_MAX, Woken};
use crate::os::per_process::PerProcess;
use crate::wait::SLEEP_MAX;

/// How late a notification is noticed if the kernel cannot sleep on several words.
const SLICE: Duration = Duration::from_millis(10);

/// An end's bridge, and the thread that sleeps for it. Dropped before the endpoint is given up.
#[derive(Debug)]
pub(crate) struct Standby {
    pub(crate) bridge: Arc<Bridge>,
    shard: Arc<Shard>,
}

impl Standby {
    /// # Errors
    /// If there can be no descriptor, or no thread.
    pub(crate) fn new(end: &Attached) -> Result<Self, Error> {
        Self::enroll(end)
            .map_err(|error| end.slot.region().io_error("make a descriptor for", error))
    }

    fn enroll(end: &Attached) -> io::Result<Self> {
        static SHARDS: PerProcess<Mutex<Vec<Arc<Shard>>>> = PerProcess::new();

        let mut shards = lock(SHARDS.get_or_make(|| Ok(Mutex::default()))?);
        let shard = match shards.iter().find(|shard| lock(&shard.bridges).len() + 1 < WORDS_MAX) {
            Some(shard) => shard.clone(),
            None => {
                shards.push(Shard::start()?);
                shards[shards.len() - 1].clone()
            }
        };
        let bridge = Arc::new(Bridge::new(end, shard.kick.clone())?);
        lock(&shard.bridges).push(Arc::downgrade(&bridge));
        bridge.kick();
        Ok(Self { bridge, shard })
    }
}

/// What waits at the bridge is told: nothing stands there any more.
impl Drop for Standby {
    fn drop(&mut self) {
        if !self.bridge.is_ours() {
            return; // the lock may be held, by a thread that a child has not got
        }
        lock(&self.shard.bridges).retain(|other| !std::ptr::eq(other.as_ptr(), &*self.bridge));
        self.bridge.kick();
        self.bridge.end();
    }
}

/// What one thread sleeps for.
#[derive(Debug)]
struct Shard {
    bridges: Mutex<Vec<Weak<Bridge>>>,
    kick: Arc<AtomicU32>,
}

/// What a pass over all bridges found.
#[derive(Debug, Default)]
struct Pass {
    words: Vec<Sleeping>,
    /// When to make the next, if nothing wakes the thread before.
    next: Option<Instant>,
    has_ended: bool,
    wakers: Vec<Waker>,
}

impl Shard {
    fn start() -> io::Result<Arc<Self>> {
        let shard = Arc::new(Self { bridges: Mutex::default(), kick: Arc::default() });
        let threads_own = shard.clone();
        let _no_forks = fork::hold_off()?; // signals are blocked now, and so in the thread
        Builder::new().name("tombolo-ready".to_owned()).spawn(move || threads_own.run())?;
        Ok(shard)
    }

    fn run(&self) {
        let mut in_vain = InVain::default();
        let mut tick = Instant::now() + SLEEP_MAX;
        loop {
            let kick = self.kick.load(Acquire);
            let now = Instant::now();
            let mut pass = self.pass(now, tick);
            if tick <= now {
                tick = now + SLEEP_MAX;
            }
            mem::take(&mut pass.wakers).into_iter().for_each(|waker| wake(Some(waker)));
            let has_ended = pass.has_ended;
            let woken = self.sleep(kick, pass);
            in_vain.rest_if_due(has_ended, woken, &self.kick, kick);
        }
    }

    /// Looks at every bridge; if `tick` has come, also for what nothing notified of.
    fn pass(&self, now: Instant, tick: Instant) -> Pass {
        let bridges = lock(&self.bridges).clone();
        let mut pass = Pass::default();
        for bridge in bridges.iter().filter_map(Weak::upgrade) {
            let Look { word, stands, due, has_ended, waker } = bridge.look(now, tick <= now);
            pass.words.extend(word);
            pass.wakers.extend(waker);
            pass.has_ended |= has_ended;
            let next = match stands {
                true if tick <= now => Some(now + SLEEP_MAX),
                true => Some(tick),
                false => None,
            };
            pass.next = [pass.next, next, due].into_iter().flatten().min();
        }
        pass
    }

    /// Sleeps until a pass is due.
    fn sleep(&self, kick: u32, pass: Pass) -> Woken {
        let Pass { mut words, next, .. } = pass;
        let wait = next.map(|next| next.saturating_duration_since(Instant::now()));
        let until = wait.and_then(Moment::after);
        if words.is_empty() {
            return futex::wait(&self.kick, kick, until);
        }
        words.push(Sleeping::on(&self.kick, kick));
        // It fails if there is no such call here, or a mapping was just removed.
        futex::wait_any(&words, until).unwrap_or_else(|_| {
            let slice = wait.map_or(SLICE, |wait| wait.min(SLICE));
            futex::wait(&self.kick, kick, Moment::after(slice))
        })
    }
}
