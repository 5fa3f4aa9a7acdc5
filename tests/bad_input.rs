//! What is not a region of ours is refused with the error that says why, and stays as it was: no
//! byte changed, no file made, no descriptor left open. Rows C2 to C13, C19, C21 to C25 of the
//! fault table.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, setrlimit};
use tombolo::options::{CreatePolicy, MpscOrder, OwnerPolicy};
use tombolo::{Error, EventsRegion, LayoutError, OpenOptions};
use tombolo_abi::RingKind;

mod support;
use support::*;

/// Runs `test` of this program again, with `mark` set to `value`; asserts that it passes.
fn run_again(test: &str, mark: &str, value: &OsStr) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([test, "--exact", "--nocapture"]).env(mark, value).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn unsafe_path(error: &Error) -> bool {
    matches!(error, Error::UnsafePath { .. })
}

#[test]
fn c9_a_symbolic_link_is_not_followed_wherever_it_stands() {
    let dir = Dir::new();
    fs::create_dir(dir.file("real")).unwrap();
    fs::write(dir.file("real/a"), b"").unwrap();
    symlink(dir.file("real/a"), dir.file("final")).unwrap();
    symlink(dir.file("nowhere"), dir.file("dangling")).unwrap();
    symlink(dir.file("real"), dir.file("parent")).unwrap();
    for path in ["final", "dangling", "parent/a", "parent/new", "parent/../real/a"] {
        dir.refuses(&dir.file(path), unsafe_path);
        assert_eq!(fs::read(dir.file("real/a")).unwrap(), b"");
    }
    assert_eq!(fs::read_dir(dir.file("real")).unwrap().count(), 1);
}

#[test]
fn c10_what_is_no_regular_file_is_refused_without_touching_it() {
    let dir = Dir::new();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.file("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    fs::create_dir(dir.file("dir")).unwrap();
    drop(UnixListener::bind(dir.file("socket")).unwrap());
    let rows = [
        (dir.file("fifo"), "FIFO"),
        (dir.file("dir"), "directory"),
        (dir.file("socket"), "socket"),
        (PathBuf::from("/dev/null"), "character device"),
    ];
    for (path, wanted) in rows {
        let (done, wait) = mpsc::channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                dir.refuses(
                    &path,
                    |error| matches!(error, Error::WrongFileType { found, .. } if *found == wanted),
                );
                done.send(()).unwrap();
            });
            let in_time = wait.recv_timeout(Duration::from_secs(2));
            assert!(in_time.is_ok(), "{wanted}: refusing it failed or took more than 2 s");
        });
    }
}

#[test]
fn c11_a_file_of_another_user_is_refused() {
    if !is_root() {
        println!("skipped: giving a file to another user needs root");
        return;
    }
    let dir = Dir::new();
    let path = dir.file("a");
    for bytes in [sound_bytes(&dir), vec![]] {
        write_private(&path, &bytes);
        chown(&path, Some(12345), Some(12345)).unwrap();
        dir.refuses(&path, |error| matches!(error, Error::Permission { owner: 12345, .. }));
        let group = OpenOptions::new().owner(OwnerPolicy::Group);
        dir.refuses_with(&path, group, |error| matches!(error, Error::Permission { .. }));
    }
    let any = || OpenOptions::new().owner(OwnerPolicy::Any);
    EventsRegion::open_path_with(&path, any()).unwrap();
}

#[test]
fn c11_a_file_that_others_can_write_to_is_refused_unless_allowed() {
    let dir = Dir::new();
    let path = dir.file("a");
    let mut count = 0;
    for bytes in [sound_bytes(&dir), vec![]] {
        for found in [0o666, 0o660, 0o622] {
            write_private(&path, &bytes);
            fs::set_permissions(&path, fs::Permissions::from_mode(found)).unwrap();
            dir.refuses(
                &path,
                |error| matches!(error, Error::Permission { mode, .. } if *mode == found),
            );
            count += 1;
        }
    }
    assert_eq!(count, 6);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
    EventsRegion::open_path_with(&path, small().owner(OwnerPolicy::Group).mode(0o660)).unwrap();
    EventsRegion::open_path_with(&path, OpenOptions::new().mode(0o660)).unwrap();
}

