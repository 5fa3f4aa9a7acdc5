//! The consumer's listening socket, which has a name in the directory of the region's file.
//!
//! * The name has a random number in it, by which senders find it: the consumer's slot holds it. If another
//!   file has the name, another number is tried, so no process can prevent an attach by putting something
//!   there.
//! * The number is in the slot before the name is made, so the next owner knows what a killed one has left,
//!   and removes it if it may. What it may not remove stays: in a sticky directory that is the name of a
//!   killed receiver of another user. Replacing the region removes those, too, as far as that user may. No
//!   other process removes the name of a live receiver here.
//! * If no name can be made, the endpoint is owned all the same and bytes come through; instead of a number
//!   the slot says what the kernel answered, which senders of handles pass on.
//! * The process's watcher checks it each second, as an idle receiver makes no calls: it makes a name
//!   anew that was removed or exchanged, and one that could not be made before. Connections pending at a
//!   listener that lost its name are still accepted.

use std::mem::offset_of;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Release};

use rustix::fs::Mode;
use rustix::io::Errno;
use tombolo_abi::{LockWord, Slot};

use crate::endpoint::{is_seen_as, slot_offset};
use crate::os::descriptor::Descriptor;
use crate::os::file::FileId;
use crate::os::{random, socket};
use crate::region::{Place, Region};

/// Names that are tried before the directory is taken to be full of them.
const NAMES_MAX: u32 = 8;
/// Listeners without a name that are kept: each was made a second after the one before, and connecting
/// takes less.
const NAMELESS_MAX: usize = 8;
/// Numbers up to this one are errors of the kernel's.
const ERROR_MAX: u64 = 4095;

/// What the slot of a consumer says of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    /// It could make none.
    Failed(i32),
    Number(u64),
}

/// The listening socket of a consumer.
#[derive(Debug)]
pub(super) struct Listener {
    ring: u32,
    /// The consumer's endpoint.
    owner: LockWord,
    /// `None` while no name can be made.
    named: Option<Named>,
    /// Those that have lost their names.
    nameless: Vec<Descriptor>,
}

#[derive(Debug)]
struct Named {
    socket: Descriptor,
    name: String,
    /// What the name stood for when it was made.
    file: Option<FileId>,
}

impl Listener {
    /// Listens for the senders of ring `ring`, or of the lanes of which that is the first, as `owner`, and
    /// removes what the owner before has left.
    pub(super) fn open(region: &Region, place: &Place, ring: u32, owner: LockWord) -> Self {
        if let Said::Number(number) = said(region, owner.slot) {
            let name = region.socket_name(ring, number);
            let _ = place.dir_of_ours().and_then(|dir| socket::remove(dir, &name));
        }
        let mut listener = Self { ring, owner, named: None, nameless: Vec::new() };
        listener.make(region, place);
        listener
    }

    /// The slot of the consumer's endpoint.
    pub(super) fn slot(&self) -> u16 {
        self.owner.slot
    }

    /// Whether senders find it.
    pub(super) fn is_named(&self) -> bool {
        self.named.is_some()
    }

    /// Makes the name anew if it is missing; gives whether it did. While the process owns the endpoint.
    pub(super) fn look_after(&mut self, region: &Region, place: &Place) -> bool {
        let is_there = self.named.as_ref().is_some_and(|named| named.is_in(place));
        !is_there && is_seen_as(region, self.owner).unwrap_or(false) && self.make(region, place)
    }

    /// Listens at a new name, and says in the slot at which or why not.
    fn make(&mut self, region: &Region, place: &Place) -> bool {
        match self.new_named(region, place, draw) {
            Ok(named) => {
                let former = self.named.replace(named);
                self.nameless.extend(former.map(|former| former.socket));
                let surplus = self.nameless.len().saturating_sub(NAMELESS_MAX);
                self.nameless.drain(..surplus);
                true
            }
            Err(error) => {
                self.say(region, error.raw_os_error().unsigned_abs().into());
                false
            }
        }
    }

