//! A region of an earlier boot is replaced, and no other is: a container's boot id is not another boot.

mod support;

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use support::process::{behind, command, report, role};
use support::*;
use tombolo::options::{CreatePolicy, MpscOrder};
use tombolo::{Error, EventsRegion, OpenOptions, TryRecvError};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const MESSAGES: [&[u8]; 3] = [b"one", b"two", b"three"];

fn from_fd(path: &Path) -> Result<EventsRegion, Error> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    EventsRegion::from_fd(OwnedFd::from(file), on_disk())
}

/// Lets the region in `path` have been made in another boot, by its id and by the clock.
fn change(path: &Path, boot_id: [u8; 16], created_unix_ns: Option<u64>) {
    let mut bytes = fs::read(path).unwrap();
    forge(&mut bytes, |header| {
        header.boot_id = boot_id;
        header.created_unix_ns = created_unix_ns.unwrap_or(header.created_unix_ns);
    });
    fs::write(path, bytes).unwrap();
}

/// A region on disk, with a message in ring `ring` or in none.
fn made(path: &Path, order: MpscOrder, ring: Option<u32>) -> [u8; 16] {
    let options = on_disk().producers(2).mpsc_order(order).policy(CreatePolicy::CreateNew);
    let mut region = EventsRegion::open_path_with(path, options).unwrap();
    match ring {
        Some(0) => region.split_spsc().unwrap().0.try_send(b"unread").unwrap(),
        Some(_) => region.split_mpsc().unwrap().0.try_send(b"unread").unwrap(),
        None => {}
    }
    region.uuid()
}

#[test]
fn a_region_with_another_boot_id_that_is_older_than_the_machines_start_is_replaced() {
    let Some(dir) = Dir::on_disk() else { return };
    let path = dir.file("a");
    for ring in [None, Some(0), Some(1)] {
        let old = made(&path, MpscOrder::Total, ring);
        change(&path, [7; 16], Some(1));
        let existing = on_disk().policy(CreatePolicy::OpenExisting);
        dir.refuses_with(&path, existing, |error| matches!(error, Error::NotFound { .. }));
        assert!(matches!(from_fd(&path), Err(Error::NotFound { .. })));
        // An owned end proves that it is of this boot.
        let user = lock_byte(&path, tombolo_abi::LOCK_SLOTS);
        assert_eq!(EventsRegion::open_path_with(&path, on_disk()).unwrap().uuid(), old);
        assert_eq!(from_fd(&path).unwrap().uuid(), old);
        drop(user);
        let new = EventsRegion::open_path_with(&path, on_disk()).unwrap();
        assert!(new.is_creator() && new.uuid() != old);
        assert_eq!(new.generation(), 2);
        drop(new);
        fs::remove_file(&path).unwrap();
        assert_eq!(dir.snapshot().len(), 0, "nothing left of the old one");
    }
}

#[test]
fn one_witness_alone_replaces_nothing_and_the_machines_own_boot_id_is_believed() {
    let Some(dir) = Dir::on_disk() else { return };
    let path = dir.file("a");
    let own = header_of(&sound_bytes(&dir)).boot_id;
    // Another id and made since the start; this boot's id or an unknown one, and made before.
    for (boot_id, created) in [([7; 16], None), (own, Some(1)), ([0; 16], Some(1))] {
        let old = made(&path, MpscOrder::Total, None);
        change(&path, boot_id, created);
        let region = EventsRegion::open_path_with(&path, on_disk()).unwrap();
        assert_eq!((region.is_creator(), region.uuid()), (false, old));
        assert_eq!(from_fd(&path).unwrap().uuid(), old);
    }
}

#[test]
fn a_message_of_which_no_witness_tells_the_boot_is_neither_received_nor_lost_silently() {
    let Some(dir) = Dir::on_disk() else { return };
    let path = dir.file("a");
    let mut count = 0;
    for order in [MpscOrder::Total, MpscOrder::PerProducer] {
        for ring in [0, 1] {
            let old = made(&path, order, Some(ring));
            change(&path, [7; 16], None);
            let is_unclear = |error: &Error| {
                let text = error.to_string();
                let found = "07070707-0707-0707-0707-070707070707".to_owned();
                let here = fs::read_to_string(BOOT_ID).unwrap();
                let named = [found, here.trim().to_owned(), "CreateNew".into()];
                assert!(named.iter().all(|word| text.contains(word)), "{text}");
                matches!(error, Error::UnclearBoot { ring: found, .. } if *found == ring)
            };
            for policy in [CreatePolicy::OpenOrCreate, CreatePolicy::OpenExisting] {
                dir.refuses_with(&path, on_disk().policy(policy), is_unclear);
            }
            assert!(is_unclear(&from_fd(&path).unwrap_err()));

            let user = lock_byte(&path, tombolo_abi::LOCK_SLOTS);
            assert_eq!(EventsRegion::open_path_with(&path, on_disk()).unwrap().uuid(), old);
            drop(user);
            let new = on_disk().policy(CreatePolicy::CreateNew);
            assert_ne!(EventsRegion::open_path_with(&path, new).unwrap().uuid(), old);
            count += 1;
        }
    }
    assert_eq!(count, 4);
}

