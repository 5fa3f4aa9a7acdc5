//! Readiness: an end that has nothing to do is waited for at a descriptor, for its level or its edges, or
//! by a task; and what comes after that is never missed.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tombolo::ends::{Pollable, Topology};
use tombolo::inspect::Image;
use tombolo::options::MpscOrder;
use tombolo::{
    Error, EventsRegion, OpenOptions, Readiness, Receiver, RecvTimeoutError, Sender, TryRecvError,
    TrySendError, wait_any,
};

mod support;
use support::ends::Ends;
use support::process::{Peer, hear, report, role};
use support::{Dir, small};

/// Long enough for anything that must happen.
const SOON: Duration = Duration::from_secs(10);
/// Long enough for what must not happen to show now and then.
const SHORT: Duration = Duration::from_millis(60);

/// How a program waits at a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Level,
    Edge,
    Poll,
}

const HOW: [How; 3] = [How::Level, How::Edge, How::Poll];

/// A program's poller, with one descriptor in it.
struct Poller {
    ready: Readiness,
    epoll: Option<OwnedFd>,
}

impl Poller {
    fn of(end: &mut impl Pollable, how: How) -> Self {
        let ready = Readiness::of(end).unwrap();
        let flags = match how {
            How::Level => EventFlags::IN,
            How::Edge => EventFlags::IN | EventFlags::ET,
            How::Poll => return Self { ready, epoll: None },
        };
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        epoll::add(&epoll, &ready, EventData::new_u64(7), flags).unwrap();
        Self { ready, epoll: Some(epoll) }
    }

    /// Whether it says within this time that the end is ready.
    fn says_so(&self, within: Duration) -> bool {
        let within = Timespec::try_from(within).unwrap();
        match &self.epoll {
            Some(epoll) => {
                let mut events =
                    [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
                epoll::wait(epoll, &mut events[..], Some(&within)).unwrap() == 1
            }
            None => {
                poll(&mut [PollFd::new(&self.ready, PollFlags::IN)], Some(&within)).unwrap() == 1
            }
        }
    }

    fn wait(&self) {
        assert!(self.says_so(SOON), "a wake-up was lost");
    }
}

/// Whether the descriptor is readable.
fn is_readable(ready: &Readiness) -> bool {
    poll(&mut [PollFd::new(ready, PollFlags::IN)], Some(&Timespec::default())).unwrap() == 1
}

fn region(order: MpscOrder) -> EventsRegion {
    EventsRegion::anonymous(small().producers(8).max_handles(4).mpsc_order(order)).unwrap()
}

fn until(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < SOON, "it does not come to that");
        thread::sleep(Duration::from_millis(1));
    }
}

const COUNT: u32 = 3000;

/// Receives all that `senders` send, waiting whenever there is nothing. Gives how often it waited.
fn receives_all<K: Topology + Send>(rx: &mut Receiver<K>, senders: Vec<Sender<K>>, how: How) -> u32
where
    Sender<K>: Send,
{
    let poller = Poller::of(rx, how);
    let (mut got, mut waits, all) = (0, 0, COUNT * senders.len() as u32);
    thread::scope(|scope| {
        for mut tx in senders {
            scope.spawn(move || {
                for number in 0..COUNT {
                    tx.send(&number.to_le_bytes()).unwrap();
                    // In steps of several lengths, so that the receiver is overtaken at each.
                    (0..number % 7 * 40).for_each(|_| std::hint::spin_loop());
                    if number % 5 == 0 {
                        thread::yield_now();
                    }
                }
            });
        }
        while got < all {
            match rx.try_recv() {
                Ok(_) => got += 1,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {
                    waits += 1;
                    poller.wait();
                }
                Err(error) => panic!("{error}"),
            }
        }
    });
    assert!(rx.try_recv().is_err());
    waits
}

