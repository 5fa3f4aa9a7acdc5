//! Opening: whoever comes first creates, everybody else joins, and what died on the way is taken
//! over. Rows C1, C14, C16 to C18, C26 and C27 of the fault table.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::options::{CreatePolicy, MpscOrder, Prefault};
use tombolo::{Error, EventsRegion, LayoutError, MessagePacket, OpenOptions};
use tombolo_abi::{MAGIC, caps};

mod support;
use support::*;

#[test]
fn the_first_opener_creates_and_the_second_joins_the_same_region() {
    let dir = Dir::new();
    let path = dir.file("a");
    let first = EventsRegion::open_path(&path).unwrap();
    let second = EventsRegion::open_path(&path).unwrap();
    assert!(first.is_creator() && !second.is_creator());
    assert_eq!(first.uuid(), second.uuid());
    assert_eq!(first.generation(), 1);
    assert_eq!(second.path(), Some(path.as_path()));
    assert!(first.is_current().unwrap() && second.is_current().unwrap());
    let header = header_of(&fs::read(&path).unwrap());
    assert_eq!((header.magic, header.state), (MAGIC, 2));
    assert_eq!(header.creator_pid, std::process::id());
    assert_eq!(header.total_len, fs::metadata(&path).unwrap().len());
    assert!(header.creator_start_ticks > 0 && header.pid_namespace > 0);
    assert_eq!(dir.snapshot().len(), 1, "nothing but the region");
}

#[test]
fn a_name_lies_in_the_directory_of_the_environment() {
    const INSIDE: &str = "TOMBOLO_TEST_NAME_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        let region = EventsRegion::open("demo.1").unwrap();
        println!("opened {}", region.path().unwrap().display());
        return;
    }
    let dir = Dir::new();
    let output = again(INSIDE, "a_name_lies_in_the_directory_of_the_environment")
        .env("TOMBOLO_DIR", dir.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let names: Vec<_> = dir.snapshot().into_keys().collect();
    assert_eq!(names, ["demo.1.tombolo"]);
    let header = header_of(&fs::read(dir.file("demo.1.tombolo")).unwrap());
    assert!(header.name.starts_with(b"demo.1\0"));
}

/// This test program once more, running one test with a mark in its environment.
fn again(mark: &str, test: &str) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(mark, "1");
    command
}

#[test]
fn the_default_directory_is_private() {
    let euid = rustix::process::geteuid().as_raw();
    const INSIDE: &str = "TOMBOLO_TEST_DEFAULT_INSIDE";
    let name = format!("test-{}", std::process::id());
    if let Some(name) = std::env::var_os(INSIDE) {
        drop(EventsRegion::open_with(name.to_str().unwrap(), small()).unwrap());
        return;
    }
    let dir = format!("/dev/shm/tombolo-{euid}");
    let was_there = fs::exists(&dir).unwrap();
    for is_empty in [false, true] {
        let mut inside = again(INSIDE, "the_default_directory_is_private");
        inside.env(INSIDE, &name).env_remove("TOMBOLO_DIR");
        if is_empty {
            inside.env("TOMBOLO_DIR", "");
        }
        assert!(inside.status().unwrap().success());
        let meta = fs::metadata(&dir).unwrap();
        assert_eq!((meta.uid(), meta.mode() & 0o022), (euid, 0));
        fs::remove_file(format!("{dir}/{name}.tombolo")).unwrap();
    }
    if !was_there {
        let _ = fs::remove_dir(&dir); // somebody else may be using it by now
    }
}

