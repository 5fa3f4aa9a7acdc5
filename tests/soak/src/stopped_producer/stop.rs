//! One stop: from the holder's first message to the last of all.

use std::fs;
use std::sync::atomic::Ordering::Acquire;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tombolo::inspect::{Health, Image, Liveness, LockView};
use tombolo::{EventsRegion, OpenOptions};
use tombolo_abi::LockWord;

use super::children::{BLOCKED, RECEIVED_LINE, RETURNED, RIVAL_LINE};
use super::plan::{HOLDER, HOLDERS, Place, RIVAL, RIVALS};
use crate::figures::{self, Figures};
use crate::lock_look::LockLook;
use crate::sending::PATIENCE;
use crate::shared_words::SharedWords;
use crate::stream::settled_ring;
use crate::{Failure, Process, Setting, scratch};

/// Bytes of the ring: fewer than all messages, so that they lap it.
const CAPACITY: u64 = 1 << 14;
/// Between two looks at the lock word.
const SAMPLE_EVERY: Duration = Duration::from_millis(1);

/// Figures of a stop that are added up, beside those of the rival.
pub(super) const SUMS: [&str; 4] = [SAMPLES, DRAINED, AFTERWARDS, LAPS];
const SAMPLES: &str = "looks at the lock word, the same each time";
const DRAINED: &str = "messages received before the holder went on";
const AFTERWARDS: &str = "messages received afterwards";
const LAPS: &str = "laps of the ring";

/// A stopped holder, with a receiver that has taken all that there is.
#[derive(Debug)]
pub(super) struct Stop {
    setting: Setting,
    directory: TempDir,
    words: SharedWords,
    lock: LockLook,
    holder: Process,
    receiver: Process,
    /// The lock word.
    word: u64,
    published: u64,
}

impl Stop {
    /// Starts a holder and a receiver, and comes back when the holder has stopped at `place` and
    /// the receiver has what was published.
    ///
    /// # Errors
    /// Where it comes otherwise.
    pub(super) fn at(setting: &Setting, place: Place) -> Result<Self, Failure> {
        let directory = scratch()?;
        let at = |name| directory.path().join(name).to_string_lossy().into_owned();
        let (path, words) = (at("region"), at("words"));
        let options = OpenOptions::new().mpsc_capacity(CAPACITY).max_message(1024);
        drop(EventsRegion::open_path_with(&path, options)?);
        let lock = LockLook::new(path.as_ref())?;
        let shared = SharedWords::create(words.as_ref(), RIVAL_LINE + 1)?;
        let seed = setting.seed.to_string();
        let arguments = [&*path, &*seed, &*words];
        let receiver = Process::start(setting, "stopped-producer.receive", &arguments)?;
        let where_to = format!("{}:{}:stop", place.point, place.nth);
        let variables = [("TOMBOLO_CRASH", &*where_to)];
        let role = "stopped-producer.hold";
        let holder = Process::start_with(setting, role, &arguments, &variables)?;
        let (setting, words, published) = (setting.clone(), shared, place.published());
        let mut stop =
            Self { setting, directory, words, lock, holder, receiver, word: 0, published };
        stop.wait_until("the holder is stopped", |stop| is_stopped(stop.holder.id()))?;
        stop.word = stop.lock.word()?;
        stop.wait_until("all is received", |stop| Ok(stop.received(HOLDER) == stop.published))?;
        Ok(stop)
    }