#[test]
fn a_receiver_that_waits_at_a_descriptor_gets_every_message() {
    for how in HOW {
        let (tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
        let waits = receives_all(&mut rx, vec![tx], how);
        println!("{how:?}: {waits} waits");
        assert!(waits > 0);
        for order in [MpscOrder::Total, MpscOrder::PerProducer] {
            let (tx, mut rx) = region(order).split_mpsc().unwrap();
            let waits = receives_all(&mut rx, vec![tx.clone(), tx.clone(), tx], how);
            println!("{how:?}, {order:?}: {waits} waits");
            assert!(waits > 0);
        }
    }
}

/// Sends all by each of `senders`, waiting whenever it is refused. Gives how often they waited.
fn sends_all<K: Topology + Send>(rx: &mut Receiver<K>, senders: Vec<Sender<K>>, how: How) -> u32
where
    Sender<K>: Send,
{
    rx.attach().unwrap();
    let (waits, all) = (AtomicU32::new(0), COUNT * senders.len() as u32);
    let send_all = |mut tx: Sender<K>| {
        let poller = Poller::of(&mut tx, how);
        for _ in 0..COUNT {
            while let Err(refused) = tx.try_send(&[7; 200]) {
                assert!(
                    matches!(refused, TrySendError::Full(()) | TrySendError::Contended { .. }),
                    "{refused}"
                );
                waits.fetch_add(1, Ordering::Relaxed);
                poller.wait();
            }
        }
        poller // beside its end
    };
    thread::scope(|scope| {
        let senders: Vec<_> =
            senders.into_iter().map(|tx| scope.spawn(move || drop(send_all(tx)))).collect();
        for number in 0..all {
            if number % 100 == 0 {
                thread::sleep(Duration::from_micros(500)); // until the ring is full again
            }
            rx.recv_timeout(SOON).unwrap();
        }
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
    waits.into_inner()
}

#[test]
fn a_sender_that_waits_at_a_descriptor_is_told_of_space() {
    for how in HOW {
        let (tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
        let waits = sends_all(&mut rx, vec![tx], how);
        println!("{how:?}: {waits} waits");
        assert!(waits > 0);
        for order in [MpscOrder::Total, MpscOrder::PerProducer] {
            let (tx, mut rx) = region(order).split_mpsc().unwrap();
            let waits = sends_all(&mut rx, vec![tx.clone(), tx.clone(), tx], how);
            println!("{how:?}, {order:?}: {waits} waits");
            assert!(waits > 0);
        }
    }
}

#[test]
fn the_descriptor_is_readable_from_the_start_until_there_is_nothing_and_then_as_long_as_there_is() {
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    tx.attach().unwrap();
    let ready = Readiness::of(&mut rx).unwrap();
    assert!(is_readable(&ready));
    for _ in 0..3 {
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        assert!(!is_readable(&ready));
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        tx.send(b"one").unwrap();
        tx.send(b"two").unwrap();
        until(|| is_readable(&ready));
        rx.try_recv().unwrap();
        assert!(is_readable(&ready), "there is one more");
        rx.try_recv().unwrap();
        assert!(is_readable(&ready), "it has not been said that there is none");
    }
}

#[test]
fn each_call_that_finds_nothing_lets_the_next_message_be_waited_for() {
    let calls: [fn(&mut tombolo::SpscReceiver); 4] = [
        |rx| assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty))),
        |rx| assert!(matches!(rx.try_recv_into(&mut [0; 8]), Err(TryRecvError::Empty))),
        |rx| assert!(matches!(rx.try_recv_ref().map(drop), Err(TryRecvError::Empty))),
        |rx| assert_eq!(rx.drain(usize::MAX, |_| {}).unwrap(), 0),
    ];
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    let ready = Readiness::of(&mut rx).unwrap();
    for call in calls {
        call(&mut rx);
        assert!(!is_readable(&ready));
        tx.send(b"a message").unwrap();
        until(|| is_readable(&ready));
        rx.try_recv().unwrap();
    }
}

#[test]
fn a_drain_that_was_not_limited_found_nothing_more() {
    for order in [MpscOrder::Total, MpscOrder::PerProducer] {
        let (mut tx, mut rx) = region(order).split_mpsc().unwrap();
        let poller = Poller::of(&mut rx, How::Edge);
        let mut got = 0;
        thread::scope(|scope| {
            scope.spawn(move || (0..COUNT).for_each(|_| tx.send(b"one of many").unwrap()));
            while got < COUNT as usize {
                got += rx.drain(usize::MAX, |_| {}).unwrap();
                if got < COUNT as usize {
                    poller.wait();
                }
            }
        });
    }
}

#[test]
fn a_reservation_that_is_refused_lets_space_be_waited_for() {
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    rx.attach().unwrap();
    let poller = Poller::of(&mut tx, How::Edge);
    while tx.try_reserve(200).is_ok_and(|reservation| reservation.commit().is_ok()) {}
    assert!(tx.try_reserve(200).is_err());
    assert!(!is_readable(&poller.ready));
    while rx.try_recv().is_ok() {}
    poller.wait();
    tx.try_reserve(200).unwrap().commit().unwrap();
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let mut region = open(&path);
    let mut ends = Ends::of(&mut region);
    ends.attach(&role);
    report("ready");
    while let Some(line) = hear() {
        match line.as_str() {
            "take" => while ends.rx.try_recv().is_ok() {},
            message => ends.tx.send(message.as_bytes()).unwrap(),
        }
        report("done");
    }
}

fn peer(role: &str, path: &Path) -> Peer {
    Peer::start("peer_process", role, path)
}

fn open(path: &Path) -> EventsRegion {
    EventsRegion::open_path_with(path, small().producers(4)).unwrap()
}

#[test]
fn two_processes_need_nothing_but_the_region_for_it() {
    for how in HOW {
        let dir = Dir::new();
        let path = dir.file("r");
        let (_, mut rx) = open(&path).split_spsc().unwrap();
        let poller = Poller::of(&mut rx, how);
        let mut sender = peer("sender", &path);
        for round in 0..20 {
            while rx.try_recv().is_ok() {}
            let message = format!("message {round}");
            sender.tell(&message);
            poller.wait();
            if how != How::Edge {
                assert_eq!(rx.try_recv().unwrap().data, message.as_bytes());
            }
            assert_eq!(sender.next_report(), "done");
        }
        sender.finish();
        drop((rx, poller));

        let (mut tx, _) = open(&path).split_spsc().unwrap();
        let mut receiver = peer("receiver", &path);
        let poller = Poller::of(&mut tx, how);
        for _ in 0..20 {
            while tx.try_send(&[7; 200]).is_ok() {}
            receiver.tell("take");
            poller.wait();
            assert_eq!(receiver.next_report(), "done");
        }
    }
}

/// Nothing but the descriptor is looked at: the program's own poller has no tick.
#[test]
fn a_peer_that_is_killed_makes_the_end_ready() {
    for how in HOW {
        let dir = Dir::new();
        let path = dir.file("r");
        let mut region = open(&path);
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let poller = Poller::of(&mut rx, how);
        let sender = peer("sender", &path);
        poller.wait();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        assert!(!poller.says_so(SHORT));
        sender.kill();
        poller.wait();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        assert!(!poller.says_so(SHORT), "it is told once");
        let mut sender = peer("sender", &path);
        sender.tell("of the next one");
        poller.wait();
        assert_eq!(rx.try_recv().unwrap().data, b"of the next one");
        drop((rx, poller));

        let receiver = peer("receiver", &path);
        drop(sender);
        let poller = Poller::of(&mut tx, how);
        while tx.try_send(&[7; 200]).is_ok() {}
        poller.says_so(Duration::ZERO); // an edge of the start
        assert!(!poller.says_so(SHORT));
        receiver.kill();
        poller.wait();
        assert!(matches!(tx.try_send(&[7; 200]), Err(TrySendError::Disconnected(()))));
        assert!(!poller.says_so(SHORT), "it is told once");
        let mut receiver = peer("receiver", &path);
        receiver.tell("take");
        poller.wait();
        tx.try_send(&[7; 200]).unwrap();
    }
}

#[test]
fn a_producer_of_many_that_is_killed_makes_no_difference_to_the_others() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_mpsc().unwrap();
    tx.attach().unwrap();
    let poller = Poller::of(&mut rx, How::Edge);
    let other = peer("producer", &path);
    while rx.try_recv().is_ok() {}
    other.kill();
    poller.wait();
    while rx.try_recv().is_ok() {}
    tx.send(b"of another").unwrap();
    poller.wait();
    assert_eq!(rx.try_recv().unwrap().data, b"of another");
}

