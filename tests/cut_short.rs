//! A region's file cut short under live mappings: errors, not a dead process.

use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use tombolo::ends::Topology;
use tombolo::inspect::Image;
use tombolo::options::MpscOrder;
use tombolo::{
    Error, EventsRegion, MessagePacket, Receiver, RecvError, RecvTimeoutError, SendError,
    SendTimeoutError, Sender, SpscReceiver, SpscSender, TryRecvError, TrySendError,
};

mod support;
use support::parts::ReceiveParts;
use support::process::{command, role};
use support::{Dir, small};

const SHORT: Duration = Duration::from_millis(50);

fn cut(path: &Path, len: u64) {
    File::options().write(true).open(path).unwrap().set_len(len).unwrap();
}

fn ends(path: &Path) -> (SpscSender, SpscReceiver) {
    let mut region = EventsRegion::open_path_with(path, small()).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    tx.attach().unwrap();
    rx.attach().unwrap();
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
        assert!(tx.try_reserve(1).is_err());
        drop((tx, rx));
        assert!(EventsRegion::open_path_with(&path, small()).is_err() || len == 0);
        cuts += 1;
    }
    println!("{cuts} cuts");
}

/// What is left of the file is shared still: a message in it would be received although its send failed.
#[test]
fn a_send_that_fails_because_of_a_cut_elsewhere_has_sent_nothing() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = EventsRegion::open_path_with(&path, small()).unwrap();
    let (mut tx, _) = region.split_spsc().unwrap();
    let (mut producer, _) = region.split_mpsc().unwrap();
    let (_, mut rx) = EventsRegion::open_path_with(&path, small()).unwrap().split_spsc().unwrap();
    tx.attach().unwrap();
    producer.attach().unwrap();
    rx.attach().unwrap();
    let rings = Image::open(&path).unwrap();
    let mpsc = rings.rings()[1].entry;
    cut(&path, mpsc.data_offset);
    assert!(producer.try_send(b"finds out").is_err());
    for _ in 0..4 {
        let error = tx.try_send(b"after").unwrap_err();
        let TrySendError::Failed { source, .. } = error else { panic!("{error:?}") };
        assert!(says_cut(&source, mpsc.data_offset), "{source}");
    }
    // It has a mapping of its own, in which nothing has been missed yet.
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
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

#[test]
fn a_file_cut_before_its_ends_are_claimed_says_so_at_the_claim() {
    let dir = Dir::new();
    for (name, len) in [("nothing", 0), ("header", 4096)] {
        let path = dir.file(name);
        let mut region = EventsRegion::open_path_with(&path, small()).unwrap();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        cut(&path, len);
        let error = tx.try_send(b"first").unwrap_err();
        assert!(
            matches!(&error, TrySendError::Failed { source, .. } if says_cut(source, len)),
            "{error:?}"
        );
        let error = rx.attach().unwrap_err();
        assert!(says_cut(&error, len), "{error:?}");
        assert!(says_cut(&region.split_spsc().unwrap_err(), len));
        assert!(says_cut(&region.is_current().unwrap_err(), len));
    }
}

#[test]
fn zeros_are_not_taken_for_a_message_in_any_way_of_receiving() {
    let dir = Dir::new();
    let mut refused = 0;
    let ways: [fn(&mut SpscReceiver) -> Option<Error>; 4] = [
        |rx| rx.drain(1, |_| {}).err(),
        |rx| match rx.try_recv_into(&mut [0; 1000]) {
            Err(TryRecvError::Failed { source }) => Some(source),
            _ => None,
        },
        |rx| match rx.try_recv_ref() {
            Ok(record) => record.copy_to(&mut [0; 1000]).err(),
            Err(TryRecvError::Failed { source }) => Some(source),
            Err(_) => None,
        },
        |rx| rx.iter().next().and_then(Result::err),
    ];
    for (number, receive) in ways.into_iter().enumerate() {
        let path = dir.file(&number.to_string());
        let (mut tx, mut rx) = ends(&path);
        tx.send(&[7; 1000]).unwrap();
        cut(&path, 8192); // the control blocks stay, the data areas go
        let error = receive(&mut rx);
        assert!(error.as_ref().is_some_and(|error| says_cut(error, 8192)), "{number}: {error:?}");
        refused += 1;
    }
    println!("{refused} ways");
}

/// A message whose first page stays and whose last ones are cut off.
const LONG: usize = 3 * 4096;

/// A region of rings that long messages fit in, and what is left of a long message at the start of
/// ring `ring`.
fn long(path: &Path, order: MpscOrder, ring: usize) -> (EventsRegion, u64) {
    let options = small().spsc_capacity(1 << 16).mpsc_capacity(1 << 16).max_handles(1);
    let options = options.mpsc_order(order);
    let region = EventsRegion::open_path_with(path, options).unwrap();
    let data = Image::open(path).unwrap().rings()[ring].entry.data_offset;
    (region, data.next_multiple_of(4096) + 4096)
}