#[test]
fn a_joiners_sizes_are_minima_and_an_error_names_the_option() {
    let dir = Dir::new();
    let path = dir.file("a");
    let options =
        OpenOptions::new().spsc_capacity(1 << 16).mpsc_capacity(1 << 17).max_message(1000);
    let options = options.max_handles(3).producers(9);
    let _creator = EventsRegion::open_path_with(&path, options).unwrap();
    let join = |options: OpenOptions| EventsRegion::open_path_with(&path, options);
    join(OpenOptions::new().spsc_capacity(1 << 16).producers(9).mode(0o640)).unwrap();
    join(OpenOptions::new()).unwrap();
    let rows = [
        (OpenOptions::new().spsc_capacity(1 << 17), "spsc_capacity", 1 << 16),
        (OpenOptions::new().mpsc_capacity(1 << 18), "mpsc_capacity", 1 << 17),
        (OpenOptions::new().max_message(1001), "max_message", 1000),
        (OpenOptions::new().max_handles(4), "max_handles", 3),
        (OpenOptions::new().producers(10), "producers", 9),
        (OpenOptions::new().require(caps::LANES), "caps_required", caps::EXT | caps::HANDLES),
    ];
    for (options, option, value) in rows {
        for policy in [CreatePolicy::OpenExisting, CreatePolicy::OpenOrCreate] {
            // A creator may not ask for lanes without saying so by the order.
            let policy =
                if option == "caps_required" { CreatePolicy::OpenExisting } else { policy };
            match join(options.clone().policy(policy)) {
                Err(Error::Layout {
                    reason:
                        LayoutError::Field { field: asked, found, .. }
                        | LayoutError::OptionTooSmall { option: asked, found, .. },
                    ..
                }) => assert_eq!((asked, found), (option, value)),
                other => panic!("{option}: {other:?}"),
            }
        }
    }
}

#[test]
fn a_joiner_that_asks_for_more_handles_or_another_order_than_a_region_has_is_told_at_once() {
    let dir = Dir::new();
    let total = MpscOrder::Total;
    let lanes = MpscOrder::PerProducer;
    let mut count = 0;
    for made in [OpenOptions::new(), OpenOptions::new().mpsc_order(lanes).producers(4)] {
        let path = dir.file(&format!("{count}"));
        let creator = EventsRegion::open_path_with(&path, made).unwrap();
        let joiners = |options: OpenOptions| {
            let by_fd = EventsRegion::from_fd(creator.to_fd().unwrap(), options.clone());
            [EventsRegion::open_path_with(&path, options), by_fd]
        };
        let has = creator.mpsc_order().unwrap();
        let other = if has == total { lanes } else { total };
        let handles = EventsRegion::anonymous(OpenOptions::new().max_handles(1)).unwrap();
        let asked = OpenOptions::new().max_handles(1);
        let alone = EventsRegion::from_fd(handles.to_fd().unwrap(), asked.clone()).unwrap_err();
        assert!(alone.to_string().contains("max_handles is 0 in a region that came"), "{alone}");
        let joined = EventsRegion::from_fds(handles.to_fds().unwrap(), asked).unwrap();
        assert_eq!(joined.max_handles(), 1);
        for joined in joiners(OpenOptions::new().max_handles(1)) {
            let error = joined.unwrap_err();
            let wanted =
                "max_handles of the SPSC ring is 0, wanted at least 1; leave the option unset";
            assert!(error.to_string().contains(wanted), "{error}");
            assert!(error.to_string().contains("CreatePolicy::CreateNew"), "{error}");
        }
        for joined in joiners(OpenOptions::new().mpsc_order(other).producers(4)) {
            let Err(Error::Layout { reason, .. }) = joined else { panic!("{joined:?}") };
            let (found, wanted) = (format!("{has:?}"), format!("{other:?}"));
            let text = format!("mpsc_order is {found}, wanted {wanted}; leave the option unset");
            assert!(reason.to_string().contains(&text), "{reason}");
        }
        // What is not set asks for nothing, and what the region has may be asked for.
        for options in [OpenOptions::new(), OpenOptions::new().mpsc_order(has).max_handles(0)] {
            for joined in joiners(options) {
                joined.unwrap();
            }
        }
        count += 1;
    }
    assert_eq!(count, 2);
}

#[test]
fn a_joined_region_tells_what_it_has() {
    let options = OpenOptions::new().spsc_capacity(1 << 14).mpsc_capacity(1 << 15);
    let options = options.max_message(999).max_handles(7).producers(5);
    for order in [MpscOrder::Total, MpscOrder::PerProducer] {
        let made = EventsRegion::anonymous(options.clone().mpsc_order(order)).unwrap();
        let joined = EventsRegion::from_fds(made.to_fds().unwrap(), OpenOptions::new()).unwrap();
        let capacities = (joined.spsc_capacity(), joined.mpsc_capacity());
        assert_eq!(capacities, (1 << 14, 1 << 15));
        assert_eq!((joined.max_message(), joined.max_handles()), (999, 7));
        assert_eq!((joined.producers(), joined.mpsc_order()), (5, Some(order)));
        let len = std::fs::File::from(joined.to_fd().unwrap()).metadata().unwrap().len();
        assert_eq!(joined.total_len(), len);
    }
}

