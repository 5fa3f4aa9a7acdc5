//! Replacing a region that no process uses by a new one under the same name.
//!
//! Killed anywhere, it leaves what the next opener deals with:
//!
//! | killed                        | left behind                      | next opener           |
//! |-------------------------------|----------------------------------|-----------------------|
//! | before RETIRED is stored      | the old region, unchanged        | joins or replaces it  |
//! | before the old name goes      | the name stands for a RETIRED one| replaces it           |
//! | before the old file is gone   | also `.<id>.retired`             | creates, sweeps later |
//! | before the new one is named   | no name                          | creates               |
//!
//! Nothing is ever renamed over a name: two replacers could each think that they had won.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::atomic::Ordering;

use rustix::fs::{AtFlags, Dir, RenameFlags, renameat_with, statat, unlinkat};
use rustix::io::{Errno, retry_on_intr};
use tombolo_abi::{HEADER_PAGE_LEN, RegionState, SharedLayout, Slot};

use super::create::{create_unnamed, give_name, has_space};
use super::description::{Description, state_in};
use super::init_lock::{INITIALIZING, InitLock, REPLACING, is_owned, owned_slot};
use super::joined::{Region, set_state};
use super::name::{SOCKET_SUFFIX, socket_name_start};
use super::options::OpenOptions;
use super::place::{Candidate, Place};
use super::refusal;
use super::request::Request;
use crate::crash::crash_point;
use crate::error::Error;
use crate::mem::Mapping;
use crate::os::file::{FileId, read_at};
use crate::os::process::pid_here;
use crate::os::{random, socket};

/// How an attempt to replace ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The new region has the name.
    Replaced(Box<Region>),
    /// Process `pid` owns an endpoint of the old one.
    InUse { pid: u32 },
    /// Another is at work, or the name stands for something else by now.
    StartOver,
}

/// Replaces the READY or RETIRED region `old`, if no process owns an endpoint of it.
pub(crate) fn replace(request: &mut Request, old: &Candidate) -> Result<Outcome, Error> {
    // Before the lock: processes that wait for an end hold it again and again.
    if let Some(in_use) = owner(request, old)?
        && request.place.names(old.id)?
    {
        return Ok(in_use);
    }
    // Attaching holds the init byte shared, so no process attaches while this lock is held.
    let Some(_lock) = InitLock::try_new(&request.place, old.id, REPLACING)? else {
        return Ok(Outcome::StartOver);
    };
    crash_point!("replace.after-lock");
    let state = state_in(old.file.as_fd(), request.path())?;
    if !matches!(state, RegionState::Ready | RegionState::Retired) {
        return Ok(Outcome::StartOver);
    }
    if let Some(in_use) = owner(request, old)? {
        return Ok(in_use);
    }
    let description = Description::read(old.file.as_fd(), request.path())?;
    request.succeed(description.header.generation);
    // Made before the old one goes, so that a lack of space leaves things as they were.
    let has_space = has_space(request, 1, None)?;
    let new = if has_space { create_unnamed(request) } else { Err(request.no_space()) };
    let new = match new {
        Err(Error::NoSpace { .. }) if request.may_space_come() => return Ok(Outcome::StartOver),
        new => new?,
    };
    crash_point!("replace.after-new-file");
    retire(request, old, description.header.generation.wrapping_add(1))?;
    crash_point!("replace.after-retire");
    remove_sockets(&request.place, &description, old.id);
    if !remove(&request.place, old.id)? {
        return Ok(Outcome::StartOver);
    }
    crash_point!("replace.after-unlink");
    sweep(&request.place);
    // If there are no files without a name, the next poll creates in place.
    let Some(new) = new else { return Ok(Outcome::StartOver) };
    let named = give_name(new, &request.place)?;
    crash_point!("replace.after-linkat");
    Ok(named.map_or(Outcome::StartOver, |region| Outcome::Replaced(Box::new(region))))
}

/// What to say if an endpoint of the old region has an owner.
fn owner(request: &Request, old: &Candidate) -> Result<Option<Outcome>, Error> {
    let Some(slot) = owned_slot(old.file.as_fd(), old.id, request.path())? else { return Ok(None) };
    let description = Description::read(old.file.as_fd(), request.path())?;
    if is_over(old.file.as_fd(), old.id, &description, request.path())? {
        return Ok(None); // the end that is left goes on with what it has
    }
    Ok(Some(Outcome::InUse { pid: slot_pid(old, &description, slot) }))
}

