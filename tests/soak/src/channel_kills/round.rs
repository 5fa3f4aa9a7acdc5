//! One round: a process is started and dies, and this one, which survives it, compares.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tempfile::TempDir;
use tombolo::object::ChannelError;
use tombolo::{Channel, OpenOptions};

use super::letter::{Carried, Kind, Letter, stream};
use super::notes::{Notes, Of};
use super::plan::{Death, Plan};
use super::talk::{Talked, talk};
use super::tally::Tally;
use super::{RING_LEN, victim};
use crate::clock::until;
use crate::possessions::Possessions;
use crate::sending::PATIENCE;
use crate::{Failure, Process, Rng, Setting, scratch};

const REGION: &str = "c";
const NOTES: &str = "notes";
const FIFO: &str = "witness";

/// How long it takes at most until an end of which the peer never came is taken for that.
const A_WHILE: Duration = Duration::from_millis(50);

/// Has this process make what it makes once, for all channels.
pub(super) fn warm_up(setting: &Setting, rng: &mut Rng) -> Result<(), Failure> {
    let (end, _peer) = Channel::create()?;
    let _readable = end.readable()?;
    let death = Death::Later(Duration::from_millis(20));
    let plan = Plan { death, opens_first: true, is_carried: true };
    let scene = Scene::prepare()?;
    let fifo = File::options().write(true).open(scene.at(FIFO))?;
    scene.play(setting, plan, &fifo, rng, &mut Tally::default())
}

/// Does it all. Afterwards this process has what it had before.
pub(super) fn play(
    setting: &Setting,
    plan: Plan,
    rng: &mut Rng,
    tally: &mut Tally,
) -> Result<(), Failure> {
    let before = Possessions::now()?;
    let scene = Scene::prepare()?;
    let fifo = File::options().write(true).open(scene.at(FIFO))?;
    scene.play(setting, plan, &fifo, rng, tally)?;
    drop(fifo);
    scene.expect_usable()?;
    scene.expect_nothing_left()?;
    drop(scene);
    before.expect()
}

/// The files of a round.
struct Scene {
    directory: TempDir,
    notes: Notes,
    /// Kept open so that it tells when no process has the other end.
    witness: OwnedFd,
}

