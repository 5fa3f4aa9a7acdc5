//! A region's file cut short under live mappings: errors, not a dead process.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use tombolo::{
    Error, EventsRegion, RecvTimeoutError, SendTimeoutError, SpscReceiver, SpscSender,
    TryRecvError, TrySendError,
};

mod support;
use support::process::role;
use support::{Dir, small};

const SHORT: Duration = Duration::from_millis(50);

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn ends(path: &Path) -> (SpscSender, SpscReceiver) {
    let mut region = EventsRegion::open_path_with(path, small()).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    tx.claim().unwrap();
    rx.claim().unwrap();
    (tx, rx)
}

fn says_cut(error: &Error, len: u64) -> bool {
    matches!(error, Error::RegionTooSmall { found_len, claimed_len, .. }
        if *found_len == len && *claimed_len > len)
}

#[test]
fn every_operation_says_so_and_none_ends_the_process() {
    let dir = Dir::new();
    let mut cuts = 0;
    for len in [0, 4096, 8192] {
        let path = dir.file(&len.to_string());
        let (mut tx, mut rx) = ends(&path);
        tx.send(b"before").unwrap();
        cut(&path, len);
        let error = tx.try_send(b"after").unwrap_err();
        assert!(matches!(&error, TrySendError::Failed { source, .. } if says_cut(source, len)));
        let error = rx.try_recv().unwrap_err();
        assert!(matches!(&error, TryRecvError::Failed { source } if says_cut(source, len)));
        let error = tx.send_timeout(b"after", SHORT).unwrap_err();
        assert!(matches!(&error, SendTimeoutError::Failed { source, .. } if says_cut(source, len)));
        let error = rx.recv_timeout(SHORT).unwrap_err();
        assert!(matches!(&error, RecvTimeoutError::Failed { source } if says_cut(source, len)));
        assert!(tx.try_claim_record(1).is_err());
        drop((tx, rx));
        assert!(EventsRegion::open_path_with(&path, small()).is_err() || len == 0);
        cuts += 1;
    }
    println!("{cuts} cuts");
}

#[test]
fn a_file_cut_in_the_middle_of_a_stream_stops_both_ends_with_an_error() {
    let dir = Dir::new();
    let mut moved = 0u32;
    for round in 0..20u64 {
        let path = dir.file(&round.to_string());
        let (mut tx, mut rx) = ends(&path);
        thread::scope(|scope| {
            let sender = scope.spawn(move || {
                loop {
                    if let Err(error) = tx.send_timeout(&[7; 300], SHORT * 20) {
                        return error;
                    }
                }
            });
            scope.spawn(|| {
                thread::sleep(Duration::from_micros(500 + round * 300));
                cut(&path, 4096);
            });
            let error = loop {
                match rx.recv_timeout(SHORT * 20) {
                    Ok(message) => assert_eq!(message.data, [7; 300], "zeros were delivered"),
                    Err(error) => break error,
                }
                moved += 1;
            };
            assert!(
                matches!(&error, RecvTimeoutError::Failed { source } if says_cut(source, 4096)),
                "{error:?}"
            );
            let error = sender.join().unwrap();
            assert!(
                matches!(&error, SendTimeoutError::Failed { source, .. } if says_cut(source, 4096)),
                "{error}"
            );
        });
    }
    println!("{moved} messages moved before the cuts");
    assert!(moved > 0);
}

/// Faults of its own while regions are mapped, in a process of its own.
#[test]
fn faulting_process() {
    let Some((_, path)) = role() else { return };
    let _ends = ends(&path);
    let other = path.with_extension("other");
    std::fs::write(&other, [1; 4096]).unwrap();
    let file = File::options().read(true).write(true).open(&other).unwrap();
    let map = memmap2::MmapRaw::map_raw(&file).unwrap();
    file.set_len(0).unwrap();
    // SAFETY: a mapped page, though of a file that no longer has it: the read faults.
    let byte = unsafe { map.as_ptr().read_volatile() };
    println!("read {byte} where there is nothing");
}

#[test]
fn a_fault_that_is_not_ours_ends_the_process_as_ever() {
    let dir = Dir::new();
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["faulting_process", "--exact", "--nocapture"])
        .env("TOMBOLO_TEST_ROLE", "fault")
        .env("TOMBOLO_TEST_PATH", dir.file("r"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}
