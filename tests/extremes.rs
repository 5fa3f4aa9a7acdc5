//! No duration, moment, length or limit that a caller gives makes a call panic, or wait for ever if
//! there is something.

use std::thread;
use std::time::{Duration, Instant};

use tombolo::ends::Topology;
use tombolo::inspect::Image;
use tombolo::options::{CreatePolicy, FileSystemPolicy, MpscOrder, OwnerPolicy, Prefault};
use tombolo::{
    Deadline, Error, EventsRegion, MessagePacket, OpenOptions, Receiver, RecvError,
    RecvTimeoutError, SendError, SendTimeoutError, Sender, SpscReceiver, SpscSender, TryRecvError,
    wait_any,
};

mod support;
use support::parts::ReceiveParts;
use support::{Dir, small};

const SHORT: Duration = Duration::from_millis(2);

fn durations() -> Vec<Duration> {
    let nanosecond = Duration::from_nanos(1);
    let seconds = [0, i32::MAX as u64, i64::MAX as u64 - 1, i64::MAX as u64, u64::MAX / 2];
    let mut all: Vec<_> = seconds.into_iter().map(Duration::from_secs).collect();
    all.extend([nanosecond, SHORT, Duration::MAX / 2 + nanosecond, Duration::MAX]);
    all.push(Duration::MAX - nanosecond);
    all
}

/// Now, and the moments furthest from it that the clock can tell.
fn moments() -> [Instant; 3] {
    let now = Instant::now();
    let steps = || (0..64).rev().map(|shift| Duration::from_secs(1 << shift));
    let last = steps().fold(now, |last, step| last.checked_add(step).unwrap_or(last));
    let first = steps().fold(now, |first, step| first.checked_sub(step).unwrap_or(first));
    [first, now, last]
}

fn deadlines() -> Vec<Deadline> {
    let moments = moments().into_iter().map(Deadline::from);
    moments.chain(durations().into_iter().map(Deadline::from)).collect()
}

fn region(dir: &Dir, order: MpscOrder) -> EventsRegion {
    EventsRegion::open_path_with(dir.file("r"), small().producers(3).mpsc_order(order)).unwrap()
}

/// Runs a test on each kind of ring.
fn on_each_ring(
    spsc: impl Fn(SpscSender, SpscReceiver),
    mpsc: impl Fn(Sender<tombolo::ends::Mpsc>, Receiver<tombolo::ends::Mpsc>),
) {
    for order in [MpscOrder::Total, MpscOrder::PerProducer] {
        let dir = Dir::new();
        let mut region = region(&dir, order);
        let (tx, rx) = region.split_spsc().unwrap();
        spsc(tx, rx);
        let (tx, rx) = region.split_mpsc().unwrap();
        mpsc(tx, rx);
    }
}

/// Both sides wait now and then, and each wait ends with what it waited for. Each side owns its end: if
/// one panics, the other does not wait for it.
fn spins<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    for longest in durations() {
        tx.set_spin_max(longest);
        rx.set_spin_max(longest);
        tx.attach().unwrap();
        rx.attach().unwrap();
        (tx, rx) = thread::scope(|scope| {
            let sending = scope.spawn(move || {
                (0..20).for_each(|_| tx.send(&[7; 900]).unwrap());
                thread::sleep(SHORT);
                tx.send(b"last").unwrap();
                tx
            });
            let receiving = scope.spawn(move || {
                thread::sleep(SHORT); // the ring is full by now
                (0..10).for_each(|_| drop(rx.recv().unwrap()));
                for _ in 10..20 {
                    wait_any(&mut [&mut rx], Deadline::NEVER).unwrap();
                    rx.recv_into(&mut [0; 1000]).unwrap();
                }
                assert_eq!(rx.recv().unwrap().data, b"last");
                rx
            });
            (sending.join().unwrap(), receiving.join().unwrap())
        });
    }
}

#[test]
fn however_long_a_wait_may_spin_it_ends_with_what_it_waited_for() {
    on_each_ring(spins, spins);
}

/// Does `deed` while this thread spins in `wait`.
fn meanwhile<T>(deed: impl FnOnce() + Send, wait: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(SHORT);
            deed();
        });
        wait()
    })
}

