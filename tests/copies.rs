//! A copy of a region's file is no region: who has that open cannot be seen from the copy. The same file
//! under another name is the region, as ever.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tombolo::options::CreatePolicy;
use tombolo::{Error, EventsRegion, OpenOptions, SpscReceiver, SpscSender, TryRecvError};

mod support;
use support::carrying::{SOON, numbers_of, packet};
use support::mount::Mount;
use support::{Dir, forge, header_of, of_earlier_boot, small, write_private};

fn options() -> OpenOptions {
    small().max_handles(4)
}

fn open(path: &Path) -> (SpscSender, SpscReceiver) {
    EventsRegion::open_path_with(path, options()).unwrap().split_spsc().unwrap()
}

fn uuid(path: &Path) -> [u8; 16] {
    EventsRegion::open_path_with(path, options()).unwrap().uuid()
}

/// Sends a message with a handle, both of which say `number`, and receives it.
#[track_caller]
fn passes(tx: &mut SpscSender, rx: &mut SpscReceiver, number: u64) {
    tx.send_packet_timeout(packet(number, 1), SOON).unwrap();
    let message = rx.recv().unwrap();
    assert_eq!(
        (&*message.data, numbers_of(&message.handles)),
        (&number.to_le_bytes()[..], vec![number])
    );
}

#[test]
fn a_copy_is_refused_untouched_and_the_error_names_what_makes_a_region_of_it() {
    let dir = Dir::new();
    let (path, copy) = (dir.file("r"), dir.file("copy"));
    drop(EventsRegion::open_path_with(&path, options()).unwrap());
    fs::copy(&path, &copy).unwrap();
    let [file, other] = [&path, &copy].map(|path| fs::metadata(path).unwrap().ino());
    let is_meant = |error: &Error| {
        matches!(error, Error::Copied { found, wanted, .. } if (*found, *wanted) == (other, file))
            && error.to_string().contains("CreateNew")
    };
    dir.refuses_with(&copy, options(), is_meant);
    dir.refuses_with(&copy, options().policy(CreatePolicy::OpenExisting), is_meant);
    let fd = OwnedFd::from(File::options().read(true).write(true).open(&copy).unwrap());
    assert!(is_meant(&EventsRegion::from_fd(fd, options()).unwrap_err()));

    let old = uuid(&path);
    let new = EventsRegion::open_path_with(&copy, options().policy(CreatePolicy::CreateNew));
    let new = new.unwrap();
    assert!(new.is_creator() && new.uuid() != old);
    assert_eq!((uuid(&copy), uuid(&path)), (new.uuid(), old));
}

#[test]
fn a_copy_of_a_nameless_region_is_refused() {
    let dir = Dir::new();
    let region = EventsRegion::anonymous(options()).unwrap();
    let fd = region.to_fd().unwrap();
    let copy = dir.file("copy");
    write_private(&copy, &fs::read(format!("/proc/self/fd/{}", fd.as_raw_fd())).unwrap());
    dir.refuses(&copy, |error| matches!(error, Error::Copied { .. }));
}

#[test]
fn a_copy_that_an_earlier_boot_left_is_replaced_like_any_region_of_then() {
    let Some(dir) = Dir::on_disk() else { return };
    let (path, copy) = (dir.file("r"), dir.file("copy"));
    drop(EventsRegion::open_path_with(&path, options()).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    forge(&mut bytes, of_earlier_boot);
    write_private(&copy, &bytes);
    let region = EventsRegion::open_path_with(&copy, options()).unwrap();
    assert!(region.is_creator() && region.uuid() != header_of(&bytes).region_uuid);
}

/// On a file system that had to be allowed a header names no inode, and a copy cannot be told.
#[test]
fn handles_of_a_region_and_of_its_copy_stay_with_their_messages_even_if_it_cannot_be_told() {
    let dir = Dir::new();
    let (path, copy) = (dir.file("r"), dir.file("copy"));
    drop(EventsRegion::open_path_with(&path, options()).unwrap());
    let mut bytes = fs::read(&path).unwrap();
    forge(&mut bytes, |header| header.file_inode = 0);
    fs::write(&path, &bytes).unwrap();
    write_private(&copy, &bytes);

    let ((mut tx, mut rx), (mut tx_of_copy, mut rx_of_copy)) = (open(&path), open(&copy));
    rx.attach().unwrap();
    rx_of_copy.attach().unwrap();
    tx.send_packet_timeout(packet(1, 1), SOON).unwrap();
    tx_of_copy.send_packet_timeout(packet(2, 1), SOON).unwrap();
    assert_eq!(numbers_of(&rx_of_copy.try_recv().unwrap().handles), [2]);
    assert_eq!(numbers_of(&rx.try_recv().unwrap().handles), [1]);

    drop(rx_of_copy);
    passes(&mut tx, &mut rx, 3);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
}

#[test]
fn a_renamed_region_is_the_same_and_so_is_one_whose_first_name_is_gone() {
    let dir = Dir::new();
    let [path, renamed, linked] = ["r", "renamed", "linked"].map(|name| dir.file(name));
    let (_, mut rx) = open(&path);
    rx.attach().unwrap();
    fs::rename(&path, &renamed).unwrap();
    let (mut tx, _) = open(&renamed);
    passes(&mut tx, &mut rx, 1);
    drop(tx);

    fs::hard_link(&renamed, &linked).unwrap();
    fs::remove_file(&renamed).unwrap();
    let (mut tx, _) = open(&linked);
    passes(&mut tx, &mut rx, 2);
}

#[test]
fn through_a_bind_mount_it_is_the_same_region() {
    let dir = Dir::new();
    let [there, here] = ["there", "here"].map(|name| dir.file(name));
    [&there, &here].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    let Some(_mount) = Mount::bind(&there, &here) else { return };
    let (mut tx, _) = open(&there.join("r"));
    let (_, mut rx) = open(&here.join("r"));
    rx.attach().unwrap();
    passes(&mut tx, &mut rx, 1);
    assert_eq!(uuid(&there.join("r")), uuid(&here.join("r")));
}