    fn new_named(
        &self,
        region: &Region,
        place: &Place,
        mut draw: impl FnMut() -> Result<u64, Errno>,
    ) -> Result<Named, Errno> {
        let mode = Mode::from_raw_mode(region.stat()?.st_mode & 0o777);
        for _ in 0..NAMES_MAX {
            let number = draw()?;
            let name = region.socket_name(self.ring, number);
            self.say(region, number); // before it is there: the next owner is to find it
            match socket::listen(place.dir_of_ours()?, &name, mode) {
                Err(Errno::ADDRINUSE) => {}
                Err(error) => return Err(error),
                Ok(socket) => {
                    let file = socket::file_at(place.dir(), &name).ok();
                    return Ok(Named { socket, name, file });
                }
            }
        }
        Err(Errno::ADDRINUSE)
    }

    fn say(&self, region: &Region, number: u64) {
        word(region, self.owner.slot).store(number, Release);
    }

    /// The next connection; `None` if no sender waits.
    pub(super) fn accept(&self) -> Result<Option<Descriptor>, Errno> {
        let named = self.named.iter().map(|named| &named.socket);
        for listener in self.nameless.iter().chain(named) {
            if let Some(connection) = socket::accept(listener)? {
                return Ok(Some(connection));
            }
        }
        Ok(None)
    }

    /// Removes the name and turns away the senders that wait.
    pub(super) fn close(self, region: &Region, place: &Place) {
        if let Some(Named { socket, name, .. }) = self.named {
            if place.dir_of_ours().and_then(|dir| socket::remove(dir, &name)).is_ok() {
                word(region, self.owner.slot).store(0, Release); // else the next owner tries again
            }
            socket::stop_listening(socket);
        }
        self.nameless.into_iter().for_each(socket::stop_listening);
    }
}

impl Named {
    /// Whether the name stands for what it did at first. `true` if that cannot be determined.
    fn is_in(&self, place: &Place) -> bool {
        match place.dir_of_ours().and_then(|dir| socket::file_at(dir, &self.name)) {
            Ok(found) => self.file.is_none_or(|file| file == found),
            Err(error) => error != Errno::NOENT,
        }
    }
}

/// What `slot`, a consumer's, says of its name. Other processes write to it.
pub(super) fn said(region: &Region, slot: u16) -> Said {
    match word(region, slot).load(Acquire) {
        0 => Said::Nothing,
        error @ 1..=ERROR_MAX => Said::Failed(error as i32),
        number => Said::Number(number),
    }
}

fn word(region: &Region, slot: u16) -> &AtomicU64 {
    region.mapping().word_u64(slot_offset(region, slot, offset_of!(Slot, socket_number)))
}