/// Sends a long message, cuts its end off, and then receives it in the given way.
fn receive_cut<K: Topology>(
    path: &Path,
    (mut tx, mut rx): (Sender<K>, Receiver<K>),
    len: u64,
    receive: impl FnOnce(&mut Receiver<K>) -> Option<Error>,
) {
    tx.send(&[7; LONG]).unwrap();
    cut(path, len);
    let error = receive(&mut rx);
    assert!(error.as_ref().is_some_and(|error| says_cut(error, len)), "{error:?}");
}

/// A way of receiving or sending, and the error that it gave.
type Way<E> = fn(&mut E) -> Option<Error>;

fn ways<K: Topology>() -> [Way<Receiver<K>>; 12] {
    fn failed<T>(received: Result<T, TryRecvError>) -> Option<Error> {
        match received {
            Err(TryRecvError::Failed { source }) => Some(source),
            _ => None,
        }
    }
    [
        |rx| failed(rx.try_recv()),
        |rx| {
            failed(rx.recv().map_err(|error| match error {
                RecvError::Failed { source } => TryRecvError::Failed { source },
                _ => TryRecvError::Empty,
            }))
        },
        |rx| failed(rx.try_recv_into(&mut [0; LONG])),
        |rx| failed(rx.try_recv_parts(&mut [0; LONG], &mut [])),
        |rx| failed(rx.try_recv_parts_or_discard(&mut [0; LONG], &mut [])),
        |rx| rx.iter().next().and_then(Result::err),
        |rx| rx.try_recv_ref().unwrap().copy_to(&mut [0; LONG]).err(),
        |rx| rx.try_recv_ref().unwrap().read_at(LONG - 1, &mut [0]).err(),
        |rx| rx.try_recv_ref().unwrap().for_each_chunk(|_| {}).err(),
        |rx| rx.try_recv_ref().unwrap().to_vec().err(),
        |rx| {
            let record = rx.try_recv_ref().unwrap();
            assert!(record.read_at(LONG - 1, &mut [0]).is_err()); // finds out
            record.check().err()
        },
        |rx| rx.drain(1, |record| _ = record.to_vec()).err(),
    ]
}

#[test]
fn a_message_whose_end_was_cut_off_is_not_delivered_in_any_way_of_receiving() {
    let dir = Dir::new();
    let mut refused = 0;
    let mut next = |order, ring| {
        refused += 1;
        let path = dir.file(&refused.to_string());
        let (region, len) = long(&path, order, ring);
        (path, region, len)
    };
    for receive in ways() {
        let (path, mut region, len) = next(MpscOrder::Total, 0);
        receive_cut(&path, region.split_spsc().unwrap(), len, receive);
        let (path, mut region, len) = next(MpscOrder::Total, 0);
        let (tx, mut rx) = region.split_spsc().unwrap();
        rx.attach().unwrap();
        receive_cut(&path, (tx, rx), len, receive);
    }
    for receive in ways() {
        for order in [MpscOrder::Total, MpscOrder::PerProducer] {
            let (path, mut region, len) = next(order, 1);
            receive_cut(&path, region.split_mpsc().unwrap(), len, receive);
        }
    }
    println!("{refused} ways");
}

/// Cuts off the end of a message that is still to be sent, and then sends it in the given way.
fn send_cut<K: Topology>(
    path: &Path,
    (mut tx, mut rx): (Sender<K>, Receiver<K>),
    len: u64,
    send: impl FnOnce(&mut Sender<K>) -> Option<Error>,
) {
    rx.attach().unwrap();
    tx.attach().unwrap();
    cut(path, len);
    let error = send(&mut tx);
    assert!(error.as_ref().is_some_and(|error| says_cut(error, len)), "{error:?}");
}