#[test]
fn c12_a_file_that_the_kernel_refuses_names_owner_and_mode() {
    if is_root() {
        println!("skipped: root may open everything");
        return;
    }
    let dir = Dir::new();
    let path = dir.file("a");
    fs::write(&path, b"").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
    let error = EventsRegion::open_path(&path).unwrap_err();
    assert!(matches!(error, Error::Permission { mode: 0o400, .. }), "{error:?}");
    fs::create_dir(dir.file("sealed")).unwrap();
    fs::set_permissions(dir.file("sealed"), fs::Permissions::from_mode(0o500)).unwrap();
    let error = EventsRegion::open_path(dir.file("sealed/a")).unwrap_err();
    assert!(matches!(error, Error::Permission { mode: 0o500, .. }), "{error:?}");
}

#[test]
fn c15_a_file_with_two_names_is_refused() {
    let dir = Dir::new();
    write_private(&dir.file("a"), &sound_bytes(&dir));
    fs::hard_link(dir.file("a"), dir.file("b")).unwrap();
    dir.refuses(&dir.file("a"), unsafe_path);
    write_private(&dir.file("empty"), b"");
    fs::hard_link(dir.file("empty"), dir.file("empty2")).unwrap();
    dir.refuses(&dir.file("empty"), unsafe_path);
}

#[test]
fn c2_a_region_cut_short_is_refused_at_every_length() {
    let dir = Dir::new();
    let path = dir.file("a");
    let bytes = sound_bytes(&dir);
    let mut count = 0;
    let (near, far) = (1..4200, (4200..bytes.len()).step_by(997));
    for len in near.chain(far).chain([bytes.len() - 1]) {
        write_private(&path, &bytes[..len]);
        dir.refuses(&path, |error| match error {
            Error::Layout { reason: LayoutError::BadMagic { .. }, .. } => len < 8,
            Error::Layout { reason: LayoutError::Truncated { found_len, .. }, .. } => {
                (8..512).contains(&len) && *found_len == len as u64
            }
            Error::RegionTooSmall { found_len, claimed_len, .. } => {
                *found_len == len as u64 && *claimed_len == bytes.len() as u64
            }
            _ => false,
        });
        count += 1;
    }
    println!("lengths refused: {count}");
    assert!(count > 4200);
}

#[test]
fn c3_a_file_without_the_magic_number_is_never_written() {
    let dir = Dir::new();
    let path = dir.file("a");
    let mut elf = vec![0; 9000];
    elf[..4].copy_from_slice(b"\x7fELF");
    elf[0x14] = 1; // where a half-made region has its state
    let mut text_mode = sound_bytes(&dir);
    text_mode.remove(6); // a copy that lost the carriage return
    let rows = [elf, vec![0], vec![0; 4096], vec![0; 8192], b"hello\n".to_vec(), text_mode];
    for bytes in &rows {
        for policy in [CreatePolicy::OpenOrCreate, CreatePolicy::CreateNew] {
            write_private(&path, bytes);
            dir.refuses_with(&path, OpenOptions::new().policy(policy), |error| {
                matches!(error, Error::Layout { reason: LayoutError::BadMagic { .. }, .. })
            });
        }
    }
}

#[test]
fn c4_c5_another_version_or_byte_order_is_told_from_damage() {
    let dir = Dir::new();
    let path = dir.file("a");
    let sound = sound_bytes(&dir);
    let refused = |change: &dyn Fn(&mut tombolo_abi::Header), wanted: LayoutError| {
        let mut bytes = sound.clone();
        forge(&mut bytes, change);
        write_private(&path, &bytes);
        dir.refuses(
            &path,
            |error| matches!(error, Error::Layout { reason, .. } if *reason == wanted),
        );
    };
    refused(&|header| header.major = 2, LayoutError::UnsupportedMajor { found: 2, supported: 1 });
    let unknown = 1 << 40;
    refused(&|header| header.caps_required = unknown, LayoutError::UnknownCapability { unknown });
    let found = 0x0d0c_0b0a;
    refused(&|header| header.endian = found, LayoutError::ForeignEndian { found });
    let mut bytes = sound.clone();
    forge(&mut bytes, |header| (header.minor, header.caps_compat) = (9, !0));
    write_private(&path, &bytes);
    EventsRegion::open_path(&path).unwrap();
}

#[test]
fn c6_every_flipped_bit_of_the_immutable_part_is_noticed() {
    let dir = Dir::new();
    let path = dir.file("a");
    let mut bytes = sound_bytes(&dir);
    let directory = directory_of(&header_of(&bytes));
    let mut count = 0;
    for at in (0..0x200).filter(|at| !STATE.contains(at)).chain(directory) {
        for bit in 0..8 {
            bytes[at] ^= 1 << bit;
            write_private(&path, &bytes);
            dir.refuses(&path, |error| {
                matches!(error, Error::Layout { .. } | Error::RegionTooSmall { .. })
            });
            bytes[at] ^= 1 << bit;
            count += 1;
        }
    }
    println!("bits flipped: {count}");
    assert_eq!(count, (0x200 - 4 + 128) * 8);
}

