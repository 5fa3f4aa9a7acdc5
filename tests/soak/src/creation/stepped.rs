//! A round in which one opener is killed at a system call.

use std::thread;
use std::time::Duration;

use super::crew::{Crew, Opener, Task};
use super::disk::{Found, Ground, Scene};
use super::round::{Agreed, OPENERS, race_after, settle};
use crate::Failure;
use crate::trace::{Traced, name_of};

/// The call that openers make before and after they open.
const MARK: i64 = libc::SYS_getppid;

/// How long a process that is about to be killed is kept where it is, with others waiting for it.
const HELD: Duration = Duration::from_millis(2);

/// Stands for the call that a process makes when it has opened.
pub(super) const DONE: &str = "done";

/// Where and how to kill.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kill {
    /// What is there before.
    pub(super) scene: Scene,
    /// Bytes of each ring.
    pub(super) capacity: u64,
    /// `"open"` or `"new"`, of the one that is killed.
    pub(super) policy: &'static str,
    /// At the entry of which of its calls, counted from 1.
    pub(super) call: u64,
    /// Who else is there.
    pub(super) company: Company,
}

/// Who opens beside the one that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody; all come when it is dead.
    Later,
    /// All others, from the moment at which it has made this many calls.
    From(u64),
    /// The same, and it is kept for a while where it will be killed.
    Held(u64),
}

/// What a round gave.
#[derive(Clone, Debug)]
pub(super) enum Round {
    /// It was killed at the entry of that call.
    Killed {
        /// The call's name, or [`DONE`].
        call: String,
        /// What lay on the disk then, as [`Found::label`] says.
        found: &'static str,
        /// What the others came to.
        agreed: Agreed,
        /// Retired regions that it left beside the new one.
        retired: u64,
    },
    /// It had opened before it came to that call, beside others.
    Finished,
    /// Nobody may trace here.
    Refused,
}

/// Does one round in a directory of its own.
pub(super) fn play(crew: &mut Crew, kill: Kill) -> Result<Round, Failure> {
    play_in(crew, kill, &Ground::new()?).map_err(|error| format!("{kill:?}: {error}").into())
}

fn play_in(crew: &mut Crew, kill: Kill, ground: &Ground) -> Result<Round, Failure> {
    let old = kill.scene.set(ground, kill.capacity)?;
    let path = ground.path();
    let task = Task { path: &path, capacity: kill.capacity, policy: kill.policy };
    let mut victim = crew.start(task)?;
    let mut others = match kill.company {
        Company::Later => Vec::new(),
        _ => crew.start_many(Task { policy: "open", ..task }, OPENERS - 1)?,
    };
    let Some(mut traced) = Traced::seize(victim.pid())? else { return Ok(Round::Refused) };
    victim.release()?;
    let reached = walk(&mut traced, kill, &mut others)?;
    let Some(call) = reached else {
        traced.release()?;
        others.push(victim);
        return finish(crew, ground, others);
    };
    let killed = victim.pid().as_raw_nonzero().get() as u32;
    victim.kill()?;
    let (found, agreed) = match kill.company {
        Company::Later => {
            let found = Found::look_closely(&path)?;
            let left = (found, old);
            (found, race_after(crew, ground, (kill.scene, kill.capacity), left)?)
        }
        _ => (Found::look(&path)?, settle(crew, ground, others, Some(killed))?),
    };
    let retired = check_left(ground, kill, agreed)?;
    let call = if call == MARK { DONE.to_owned() } else { name_of(call) };
    Ok(Round::Killed { call, found: found.label(old), agreed, retired })
}

/// Fails unless the directory holds what may be left there; gives how many retired regions it does.
fn check_left(ground: &Ground, kill: Kill, agreed: Agreed) -> Result<u64, Failure> {
    if !kill.scene.is_replacing() {
        ground.check_clean()?;
        return Ok(0);
    }
    let wanted = kill.scene.next_generation();
    // 1 where somebody found no name at all, between the old region and the new.
    if kill.company != Company::Later && ![1, wanted].contains(&agreed.generation) {
        return Err(format!("generation {}, wanted {wanted}", agreed.generation).into());
    }
    let retired = ground.count_retired()?;
    ground.replace(agreed.generation)?;
    ground.check_clean()?;
    Ok(retired)
}

/// Steps to the call at which to kill, and releases the others on the way; gives which call it is,
/// or `None` where the process has opened before, beside others. One that is alone is killed then.
fn walk(traced: &mut Traced, kill: Kill, others: &mut [Opener]) -> Result<Option<i64>, Failure> {
    while traced.next_call()? != MARK {}
    let start = match kill.company {
        Company::Later => u64::MAX,
        Company::From(calls) | Company::Held(calls) => calls,
    };
    let mut last = MARK;
    for done in 0..kill.call {
        if done == start {
            others.iter_mut().try_for_each(Opener::release)?;
        }
        last = traced.next_call()?;
        if last == MARK {
            if done < start {
                others.iter_mut().try_for_each(Opener::release)?;
            }
            break;
        }
    }
    match kill.company {
        Company::Held(_) if last != MARK => thread::sleep(HELD),
        Company::Held(_) | Company::From(_) if last == MARK => return Ok(None),
        _ => {}
    }
    Ok(Some(last))
}

/// Nobody was killed: one of them all made the region.
fn finish(crew: &mut Crew, ground: &Ground, openers: Vec<Opener>) -> Result<Round, Failure> {
    let agreed = settle(crew, ground, openers, None)?;
    ground.check_clean()?;
    match agreed.creators {
        1 => Ok(Round::Finished),
        count => Err(format!("{count} creators, and nobody was killed").into()),
    }
}