#[test]
fn options_that_no_region_can_have_are_refused_before_anything_is_made() {
    let dir = Dir::new();
    let rows = [
        (OpenOptions::new().spsc_capacity(5000), "spsc_capacity"),
        (OpenOptions::new().mpsc_capacity(1 << 41), "mpsc_capacity"),
        (OpenOptions::new().spsc_capacity(2048), "spsc_capacity"),
        (OpenOptions::new().spsc_capacity(4096).max_message(1009), "max_message"),
        (OpenOptions::new().mpsc_capacity(1 << 40).max_message(1 << 28), "max_message"),
        (OpenOptions::new().max_handles(65), "max_handles"),
        (OpenOptions::new().producers(0), "producers"),
        (OpenOptions::new().producers(8190), "producers"),
        (OpenOptions::new().mode(0o1600), "mode"),
        (OpenOptions::new().mode(0o060), "mode"),
        (OpenOptions::new().require(caps::LANES), "require"),
        (OpenOptions::new().require(caps::HANDLES), "require"),
    ];
    for (options, wanted) in rows {
        dir.refuses_with(
            &dir.file("a"),
            options,
            |error| matches!(error, Error::InvalidOption { option, .. } if *option == wanted),
        );
    }
    let by_name = EventsRegion::open_with("refused", OpenOptions::new().producers(0));
    assert!(matches!(by_name, Err(Error::InvalidOption { option: "producers", .. })));
    let in_memory = EventsRegion::anonymous(OpenOptions::new().producers(0));
    assert!(matches!(in_memory, Err(Error::InvalidOption { option: "producers", .. })));
    let edge = OpenOptions::new().spsc_capacity(4096).max_message(1008).producers(8189);
    EventsRegion::open_path_with(dir.file("a"), edge).unwrap();
}

#[test]
fn create_new_replaces_a_region_that_nobody_uses() {
    let dir = Dir::new();
    let path = dir.file("a");
    let new = || small().policy(CreatePolicy::CreateNew);
    let first = EventsRegion::open_path_with(&path, new()).unwrap();
    let second = EventsRegion::open_path_with(&path, new()).unwrap();
    assert!(second.is_creator());
    assert_eq!((first.generation(), second.generation()), (1, 2));
    assert_ne!(first.uuid(), second.uuid());
    assert!(!first.is_current().unwrap() && second.is_current().unwrap());
    assert_eq!(dir.snapshot().len(), 1, "nothing left of the first");
}

#[test]
fn create_new_leaves_a_region_in_use_alone() {
    let dir = Dir::new();
    let path = dir.file("a");
    let first = EventsRegion::open_path_with(&path, small()).unwrap();
    let owner = lock_byte(&path, tombolo_abi::LOCK_SLOTS + 1);
    let new = || small().policy(CreatePolicy::CreateNew);
    let refused = EventsRegion::open_path_with(&path, new());
    assert!(matches!(refused, Err(Error::InUse { .. })), "{refused:?}");
    assert!(first.is_current().unwrap());
    drop(owner);
    assert!(EventsRegion::open_path_with(&path, new()).unwrap().is_creator());
}

#[test]
fn open_existing_never_creates() {
    let dir = Dir::new();
    let path = dir.file("a");
    let existing = || {
        let options = OpenOptions::new().policy(CreatePolicy::OpenExisting);
        options.join_timeout(Duration::from_millis(30))
    };
    dir.refuses_with(&path, existing(), |error| matches!(error, Error::NotFound { .. }));
    write_private(&path, b"");
    dir.refuses_with(&path, existing(), |error| {
        matches!(error, Error::Layout { reason: LayoutError::NotReady { state: 0 }, .. })
    });
    let creator = EventsRegion::open_path_with(&path, small()).unwrap();
    let joiner = EventsRegion::open_path_with(&path, existing()).unwrap();
    assert_eq!(creator.uuid(), joiner.uuid());
}

#[test]
fn an_empty_file_is_taken_with_the_mode_asked_for() {
    let dir = Dir::new();
    let path = dir.file("a");
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    let inode = fs::metadata(&path).unwrap().ino();
    let region = EventsRegion::open_path_with(&path, small().mode(0o640)).unwrap();
    assert!(region.is_creator());
    let meta = fs::metadata(&path).unwrap();
    assert_eq!((meta.ino(), meta.mode() & 0o7777), (inode, 0o640));
    assert!(!EventsRegion::open_path(&path).unwrap().is_creator());
    assert_eq!(dir.open_fds(), 2, "the creator's file and directory, nothing of the joiner");
}