fn fds() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// In a process of its own, where no other test opens anything.
#[test]
fn a_readiness_leaves_no_descriptor_behind_and_ends_with_its_end() {
    let Some((_, path)) = role() else {
        let dir = Dir::new();
        let entry = "a_readiness_leaves_no_descriptor_behind_and_ends_with_its_end";
        let mut alone = Peer::start_without_waiting(entry, "alone", &dir.file("r"));
        assert_eq!(alone.next_report(), "as before");
        return alone.finish();
    };
    let mut region = open(&path);
    drop(Readiness::of(&mut region.split_spsc().unwrap().1).unwrap()); // what a process keeps
    let before = fds();
    for _ in 0..3 {
        let (mut tx, mut rx) = region.split_spsc().unwrap();
        let (sending, receiving) =
            (Readiness::of(&mut tx).unwrap(), Readiness::of(&mut rx).unwrap());
        let again = Readiness::of(&mut rx).unwrap();
        assert_eq!(again.as_raw_fd(), receiving.as_raw_fd());
        assert!(rx.try_recv().is_err());
        while tx.try_send(&[7; 200]).is_ok() {}
        assert!(rx.drain(usize::MAX, |_| {}).is_ok());
        drop((tx, rx));
        until(|| is_readable(&sending) && is_readable(&receiving));
        let waker = Waker::noop();
        assert!(receiving.poll_ready(&mut Context::from_waker(waker)).is_ready());
        drop((again, sending, receiving));
        until(|| fds() == before); // the thread may be looking just then
    }
    report("as before");
}

