//! Unit tests of a region that is open.
#![cfg(test)]

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::Duration;

use rustix::fs::FallocateFlags;

use super::*;
use crate::EventsRegion;
use crate::options::{MpscOrder, Prefault};
use crate::os::futex::{Moment, Woken};
use crate::os::staged::{self, Call, usurp};

/// A directory with a region in it.
fn in_dir() -> (tempfile::TempDir, EventsRegion, PathBuf) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("name");
    let region = EventsRegion::open_path(&path).unwrap();
    (dir, region, path)
}

fn plain_number(region: &EventsRegion) -> i32 {
    region.shared().plain().as_raw_fd()
}

/// What opening the file again says, if the kernel says `errno` of the way through `/proc`.
fn reopen_with(errno: Errno, region: &EventsRegion) -> Option<Result<FileId, Error>> {
    let call = Call::with(libc::SYS_openat, 0, libc::AT_FDCWD);
    let reopened = staged::refusing(call, errno, || region.shared().reopen());
    let id = |file: OwnedFd| FileId::of(&rustix::fs::fstat(file).unwrap());
    let reopened = reopened.map(|reopened| reopened.map(id));
    if reopened.is_none() {
        eprintln!("skipped: no filters");
    }
    reopened
}

#[test]
fn without_proc_the_file_is_opened_again_by_its_name_while_it_has_that() {
    let (_dir, region, path) = in_dir();
    let id = region.shared().file_id();
    let Some(reopened) = reopen_with(Errno::NOENT, &region) else { return };
    assert_eq!(reopened.unwrap(), id);
    let reopened = reopen_with(Errno::MFILE, &region).unwrap();
    assert!(matches!(reopened, Err(Error::Io { .. })), "{reopened:?}");
    for exchange in [true, false] {
        fs::remove_file(&path).unwrap();
        if exchange {
            fs::write(&path, b"the successor").unwrap();
        }
        let reopened = reopen_with(Errno::NOENT, &region).unwrap();
        assert!(matches!(reopened, Err(Error::Replaced { .. })), "{reopened:?}");
    }
    let nameless = EventsRegion::anonymous(OpenOptions::new()).unwrap();
    let reopened = reopen_with(Errno::NOENT, &nameless).unwrap();
    assert!(matches!(reopened, Err(Error::Io { .. })), "{reopened:?}");
}

/// Bytes of the mapping at `start` that this process has pages for; `None` without `/proc`.
fn resident_len(start: usize) -> Option<u64> {
    let all = fs::read_to_string("/proc/self/smaps").ok()?;
    let (_, behind) = all.split_once(&format!("\n{start:08x}-"))?;
    let resident = behind.lines().find_map(|line| line.strip_prefix("Rss:"))?;
    resident.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|count| count * 1024)
}

#[test]
fn a_region_with_lanes_has_no_pages_of_theirs_before_producers_come() {
    let options = OpenOptions::new().spsc_capacity(4096).mpsc_capacity(1 << 20).producers(4);
    let options = options.mpsc_order(MpscOrder::PerProducer).prefault(Prefault::AtOpen);
    let region = EventsRegion::anonymous(options).unwrap();
    let found = resident_len(region.shared().mapping().base() as usize);
    assert!(found.is_none_or(|len| len < 1 << 20), "{found:?}");
}

#[test]
fn a_forked_child_finds_that_a_region_is_not_its_own_to_look_at() {
    let (_dir, region, _) = in_dir();
    assert!(staged::in_child(|| {
        matches!(region.shared().revalidate(), Err(Error::ForkedChild))
    }));
}

#[test]
fn a_region_that_came_as_one_descriptor_carries_no_handles() {
    let options = OpenOptions::new().max_handles(4);
    let region = EventsRegion::anonymous(options).unwrap();
    let passed = EventsRegion::from_fd(region.to_fd().unwrap(), OpenOptions::new()).unwrap();
    assert_eq!([&region, &passed].map(|one| one.shared().max_handles()), [4, 0]);
}

#[test]
fn a_region_made_in_place_is_found_as_it_was_mapped() {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let path = dir.path().join("name");
    File::create(&path).unwrap();
    let region = EventsRegion::open_path(&path).unwrap();
    assert!(region.is_creator());
    region.shared().revalidate().unwrap();
}

#[test]
fn a_region_that_another_was_written_over_is_replaced_by_it() {
    let (_dir, region, path) = in_dir();
    let (_other_dir, _other, other_path) = in_dir();
    region.shared().revalidate().unwrap();
    let file = File::options().write(true).open(path).unwrap();
    let inode = rustix::fs::fstat(&file).unwrap().st_ino;
    let mut bytes = fs::read(other_path).unwrap();
    let header: &mut Header = bytemuck::from_bytes_mut(&mut bytes[..size_of::<Header>()]);
    header.file_inode = inode;
    let (start, len) = (header.directory_offset as usize, header.ring_count * header.entry_len);
    let mut header = *header;
    header.crc = tombolo_abi::header_crc(&header, &bytes[start..][..len as usize]);
    bytes[..size_of::<Header>()].copy_from_slice(bytemuck::bytes_of(&header));
    std::os::unix::fs::FileExt::write_all_at(&file, &bytes, 0).unwrap();
    let found = region.shared().revalidate();
    assert!(matches!(found, Err(Error::Replaced { .. })), "{found:?}");
}