    fn wait_until(
        &mut self,
        what: &str,
        is_so: impl Fn(&Self) -> Result<bool, Failure>,
    ) -> Result<(), Failure> {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self)? {
            if !self.holder.is_running()? || !self.receiver.is_running()? {
                return Err(format!("a process ended before {what}").into());
            }
            if Instant::now() > deadline {
                let received = self.received(HOLDER);
                return Err(format!("waited in vain until {what}; {received} received").into());
            }
            thread::sleep(SAMPLE_EVERY);
        }
        Ok(())
    }

    fn received(&self, mark: usize) -> u64 {
        self.words.word(RECEIVED_LINE, mark).load(Acquire)
    }

    /// Lets a rival come and wait, watches the lock for `pause`, lets the holder go on, and then
    /// all of them finish. Gives the figures.
    ///
    /// # Errors
    /// Whatever was wrong.
    pub(super) fn watch(self, pause: Duration) -> Result<Figures, Failure> {
        self.expect_live_holder()?;
        let mut rival = self.start_rival(pause)?;
        let samples = self.sample(&mut rival, pause)?;
        self.expect_live_holder()?;
        let drained = self.published;
        let id = i32::try_from(self.holder.id())?;
        kill_process(Pid::from_raw(id).ok_or("no process")?, Signal::CONT)?;
        let Self { directory, holder, receiver, .. } = self;
        holder.finish(PATIENCE)?;
        rival.finish(PATIENCE)?;
        receiver.finish(PATIENCE)?;
        let (control, entry) = settled_ring(&directory.path().join("region"), 1)?;
        if control.lock_breaks != 0 {
            return Err(format!("the lock was taken over {} times", control.lock_breaks).into());
        }
        let mut figures = figures::load(&directory.path().join("figures"))?;
        figures.insert(SAMPLES.to_owned(), samples);
        figures.insert(DRAINED.to_owned(), drained);
        figures.insert(AFTERWARDS.to_owned(), HOLDERS + RIVALS - drained);
        figures.insert(LAPS.to_owned(), control.tail / entry.capacity);
        Ok(figures)
    }

    /// The region is sound, the lock is held, and its holder lives and does not run.
    fn expect_live_holder(&self) -> Result<(), Failure> {
        let image = Image::open(&self.directory.path().join("region"))?;
        if image.health() != Health::Healthy {
            let (health, problems) = (image.health(), image.problems());
            return Err(format!("the region is {health:?}: {problems:?}").into());
        }
        let lock = image.rings().get(1).and_then(|ring| ring.lock);
        match lock {
            Some(LockView { pid, liveness: Liveness::Alive, .. }) if pid == self.holder.id() => {}
            other => return Err(format!("the lock shows {other:?}").into()),
        }
        if !is_stopped(self.holder.id())? {
            return Err("the holder runs".into());
        }
        Ok(())
    }

    fn start_rival(&self, pause: Duration) -> Result<Process, Failure> {
        let at = |name| self.directory.path().join(name).to_string_lossy().into_owned();
        let slot = LockWord::from_word(self.word).ok_or("nobody holds the lock")?.slot;
        let numbers = [slot.to_string(), self.holder.id().to_string()];
        let (seed, pause) = (self.setting.seed.to_string(), pause.as_millis().to_string());
        let (region, words, figures) = (at("region"), at("words"), at("figures"));
        let arguments = [&*region, &*seed, &*words, &*figures, &*numbers[0], &*numbers[1], &*pause];
        Process::start(&self.setting, "stopped-producer.rival", &arguments)
    }

    /// Looks at the lock word for `pause`, and until the rival has been waiting for a while. Gives
    /// how often.
    fn sample(&self, rival: &mut Process, pause: Duration) -> Result<u64, Failure> {
        let began = Instant::now();
        let (mut samples, mut blocked): (u64, Option<Instant>) = (0, None);
        let is_over = |blocked: Option<Instant>| {
            began.elapsed() >= pause && blocked.is_some_and(|since| since.elapsed() >= pause / 10)
        };
        while !is_over(blocked) {
            let word = self.lock.word()?;
            if word != self.word {
                return Err(format!("the lock was {:#x}, and now is {word:#x}", self.word).into());
            }
            let received = [self.received(HOLDER), self.received(RIVAL)];
            if received != [self.published, 0] {
                let published = self.published;
                return Err(format!("received {received:?}, published {published}").into());
            }
            match self.words.word(RIVAL_LINE, 0).load(Acquire) {
                RETURNED => return Err("somebody sent while another one held the lock".into()),
                BLOCKED => blocked = Some(blocked.unwrap_or_else(Instant::now)),
                _ => {}
            }
            if !rival.is_running()? || began.elapsed() > pause + PATIENCE {
                return Err("the rival did not come to wait".into());
            }
            samples += 1;
            thread::sleep(SAMPLE_EVERY);
        }
        Ok(samples)
    }
}

/// Whether process `id` is stopped, by a signal and not by a tracer.
fn is_stopped(id: u32) -> Result<bool, Failure> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, behind_name) = stat.rsplit_once(") ").ok_or("no state in a process's stat")?;
    Ok(behind_name.starts_with('T'))
}
