//! What must be true after a kill.

use std::fmt::Display;
use std::path::Path;

use super::crew::{Crew, Opener, Task};
use super::disk::{Found, Ground, Scene};
use super::opener::Opened;
use crate::{Failure, Report};

/// How many race.
pub(super) const OPENERS: usize = 4;

/// The region that all openers of a round came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) uuid: u128,
    pub(super) generation: u64,
    /// Openers that say that they made it.
    pub(super) creators: usize,
}

impl Agreed {
    /// What all of `opened` say alike.
    pub(super) fn of(opened: &[Opened]) -> Result<Self, Failure> {
        let first = opened.first().ok_or("nobody is left")?;
        let (uuid, generation) = (first.uuid, first.generation);
        if opened.iter().any(|one| (one.uuid, one.generation) != (uuid, generation)) {
            return Err(format!("openers came to different regions: {opened:?}").into());
        }
        let creators = opened.iter().filter(|one| one.creator).count();
        if creators > 1 {
            return Err(format!("more than one says that it made the region: {opened:?}").into());
        }
        Ok(Self { uuid, generation, creators })
    }

    /// Fails unless the file holds this region, whole, and the header names `creator` as the one
    /// that made it, where that is known.
    pub(super) fn check_file(self, path: &Path, creator: Option<u32>) -> Result<(), Failure> {
        let Found::Region { state: 2, uuid, creator_pid, .. } = Found::look_closely(path)? else {
            return Err("the region in use is not READY".into());
        };
        if uuid != self.uuid {
            return Err(format!("the name stands for {uuid:x}, all use {:x}", self.uuid).into());
        }
        match creator {
            Some(pid) if pid != creator_pid => {
                Err(format!("process {creator_pid} made the region, not {pid}").into())
            }
            _ => Ok(()),
        }
    }
}

/// Lets openers that have a region each show that it is one and works, and sends them home.
///
/// `killed` is the process that was killed while others opened too: it must be the creator where
/// nobody else is.
pub(super) fn settle(
    crew: &mut Crew,
    ground: &Ground,
    mut openers: Vec<Opener>,
    killed: Option<u32>,
) -> Result<Agreed, Failure> {
    let opened = crew.opened(&openers)?;
    let agreed = Agreed::of(&opened)?;
    let creator = opened.iter().position(|one| one.creator);
    let creator = creator.map(|index| openers[index].pid().as_raw_nonzero().get() as u32);
    agreed.check_file(&ground.path(), creator.or(killed))?;
    crew.use_region(&mut openers)?;
    openers.into_iter().try_for_each(Opener::dismiss)?;
    agreed.check_file(&ground.path(), creator.or(killed))?;
    Ok(agreed)
}

/// Lets openers race for what a kill left behind, and judges what they came to.
pub(super) fn race_after(
    crew: &mut Crew,
    ground: &Ground,
    (scene, capacity): (Scene, u64),
    (found, old): (Found, u128),
) -> Result<Agreed, Failure> {
    let task = Task { path: &ground.path(), capacity, policy: "open" };
    let openers = crew.start_many(task, OPENERS)?;
    release_after(crew, ground, openers, (scene, found, old))
}

/// As [`race_after`], with openers that are ready.
pub(super) fn release_after(
    crew: &mut Crew,
    ground: &Ground,
    mut openers: Vec<Opener>,
    (scene, found, old): (Scene, Found, u128),
) -> Result<Agreed, Failure> {
    openers.iter_mut().try_for_each(Opener::release)?;
    let agreed = settle(crew, ground, openers, None)?;
    check_successor(agreed, scene, found, old)?;
    Ok(agreed)
}

/// Fails unless openers who found `found` came to what they had to.
fn check_successor(agreed: Agreed, scene: Scene, found: Found, old: u128) -> Result<(), Failure> {
    let stays = found.joinable();
    let wanted_creators = usize::from(stays.is_none());
    if agreed.creators != wanted_creators {
        return Err(differs(found, "creators", wanted_creators, agreed.creators));
    }
    if let Some(uuid) = stays
        && uuid != agreed.uuid
    {
        return Err(differs(found, "region", uuid, agreed.uuid));
    }
    let wanted = generation_after(scene, found, old);
    // Who finds no name between the old region and the new knows of no earlier one.
    let may_start_over = scene.is_replacing() && stays.is_none();
    if agreed.generation == wanted || (may_start_over && agreed.generation == 1) {
        return Ok(());
    }
    Err(differs(found, "generation", wanted, agreed.generation))
}

fn differs(found: Found, what: &str, wanted: impl Display, is: impl Display) -> Failure {
    format!("after {found:?}: {what} {is}, wanted {wanted}").into()
}

/// The generation of the region that openers come to who find `found`, where `old` was before.
fn generation_after(scene: Scene, found: Found, old: u128) -> u64 {
    match found {
        // Nothing is left that tells of an earlier one.
        Found::Absent | Found::Empty | Found::Region { state: 0 | 1, .. } => 1,
        Found::Region { state: 2, uuid, generation, .. } if uuid == old => generation,
        Found::Region { .. } => scene.next_generation(),
    }
}

/// Says that nothing could be tested.
pub(super) fn skipped() -> Report {
    let mut report = Report::new();
    report.note("skipped", "the system lets this user trace nobody, and kills need that");
    report
}