#[test]
fn c7_c8_ranges_that_overlap_overflow_or_are_absurd_are_refused_although_the_checksum_is_right() {
    let dir = Dir::new();
    let path = dir.file("a");
    let sound = sound_bytes(&dir);
    let mut count = 0;
    let mut refused = |bytes: &[u8]| {
        write_private(&path, bytes);
        dir.refuses(&path, |error| {
            matches!(error, Error::Layout { .. } | Error::RegionTooSmall { .. })
        });
        count += 1;
    };
    let numbers = [0, 1, 4095, 1 << 20, 1 << 31, 1 << 40, 1 << 63, u64::MAX - 4095, u64::MAX];
    for number in numbers {
        let headers: [fn(&mut tombolo_abi::Header, u64); 7] = [
            |header, number| header.total_len = number.max(1 << 20),
            |header, number| header.directory_offset = number,
            |header, number| header.slot_offset = number,
            |header, number| header.ring_count = (number as u32).max(3),
            |header, number| header.slot_count = (number as u32).max(1 << 13),
            |header, number| header.entry_len = number as u32 | 1,
            |header, number| header.lock_base = number,
        ];
        for change in headers {
            let mut bytes = sound.clone();
            forge(&mut bytes, |header| change(header, number));
            refused(&bytes);
        }
        let entries: [fn(&mut tombolo_abi::RingEntry, u64); 4] = [
            |entry, number| entry.control_offset = number,
            |entry, number| entry.data_offset = number,
            |entry, number| entry.capacity = number,
            |entry, number| entry.max_message = (number as u32).max(4096),
        ];
        for change in entries {
            let mut bytes = sound.clone();
            forge_entry(&mut bytes, 1, |entry| change(entry, number));
            refused(&bytes);
        }
    }
    let first = header_of(&sound).slot_offset;
    let mut bytes = sound.clone();
    forge_entry(&mut bytes, 0, |entry| entry.control_offset = first);
    refused(&bytes);
    println!("forged regions refused: {count}");
    assert_eq!(count, 9 * 11 + 1);
}

#[test]
fn a_ring_of_plain_memory_with_a_group_number_is_no_lane() {
    let dir = Dir::new();
    let options = on_disk().producers(3).mpsc_order(MpscOrder::PerProducer);
    let sound = sound_bytes_with(&dir, options);
    let path = dir.file("a");
    let claim = |lane: usize| {
        let mut bytes = sound.clone();
        forge_entry(&mut bytes, lane, |entry| {
            assert_eq!(entry.ring_kind(), Some(RingKind::Lane));
            entry.kind = RingKind::Memory as u32;
        });
        write_private(&path, &bytes);
        let mut region = EventsRegion::open_path_with(&path, OpenOptions::new())?;
        region.split_mpsc()
    };
    // Lanes 0 and 2 around it don't follow each other, as lanes 0 and 1 before it do.
    for lane in [1, 2] {
        let producer = claim(lane).and_then(|(mut producer, _)| producer.attach());
        assert!(matches!(producer, Err(Error::Layout { .. })), "lane {lane}: {producer:?}");
    }
    let (mut first, mut consumer) = claim(3).unwrap();
    first.try_send(b"a").unwrap();
    assert_eq!(consumer.try_recv().unwrap().data, b"a");
    let (mut second, mut third) = (first.clone(), first.clone());
    second.try_send(b"b").unwrap();
    assert!(matches!(third.attach(), Err(Error::Busy { .. })));
}

#[test]
fn an_unknown_state_is_refused() {
    let dir = Dir::new();
    let path = dir.file("a");
    write_private(&path, &sound_bytes(&dir));
    set_state(&path, 5);
    dir.refuses(&path, |error| {
        matches!(error, Error::Layout { reason: LayoutError::Field { field: "state", .. }, .. })
    });
}

/// Options of a region that no machine has room for.
fn huge() -> OpenOptions {
    OpenOptions::new().spsc_capacity(1 << 40).mpsc_capacity(1 << 40)
}

