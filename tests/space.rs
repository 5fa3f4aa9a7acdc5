//! As long as one region fits, one opener creates it and the others join; if none fits, each is told so.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, setrlimit};
use support::mount::Mount;
use support::overlay::Overlay;
use support::process::{command, report, role};
use support::*;
use tombolo::options::{CreatePolicy, Prefault};
use tombolo::{Error, EventsRegion, LayoutError, OpenOptions};

const MIB: u64 = 1 << 20;

/// A region of a little over `mib` MiB.
fn of_mib(mib: u64) -> OpenOptions {
    let options = OpenOptions::new().spsc_capacity(mib * MIB).mpsc_capacity(4096).producers(1);
    options.max_message(1000).prefault(Prefault::OnDemand)
}

/// An empty directory, to mount on.
fn directory() -> (Dir, PathBuf) {
    let dir = Dir::new();
    let path = dir.file("memory");
    fs::create_dir(&path).unwrap();
    (dir, path)
}

/// Opens one path `count` times at the same moment.
fn open_at_once(
    path: &Path,
    count: usize,
    options: &OpenOptions,
) -> Vec<Result<EventsRegion, Error>> {
    let barrier = Barrier::new(count);
    let open = || {
        barrier.wait();
        EventsRegion::open_path_with(path, options.clone())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(open)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn of_any_number_of_openers_one_creates_the_one_region_that_fits_and_the_others_join() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(24 * MIB, &memory) else { return };
    let mut openings = 0;
    for (openers, rounds) in [(2, 20), (8, 10), (64, 3)] {
        // Two fit not quite; two fit, and many don't.
        for mib in [16, 8] {
            for _ in 0..rounds {
                let path = memory.join("a");
                let opened = open_at_once(&path, openers, &of_mib(mib));
                let regions: Vec<_> = opened.into_iter().map(Result::unwrap).collect();
                assert_eq!(regions.iter().filter(|region| region.is_creator()).count(), 1);
                assert!(regions.iter().all(|region| region.uuid() == regions[0].uuid()));
                fs::remove_file(path).unwrap();
                openings += regions.len();
            }
        }
    }
    println!("openings: {openings}");
    assert_eq!(openings, 2 * (2 * 20 + 8 * 10 + 64 * 3));
}

#[test]
fn a_region_that_does_not_fit_says_so_soon_to_each_opener_and_leaves_nothing_behind() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(32 * MIB, &memory) else { return };
    let path = memory.join("a");
    // More than is free, but less than the file system has.
    fs::write(memory.join("filler"), vec![1; 18 << 20]).unwrap();
    for openers in [1, 2, 8, 64] {
        for opened in open_at_once(&path, openers, &of_mib(16)) {
            assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
        }
        assert_eq!(fs::read_dir(&memory).unwrap().count(), 1);
    }
    // Each is told after a time of its own, also if others have come before and others come after it.
    let open = |number: u64| {
        thread::sleep(Duration::from_millis(20 * number));
        let started = Instant::now();
        (EventsRegion::open_path_with(&path, of_mib(16)), started.elapsed())
    };
    let opened: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..40).map(|number| scope.spawn(move || open(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (opened, took) in &opened {
        assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
        assert!(*took < Duration::from_secs(3), "{took:?}"); // promised: one second
    }
    println!("the last was told after {:?}", opened.iter().map(|(_, took)| took).max());
    assert_eq!(fs::read_dir(&memory).unwrap().count(), 1);
    // A shorter time to wait for others is kept, too.
    let opened = EventsRegion::open_path_with(&path, of_mib(16).join_timeout(Duration::ZERO));
    assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
    assert_eq!(fs::read_dir(&memory).unwrap().count(), 1);
    let fits = of_mib(8).join_timeout(Duration::ZERO);
    assert!(EventsRegion::open_path_with(&path, fits).unwrap().is_creator());
}

/// What an opener tries, and gives up, is missing to others meanwhile.
#[test]
fn an_opener_without_space_takes_none_from_others() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(32 * MIB, &memory) else { return };
    fs::write(memory.join("filler"), vec![1; 18 << 20]).unwrap();
    let mut writes = 0;
    thread::scope(|scope| {
        let opening = scope.spawn(|| EventsRegion::open_path_with(memory.join("a"), of_mib(16)));
        while !opening.is_finished() {
            fs::write(memory.join("other"), vec![1; 8 << 20]).unwrap();
            writes += 1;
        }
        assert!(matches!(opening.join().unwrap(), Err(Error::NoSpace { .. })));
    });
    println!("writes meanwhile: {writes}");
    assert!(writes > 0);
}

#[test]
fn a_stopped_creator_holds_up_others_for_the_join_timeout_and_keeps_what_it_has_begun() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(24 * MIB, &memory) else { return };
    let path = memory.join("a");
    write_private(&path, b"");
    let stopped = lock_byte(&path, tombolo_abi::LOCK_INIT);
    let soon = of_mib(16).join_timeout(Duration::from_millis(50));
    for opened in open_at_once(&path, 8, &soon) {
        let is_unready = |error: &Error| {
            matches!(error, Error::Layout { reason: LayoutError::NotReady { .. }, .. })
        };
        assert!(opened.as_ref().is_err_and(is_unready), "{opened:?}");
    }
    assert!(path.exists());
    drop(stopped);
    assert!(EventsRegion::open_path_with(&path, of_mib(16)).unwrap().is_creator());
}