#[test]
fn more_ends_than_one_thread_can_sleep_for_are_all_waited_for() {
    let region = || region(MpscOrder::Total).split_spsc().unwrap();
    let mut ends: Vec<_> = (0..300).map(|_| region()).collect();
    let all: Vec<_> = ends.iter_mut().map(|(_, rx)| Poller::of(rx, How::Edge)).collect();
    for _ in 0..3 {
        for ((_, rx), poller) in ends.iter_mut().zip(&all) {
            while rx.try_recv().is_ok() {}
            poller.says_so(Duration::ZERO);
        }
        for ((tx, rx), poller) in ends.iter_mut().zip(&all).rev() {
            tx.send(b"a message").unwrap();
            poller.wait();
            rx.try_recv().unwrap();
        }
    }
}

/// Wakes a thread that waits for it.
#[derive(Default)]
struct Flag(Mutex<u32>, Condvar);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_all();
    }
}

impl Flag {
    /// Waits until it was woken so often.
    fn wait(&self, count: u32) {
        let waits = |woken: &mut u32| *woken < count;
        let (woken, timeout) =
            self.1.wait_timeout_while(self.0.lock().unwrap(), SOON, waits).unwrap();
        assert!(!timeout.timed_out(), "woken {woken} times of {count}");
    }

