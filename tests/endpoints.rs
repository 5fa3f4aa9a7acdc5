//! Who owns an endpoint, and what a successor finds.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use tombolo::inspect::Image;
use tombolo::options::CreatePolicy;
use tombolo::{
    Error, EventsRegion, OpenOptions, RecordRef, RecvTimeoutError, SendTimeoutError, TrySendError,
};
use tombolo_abi::{LockWord, RingControl, Slot, SlotState, slot_flags};

mod support;
use support::ends::Ends;
use support::overlay::Overlay;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, header_of, small};

/// Long enough for anything that must happen, short enough to fail a test.
const SOON: Duration = Duration::from_secs(2);
const SHORT: Duration = Duration::from_millis(60);

fn open(path: &Path) -> EventsRegion {
    EventsRegion::open_path_with(path, small()).unwrap()
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let mut region = open(&path);
    let mut ends = Ends::of(&mut region);
    match role.as_str() {
        "sender" => (1..=3u8).for_each(|number| ends.tx.send(&[number]).unwrap()),
        "producer" => ends.producer.send(b"from a producer").unwrap(),
        "reader" => {
            let record = ends.rx.recv_ref().unwrap();
            report("ready");
            report(&record.position().to_string());
            return wait_for_parent();
        }
        end => ends.attach(end),
    }
    report("ready");
    wait_for_parent();
}

fn peer(role: &str, path: &Path) -> Peer {
    Peer::start("peer_process", role, path)
}

/// Repeats `attempt` while an endpoint is busy, as a restarting process would.
fn soon<T>(mut attempt: impl FnMut() -> Result<T, Error>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Err(Error::Busy { .. }) if start.elapsed() < SOON => {}
            result => return result.unwrap(),
        }
    }
}

#[test]
fn a_second_owner_in_the_same_process_is_told_who_the_first_is() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    tx.attach().unwrap();
    rx.attach().unwrap();
    let (mut second_tx, mut second_rx) = open(&path).split_spsc().unwrap();
    let own = std::process::id();
    let error = second_tx.attach().unwrap_err();
    assert!(
        matches!(error, Error::Busy { ring: 0, role: "sender", pid, places: 1 } if pid == own),
        "{error}"
    );
    let error = second_rx.attach().unwrap_err();
    assert!(
        matches!(error, Error::Busy { ring: 0, role: "receiver", pid, places: 1 } if pid == own)
    );
    assert!(error.to_string().contains(&own.to_string()), "{error}");
    drop((tx, rx));
    second_tx.attach().unwrap();
    second_rx.attach().unwrap();
}

#[test]
fn a_second_owner_in_another_process_is_told_who_the_first_is() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path);
    for (role, ring) in [("sender", 0), ("receiver", 0), ("consumer", 1)] {
        let first = peer(role, &path);
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let (_, mut consumer) = region.split_mpsc().unwrap();
        let error = match role {
            "sender" => tx.attach(),
            "receiver" => rx.attach(),
            _ => consumer.attach(),
        };
        let error = error.unwrap_err();
        let Error::Busy { ring: found, pid, .. } = error else { panic!("{error}") };
        assert_eq!((found, pid), (ring, first.pid()), "{error}");
    }
}

#[test]
fn an_endpoint_is_free_as_soon_as_its_process_is_dead() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path);
    for _ in 0..10 {
        let (sender, receiver) = (peer("sender", &path), peer("receiver", &path));
        sender.kill();
        receiver.kill();
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        soon(|| tx.attach());
        soon(|| rx.attach());
        while rx.try_recv().is_ok() {}
    }
}

#[test]
fn a_successor_of_a_dead_sender_goes_on_behind_its_last_message() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    peer("sender", &path).kill();
    soon(|| tx.attach());
    tx.send(&[4]).unwrap();
    let got: Vec<_> = (0..4).map(|_| rx.recv_timeout(SOON).unwrap().data).collect();
    assert_eq!(got, [[1], [2], [3], [4]]);
}

#[test]
fn a_successor_of_a_dead_receiver_gets_what_was_not_freed_at_the_same_position() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    tx.send(b"freed").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"freed");
    drop(rx);
    tx.send(b"looked at").unwrap();
    let mut reader = peer("reader", &path);
    let position: u64 = reader.next_report().parse().unwrap();
    reader.kill();
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    soon(|| rx.attach());
    let record = rx.recv_ref().unwrap();
    assert_eq!((record.position(), record.to_vec().unwrap()), (position, b"looked at".to_vec()));
    drop(record);
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
}