impl Scene {
    fn prepare() -> Result<Self, Failure> {
        let directory = scratch()?;
        let notes = Notes::at(&directory.path().join(NOTES))?;
        let fifo = directory.path().join(FIFO);
        mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let witness = rustix::fs::open(&fifo, flags, Mode::empty())?;
        Ok(Self { directory, notes, witness })
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn open(&self) -> Result<Channel, Failure> {
        let options = OpenOptions::new().spsc_capacity(RING_LEN);
        Ok(Channel::open_path_with(self.at(REGION), options)?)
    }

    fn play(
        &self,
        setting: &Setting,
        plan: Plan,
        fifo: &File,
        rng: &mut Rng,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let first = plan.opens_first.then(|| self.open()).transpose()?;
        let mut victim = self.start(setting, plan, rng)?;
        if let Death::Young(age) = plan.death {
            thread::sleep(age);
            kill(&mut victim)?;
        }
        let has_opened = || self.notes.get(Of::Opened) == 1;
        until("the other process opens the channel or dies", || {
            Ok(has_opened() || !victim.is_running()?)
        })?;
        let opened = first.map_or_else(|| self.open(), Ok)?;
        // If it lives now, it has the other end of this channel, and not of one that it replaced.
        let is_met = has_opened() && (plan.opens_first || victim.is_running()?);
        let channel = match is_met {
            true => begin(&opened, plan, fifo)?,
            false => None,
        };
        let talked = match &channel {
            Some(carried) => {
                tally.carried += u64::from(carried.is_some());
                let channel = carried.as_ref().unwrap_or(&opened);
                Some(talk_until_death(channel, plan.death, &mut victim, fifo, rng)?)
            }
            None => None,
        };
        drop(channel);
        let status = victim.wait(PATIENCE)?;
        if status.signal() != Some(9) {
            return Err(format!("the other process ended with {status}").into());
        }
        expect_closed(&opened, is_met)?;
        drop(opened); // with what was handed over for a message that was not published any more
        match talked {
            Some(talked) => self.judge(talked, tally)?,
            None => tally.killed_early += 1,
        }
        match plan.death {
            Death::At { point, .. } => *tally.killed_at.entry(point).or_default() += 1,
            Death::Young(_) | Death::Later(_) => tally.killed_at_random += 1,
        }
        Ok(())
    }

    fn start(&self, setting: &Setting, plan: Plan, rng: &mut Rng) -> Result<Process, Failure> {
        let [region, notes, fifo] = [REGION, NOTES, FIFO].map(|name| self.at(name));
        let [region, notes, fifo] = [&region, &notes, &fifo].map(|path| path.to_string_lossy());
        let arguments = [&*region, &*notes, &*fifo, &*rng.number().to_string()];
        let Death::At { point, visit } = plan.death else {
            return Process::start(setting, victim::NAME, &arguments);
        };
        let crash = format!("{point}:{visit}");
        Process::start_with(setting, victim::NAME, &arguments, &[("TOMBOLO_CRASH", &*crash)])
    }

    /// Compares what has come with what the dead has noted.
    fn judge(&self, talked: Talked, tally: &mut Tally) -> Result<(), Failure> {
        let Talked { ends, got, handles, asked, answered, ended, unwritten } = talked;
        let noted = |of| self.notes.get(of);
        for (what, noted, found) in [
            ("writes returned, messages came", noted(Of::Written), got),
            ("replies were written, calls were answered", noted(Of::Replied), answered),
        ] {
            if found < noted || found > noted + 1 {
                return Err(format!("{noted} {what}: {found}").into());
            }
            tally.unnoted += found - noted;
        }
        let begun = noted(Of::Asked);
        if asked > begun || asked + 1 < begun || asked < noted(Of::Answered) {
            return Err(format!("{begun} calls were begun, {asked} requests came").into());
        }
        tally.messages += got;
        tally.handles += handles;
        tally.answered += answered;
        tally.ended += ended;
        tally.ended_unwritten += unwritten;
        tally.served += noted(Of::Answered);
        ends.judge(&self.notes, tally)
    }

    /// The next processes to open the path get a channel.
    fn expect_usable(&self) -> Result<(), Failure> {
        let (one, other) = (self.open()?, self.open()?);
        let memory = rustix::fs::memfd_create(c"any", rustix::fs::MemfdFlags::CLOEXEC)?;
        let message = tombolo::MessagePacket::from(b"next").handle(memory);
        one.write_timeout(message, PATIENCE).map_err(|refused| refused.error)?;
        let message = other.read_timeout(PATIENCE)?;
        match (&*message.data, message.handles.len()) {
            (b"next", 1) => Ok(()),
            found => Err(format!("{found:?} was read").into()),
        }
    }

    fn expect_nothing_left(&self) -> Result<(), Failure> {
        for entry in std::fs::read_dir(self.directory.path())? {
            let name = entry?.file_name();
            if ![REGION, NOTES, FIFO].iter().any(|known| Path::new(known) == Path::new(&name)) {
                return Err(format!("{name:?} is left").into());
            }
        }
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            // There is an end if no process has the other one.
            if rustix::io::read(&self.witness, &mut [0]) == Ok(0) {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err("a handle is open still".into())
    }
}

/// Lets the other process begin. Gives the channel to talk over if that isn't the one that was opened, and nothing if
/// the process was dead before.
fn begin(opened: &Channel, plan: Plan, fifo: &File) -> Result<Option<Option<Channel>>, Failure> {
    let (named, witnesses, number) = (0, 0, 0);
    let (kind, stream) = (Kind::Plain, stream::TO_VICTIM);
    let mut letter = Letter { txid: 0, kind, stream, number, named, witnesses, end: None };
    let (mut near, mut far) = (None, None);
    if plan.is_carried {
        let (one, other) = Channel::create_with(OpenOptions::new().spsc_capacity(RING_LEN))?;
        (near, far) = (Some(one), Some(other.release()?));
        letter.end = Some(Carried::Far(0));
    }
    match opened.write_timeout(letter.packet(fifo, far)?, PATIENCE) {
        Ok(()) => Ok(Some(near)),
        Err(refused) if refused.message.handles.len() != letter.count() => {
            Err("the first message came back without its handles".into())
        }
        Err(refused) if matches!(refused.error, ChannelError::PeerClosed) => Ok(None),
        Err(refused) => Err(format!("the first message: {}", refused.error).into()),
    }
}

/// Talks over `channel` until the other process is dead, and kills it if it doesn't do that itself.
fn talk_until_death(
    channel: &Channel,
    death: Death,
    victim: &mut Process,
    fifo: &File,
    rng: &mut Rng,
) -> Result<Talked, Failure> {
    let mut kill_at = match death {
        Death::Later(age) => Some(Instant::now() + age),
        Death::At { .. } | Death::Young(_) => None,
    };
    let talked = talk(channel, fifo, rng, || {
        if kill_at.take_if(|at| *at <= Instant::now()).is_some() {
            kill(victim)?;
        }
        Ok(kill_at)
    })?;
    match channel.close_reason()? {
        None => Ok(talked),
        Some(reason) => Err(format!("{reason:?} of a process that was killed").into()),
    }
}

/// The channel that was opened is closed, for a peer that has come at least.
fn expect_closed(opened: &Channel, is_met: bool) -> Result<(), Failure> {
    let limit = if is_met { PATIENCE } else { A_WHILE };
    match opened.read_timeout(limit) {
        Err(ChannelError::PeerClosed) => Ok(()),
        Err(ChannelError::TimedOut) if !is_met => Ok(()),
        other => Err(format!("the other process is dead, but {other:?}").into()),
    }
}

fn kill(victim: &mut Process) -> Result<(), Failure> {
    if victim.is_running()? {
        victim.kill_now()?;
    }
    Ok(())
}