    fn count(&self) -> u32 {
        *self.0.lock().unwrap()
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let flag = Arc::<Flag>::default();
    let (waker, mut future) = (flag.clone().into(), std::pin::pin!(future));
    for round in 1.. {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        flag.wait(round);
    }
    unreachable!()
}

/// Receives all, as a task.
async fn take_all<K: Topology>(rx: &mut Receiver<K>, ready: &Readiness, all: u32) -> u32 {
    let (mut got, mut waits) = (0, 0);
    while got < all {
        match rx.try_recv() {
            Ok(_) => got += 1,
            Err(_) => {
                waits += 1;
                ready.ready().await;
            }
        }
    }
    waits
}

#[test]
fn a_task_gets_every_message_and_every_space() {
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    let (sending, receiving) = (Readiness::of(&mut tx).unwrap(), Readiness::of(&mut rx).unwrap());
    thread::scope(|scope| {
        scope.spawn(move || {
            block_on(async {
                for _ in 0..COUNT {
                    while tx.try_send(&[7; 200]).is_err() {
                        sending.ready().await;
                    }
                }
            });
        });
        assert!(block_on(take_all(&mut rx, &receiving, COUNT)) > 0);
    });
}

fn waker() -> (Arc<Flag>, Waker) {
    let flag = Arc::<Flag>::default();
    (flag.clone(), flag.into())
}

#[test]
fn the_last_task_that_asked_is_woken_once() {
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    let ready = Readiness::of(&mut rx).unwrap();
    let ((first, waker), (last, other)) = (waker(), waker());
    let is_ready = |waker| ready.poll_ready(&mut Context::from_waker(waker)).is_ready();
    assert!(is_ready(&waker), "it is new");
    assert!(rx.try_recv().is_err());
    assert!(!is_ready(&waker));
    assert!(!is_ready(&waker));
    assert!(!is_ready(&other));
    tx.send(b"a message").unwrap();
    last.wait(1);
    assert!(is_ready(&other) && is_ready(&waker));
    thread::sleep(SHORT);
    assert_eq!((first.count(), last.count()), (0, 1));
    assert_eq!(Arc::strong_count(&first), 2, "one is kept");
}

/// Its waker does what a lock held meanwhile would forbid, and then it panics.
#[test]
fn a_waker_may_do_anything_and_the_next_one_is_woken_all_the_same() {
    struct Wild(Mutex<Option<(tombolo::SpscReceiver, Readiness)>>, mpsc::Sender<bool>);
    impl Wake for Wild {
        fn wake(self: Arc<Self>) {
            let (mut rx, ready) = self.0.lock().unwrap().take().unwrap();
            let _ = rx.try_recv();
            let _ = rx.try_recv();
            let noop = Waker::noop();
            let is_pending = ready.poll_ready(&mut Context::from_waker(noop)).is_pending();
            drop(rx);
            self.1.send(is_pending).unwrap();
            panic!("on purpose");
        }
    }
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    let (mut other, mut waits) = region(MpscOrder::Total).split_spsc().unwrap();
    let (ready, waiting) = (Readiness::of(&mut rx).unwrap(), Readiness::of(&mut waits).unwrap());
    assert!(rx.try_recv().is_err() && waits.try_recv().is_err());
    let (done, is_done) = mpsc::channel();
    let wild = Arc::new(Wild(Mutex::default(), done));
    assert!(ready.poll_ready(&mut Context::from_waker(&wild.clone().into())).is_pending());
    *wild.0.lock().unwrap() = Some((rx, ready));
    tx.send(b"a message").unwrap();
    assert!(is_done.recv_timeout(SOON).unwrap());
    let (flag, waker) = waker();
    assert!(waiting.poll_ready(&mut Context::from_waker(&waker)).is_pending());
    other.send(b"a message").unwrap();
    flag.wait(1);
}

#[test]
fn calls_that_block_work_as_before() {
    let (mut tx, mut rx) = region(MpscOrder::Total).split_spsc().unwrap();
    let (_other_tx, mut other) = region(MpscOrder::Total).split_spsc().unwrap();
    let ready = Readiness::of(&mut rx).unwrap();
    Readiness::of(&mut tx).unwrap();
    let timed_out = rx.recv_timeout(SHORT);
    assert!(matches!(timed_out, Err(RecvTimeoutError::Timeout)), "{timed_out:?}");
    assert!(!is_readable(&ready));
    let sender = thread::spawn(move || {
        for round in 0..300 {
            if round % 50 == 0 {
                thread::sleep(Duration::from_millis(3));
            }
            tx.send(&[7; 200]).unwrap();
        }
        tx
    });
    let start = Instant::now();
    for round in 0..300 {
        if round % 3 == 0 {
            rx.recv().unwrap();
        } else {
            assert_eq!(wait_any(&mut [&mut other, &mut rx], SOON).unwrap(), 1);
            rx.try_recv().unwrap();
        }
    }
    assert!(start.elapsed() < Duration::from_secs(60), "sleeps end by themselves only");
    let interrupter = rx.interrupter();
    let interrupting = thread::spawn(move || {
        thread::sleep(SHORT);
        interrupter.interrupt();
    });
    let interrupted = rx.recv_timeout(SOON);
    assert!(matches!(interrupted, Err(RecvTimeoutError::Interrupted)), "{interrupted:?}");
    interrupting.join().unwrap();
    drop(sender.join().unwrap());
    let disconnected = rx.recv_timeout(SOON);
    assert!(matches!(disconnected, Err(RecvTimeoutError::Disconnected)), "{disconnected:?}");
    drop(rx);
}

#[test]
fn a_sender_of_handles_is_told_of_a_receiver() {
    let dir = Dir::new();
    let path = dir.file("r");
    let open = || {
        EventsRegion::open_path_with(&path, small().max_handles(4)).unwrap().split_spsc().unwrap()
    };
    let (mut tx, _) = open();
    let poller = Poller::of(&mut tx, How::Edge);
    let (_, end) = std::io::pipe().unwrap();
    let mut packet = Some(tombolo::MessagePacket::from(b"with a handle").handle(end));
    let mut rx = None;
    for _ in 0..100 {
        match tx.try_send_packet(packet.take().unwrap()) {
            Ok(()) => break,
            Err(TrySendError::NoReceiver(back)) => packet = Some(back),
            Err(error) => panic!("{error}"),
        }
        let other = rx.get_or_insert_with(|| open().1);
        poller.wait();
        other.attach().unwrap();
    }
    assert!(packet.is_none());
    assert_eq!(rx.unwrap().recv().unwrap().handles.len(), 1);
}

/// What a process that finds damage does.
#[test]
fn damage_makes_both_ends_ready() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = open(&path).split_spsc().unwrap();
    let (sending, receiving) = (Poller::of(&mut tx, How::Level), Poller::of(&mut rx, How::Level));
    while tx.try_send(&[7; 200]).is_ok() {}
    assert!(!is_readable(&sending.ready));
    let data = Image::open(&path).unwrap().rings()[0].entry.data_offset;
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 8], data).unwrap();
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Failed { .. })));
    sending.wait();
    assert!(matches!(tx.try_send(b"x"), Err(TrySendError::Failed { .. })));
    assert!(is_readable(&sending.ready) && is_readable(&receiving.ready));
}

#[test]
fn a_file_that_is_cut_short_makes_its_end_ready() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_tx, mut rx) = open(&path).split_spsc().unwrap();
    let poller = Poller::of(&mut rx, How::Edge);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    poller.says_so(Duration::ZERO);
    fs::File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
    poller.wait();
    let received = rx.try_recv();
    let is_so = matches!(&received, Err(TryRecvError::Failed { source, .. })
        if matches!(source, Error::RegionTooSmall { .. }));
    assert!(is_so, "{received:?}");
}

#[test]
fn a_readiness_of_an_end_that_cannot_be_attached_says_why() {
    let mut region = EventsRegion::anonymous(OpenOptions::new()).unwrap();
    let (mut owner, _) = region.split_spsc().unwrap();
    owner.attach().unwrap();
    let (mut tx, _) = region.split_spsc().unwrap();
    assert!(matches!(Readiness::of(&mut tx), Err(Error::Busy { .. })));
}