#[test]
fn senders_that_came_and_went_disconnect_behind_their_last_message_until_the_next_comes() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)), "nobody came yet");
    for leave in [Peer::kill, Peer::finish] {
        leave(peer("sender", &path));
        let got: Vec<_> = rx.iter().map(|message| message.unwrap().data).collect();
        assert_eq!(got, [[1], [2], [3]]);
        assert!(matches!(rx.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
        assert!(rx.iter().next().is_none(), "it ends again");
    }
}

#[test]
fn senders_of_an_earlier_run_are_nobody_that_this_receiver_met() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = open(&path).split_spsc().unwrap();
    peer("sender", &path).finish();
    assert_eq!(rx.iter().count(), 3);
    drop(rx);
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
    tx.send(b"now").unwrap();
    assert_eq!(rx.recv().unwrap().data, b"now");
}

#[test]
fn a_full_ring_says_disconnected_only_where_its_receiver_was_met() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, _) = open(&path).split_spsc().unwrap();
    while tx.try_send(&[7; 500]).is_ok() {}
    let error = tx.send_timeout(&[7; 500], SHORT).unwrap_err();
    assert!(matches!(error, SendTimeoutError::Timeout(())), "{error}");
    let receiver = peer("receiver", &path);
    assert!(matches!(tx.send_timeout(&[7; 500], SHORT), Err(SendTimeoutError::Timeout(()))));
    receiver.kill();
    let error = tx.send_timeout(&[7; 500], SOON).unwrap_err();
    assert!(matches!(error, SendTimeoutError::Disconnected(())), "{error}");
    let again = tx.send_timeout(&[7; 500], SOON).unwrap_err();
    assert!(matches!(again, SendTimeoutError::Disconnected(())), "{again}");
}

#[test]
fn as_many_producers_as_there_are_slots_and_no_more() {
    let dir = Dir::new();
    let options = || small().producers(3);
    let producer = || {
        let region = EventsRegion::open_path_with(dir.file("r"), options());
        region.unwrap().split_mpsc().unwrap().0
    };
    let mut held: Vec<_> = (0..3).map(|_| producer()).collect();
    held.iter_mut().for_each(|producer| producer.attach().unwrap());
    let mut clones = held.clone();
    clones.iter_mut().for_each(|clone| clone.attach().unwrap());
    let error = producer().attach().unwrap_err();
    assert!(matches!(error, Error::Busy { ring: 1, role: "sender", places: 3, .. }), "{error}");
    let (text, own) = (error.to_string(), std::process::id());
    let taken = format!("all 3 places for producers, from ring 1 on, are taken, one by pid {own};");
    assert!(text.starts_with(&taken) && text.contains("larger OpenOptions::producers"), "{text}");
    held.pop();
    assert!(producer().attach().is_err(), "a clone still holds the slot");
    clones.pop();
    producer().attach().unwrap();
}

#[test]
fn a_claim_waits_as_long_as_its_caller_would() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut first, _) = open(&path).split_spsc().unwrap();
    first.attach().unwrap();
    let (mut tx, _) = open(&path).split_spsc().unwrap();
    assert!(matches!(
        tx.try_send(b"x"),
        Err(TrySendError::Failed { source: Error::Busy { .. }, .. })
    ));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(SHORT * 5);
            drop(first);
        });
        tx.send_timeout(b"in time", SOON).unwrap();
    });
}

#[test]
fn clones_know_whom_their_endpoint_has_met() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, _) = open(&path).split_mpsc().unwrap();
    tx.attach().unwrap();
    let consumer = peer("consumer", &path);
    while tx.try_send(&[7; 500]).is_ok() {}
    assert!(matches!(tx.send_timeout(&[7; 500], SHORT), Err(SendTimeoutError::Timeout(()))));
    consumer.kill();
    let mut clone = tx.clone();
    for tx in [&mut clone, &mut tx] {
        let error = tx.send_timeout(&[7; 500], SOON).unwrap_err();
        assert!(matches!(error, SendTimeoutError::Disconnected(())), "{error}");
    }
}