#[test]
fn c19_a_region_that_finds_no_room_leaves_nothing_behind() {
    let dir = Dir::new();
    if !dir.path().starts_with("/dev/shm") {
        println!("skipped: without a tmpfs at /dev/shm this would fill the disk");
        return;
    }
    let (absent, empty) = (dir.file("absent"), dir.file("empty"));
    write_private(&empty, b"");
    for path in [&absent, &empty] {
        dir.refuses_with(
            path,
            huge(),
            |error| matches!(error, Error::NoSpace { wanted_len, .. } if *wanted_len > 1 << 41),
        );
    }
    // A region that cannot be replaced for lack of room stays.
    write_private(&absent, &sound_bytes(&dir));
    dir.refuses_with(&absent, huge().policy(CreatePolicy::CreateNew), |error| {
        matches!(error, Error::NoSpace { .. })
    });
    EventsRegion::open_path(&absent).unwrap();
}

/// A small tmpfs of one's own, gone when dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(at: PathBuf, options: &str) -> Option<Self> {
        fs::create_dir(&at).unwrap();
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", options, "tombolo-test"]).arg(&at).output();
        mount.is_ok_and(|output| output.status.success()).then_some(Self(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn c19_c22_a_full_or_read_only_file_system_is_named() {
    let dir = Dir::new();
    let Some(full) = Mounted::new(dir.file("full"), "size=64k,mode=700") else {
        println!("skipped: mounting a tmpfs needs root");
        return;
    };
    let files = || fs::read_dir(&full.0).unwrap().count();
    let options = || OpenOptions::new().spsc_capacity(1 << 16);
    let error = EventsRegion::open_path_with(full.0.join("a"), options()).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!(files(), 0);
    fs::write(full.0.join("b"), b"").unwrap();
    let error = EventsRegion::open_path_with(full.0.join("b"), options()).unwrap_err();
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert_eq!((files(), fs::metadata(full.0.join("b")).unwrap().len()), (1, 0));
    EventsRegion::open_path_with(full.0.join("c"), small()).unwrap();

    let read_only = Mounted::new(dir.file("ro"), "ro").unwrap();
    let error = EventsRegion::open_path(read_only.0.join("a")).unwrap_err();
    let Error::Io { source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
}

#[test]
fn c19_the_limit_on_file_size_is_an_error_and_no_signal() {
    const TEST: &str = "c19_the_limit_on_file_size_is_an_error_and_no_signal";
    const INSIDE: &str = "TOMBOLO_TEST_FSIZE_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        return run_again(TEST, INSIDE, OsStr::new("1"));
    }
    let dir = Dir::new();
    write_private(&dir.file("empty"), b"");
    for limit in [0, 1000, 4096, 1 << 20] {
        setrlimit(Resource::Fsize, Rlimit { current: Some(limit), maximum: None }).unwrap();
        for path in [dir.file("absent"), dir.file("empty")] {
            dir.refuses(&path, |error| {
                matches!(error, Error::FileSizeLimit { limit: found, .. } if *found == limit)
            });
        }
        let error = EventsRegion::anonymous(OpenOptions::new()).unwrap_err();
        assert!(matches!(error, Error::FileSizeLimit { .. }), "{error:?}");
    }
}

#[test]
fn c23_running_out_of_descriptors_leaves_nothing_behind() {
    const TEST: &str = "c23_running_out_of_descriptors_leaves_nothing_behind";
    const INSIDE: &str = "TOMBOLO_TEST_NOFILE_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        return run_again(TEST, INSIDE, OsStr::new("1"));
    }
    let dir = Dir::new();
    write_private(&dir.file("empty"), b"");
    let next = File::open("/").unwrap().as_raw_fd() as u64; // the limit at which nothing opens
    let (mut refused, mut opened) = (0, 0);
    for limit in next..next + 12 {
        for name in ["absent", "empty"] {
            let set = |current| {
                setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: Some(1024) })
            };
            set(limit).unwrap();
            let result = EventsRegion::open_path_with(dir.file(name), small());
            set(1024).unwrap();
            match result {
                Ok(_) => opened += 1,
                Err(Error::Io { source, .. }) => {
                    assert_eq!(source.raw_os_error(), Some(libc::EMFILE));
                    refused += 1;
                }
                Err(error) => panic!("{error:?}"),
            }
        }
        assert_eq!(dir.open_fds(), 0);
    }
    println!("refused {refused}, opened {opened}");
    assert!(refused >= 4 && opened >= 4, "refused {refused}, opened {opened}");
}