/// Whether `region`, in the file `id`, is a channel of which an end was closed, or lost its owner: for good, as no
/// process takes an end that had an owner.
pub(crate) fn is_over(
    file: BorrowedFd<'_>,
    id: FileId,
    region: &Description,
    path: &Path,
) -> Result<bool, Error> {
    if !region.is_channel() {
        return Ok(false);
    }
    let header = &region.header;
    for slot in 0..u64::from(header.slot_count) {
        let mut bytes = [0; size_of::<Slot>()];
        let offset = header.slot_offset + slot * u64::from(header.slot_len);
        read_at(file, &mut bytes, offset).map_err(|error| refusal::io("read", path, error))?;
        let had_owner = bytemuck::pod_read_unaligned::<Slot>(&bytes).incarnation != 0;
        // In this order: who takes the byte renews the incarnation then.
        if had_owner && !is_owned(file, id, slot, path)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Marks the old region: attached processes go on, no other joins.
fn retire(request: &Request, old: &Candidate, successor: u64) -> Result<(), Error> {
    let mapping = Mapping::new(old.file.as_fd(), HEADER_PAGE_LEN)
        .map_err(|error| refusal::io("map", request.path(), error))?;
    let successor_offset = std::mem::offset_of!(SharedLayout, successor_generation) as u64;
    // For people; the Release store of the state follows it.
    mapping.word_u64(successor_offset).store(successor, Ordering::Relaxed);
    set_state(&mapping, RegionState::Retired); // `retire`
    Ok(())
}

/// Takes the name away from the file `id` and removes the file. `false` if the name stood for
/// another, which then has it back.
fn remove(place: &Place, id: FileId) -> Result<bool, Error> {
    let retired = retired_name(place)?;
    let dir = place.dir();
    match renameat_with(dir, place.file_name(), dir, &*retired, RenameFlags::NOREPLACE) {
        Ok(()) => {}
        Err(Errno::NOENT | Errno::EXIST) => return Ok(false),
        Err(error) => return Err(refusal::io("rename", place.path(), error)),
    }
    crash_point!("replace.after-rename");
    let found = retry_on_intr(|| statat(dir, &*retired, AtFlags::SYMLINK_NOFOLLOW));
    if found.is_ok_and(|stat| FileId::of(&stat) == id) {
        // A failure leaves it for the next sweep.
        let _ = unlinkat(dir, &*retired, AtFlags::empty());
        return Ok(true);
    }
    // Another file was put there since the last check.
    match renameat_with(dir, &*retired, dir, place.file_name(), RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST | Errno::NOENT) => Ok(false),
        Err(error) => Err(refusal::io("rename back", place.path(), error)),
    }
}

/// Removes the file `id` if it is empty still, and no opener is at work on it.
pub(crate) fn remove_empty(place: &Place, id: FileId) -> Result<(), Error> {
    match InitLock::try_new(place, id, INITIALIZING)? {
        Some(lock) if lock.is_of_empty_file() => remove(place, id).map(drop),
        _ => Ok(()),
    }
}

/// A name that nothing else has.
fn retired_name(place: &Place) -> Result<OsString, Error> {
    let id = random::bytes().map_err(|error| refusal::io("draw an id for", place.path(), error))?;
    Ok(format!(".{:032x}.retired", u128::from_be_bytes(id)).into())
}

fn is_retired_name(name: &[u8]) -> bool {
    let id = name.strip_prefix(b".").and_then(|rest| rest.strip_suffix(b".retired"));
    id.is_some_and(|id| id.len() == 32 && id.iter().all(u8::is_ascii_hexdigit))
}

/// Removes what replacers that were killed left in the directory. Only tidies up: whatever it
/// cannot do is left as it is.
fn sweep(place: &Place) {
    let Ok(dir) = Dir::read_from(place.dir()) else { return };
    for entry in dir.flatten() {
        if is_retired_name(entry.file_name().to_bytes()) {
            let name = OsString::from_vec(entry.file_name().to_bytes().to_vec());
            let _ = sweep_one(place, &name);
        }
    }
}

/// Removes the file `name` if it is empty, or a retired region that no process uses or is replacing. Its
/// sockets went before its name.
fn sweep_one(place: &Place, name: &OsStr) -> Result<(), Error> {
    let dir = place.dir().try_clone_to_owned();
    let dir = dir.map_err(|error| refusal::io("open", place.path(), error))?;
    let left = Place::in_dir(dir, name, &place.path().with_file_name(name))?;
    let Some(candidate) = left.open(&OpenOptions::new())? else { return Ok(()) };
    let Some(lock) = InitLock::try_new(&left, candidate.id, REPLACING)? else { return Ok(()) };
    let (file, path) = (candidate.file.as_fd(), left.path());
    let is_unused = match state_in(file, path)? {
        RegionState::Retired => owned_slot(file, candidate.id, path)?.is_none(),
        _ => lock.is_of_empty_file(),
    };
    if !is_unused {
        return Ok(());
    }
    unlinkat(left.dir(), left.file_name(), AtFlags::empty())
        .map_err(|error| refusal::io("remove", left.path(), error))
}

/// Removes what receivers of the region in the file `id` have left, which no process uses: the names at which
/// they listened.
fn remove_sockets(place: &Place, region: &Description, id: FileId) {
    let Ok(dir) = Dir::read_from(place.dir()) else { return };
    let start = socket_name_start(&region.header, id);
    for entry in dir.flatten() {
        if let Ok(name) = entry.file_name().to_str()
            && name.starts_with(&start)
            && name.ends_with(SOCKET_SUFFIX)
        {
            // A failure leaves a name that nothing else has.
            let _ = socket::remove_stale(place.dir(), name);
        }
    }
}

/// The pid in the slot's table entry, for a message; 0 if it cannot be read, or means nothing in this pid
/// namespace.
fn slot_pid(old: &Candidate, description: &Description, slot: u64) -> u32 {
    let header = &description.header;
    let offset = header.slot_offset + slot * u64::from(header.slot_len);
    let mut bytes = [0; size_of::<Slot>()];
    let known = slot < header.slot_count.into();
    match known.then(|| read_at(old.file.as_fd(), &mut bytes, offset)) {
        Some(Ok(_)) => {
            let slot: Slot = bytemuck::pod_read_unaligned(&bytes);
            pid_here(slot.pid, slot.pid_namespace)
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::time::Duration;

    use rustix::fs::OFlags;
    use tempfile::TempDir;
    use tombolo_abi::{LOCK_INIT, LOCK_SLOTS};

    use super::*;
    use crate::EventsRegion;
    use crate::crash::visits;
    use crate::os::ofd;
    use crate::os::staged::{self, Call};
    use crate::region::CreatePolicy;
    use crate::region::request::tests::too_much_for;

    /// A directory, and a place in it.
    fn place() -> (TempDir, Place) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let place = Place::of_path(&dir.path().join("name")).unwrap();
        (dir, place)
    }

    fn write(place: &Place, bytes: &[u8]) -> FileId {
        fs::write(place.path(), bytes).unwrap();
        FileId::of(&place.stat().unwrap().unwrap())
    }

    fn read(place: &Place) -> Vec<u8> {
        fs::read(place.path()).unwrap()
    }

    #[test]
    fn only_a_file_that_is_empty_still_is_removed_for_that() {
        for (bytes, is_there) in [(&b"filled by another"[..], true), (b"", false)] {
            let (_dir, place) = place();
            let id = write(&place, bytes);
            remove_empty(&place, id).unwrap();
            assert_eq!(place.path().exists(), is_there);
        }
    }

    #[test]
    fn a_name_that_is_gone_is_another_replacers() {
        let (_dir, place) = place();
        let id = write(&place, b"old");
        fs::remove_file(place.path()).unwrap();
        assert!(!remove(&place, id).unwrap());
    }

    #[test]
    fn only_the_file_that_was_judged_is_removed_and_another_has_its_name_back() {
        let (dir, place) = place();
        let id = write(&place, b"old");
        assert!(remove(&place, id).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

        write(&place, b"another");
        assert!(!remove(&place, FileId::of(&rustix::fs::stat("/dev/shm").unwrap())).unwrap());
        assert_eq!(read(&place), b"another");
    }

    #[test]
    fn what_took_the_name_meanwhile_keeps_it() {
        let (_dir, place) = place();
        write(&place, b"another");
        let path = place.path().to_owned();
        let _visit = visits::at("replace.after-rename", move || fs::write(path, b"third").unwrap());
        assert!(!remove(&place, FileId::of(&rustix::fs::stat("/dev/shm").unwrap())).unwrap());
        assert_eq!(read(&place), b"third");
    }

    #[test]
    fn a_link_to_the_file_that_was_judged_is_another() {
        let (dir, place) = place();
        let id = write(&place, b"old");
        let moved = dir.path().join("moved");
        fs::rename(place.path(), &moved).unwrap();
        symlink(&moved, place.path()).unwrap();
        assert!(!remove(&place, id).unwrap());
        assert_eq!(fs::read_link(place.path()).unwrap(), moved);
    }

    #[test]
    fn only_names_that_a_replacer_gives_are_swept() {
        let id = "0123456789abcdef0123456789abcdef";
        let is_swept = |name: &str| is_retired_name(name.as_bytes());
        assert!(is_swept(&format!(".{id}.retired")));
        for name in [
            format!("{id}.retired"),
            format!(".{id}"),
            format!(".{id}0.retired"),
            format!(".{}.retired", &id[1..]),
            format!(".{}g.retired", &id[1..]),
        ] {
            assert!(!is_swept(&name), "{name}");
        }
    }

    #[test]
    fn only_names_of_the_regions_sockets_are_removed_and_only_stale_ones() {
        let (dir, place) = place();
        let region = open(&place);
        let (description, id) = (region.shared().description(), region.shared().file_id());
        let start = socket_name_start(&description.header, id);
        let names = [
            ("its own", format!("{start}1.2{SOCKET_SUFFIX}")),
            ("another's", format!(".0123456789abcdef.1.2.1.2{SOCKET_SUFFIX}")),
            ("with another end", format!("{start}1.2.backup")),
            ("at which one listens", format!("{start}1.3{SOCKET_SUFFIX}")),
        ];
        let listeners = names
            .each_ref()
            .map(|(_, name)| socket::listen(place.dir(), name, rustix::fs::Mode::RWXU).unwrap());
        let [own, others, with_another_end, _alive] = listeners;
        [own, others, with_another_end].into_iter().for_each(socket::stop_listening);
        remove_sockets(&place, description, id);
        for (index, (which, name)) in names.iter().enumerate() {
            assert_eq!(dir.path().join(name).exists(), index > 0, "the name {which}");
        }
    }

    #[test]
    fn the_retired_region_says_which_generation_succeeds_it() {
        let (_dir, place) = place();
        let old = open(&place);
        let again = Place::of_path(place.path()).unwrap();
        let Outcome::Replaced(new) = replace_after(again, || ()) else { panic!("not replaced") };
        let offset = std::mem::offset_of!(SharedLayout, successor_generation) as u64;
        let successor = old.shared().mapping().word_u64(offset).load(Ordering::Relaxed);
        assert_eq!((old.generation(), successor, new.header().generation), (1, 2, 2));
    }

    fn lock(place: &Place, byte: u64, mode: ofd::Mode) -> fs::File {
        let file = fs::File::options().read(true).write(true).open(place.path()).unwrap();
        assert!(ofd::try_lock(file.as_fd(), byte..byte + 1, mode).unwrap());
        file
    }

    #[test]
    fn who_tries_to_attach_all_the_time_does_not_hide_that_a_region_is_in_use() {
        let (_dir, place) = place();
        open(&place);
        let again = || Place::of_path(place.path()).unwrap();
        let _attaching = lock(&place, LOCK_INIT, ofd::Mode::Shared);
        assert!(matches!(replace_after(again(), || ()), Outcome::StartOver));
        let _owner = lock(&place, LOCK_SLOTS + 1, ofd::Mode::Exclusive);
        assert!(matches!(replace_after(again(), || ()), Outcome::InUse { .. }));
    }

    #[test]
    fn nothing_outside_the_table_is_taken_for_an_owners_slot() {
        let (_dir, place) = place();
        let (mut region, header) = {
            let region = open(&place);
            let header = *region.shared().header();
            (region, header)
        };
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        let slot_offset = |slot: u64| header.slot_offset + slot * u64::from(header.slot_len);
        let mut slot = [0; size_of::<Slot>()];
        let file = fs::File::options().read(true).write(true).open(place.path()).unwrap();
        assert_eq!(read_at(file.as_fd(), &mut slot, slot_offset(1)), Ok(slot.len()));
        drop(tx);
        let data = region.shared().entries()[0].data_offset;
        let outside = (data - header.slot_offset) / u64::from(header.slot_len);
        assert_eq!(slot_offset(outside), data);
        crate::os::file::write_at(file.as_fd(), &slot, data).unwrap();
        let _owner = lock(&place, LOCK_SLOTS + outside, ofd::Mode::Exclusive);
        let again = Place::of_path(place.path()).unwrap();
        let found = replace_after(again, || ());
        assert!(matches!(found, Outcome::InUse { pid: 0 }), "{found:?}");
    }

    fn open(place: &Place) -> EventsRegion {
        EventsRegion::open_path(place.path()).unwrap()
    }

    /// Replaces the region that now has the name; `before` comes between opening it and that.
    fn replace_after(place: Place, before: impl FnOnce()) -> Outcome {
        let options = OpenOptions::new().policy(CreatePolicy::CreateNew);
        let old = place.open(&options).unwrap().unwrap();
        before();
        replace(&mut Request::new(place, options), &old).unwrap()
    }

    #[test]
    fn a_region_of_which_an_end_is_owned_is_in_use_only_while_it_has_the_name() {
        let (dir, place) = place();
        let mut region = open(&place);
        let (mut tx, _) = region.split_spsc().unwrap();
        tx.attach().unwrap();
        let again = || Place::of_path(place.path()).unwrap();
        let (own, path) = (std::process::id(), place.path().to_owned());
        assert!(matches!(replace_after(again(), || ()), Outcome::InUse { pid } if pid == own));
        let moved = replace_after(again(), || {
            fs::rename(&path, dir.path().join("moved")).unwrap();
            EventsRegion::open_path(&path).unwrap();
        });
        assert!(matches!(moved, Outcome::StartOver), "{moved:?}");
    }

    #[test]
    fn who_comes_before_the_lock_is_had_keeps_the_region() {
        let (_dir, place) = place();
        let (mut region, id) = (open(&place), fs::metadata(place.path()).unwrap().ino());
        let path = place.path().to_owned();
        let (keep, kept) = std::sync::mpsc::channel();
        let _visit = visits::at("init-lock.before-lock", move || {
            let (mut tx, _) = region.split_spsc().unwrap();
            tx.attach().unwrap();
            keep.send(tx).unwrap();
        });
        let replaced = replace_after(place, || ());
        assert!(matches!(replaced, Outcome::InUse { .. }), "{replaced:?}");
        assert_eq!(fs::metadata(path).unwrap().ino(), id);
        drop(kept.recv().unwrap());
    }

    #[test]
    fn one_that_is_poisoned_before_the_lock_is_had_is_not_replaced() {
        let (_dir, place) = place();
        let (region, id) = (open(&place), fs::metadata(place.path()).unwrap().ino());
        let path = place.path().to_owned();
        let _visit = visits::at("init-lock.before-lock", move || {
            set_state(region.shared().mapping(), RegionState::Poisoned);
        });
        let replaced = replace_after(place, || ());
        assert!(matches!(replaced, Outcome::StartOver), "{replaced:?}");
        assert_eq!(fs::metadata(path).unwrap().ino(), id);
    }

    /// What is made, and does not fit, is missing to others for moments.
    #[test]
    fn who_has_no_space_for_a_new_one_makes_no_file_and_hopes_for_moments_that_it_comes() {
        let Some(huge) = too_much_for("/dev/shm") else { return };
        let (_dir, place) = place();
        let id = {
            open(&place);
            fs::metadata(place.path()).unwrap().ino()
        };
        let options = huge.policy(CreatePolicy::CreateNew);
        let replaced = |patience| {
            let options = options.clone().join_timeout(patience);
            let making = Call::with_flags(libc::SYS_openat, 2, OFlags::TMPFILE.bits());
            staged::refusing(making, Errno::IO, || {
                let place = Place::of_path(place.path()).unwrap();
                let old = place.open(&options).unwrap().unwrap();
                replace(&mut Request::new(place, options), &old)
            })
        };
        let Some(hurried) = replaced(Duration::ZERO) else {
            return eprintln!("skipped: no filters");
        };
        assert!(matches!(hurried, Err(Error::NoSpace { .. })), "{hurried:?}");
        let patient = replaced(Duration::from_secs(3600)).unwrap();
        assert!(matches!(patient, Ok(Outcome::StartOver)), "{patient:?}");
        assert_eq!(fs::metadata(place.path()).unwrap().ino(), id);
    }
}