#[test]
fn a_child_forked_while_messages_are_drained_gets_none_of_them() {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r")).split_spsc().unwrap();
    tx.send(b"one").unwrap();
    tx.send(b"two").unwrap();
    let mut status = 0;
    let taken = rx.drain(10, |_| {
        if status == 0 {
            // SAFETY: as in the test of forked children.
            let child = unsafe { libc::fork() };
            status = -1;
            if child > 0 {
                // SAFETY: `status` is a valid place for the child's status.
                unsafe { libc::waitpid(child, &mut status, 0) };
                status = if status == 1 << 8 { 1 } else { 2 };
            }
        }
    });
    if status == -1 {
        // In the child, which has the first message's callback behind it: that much it was handed.
        let taken = taken.unwrap_or(99) as i32;
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(taken) };
    }
    assert_eq!((taken.unwrap(), status), (2, 1), "the child drained what is not its own");
}

#[test]
fn a_late_claim_on_a_replaced_region_is_refused() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut old = open(&path);
    let (mut tx, _) = old.split_spsc().unwrap();
    let options = small().policy(CreatePolicy::CreateNew);
    let new = EventsRegion::open_path_with(&path, options).unwrap();
    assert!(new.is_creator() && new.generation() == old.generation() + 1);
    assert!(matches!(tx.attach(), Err(Error::Replaced { .. })));
    assert!(matches!(old.split_spsc(), Err(Error::Replaced { .. })));
}

#[test]
fn a_region_with_an_owner_is_not_replaced() {
    let dir = Dir::new();
    let path = dir.file("r");
    let sender = peer("sender", &path);
    let create = || EventsRegion::open_path_with(&path, small().policy(CreatePolicy::CreateNew));
    let error = create().unwrap_err();
    assert!(matches!(error, Error::InUse { pid, .. } if pid == sender.pid()), "{error}");
    sender.kill();
    soon(|| match create() {
        Err(Error::InUse { .. }) => Err(Error::Busy { ring: 0, role: "sender", pid: 0, places: 1 }),
        result => result,
    });
}

#[test]
fn a_child_that_is_forked_while_a_message_is_handed_out_is_handed_no_other() {
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r")).split_spsc().unwrap();
    rx.attach().unwrap();
    tx.send_batch(&[b"one", b"two", b"three"]).unwrap();
    let (mut child, mut taken) = (None, 0);
    let drained = rx.drain(usize::MAX, |_| {
        taken += 1;
        // SAFETY: as below; the child returns from here and ends soon.
        child.get_or_insert_with(|| unsafe { libc::fork() });
    });
    let child = child.unwrap();
    if child == 0 {
        let is_so = taken == 1 && matches!(drained, Ok(1) | Err(Error::ForkedChild));
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(i32::from(!is_so)) };
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place for the child's status.
    assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child took more, or what isn't there");
    assert_eq!((drained.unwrap(), taken), (3, 3));
}