#[test]
fn a_region_made_in_place_is_laid_out_like_one_made_whole() {
    let dir = Dir::new();
    let (whole, in_place) = (dir.file("whole"), dir.file("in-place"));
    write_private(&in_place, b"");
    for path in [&whole, &in_place] {
        EventsRegion::open_path_with(path, small()).unwrap();
    }
    let [whole, in_place] = [whole, in_place].map(|path| fs::read(path).unwrap());
    let (a, b) = (header_of(&whole), header_of(&in_place));
    assert_eq!((a.state, b.state), (2, 2));
    assert_eq!(a.total_len, b.total_len);
    assert_eq!(whole[0x200..], in_place[0x200..]);
    let set = whole[0x1000..].iter().filter(|byte| **byte != 0).count();
    println!("bytes set behind the header page: {set}");
    assert!(set > 0);
}

#[test]
fn the_mode_does_not_depend_on_the_umask() {
    const INSIDE: &str = "TOMBOLO_TEST_UMASK_INSIDE";
    if let Some(path) = std::env::var_os(INSIDE) {
        for mask in [0o777, 0] {
            rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask));
            let path = Path::new(&path).join(format!("{mask:o}"));
            EventsRegion::open_path_with(path, small().mode(0o640)).unwrap();
        }
        return;
    }
    let dir = Dir::new();
    let mut child = again(INSIDE, "the_mode_does_not_depend_on_the_umask");
    assert!(child.env(INSIDE, dir.path()).status().unwrap().success());
    let modes: Vec<_> = dir.snapshot().into_values().map(|(mode, ..)| mode & 0o7777).collect();
    assert_eq!(modes, [0o640, 0o640]);
}

/// What a creator leaves that dies right after its first write, or while filling the file.
fn half_made(dir: &Dir, path: &Path, len: usize) {
    let mut bytes = sound_bytes(dir);
    bytes[STATE].copy_from_slice(&1u32.to_le_bytes());
    bytes[0x1000..].fill(0xa5);
    bytes.truncate(len);
    write_private(path, &bytes);
}

#[test]
fn a_creator_that_died_is_taken_over_at_once_and_nothing_of_it_shows_through() {
    let dir = Dir::new();
    let (path, fresh) = (dir.file("a"), dir.file("fresh"));
    EventsRegion::open_path_with(&fresh, small()).unwrap();
    let mut count = 0;
    for len in [4096, 5000, usize::MAX] {
        half_made(&dir, &path, len);
        let started = Instant::now();
        let region = EventsRegion::open_path_with(&path, small()).unwrap();
        assert!(region.is_creator());
        assert!(started.elapsed() < Duration::from_secs(1), "waited for the dead");
        assert_eq!(fs::read(&path).unwrap()[0x200..], fs::read(&fresh).unwrap()[0x200..]);
        fs::remove_file(&path).unwrap();
        count += 1;
    }
    println!("half-made files taken over: {count}");
    assert_eq!(count, 3);
}

#[test]
fn a_live_creator_is_waited_for_until_the_time_is_up() {
    let dir = Dir::new();
    let path = dir.file("a");
    half_made(&dir, &path, 4096);
    let creator = lock_byte(&path, tombolo_abi::LOCK_INIT);
    let soon = small().join_timeout(Duration::from_millis(50));
    let refused = EventsRegion::open_path_with(&path, soon);
    let is_unready = |error: &Error| {
        matches!(error, Error::Layout { reason: LayoutError::NotReady { state: 1 }, .. })
    };
    assert!(refused.as_ref().is_err_and(is_unready), "{refused:?}");
    let waiting = {
        let path = path.clone();
        thread::spawn(move || EventsRegion::open_path_with(path, small()).unwrap())
    };
    thread::sleep(Duration::from_millis(20));
    drop(creator);
    assert!(waiting.join().unwrap().is_creator());
}

#[test]
fn a_retired_region_that_kept_its_name_is_replaced() {
    let dir = Dir::new();
    let path = dir.file("a");
    let old = EventsRegion::open_path_with(&path, small()).unwrap();
    set_state(&path, 3);
    assert!(!old.is_current().unwrap());
    let new = EventsRegion::open_path_with(&path, small()).unwrap();
    assert!(new.is_creator() && new.is_current().unwrap());
    assert_eq!(new.generation(), 2);
    assert_ne!(new.uuid(), old.uuid());
}