/// A number that no process guesses, and that is no error.
fn draw() -> Result<u64, Errno> {
    let bytes: [u8; 16] =
        random::bytes().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    let number = bytes.first_chunk().map_or(0, |half| u64::from_ne_bytes(*half));
    Ok(number | (ERROR_MAX + 1))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::path::Path;

    use super::*;
    use crate::{EventsRegion, OpenOptions};

    /// A region in `dir`, and what listens in it in the place of its first ring's consumer; `_end` owns the
    /// consumer's slot.
    struct Scene {
        _end: crate::SpscReceiver,
        region: EventsRegion,
        listener: Listener,
    }

    impl Scene {
        fn new(dir: &Path) -> Self {
            let mut region =
                EventsRegion::open_path_with(dir.join("r"), OpenOptions::new()).unwrap();
            let (_, mut end) = region.split_spsc().unwrap();
            end.attach().unwrap(); // without handles, so it listens nowhere
            let slot = region.shared().entries()[0].rx_slot;
            let incarnation = offset_of!(Slot, incarnation);
            let incarnation = crate::endpoint::slot_u32(region.shared(), slot, incarnation);
            let owner = LockWord { slot, incarnation: incarnation.load(Acquire) };
            let shared = region.shared();
            let listener = Listener::open(shared, shared.place().unwrap(), 0, owner);
            Self { _end: end, region, listener }
        }

        fn look_after(&mut self) -> bool {
            let region = self.region.shared();
            self.listener.look_after(region, region.place().unwrap())
        }

        fn path(&self, dir: &Path) -> std::path::PathBuf {
            dir.join(&self.listener.named.as_ref().unwrap().name)
        }

        fn said(&self) -> Said {
            said(self.region.shared(), self.listener.slot())
        }
    }

    #[test]
    fn a_name_is_made_anew_as_often_as_it_goes_and_only_some_listeners_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut scene = Scene::new(directory.path());
        for count in 0..2 * NAMELESS_MAX {
            assert!(!scene.look_after(), "it is there");
            assert_eq!(scene.listener.nameless.len(), count.min(NAMELESS_MAX));
            std::fs::remove_file(scene.path(directory.path())).unwrap();
            assert!(scene.look_after());
        }
    }

    #[test]
    fn nothing_is_said_in_a_slot_that_is_owned_by_another() {
        let directory = tempfile::tempdir().unwrap();
        let mut scene = Scene::new(directory.path());
        let said = scene.said();
        std::fs::remove_file(scene.path(directory.path())).unwrap();
        scene.listener.owner.incarnation += 1;
        assert!(!scene.look_after());
        assert_eq!(scene.said(), said);
    }

    #[test]
    fn a_name_that_is_taken_is_passed_by_and_the_number_of_another_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let scene = Scene::new(directory.path());
        let (region, listener) = (scene.region.shared(), &scene.listener);
        let place = region.place().unwrap();
        let taken = |number| region.socket_name(0, number);
        std::fs::write(directory.path().join(taken(5000)), b"").unwrap();
        let mut numbers = [5000, 5000, 6000].into_iter();
        let named = listener.new_named(region, place, || Ok(numbers.next().unwrap())).unwrap();
        assert_eq!((named.name, scene.said()), (taken(6000), Said::Number(6000)));
        let mut count = 0;
        let all_taken = || {
            count += 1;
            Ok(5000)
        };
        assert_eq!(listener.new_named(region, place, all_taken).unwrap_err(), Errno::ADDRINUSE);
        assert_eq!(count, NAMES_MAX);
    }

    #[test]
    fn a_name_that_cannot_be_looked_at_is_taken_to_be_there() {
        use rustix::process::{Gid, Uid, geteuid};
        use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
        if !geteuid().is_root() {
            return eprintln!("skipped: only root can be another user");
        }
        let directory = tempfile::tempdir().unwrap();
        let owners_alone = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(directory.path(), owners_alone).unwrap();
        let mut scene = Scene::new(directory.path());
        let look = || {
            let (user, group) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
            set_thread_groups(&[]).unwrap(); // of this thread
            set_thread_res_gid(group, group, group).unwrap();
            set_thread_res_uid(user, user, user).unwrap();
            scene.look_after()
        };
        assert!(!std::thread::scope(|scope| scope.spawn(look).join().unwrap()));
        assert!(matches!(scene.said(), Said::Number(_)));
    }

    #[test]
    fn closing_turns_away_who_waits_at_any_listener_of_which_a_child_has_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let mut scene = Scene::new(directory.path());
        let connect = |scene: &Scene| {
            let place = scene.region.shared().place().unwrap();
            let named = scene.listener.named.as_ref().unwrap();
            let copy = named.socket.as_fd().try_clone_to_owned().unwrap();
            (socket::connect(place.dir(), &named.name).unwrap(), copy)
        };
        let first = connect(&scene);
        std::fs::remove_file(scene.path(directory.path())).unwrap();
        assert!(scene.look_after());
        let second = connect(&scene);
        let Scene { region, listener, .. } = scene;
        let (region, slot) = (region.shared(), listener.slot());
        listener.close(region, region.place().unwrap());
        for (waiting, _copy) in [&first, &second] {
            let found = socket::peek_bytes(waiting.as_fd(), &mut [0]);
            assert_ne!(found, Err(Errno::AGAIN), "it waits");
        }
        assert_eq!(said(region, slot), Said::Nothing);
    }
}