#[test]
fn a_forked_child_takes_no_record_that_its_parent_borrowed() {
    let ways: [fn(RecordRef<'_>) -> Option<Error>; 8] = [
        |record| record.take().err(),
        |record| record.take_into(&mut [0; 64]).err(),
        |record| record.take_parts(&mut [0; 64], &mut []).err(),
        |record| record.copy_to(&mut [0; 64]).err(),
        |record| record.read_at(0, &mut [0; 64]).err(),
        |record| record.for_each_chunk(|_| {}).err(),
        |record| record.to_vec().err(),
        |record| record.take_parts(&mut [], &mut []).err(),
    ];
    let dir = Dir::new();
    let (mut tx, mut rx) = open(&dir.file("r")).split_spsc().unwrap();
    tx.send(b"borrowed").unwrap();
    for (way, take) in ways.into_iter().enumerate() {
        let record = rx.recv_ref().unwrap();
        // SAFETY: as in the test below.
        let child = unsafe { libc::fork() };
        if child == 0 {
            let is_refused = matches!(take(record), Some(Error::ForkedChild));
            // SAFETY: ends the child without running what the parent registered.
            unsafe { libc::_exit(i32::from(!is_refused)) };
        }
        let mut status = -1;
        // SAFETY: `status` is a valid place for the child's status.
        unsafe { libc::waitpid(child, &mut status, 0) };
        assert_eq!(status, 0, "way {way}: the child was not refused");
        record.keep();
    }
    assert_eq!(rx.recv().unwrap().data, b"borrowed");
}

#[test]
fn a_forked_child_gets_an_error_and_its_drops_harm_nothing() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path);
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    let (mut producer, _) = region.split_mpsc().unwrap();
    tx.send(b"before").unwrap();
    producer.send(b"before").unwrap();
    let record = rx.recv_ref().unwrap();
    let (mut claiming, _receiving) = open(&dir.file("other")).split_spsc().unwrap();
    let mut claim = claiming.reserve(4).unwrap();
    // SAFETY: the child uses nothing that another thread of the parent may have held locked but
    // the allocator, which glibc makes usable after a fork, and leaves by `_exit`.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = [
            matches!(record.copy_to(&mut [0; 64]), Err(Error::ForkedChild)),
            matches!(
                tx.try_send(b"x"),
                Err(TrySendError::Failed { source: Error::ForkedChild, .. })
            ),
            matches!(
                producer.try_send(b"x"),
                Err(TrySendError::Failed { source: Error::ForkedChild, .. })
            ),
            tx.try_reserve(1).map(drop).is_err(),
            matches!(tx.attach(), Err(Error::ForkedChild)),
            matches!(region.split_spsc(), Err(Error::ForkedChild)),
            matches!(region.is_current(), Err(Error::ForkedChild)),
            matches!(claim.write_at(0, b"x"), Err(Error::ForkedChild)),
        ];
        drop(claim);
        drop(record);
        drop((tx, rx, producer, region));
        let own = EventsRegion::open_path_with(&path, small()).map(|mut own| {
            let (mut tx, _) = own.split_spsc().unwrap();
            matches!(tx.attach(), Err(Error::Busy { .. }))
        });
        let all = refused.iter().all(|refused| *refused) && own.is_ok_and(|busy| busy);
        // SAFETY: ends the child without running what the parent registered.
        unsafe { libc::_exit(i32::from(!all)) };
    }
    let mut status = -1;
    // SAFETY: `status` is a valid place for the child's status.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!(status, 0, "the child was not refused everywhere");
    claim.commit().unwrap();
    drop(record);
    tx.send(b"after").unwrap();
    assert_eq!(rx.recv_timeout(SOON).unwrap().data, b"after");
    let (mut second, _) = open(&path).split_spsc().unwrap();
    assert!(matches!(second.attach(), Err(Error::Busy { .. })), "the child freed the lock");
}

/// The offset of a word of a ring's control block, and of one of a slot's.
fn offsets(path: &Path, ring: usize, slot: u64) -> (u64, u64) {
    let bytes = std::fs::read(path).unwrap();
    let header = header_of(&bytes);
    let directory = &bytes[header.directory_offset as usize..];
    let entry = tombolo_abi::parse_entries(&header, directory).nth(ring).unwrap();
    (entry.control_offset, header.slot_offset + slot * u64::from(header.slot_len))
}

/// Makes the MPSC ring's lock look held by the owner of producer slot 3.
fn forge_lock(path: &Path, older: u32) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let (control, slot) = offsets(path, 1, 3);
    let mut incarnation = [0; 4];
    let at = slot + std::mem::offset_of!(Slot, incarnation) as u64;
    file.read_exact_at(&mut incarnation, at).unwrap();
    let incarnation = u32::from_le_bytes(incarnation) - older;
    let word = LockWord { slot: 3, incarnation }.to_word();
    file.write_all_at(
        &word.to_le_bytes(),
        control + std::mem::offset_of!(RingControl, lock) as u64,
    )
    .unwrap();
}

/// Locks taken over, as the second ring counts them and as all producers together do.
fn lock_breaks(path: &Path) -> (u64, u64) {
    let image = Image::open(path).unwrap();
    let ring = image.rings()[1].control.unwrap().lock_breaks;
    (ring, image.endpoints().iter().map(|endpoint| endpoint.fields.lock_breaks).sum())
}