#[test]
fn a_send_into_what_was_cut_off_does_not_say_that_it_succeeded() {
    fn ways<K: Topology>() -> [Way<Sender<K>>; 5] {
        [
            |tx| match tx.try_send(&[7; LONG]) {
                Err(TrySendError::Failed { source, .. }) => Some(source),
                _ => None,
            },
            |tx| match tx.send(&[7; LONG]) {
                Err(SendError::Failed { source, .. }) => Some(source),
                _ => None,
            },
            |tx| match tx.try_send_batch(&[&[1], &[7; LONG], &[2]]) {
                Err(TrySendError::Failed { source, .. }) => Some(source),
                _ => None,
            },
            |tx| match tx.try_send_packet(MessagePacket::from(&[7; LONG])) {
                Err(TrySendError::Failed { source, .. }) => Some(source),
                _ => None,
            },
            |tx| {
                let (_end, handle) = std::io::pipe().unwrap();
                match tx.try_send_packet(MessagePacket::from(&[7; LONG]).handle(handle)) {
                    Err(TrySendError::Failed { source, .. }) => Some(source),
                    _ => None,
                }
            },
        ]
    }
    let dir = Dir::new();
    let mut refused = 0;
    for send in ways() {
        let path = dir.file(&refused.to_string());
        let (mut region, len) = long(&path, MpscOrder::Total, 0);
        send_cut(&path, region.split_spsc().unwrap(), len, send);
        refused += 1;
    }
    for (order, send) in [MpscOrder::Total, MpscOrder::PerProducer]
        .into_iter()
        .flat_map(|it| ways().map(|way| (it, way)))
    {
        let path = dir.file(&refused.to_string());
        let (mut region, len) = long(&path, order, 1);
        send_cut(&path, region.split_mpsc().unwrap(), len, send);
        refused += 1;
    }
    println!("{refused} ways");
}

#[test]
fn a_message_built_in_what_was_cut_off_is_not_committed() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut region, len) = long(&path, MpscOrder::Total, 0);
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    for _ in 0..5 {
        tx.send(&[7; LONG]).unwrap();
        rx.recv().unwrap();
    }
    // Begins at the start of the ring again, so that committing it zeroes what is behind its end.
    let mut record = tx.try_reserve(LONG).unwrap();
    record.write_at(0, &[7; LONG]).unwrap();
    cut(&path, len);
    let error = record.commit().unwrap_err();
    assert!(says_cut(&error, len), "{error}");
}

#[test]
fn handles_are_not_asked_for_in_the_name_of_what_was_cut_off() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut region, len) = long(&path, MpscOrder::Total, 0);
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    let data = Image::open(&path).unwrap().rings()[0].entry.data_offset;
    // The next header is the last word before the cut, and what tells the sender comes behind.
    let filler = vec![0; (len - data) as usize - 16];
    tx.send(&filler).unwrap();
    let (_end, handle) = std::io::pipe().unwrap();
    tx.send_packet(MessagePacket::from(b"").handle(handle)).unwrap();
    assert_eq!(rx.recv().unwrap().data.len(), filler.len());
    cut(&path, len);
    let error = rx.try_recv_ref().unwrap().handles().unwrap_err();
    assert!(says_cut(&error, len), "{error}");
}

/// What a process of its own does with signals and faults while a region is mapped.
#[test]
fn faulting_process() {
    let Some((role, path)) = role() else { return };
    let (mut tx, _rx) = ends(&path);
    match role.as_str() {
        "own-fault" => read_what_is_gone(&path.with_extension("other")),
        "sent" => {
            // SAFETY: sends a signal to this process. The handler that was there first, the
            // standard library's, lets one pass.
            unsafe { libc::raise(libc::SIGBUS) };
            cut(&path, 4096);
            assert!(tx.try_send(b"after").is_err());
        }
        "forked" => {
            // SAFETY: the child only maps, truncates and reads, and dies of it.
            let child = unsafe { libc::fork() };
            if child == 0 {
                read_what_is_gone(&path.with_extension("other"));
                // SAFETY: ends the child without running what the parent registered.
                unsafe { libc::_exit(0) };
            }
            let mut status = 0;
            // SAFETY: `status` is a valid place for the child's status.
            unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(status & 0x7f, libc::SIGBUS, "the child's own fault was hidden from it");
        }
        other => panic!("no such role: {other}"),
    }
}

/// Maps a file as large as a region, many times so that one lies where the region would, and reads
/// what is no longer there.
fn read_what_is_gone(path: &Path) {
    let len = 1 << 16;
    std::fs::write(path, vec![1; len]).unwrap();
    let file = File::options().read(true).write(true).open(path).unwrap();
    let maps: Vec<_> = (0..8).map(|_| memmap2::MmapRaw::map_raw(&file).unwrap()).collect();
    file.set_len(0).unwrap();
    for map in &maps {
        // SAFETY: a mapped page, though of a file that no longer has it: the read faults.
        let byte = unsafe { map.as_ptr().read_volatile() };
        println!("read {byte} where there is nothing");
    }
}

fn status_of(role: &str) -> ExitStatus {
    let dir = Dir::new();
    let mut command = command("faulting_process", role, &dir.file("r"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap()
}

#[test]
fn a_fault_that_is_not_ours_ends_the_process_as_ever() {
    let status = status_of("own-fault");
    assert_eq!(status.signal(), Some(libc::SIGBUS), "{status}");
}

#[test]
fn a_forked_childs_own_faults_are_its_own() {
    assert!(status_of("forked").success());
}

#[test]
fn a_signal_that_somebody_sends_does_not_take_the_handler_away() {
    assert!(status_of("sent").success());
}