/// What starts a program in a container that shows the boot id in the file `id`.
fn container(id: &Path, more: &[&str]) -> Command {
    let mount = format!("mount --bind {} {BOOT_ID} && exec \"$0\" \"$@\"", id.display());
    let mut container = Command::new("unshare");
    if !is_root() {
        container.args(["--user", "--map-root-user"]);
    }
    container.arg("--mount").args(more).args(["sh", "-c", &mount]);
    container
}

/// Runs this program's test `entry` as `role` in a container that shows a boot id of its own, and gives what
/// it reports; `None`, with the reason printed, if that is not allowed.
fn in_container(entry: &str, role: &str, path: &Path, more: &[&str]) -> Option<Vec<String>> {
    let id = path.with_extension("boot_id");
    fs::write(&id, "00010203-0405-0607-0809-0a0b0c0d0e0f\n").unwrap();
    let is_allowed = container(&id, more).arg("true").status().is_ok_and(|status| status.success());
    let own = command(entry, role, path);
    let output = behind(container(&id, more), &own).stderr(Stdio::inherit()).output();
    fs::remove_file(id).unwrap();
    if !is_allowed {
        eprintln!("skipped: no namespaces {more:?} and of mounts to be had");
        return None;
    }
    let output = output.unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let reports = text.lines().filter_map(|line| line.strip_prefix("peer: "));
    Some(reports.map(str::to_owned).collect())
}

/// In the container: takes what is there, and sends it back.
fn echo(path: &Path) {
    report(fs::read_to_string(BOOT_ID).unwrap().trim());
    let mut region = EventsRegion::open_path_with(path, OpenOptions::new()).unwrap();
    report(&format!("{:?} {}", region.uuid(), region.is_creator()));
    let (_, mut rx) = region.split_spsc().unwrap();
    let (mut tx, _) = region.split_mpsc().unwrap();
    loop {
        match rx.try_recv() {
            Ok(message) => {
                report(std::str::from_utf8(&message.data).unwrap());
                tx.try_send(&message.data).unwrap();
            }
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn in_memory_messages_pass_between_boot_ids() {
    const ENTRY: &str = "in_memory_messages_pass_between_boot_ids";
    if let Some((_, path)) = role() {
        return echo(&path);
    }
    let dir = Dir::new();
    let path = dir.file("a");
    let mut region = EventsRegion::open_path_with(&path, small()).unwrap();
    let uuid = region.uuid();
    let (mut tx, _) = region.split_spsc().unwrap();
    MESSAGES.iter().for_each(|message| tx.try_send(message).unwrap());
    drop((tx, region));

    let Some(reports) = in_container(ENTRY, "echo", &path, &[]) else { return };
    let own = fs::read_to_string(BOOT_ID).unwrap();
    assert_ne!(reports[0], own.trim());
    assert_eq!(reports[1], format!("{uuid:?} false"));
    assert_eq!(reports[2..], ["one", "two", "three"]);

    let mut region = EventsRegion::open_path_with(&path, small()).unwrap();
    assert_eq!((region.uuid(), region.is_creator()), (uuid, false));
    let (_, mut rx) = region.split_mpsc().unwrap();
    for message in MESSAGES {
        let got = rx.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(got.data, message);
    }
}

/// In a container on disk, in which the machine seems to have started just now: what opening gives.
fn look(path: &Path) {
    let opened = EventsRegion::open_path_with(path, on_disk());
    report(&opened.map_or_else(|error| error.to_string(), |region| format!("{:?}", region.uuid())));
}

#[test]
fn a_container_with_a_start_of_its_own_does_not_take_a_region_for_an_older_one() {
    const ENTRY: &str =
        "a_container_with_a_start_of_its_own_does_not_take_a_region_for_an_older_one";
    if let Some((_, path)) = role() {
        return look(&path);
    }
    let Some(dir) = Dir::on_disk() else { return };
    let path = dir.file("a");
    made(&path, MpscOrder::Total, Some(0));
    let text = fs::read_to_string("/proc/uptime").unwrap();
    let up: f64 = text.split(' ').next().unwrap().parse().unwrap();
    thread::sleep(Duration::from_secs(12)); // beyond the slack
    let start = format!("--boottime=-{}", up as u64);
    let Some(reports) = in_container(ENTRY, "look", &path, &["--time", &start, "--fork"]) else {
        return;
    };
    assert!(reports[0].contains("00010203-0405-0607-0809-0a0b0c0d0e0f"), "{reports:?}");
    assert!(reports[0].contains("was it made since this machine started?"), "{reports:?}");
}