#[test]
fn a_file_system_without_another_file_to_give_says_so_and_nothing_is_left() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory_of_files(24 * MIB, 2, &memory) else { return };
    fs::write(memory.join("the only one"), b"").unwrap();
    for opened in open_at_once(&memory.join("a"), 4, &of_mib(4)) {
        assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
    }
    assert_eq!(fs::read_dir(&memory).unwrap().count(), 1);
    fs::remove_file(memory.join("the only one")).unwrap();
    for opened in open_at_once(&memory.join("a"), 4, &of_mib(4)) {
        opened.unwrap();
    }
}

#[test]
fn an_opener_waits_for_space_that_comes_within_moments() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(8 * MIB, &memory) else { return };
    let filler = memory.join("filler");
    fs::write(&filler, vec![1; 6 << 20]).unwrap();
    let opening = thread::spawn({
        let path = memory.join("a");
        move || EventsRegion::open_path_with(path, of_mib(4))
    });
    thread::sleep(Duration::from_millis(100));
    fs::remove_file(filler).unwrap();
    assert!(opening.join().unwrap().unwrap().is_creator());
}

#[test]
fn a_region_may_take_all_the_space_that_there_is() {
    let (dir, memory) = directory();
    let elsewhere = dir.file("elsewhere");
    drop(EventsRegion::open_path_with(&elsewhere, of_mib(1)).unwrap());
    let len = fs::metadata(&elsewhere).unwrap().len();
    let Some(_mount) = Mount::memory(len, &memory) else { return };
    assert!(EventsRegion::open_path_with(memory.join("a"), of_mib(1)).unwrap().is_creator());
}

#[test]
fn a_file_system_that_does_not_tell_its_space_is_taken_to_have_it() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(0, &memory) else { return }; // without a limit
    assert!(EventsRegion::open_path_with(memory.join("a"), of_mib(1)).unwrap().is_creator());
}

#[test]
fn an_empty_file_that_was_there_stays_if_it_cannot_be_filled() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(8 * MIB, &memory) else { return };
    let path = memory.join("a");
    write_private(&path, b"");
    for opened in open_at_once(&path, 4, &of_mib(16)) {
        assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
    }
    assert_eq!(fs::metadata(&path).unwrap().len(), 0);
}

#[test]
fn a_file_system_that_is_not_allowed_gets_no_file_however_little_space_it_has() {
    let overlay = match Overlay::mount() {
        Ok(overlay) => overlay,
        Err(reason) => return eprintln!("skipped: no overlay file system: {reason}"),
    };
    for options in [of_mib(1), of_mib(1 << 20)] {
        let opened = EventsRegion::open_path_with(overlay.file("a"), options);
        assert!(matches!(opened, Err(Error::UnsupportedFileSystem { .. })), "{opened:?}");
        assert!(!overlay.file("a").exists());
    }
}

#[test]
fn a_region_that_cannot_be_mapped_leaves_nothing_behind() {
    const ENTRY: &str = "a_region_that_cannot_be_mapped_leaves_nothing_behind";
    if let Some((_, path)) = role() {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        let kib: u64 = size.split_whitespace().next().unwrap().parse().unwrap();
        let limit = Some((kib << 10) + 8 * MIB);
        setrlimit(Resource::As, Rlimit { current: limit, maximum: limit }).unwrap();
        let opened = EventsRegion::open_path_with(path, of_mib(16));
        assert!(matches!(opened, Err(Error::Io { action: "map", .. })), "{opened:?}");
        return report("refused");
    }
    let (_dir, memory) = directory();
    // Space for one, which is made in place, and for two.
    for mib in [24, 48] {
        let Some(_mount) = Mount::memory(mib * MIB, &memory) else { return };
        let output = command(ENTRY, "narrow", &memory.join("a")).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("peer: refused"), "{text}");
        assert_eq!(fs::read_dir(&memory).unwrap().count(), 0);
    }
}

#[test]
fn a_new_region_in_place_of_an_unused_one_needs_space_for_both() {
    let (_dir, memory) = directory();
    let Some(_mount) = Mount::memory(24 * MIB, &memory) else { return };
    let path = memory.join("a");
    let old = EventsRegion::open_path_with(&path, of_mib(16)).unwrap().uuid();
    let new = of_mib(16).policy(CreatePolicy::CreateNew);
    let opened = EventsRegion::open_path_with(&path, new.clone());
    assert!(matches!(opened, Err(Error::NoSpace { .. })), "{opened:?}");
    assert_eq!(EventsRegion::open_path_with(&path, of_mib(16)).unwrap().uuid(), old);
    fs::remove_file(&path).unwrap();
    assert!(EventsRegion::open_path_with(&path, new).unwrap().is_creator());
}