#[test]
fn a_lock_held_by_the_living_is_waited_for_and_one_held_by_the_dead_is_taken_over() {
    let dir = Dir::new();
    let path = dir.file("r");
    let options = || small().producers(4);
    let mut region = EventsRegion::open_path_with(&path, options()).unwrap();
    let holder = peer("producer", &path); // slot 3, the first producer's
    let (mut tx, mut rx) = region.split_mpsc().unwrap();
    tx.send(b"free").unwrap();
    forge_lock(&path, 0);
    let error = tx.try_send(b"x").unwrap_err();
    assert!(matches!(error, TrySendError::Contended { pid, .. } if pid == holder.pid()), "{error}");
    let error = tx.send_timeout(b"x", SHORT).unwrap_err();
    let SendTimeoutError::Failed { source: Error::Stalled { ring: 1, slot: 3, pid }, .. } = error
    else {
        panic!("{error}")
    };
    assert_eq!(pid, holder.pid());
    holder.kill();
    let start = Instant::now();
    loop {
        match tx.try_send(b"after") {
            Err(TrySendError::Contended { .. }) if start.elapsed() < SOON => {}
            result => break result.unwrap(),
        }
    }
    let got = std::iter::from_fn(|| rx.try_recv().ok()).map(|message| message.data);
    assert_eq!(got.collect::<Vec<_>>(), [&b"from a producer"[..], b"free", b"after"]);
    assert_eq!(lock_breaks(&path), (1, 1));
}

#[test]
fn a_lock_of_an_earlier_incarnation_is_taken_over_although_its_slot_has_a_new_owner() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = EventsRegion::open_path_with(&path, small().producers(4)).unwrap();
    let holder = peer("producer", &path);
    let (mut tx, _) = region.split_mpsc().unwrap();
    tx.attach().unwrap();
    forge_lock(&path, 1);
    tx.try_send(b"x").unwrap();
    assert_eq!(lock_breaks(&path), (1, 1));
    drop(holder);
}

#[test]
fn a_slot_tells_who_owns_it_and_is_free_after_a_clean_leave() {
    let dir = Dir::new();
    let path = dir.file("r");
    let mut region = open(&path);
    let slot_state = || {
        let bytes = std::fs::read(&path).unwrap();
        let (_, slot) = offsets(&path, 0, 1);
        let slot: Slot = bytemuck::pod_read_unaligned(&bytes[slot as usize..][..size_of::<Slot>()]);
        (slot.state, slot.pid, slot.incarnation)
    };
    assert_eq!(slot_state(), (SlotState::Free as u32, 0, 0));
    let sender = peer("sender", &path);
    let pid = sender.pid();
    assert_eq!(slot_state(), (SlotState::Attached as u32, pid, 1));
    sender.finish();
    assert_eq!(slot_state(), (SlotState::Free as u32, pid, 1));
    let (mut tx, _) = region.split_spsc().unwrap();
    tx.attach().unwrap();
    assert_eq!(slot_state(), (SlotState::Attached as u32, std::process::id(), 2));
}

/// The description of a channel's end stays open to be passed on, so that nothing shows what else keeps its locks.
fn a_channels_locks_are_kept_so(path: &Path) -> bool {
    let options = OpenOptions::new().file_system(tombolo::options::FileSystemPolicy::Any);
    let channel = tombolo::Channel::open_path_with(path, options.spsc_capacity(4096)).unwrap();
    let bytes = std::fs::read(path).unwrap();
    let is_so = |slot| {
        let (_, slot) = offsets(path, 0, slot);
        let slot: Slot = bytemuck::pod_read_unaligned(&bytes[slot as usize..][..size_of::<Slot>()]);
        slot.flags & slot_flags::LOCK_BY_FD != 0
    };
    let are_so = is_so(1) && is_so(2); // the sender's and the receiver's
    drop(channel);
    are_so
}