/// Each wait is ended by an interrupt, and by the other side's leaving.
fn spins_in_vain<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    rx.set_spin_max(Duration::MAX);
    tx.set_spin_max(Duration::MAX);
    rx.attach().unwrap();
    tx.attach().unwrap();
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    let interrupter = rx.interrupter();
    let interrupt = || interrupter.interrupt();
    assert!(matches!(meanwhile(interrupt, || rx.recv()), Err(RecvError::Interrupted)));
    let wait = || wait_any(&mut [&mut rx], Deadline::NEVER);
    assert!(matches!(meanwhile(interrupt, wait), Err(RecvTimeoutError::Interrupted)));
    while tx.try_send(&[7; 900]).is_ok() {}
    let interrupter = tx.interrupter();
    let interrupt = || interrupter.interrupt();
    assert!(matches!(meanwhile(interrupt, || tx.send(&[7; 900])), Err(SendError::Interrupted(()))));
    let sent = meanwhile(|| drop(rx), || tx.send(&[7; 900]));
    assert!(matches!(sent, Err(SendError::Disconnected(()))), "{sent:?}");
}

#[test]
fn however_long_a_wait_may_spin_it_is_ended_by_an_interrupt_and_by_a_receiver_that_leaves() {
    on_each_ring(spins_in_vain, spins_in_vain);
}

fn spins_behind_the_last<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    rx.set_spin_max(Duration::MAX);
    rx.attach().unwrap();
    tx.attach().unwrap();
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    let received = meanwhile(|| drop(tx), || rx.recv());
    assert!(matches!(received, Err(RecvError::Disconnected)), "{received:?}");
}

#[test]
fn however_long_a_wait_may_spin_it_is_ended_by_a_sender_that_leaves() {
    on_each_ring(spins_behind_the_last, spins_behind_the_last);
}

/// Every call with a deadline: if there is what it asks for, and, if the deadline is near, if there is
/// none.
fn until_each_deadline<K: Topology>(mut tx: Sender<K>, mut rx: Receiver<K>) {
    let message = || MessagePacket::from(b"message");
    let mut room = [0; 64];
    for deadline in deadlines() {
        tx.send_timeout(b"message", deadline).unwrap();
        tx.send_packet_timeout(message(), deadline).unwrap();
        tx.send_packet_timeout(message(), deadline).unwrap();
        tx.send_batch_timeout(&[&b"message"[..]; 3], deadline).unwrap();
        assert_eq!(rx.recv_timeout(deadline).unwrap().data, b"message");
        assert_eq!(rx.recv_into_timeout(&mut room, deadline).unwrap(), 7);
        assert_eq!(rx.recv_ref_timeout(deadline).unwrap().len(), 7);
        assert_eq!(rx.recv_parts_timeout(&mut room, &mut [], deadline).unwrap(), (7, 0));
        assert_eq!(wait_any(&mut [&mut rx], deadline).unwrap(), 0);
        assert_eq!(rx.drain(usize::MAX, |_| {}).unwrap(), 2);
        let is_near = deadline.remaining().is_some_and(|left| left <= SHORT);
        if is_near {
            let error = wait_any(&mut [&mut rx], deadline).unwrap_err();
            assert!(matches!(error, RecvTimeoutError::Timeout));
            assert!(matches!(rx.recv_timeout(deadline), Err(RecvTimeoutError::Timeout)));
        }
        thread::scope(|scope| {
            scope.spawn(|| {
                if !is_near {
                    rx.recv_timeout(deadline).unwrap(); // it comes later
                }
            });
            scope.spawn(|| {
                thread::sleep(SHORT);
                if !is_near {
                    tx.send_timeout(b"later", deadline).unwrap();
                }
            });
        });
    }
    for timeout in durations() {
        tx.send_timeout(b"message", timeout).unwrap();
        rx.recv_timeout(timeout).unwrap();
    }
    while tx.try_send(&[0; 1000]).is_ok() {}
    for deadline in deadlines() {
        let is_near = deadline.remaining().is_some_and(|left| left <= SHORT);
        if is_near {
            let error = tx.send_timeout(&[0; 1000], deadline).unwrap_err();
            assert!(matches!(error, SendTimeoutError::Timeout(())));
        }
    }
}

#[test]
fn however_far_a_deadline_is_each_call_takes_it() {
    on_each_ring(until_each_deadline, until_each_deadline);
}