#[test]
fn what_another_file_says_under_the_regions_number_is_not_taken_for_the_region() {
    let (_dir, region, path) = in_dir();
    let copy = path.with_extension("copy");
    fs::copy(&path, &copy).unwrap();
    usurp(plain_number(&region), File::open(copy).unwrap());
    let found = region.shared().revalidate();
    assert!(matches!(found, Err(Error::Io { .. })), "{found:?}");
    assert!(!region.shared().is_private());
}

#[test]
fn another_file_under_the_regions_number_keeps_its_position() {
    let (dir, region, _) = in_dir();
    let path = dir.path().join("other");
    fs::write(&path, b"another").unwrap();
    let other = File::options().read(true).write(true).open(path).unwrap();
    other.set_len(1 << 20).unwrap();
    rustix::fs::seek(&other, rustix::fs::SeekFrom::Start(5)).unwrap();
    usurp(plain_number(&region), &other);
    region.shared().populate(0..4096).unwrap();
    assert_eq!(rustix::fs::tell(&other), Ok(5));
}

#[test]
fn a_region_is_private_while_it_is_this_users_alone() {
    let (_dir, region, path) = in_dir();
    assert!(region.shared().is_private());
    let others = rustix::fs::Uid::from_raw(rustix::process::geteuid().as_raw() + 1);
    if rustix::fs::chown(&path, Some(others), None).is_err() {
        return eprintln!("skipped: this user gives no files away");
    }
    assert!(!region.shared().is_private());
}

#[test]
fn a_page_that_is_missing_is_told_from_one_that_there_is_no_space_for() {
    let (_dir, region, path) = in_dir();
    let missing = region.shared().cut_error();
    assert!(matches!(missing, Error::Io { .. }), "{missing:?}");
    let file = File::options().write(true).open(path).unwrap();
    let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&file, hole, HEADER_PAGE_LEN, HEADER_PAGE_LEN).unwrap();
    let missing = region.shared().cut_error();
    assert!(matches!(missing, Error::NoSpace { .. }), "{missing:?}");
    file.set_len(region.total_len() - 1).unwrap();
    let missing = region.shared().cut_error();
    assert!(matches!(missing, Error::RegionTooSmall { .. }), "{missing:?}");
}

/// What ends a sleep on a word of the region, if `change` is called while it lasts.
fn sleep_while(region: &Region, word: &AtomicU32, change: impl FnOnce(&Region)) -> Woken {
    let expected = word.load(Ordering::Relaxed);
    thread::scope(|scope| {
        let long = Moment::after(Duration::from_secs(20));
        let sleeper = scope.spawn(move || futex::wait(word, expected, long));
        thread::sleep(Duration::from_millis(200));
        change(region);
        sleeper.join().unwrap()
    })
}

#[test]
fn who_sleeps_on_the_state_or_the_count_of_owners_is_woken() {
    let region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
    let region = region.shared();
    let retire = |region: &Region| set_state(region.mapping(), RegionState::Retired);
    let state = region.mapping().word_u32(STATE_OFFSET);
    assert_eq!(
        sleep_while(region, region.membership(), Region::announce_membership),
        Woken::Perhaps
    );
    assert_eq!(sleep_while(region, state, retire), Woken::Perhaps);
}

#[test]
fn each_ring_has_its_own_rendezvous() {
    let region = EventsRegion::anonymous(OpenOptions::new().max_handles(1)).unwrap();
    let ring = |ring| region.shared().rendezvous(ring).map(|one| one.ring);
    assert_eq!([0, 1, 2].map(ring), [Some(0), Some(1), None]);
}

/// Opens a region, if the kernel says that when pages are to be faulted in.
fn open_with(errno: Errno) -> Option<Result<(), Error>> {
    let call = Call::with(libc::SYS_madvise, 2, libc::MADV_POPULATE_WRITE);
    let options = OpenOptions::new().prefault(Prefault::AtOpen);
    let opened = staged::refusing(call, errno, || EventsRegion::anonymous(options).map(drop));
    if opened.is_none() {
        eprintln!("skipped: no filters");
    }
    opened
}

#[test]
fn a_kernel_that_faults_no_pages_in_ahead_does_so_at_first_use() {
    assert!(open_with(Errno::INVAL).is_none_or(|opened| opened.is_ok()));
}

#[test]
fn pages_that_cannot_be_had_are_an_error_of_opening() {
    let Some(opened) = open_with(Errno::NOMEM) else { return };
    assert!(matches!(opened, Err(Error::Io { .. })), "{opened:?}");
}