/// There a mapping keeps the file below and not the description that holds the lock, so that
/// closing the descriptor would free the byte of a living owner.
#[test]
fn on_a_stacked_file_system_the_lock_is_kept_by_a_descriptor() {
    let overlay = match Overlay::mount() {
        Ok(overlay) => overlay,
        Err(reason) => return println!("skipped, cannot mount an overlay: {}", reason.trim()),
    };
    let path = overlay.file("r");
    let error = EventsRegion::open_path_with(&path, small()).unwrap_err();
    assert!(matches!(error, Error::UnsupportedFileSystem { .. }), "{error}");
    let open = || {
        let options = small().file_system(tombolo::options::FileSystemPolicy::Any);
        EventsRegion::open_path_with(&path, options).unwrap().split_spsc().unwrap()
    };
    let (mut tx, mut rx) = open();
    let before = descriptors_of(&path);
    tx.send(b"kept").unwrap();
    let mut kept = descriptors_of(&path);
    kept.retain(|fd| !before.contains(fd));
    assert_eq!(kept.len(), 1);
    let (_, slot) = offsets(&path, 0, 1);
    let bytes = std::fs::read(&path).unwrap();
    let slot: Slot = bytemuck::pod_read_unaligned(&bytes[slot as usize..][..size_of::<Slot>()]);
    println!("slot flags {:#x}", slot.flags);
    assert_eq!(slot.flags & slot_flags::LOCK_BY_FD, slot_flags::LOCK_BY_FD);
    assert!(a_channels_locks_are_kept_so(&overlay.file("c")));
    let (mut second, _) = open();
    assert!(matches!(second.attach(), Err(Error::Busy { .. })));
    assert_eq!(rx.recv_timeout(SOON).unwrap().data, b"kept");
    // What closes the descriptor frees the byte; who loses it must stop, for good.
    let null = std::fs::File::open("/dev/null").unwrap();
    // SAFETY: both are open. What the number stands for changes behind its owner's back, which is
    // the point: a closed number used again.
    assert_eq!(unsafe { libc::dup2(null.as_raw_fd(), kept[0]) }, kept[0]);
    // A program that another test starts just now has the descriptor, too, until it runs.
    let start = Instant::now();
    while tx.try_send(b"not yet lost").is_ok() {
        assert!(start.elapsed() < SOON, "the byte is still held");
    }
    let error = tx.try_send(b"lost").unwrap_err();
    let TrySendError::Failed { source: Error::LockLost { slot: 1 }, .. } = error else {
        panic!("{error}")
    };
    second.attach().unwrap();
    drop(tx);
    second.send(b"still its own").unwrap();
    assert!(matches!(open().0.attach(), Err(Error::Busy { .. })), "the loser freed the slot");
}

/// The descriptor by which locks are looked at stands for another region's file, in which the same
/// slot has an owner and the sender's has none.
#[test]
fn a_living_sender_is_not_taken_for_gone_where_a_descriptor_was_closed_and_used_again() {
    let dir = Dir::new();
    let (path, other) = (dir.file("r"), dir.file("other"));
    let mut region = open(&path);
    let (_, mut rx) = region.split_spsc().unwrap();
    let ours = descriptors_of(&path);
    let (mut tx, _) = open(&path).split_spsc().unwrap();
    let (_, mut same) = open(&other).split_spsc().unwrap();
    tx.attach().unwrap();
    rx.attach().unwrap();
    same.attach().unwrap();
    let [plain] = ours[..] else { panic!("{ours:?}") };
    let file = std::fs::File::options().read(true).write(true).open(&other).unwrap();
    // SAFETY: both are open, and what the number stands for changes behind its owner's back.
    assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), plain) }, plain);
    let error = rx.recv_timeout(SHORT).unwrap_err();
    let is_told = matches!(
        error,
        RecvTimeoutError::Failed { source: Error::LockLost { .. } | Error::Io { .. } }
    );
    assert!(is_told, "{error}");
}

/// This process's descriptors of the file.
fn descriptors_of(path: &Path) -> Vec<i32> {
    let id = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let entries = std::fs::read_dir("/proc/self/fd").unwrap().map(Result::unwrap);
    let of_file = entries.filter(|entry| id(&entry.path()).is_some_and(|it| Some(it) == id(path)));
    of_file.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn options_and_handles_are_what_threads_and_futures_need() {
    fn is_send<T: Send>() {}
    fn is_sync<T: Sync + Unpin>() {}
    is_send::<EventsRegion>();
    is_sync::<EventsRegion>();
    is_send::<tombolo::SpscSender>();
    is_send::<tombolo::SpscReceiver>();
    is_send::<tombolo::MpscProducer>();
    is_send::<tombolo::MpscConsumer>();
    is_sync::<OpenOptions>();
}