#[test]
fn however_long_a_claim_or_a_copy_is_to_be_it_is_made_or_refused() {
    let dir = Dir::new();
    let (mut tx, mut rx) = region(&dir, MpscOrder::Total).split_spsc().unwrap();
    let most = tx.max_message();
    let huge = [u32::MAX as usize, 1 << 32, usize::MAX / 2, usize::MAX - 7, usize::MAX];
    for len in huge.into_iter().chain([most + 1]) {
        assert!(tx.try_reserve(len).is_err());
        assert!(tx.reserve(len).is_err());
        assert!(tx.reserve_timeout(len, Duration::MAX).is_err());
        let mut claim = tx.try_reserve(8).unwrap();
        assert!(claim.write_at(len, b"x").is_err() && claim.write_at(len, b"").is_err());
        assert!(claim.commit_len(len).is_err());
        tx.send(b"four").unwrap();
        let record = rx.try_recv_ref().unwrap();
        assert_eq!(record.read_at(len, &mut [0; 8]).unwrap(), 0);
        record.keep();
        assert_eq!(rx.drain(len, |record| assert_eq!(record.len(), 4)).unwrap(), 1);
    }
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    tx.send(b"four").unwrap();
    let image = Image::open(&dir.file("r")).unwrap();
    for limit in [0, 1, u64::MAX] {
        for payload_len_max in [0, 3, u32::MAX] {
            let records: Vec<_> =
                image.records(0, limit, payload_len_max).unwrap().map(Result::unwrap).collect();
            assert_eq!(records.len() as u64, limit.min(1));
            assert!(records.iter().all(|one| one.payload.len() == 4.min(payload_len_max as usize)));
        }
    }
    assert!(image.records(u32::MAX, u64::MAX, u32::MAX).is_none());
}

/// A small generator: the same numbers in each run.
struct Numbers(u64);

impl Numbers {
    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        choices[(self.0 >> 33) as usize % choices.len()]
    }
}

/// Options with values that are legal, just not, or far from it. No region that they make is large.
fn any_options(numbers: &mut Numbers, timeouts: &[Duration]) -> OpenOptions {
    let capacities =
        [0, 1, 4095, 4096, 4097, 1 << 13, (1 << 40) + 1, 1 << 41, 1 << 63, u64::MAX - 1, u64::MAX];
    let usual = [4096, 4096, 1 << 13];
    let mut options = OpenOptions::new();
    let is_wild = numbers.of(&[true, false]);
    let capacity = |numbers: &mut Numbers| {
        if is_wild { numbers.of(&capacities) } else { numbers.of(&usual) }
    };
    options = options.spsc_capacity(capacity(numbers)).mpsc_capacity(capacity(numbers));
    if numbers.of(&[true, false]) {
        let lens = [0, 1, 1008, 1009, (1 << 28) - 8, 1 << 28, u32::MAX - 1, u32::MAX];
        options = options.max_message(numbers.of(&lens));
    }
    if numbers.of(&[true, false]) {
        options = options.producers(numbers.of(&[0, 1, 2, 512, 513, 8189, 8190, u16::MAX]));
    }
    let options = options
        .max_handles(numbers.of(&[0, 0, 0, 64, 65, u16::MAX]))
        .mode(numbers.of(&[0o600, 0o600, 0, 0o777, 0o1600, u32::MAX]))
        .require(numbers.of(&[0, 0, 0, 1, 2, 16, 1 << 63, u64::MAX]))
        .mpsc_order(numbers.of(&[MpscOrder::Total, MpscOrder::PerProducer]))
        .owner(numbers.of(&[OwnerPolicy::SameUser, OwnerPolicy::Any]))
        .prefault(numbers.of(&[Prefault::AtOpen, Prefault::OnDemand]))
        .file_system(numbers.of(&[FileSystemPolicy::Known, FileSystemPolicy::Any]));
    options.join_timeout(numbers.of(timeouts))
}

#[test]
fn whatever_options_ask_for_a_region_is_opened_or_refused() {
    let (dir, timeouts) = (Dir::new(), durations());
    drop(region(&dir, MpscOrder::Total));
    let (mut numbers, mut opened, mut refused) = (Numbers(1), 0, 0);
    for _ in 0..400 {
        let options = any_options(&mut numbers, &timeouts);
        let policy = CreatePolicy::OpenExisting;
        let joined = EventsRegion::open_path_with(dir.file("r"), options.clone().policy(policy));
        let new = match numbers.of(&[0, 1]) {
            0 => EventsRegion::anonymous(options),
            _ => {
                EventsRegion::open_path_with(dir.file("n"), options.policy(CreatePolicy::CreateNew))
            }
        };
        for opening in [joined, new] {
            match opening {
                Ok(region) => {
                    opened += 1;
                    assert!(format!("{region:?}").len() > 1);
                }
                Err(
                    error @ (Error::InvalidOption { .. }
                    | Error::Layout { .. }
                    | Error::Permission { .. }),
                ) => {
                    refused += 1;
                    assert!(!error.to_string().is_empty());
                }
                Err(error) => panic!("{error}"),
            }
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 20 && refused > 200);
}