/// The bug: an opener that waited for a replacer, and found its name gone for a moment, made a region
/// of generation 1.
#[test]
fn whoever_has_seen_a_stale_region_succeeds_it_even_when_its_name_goes_meanwhile() {
    let Some(dir) = Dir::on_disk() else { return };
    let path = dir.file("a");
    let mut bytes = sound_bytes(&dir);
    forge(&mut bytes, |header| {
        of_earlier_boot(header);
        header.generation = 41;
    });
    // The opener needs time to have a look; how much it needs nobody knows.
    let generation_after = |pause: u64| {
        write_private(&path, &bytes);
        let _replacer = lock_byte(&path, tombolo_abi::LOCK_INIT);
        let opener = {
            let path = path.clone();
            thread::spawn(move || {
                EventsRegion::open_path_with(&path, on_disk()).unwrap().generation()
            })
        };
        thread::sleep(Duration::from_millis(pause));
        fs::remove_file(&path).unwrap();
        let generation = opener.join().unwrap();
        fs::remove_file(&path).unwrap();
        generation
    };
    let found: Vec<_> = [10, 100, 1000].map(generation_after).to_vec();
    assert!(found.contains(&42), "{found:?}");
}

#[test]
fn leftovers_of_replacers_are_swept_and_nothing_else() {
    let dir = Dir::new();
    let path = dir.file("a");
    let mut bytes = sound_bytes(&dir);
    let left = |digit: &str| dir.file(&format!(".{}.retired", digit.repeat(32)));
    write_private(&left("1"), &bytes); // READY: a live region that lost its name
    bytes[STATE].copy_from_slice(&3u32.to_le_bytes());
    write_private(&left("2"), &bytes);
    write_private(&left("3"), &bytes); // in use
    let _user = lock_byte(&left("3"), tombolo_abi::LOCK_SLOTS + 3);
    write_private(&left("4"), b"not a region");
    write_private(&dir.file(".x.retired"), &bytes);
    write_private(&path, &bytes);
    EventsRegion::open_path_with(&path, small()).unwrap();
    let kept: Vec<_> = dir.snapshot().into_keys().collect();
    let names = [".x.retired".into(), left("1"), left("3"), left("4"), "a".into()];
    let mut wanted = names.map(|path: PathBuf| path.file_name().unwrap().to_owned()).to_vec();
    wanted.sort();
    assert_eq!(kept, wanted);
}

#[test]
fn a_poisoned_region_is_refused() {
    let dir = Dir::new();
    let path = dir.file("a");
    write_private(&path, &sound_bytes(&dir));
    set_state(&path, 4);
    dir.refuses(&path, |error| matches!(error, Error::RegionPoisoned { .. }));
}

#[test]
fn removing_the_file_leaves_its_users_alone_and_the_next_opener_creates() {
    let dir = Dir::new();
    let path = dir.file("a");
    let old = EventsRegion::open_path_with(&path, small()).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(!old.is_current().unwrap());
    let new = EventsRegion::open_path_with(&path, small()).unwrap();
    assert!(new.is_creator() && new.is_current().unwrap() && !old.is_current().unwrap());
    fs::rename(&path, dir.file("b")).unwrap();
    assert!(!new.is_current().unwrap());
}

/// Opens one path from many threads at once; gives how many created, and all regions.
fn race(path: &Path, options: &OpenOptions) -> (usize, Vec<EventsRegion>) {
    const THREADS: usize = 16;
    let barrier = Arc::new(Barrier::new(THREADS));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (path, options, barrier) = (path.to_owned(), options.clone(), barrier.clone());
            thread::spawn(move || {
                barrier.wait();
                EventsRegion::open_path_with(path, options).unwrap()
            })
        })
        .collect();
    let regions: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    (regions.iter().filter(|region| region.is_creator()).count(), regions)
}