#[test]
fn c24_signals_at_any_moment_disturb_nothing() {
    const TEST: &str = "c24_signals_at_any_moment_disturb_nothing";
    const INSIDE: &str = "TOMBOLO_TEST_SIGNALS_INSIDE";
    if std::env::var_os(INSIDE).is_none() {
        return run_again(TEST, INSIDE, OsStr::new("1"));
    }
    static COUNT: AtomicU32 = AtomicU32::new(0);
    extern "C" fn count(_signal: libc::c_int) {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
    // SAFETY: zeros are a valid `sigaction`: no flags (so no SA_RESTART), nothing masked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = count as extern "C" fn(libc::c_int) as libc::sighandler_t;
    // SAFETY: the handler only adds to an atomic number, which is always allowed.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()) }, 0);
    // SAFETY: asks for the calling thread's own number.
    let target = unsafe { libc::pthread_self() };
    thread::spawn(move || {
        loop {
            // SAFETY: the target runs until this process ends, and this thread with it.
            unsafe { libc::pthread_kill(target, libc::SIGUSR1) };
            thread::sleep(Duration::from_micros(50));
        }
    });
    let dir = Dir::new();
    for round in 0..50 {
        let path = dir.file(&round.to_string());
        if round % 2 == 0 {
            write_private(&path, b"");
        }
        // Large enough that a signal comes while room is being made.
        let options = OpenOptions::new().spsc_capacity(1 << 23);
        assert!(EventsRegion::open_path_with(&path, options.clone()).unwrap().is_creator());
        assert!(!EventsRegion::open_path_with(&path, options).unwrap().is_creator());
        fs::remove_file(path).unwrap();
    }
    println!("signals: {}", COUNT.load(Ordering::Relaxed));
    assert!(COUNT.load(Ordering::Relaxed) > 100);
    drop(dir);
    // SAFETY: ends the process before the test's thread, which the sender aims at, is gone.
    unsafe { libc::_exit(0) };
}

#[test]
fn c21_a_file_system_on_which_locks_are_not_dependable_is_refused() {
    let path = Path::new("/sys/kernel/tombolo-test");
    if !path.parent().unwrap().is_dir() {
        println!("skipped: no /sys");
        return;
    }
    let error = EventsRegion::open_path(path).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFileSystem { name: "sysfs", .. }), "{error:?}");
    assert!(!path.exists());
}

#[test]
fn c25_impossible_paths_are_refused() {
    let dir = Dir::new();
    let long = |len| dir.path().join("x".repeat(len));
    let many = dir.path().join("d/".repeat(2100)).join("a");
    let nul = dir.path().join(OsStr::from_bytes(b"a\0b"));
    let rows = [long(256), many, nul, PathBuf::new(), PathBuf::from("/"), dir.file("..")];
    for path in rows {
        dir.refuses(&path, |error| matches!(error, Error::InvalidPath { .. }));
    }
    EventsRegion::open_path_with(long(255), small()).unwrap();
    let error = EventsRegion::open_path(dir.file("missing/a")).unwrap_err();
    assert!(matches!(error, Error::Io { action: "open directory", .. }), "{error:?}");
}

#[test]
fn c25_a_path_that_is_not_utf8_works() {
    let dir = Dir::new();
    let path = dir.path().join(OsStr::from_bytes(b"caf\xe9 \xff"));
    let region = EventsRegion::open_path_with(&path, small()).unwrap();
    assert_eq!(region.path(), Some(path.as_path()));
    assert!(!EventsRegion::open_path(&path).unwrap().is_creator());
    write_private(&path, b"x");
    let error = EventsRegion::open_path(path).unwrap_err();
    assert!(error.to_string().contains("caf\u{fffd}"), "{error}");
}

#[test]
fn c25_a_relative_path_keeps_its_meaning_when_the_working_directory_changes() {
    const TEST: &str = "c25_a_relative_path_keeps_its_meaning_when_the_working_directory_changes";
    const INSIDE: &str = "TOMBOLO_TEST_RELATIVE_INSIDE";
    let Some(inside) = std::env::var_os(INSIDE) else {
        let dir = Dir::new();
        run_again(TEST, INSIDE, dir.path().as_os_str());
        assert_eq!(dir.snapshot().len(), 1);
        return;
    };
    std::env::set_current_dir(inside).unwrap();
    let region = EventsRegion::open_path_with("a", small()).unwrap();
    std::env::set_current_dir("/").unwrap();
    assert!(region.is_current().unwrap());
}

#[test]
fn names_that_could_leave_the_directory_or_confuse_a_shell_are_refused() {
    let long = "x".repeat(129);
    let rows = ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\0b", "\u{e4}", "a*", &long];
    for name in rows {
        let error = EventsRegion::open(name).unwrap_err();
        assert!(matches!(error, Error::InvalidName { .. }), "{name:?}: {error:?}");
        assert!(!error.to_string().contains('\0'));
    }
}