#[test]
fn of_many_openers_at_once_exactly_one_creates() {
    let memory = Dir::new();
    let disk = Dir::on_disk();
    let stale = {
        let mut bytes = sound_bytes(&memory);
        forge(&mut bytes, of_earlier_boot);
        bytes
    };
    let (mut count, mut rounds) = (0, 0);
    for round in 0..40 {
        let dir = if round % 5 == 4 { disk.as_ref() } else { Some(&memory) };
        let Some(dir) = dir else { continue };
        let path = dir.file(&format!("{round}"));
        match round % 5 {
            0 | 1 => {}
            2 => write_private(&path, b""),
            3 => half_made(dir, &path, 4096),
            _ => write_private(&path, &stale),
        }
        let (creators, regions) = race(&path, &on_disk().prefault(Prefault::OnDemand));
        assert_eq!(creators, 1, "round {round}");
        assert!(regions.iter().all(|region| region.uuid() == regions[0].uuid()), "round {round}");
        assert!(regions.iter().all(|region| region.is_current().unwrap()), "round {round}");
        (count, rounds) = (count + regions.len(), rounds + 1);
    }
    println!("openings: {count}");
    assert_eq!((count, rounds), (rounds * 16, if disk.is_some() { 40 } else { 32 }));
    let dirs = [Some(memory), disk].into_iter().flatten();
    let [mut left, mut open] = [0; 2];
    dirs.for_each(|dir| (left, open) = (left + dir.snapshot().len(), open + dir.open_fds()));
    assert_eq!((left, open), (rounds, 0), "nothing but the regions");
}

#[test]
fn replacers_and_joiners_at_once_leave_one_region_under_the_name() {
    let dir = Dir::new();
    let path = dir.file("a");
    let mut count = 0;
    for round in 0..30 {
        if round % 3 == 0 {
            write_private(&path, &sound_bytes(&dir));
            set_state(&path, 3);
        }
        let threads: Vec<_> = (0..12)
            .map(|index| {
                let policy = [CreatePolicy::CreateNew, CreatePolicy::OpenOrCreate][index % 2];
                let (path, options) = (path.clone(), small().policy(policy));
                thread::spawn(move || EventsRegion::open_path_with(path, options).unwrap())
            })
            .collect();
        let regions: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        let current = regions.iter().filter(|region| region.is_current().unwrap());
        let mut uuids: Vec<_> = current.map(EventsRegion::uuid).collect();
        count += uuids.len();
        uuids.dedup();
        assert_eq!(uuids.len(), 1, "round {round}");
        assert_eq!(dir.snapshot().len(), 1, "round {round}");
        drop(regions);
        fs::remove_file(&path).unwrap();
    }
    println!("current regions seen: {count}");
    assert!(count >= 30);
}

/// What a program that is started now gets beside its standard streams.
fn inherited() -> Vec<PathBuf> {
    let mut command = std::process::Command::new("cat");
    let pipe = std::process::Stdio::piped;
    let mut program = command.stdin(pipe()).stdout(pipe()).stderr(pipe()).spawn().unwrap();
    // Once it answers it is the other program, and all is closed that goes to none.
    program.stdin.as_mut().unwrap().write_all(b"!").unwrap();
    program.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let entries = fs::read_dir(format!("/proc/{}/fd", program.id())).unwrap();
    let entries = entries.map(|entry| entry.unwrap().path());
    let is_more = |path: &PathBuf| !["0", "1", "2"].iter().any(|standard| path.ends_with(standard));
    let mut found: Vec<_> = entries.filter(is_more).flat_map(fs::read_link).collect();
    drop(program.stdin.take());
    program.wait().unwrap();
    found.sort();
    found
}

#[test]
fn a_program_that_is_started_gets_neither_regions_nor_sockets_nor_handles_that_came() {
    let (dir, before) = (Dir::new(), inherited());
    let options = || small().max_handles(1);
    let nameless = EventsRegion::anonymous(options()).unwrap();
    let fds = nameless.to_fds().unwrap();
    let mut regions = [
        EventsRegion::open_path_with(dir.file("a"), options()).unwrap(),
        EventsRegion::open_path_with(dir.file("a"), options()).unwrap(),
        EventsRegion::from_fds(nameless.to_fds().unwrap(), OpenOptions::new()).unwrap(),
    ];
    let mut kept = Vec::new();
    for region in &mut regions[1..] {
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        rx.attach().unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        tx.send_packet(MessagePacket::from(b"a handle").handle(file)).unwrap();
        let message = rx.recv().unwrap();
        assert_eq!(message.handles.len(), 1);
        kept.push((tx, rx, message));
    }
    assert_eq!(inherited(), before);
    drop((fds, kept, nameless));
}

#[test]
fn regions_may_be_used_from_any_thread() {
    fn check<T: Send + Sync + Unpin>() {}
    check::<EventsRegion>();
}
