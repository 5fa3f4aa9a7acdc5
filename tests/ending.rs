//! How a conversation ends: who says *disconnected*, by which rule and for how long, and what ends a
//! blocked call.

use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::options::{Disconnect, MpscOrder};
use tombolo::{
    Error, EventsRegion, Interrupter, MessagePacket, MpscConsumer, MpscProducer, OpenOptions,
    RecvError, RecvTimeoutError, SendError, SendTimeoutError, SpscReceiver, SpscSender,
    TryRecvError, TrySendError, wait_any,
};

mod support;
use support::process::{Peer, report, role, wait_for_parent};
use support::{Dir, small};

/// Long enough for anything that must happen, short enough to fail a test.
const SOON: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(60);

fn options() -> OpenOptions {
    small().producers(16).max_handles(4)
}

fn open(path: &Path) -> EventsRegion {
    EventsRegion::open_path_with(path, options()).unwrap()
}

fn spsc(path: &Path) -> (SpscSender, SpscReceiver) {
    open(path).split_spsc().unwrap()
}

fn mpsc(path: &Path, order: MpscOrder) -> (MpscProducer, MpscConsumer) {
    let region = EventsRegion::open_path_with(path, options().mpsc_order(order));
    region.unwrap().split_mpsc().unwrap()
}

const ORDERS: [MpscOrder; 2] = [MpscOrder::Total, MpscOrder::PerProducer];

/// Fills the ring with messages of 200 bytes.
fn fill(tx: &mut SpscSender) {
    while tx.try_send(&[7; 200]).is_ok() {}
}

/// What a process of its own does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((role, path)) = role() else { return };
    let (mut tx, mut rx) = spsc(&path);
    match role.as_str() {
        "sender" => tx.attach().unwrap(),
        "receiver" => rx.attach().unwrap(),
        other => panic!("no such role: {other}"),
    }
    report("ready");
    wait_for_parent();
}

fn peer(role: &str, path: &Path) -> Peer {
    Peer::start("peer_process", role, path)
}

#[test]
fn a_sender_that_attaches_ends_the_condition_and_an_iterator_goes_on() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = spsc(&path);
    for round in 0..5u8 {
        let (mut tx, _) = spsc(&path);
        tx.attach().unwrap();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)), "round {round}");
        tx.send(&[round]).unwrap();
        drop(tx);
        let got: Vec<_> = rx.iter().map(|message| message.unwrap().data).collect();
        assert_eq!(got, [[round]]);
        assert!(rx.iter().next().is_none(), "round {round}, again");
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)), "round {round}");
    }
}

#[test]
fn all_senders_must_be_gone_and_a_clone_is_one() {
    let dir = Dir::new();
    for order in ORDERS {
        let path = dir.file(&format!("{order:?}"));
        let (mut tx, mut rx) = mpsc(&path, order);
        let (mut other, _) = mpsc(&path, order);
        tx.send(b"a").unwrap();
        let mut clone = tx.clone();
        clone.send(b"b").unwrap();
        other.send(b"c").unwrap();
        drop((tx, other));
        for _ in 0..3 {
            rx.recv().unwrap();
        }
        assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)), "{order:?}");
        drop(clone);
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)), "{order:?}");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)), "{order:?}");
    }
}

/// No watcher is waited for: the very next call says so.
#[test]
fn an_orderly_close_is_known_at_the_next_call() {
    let dir = Dir::new();
    let mut known = 0;
    for round in 0..200 {
        let path = dir.file(&format!("spsc {round}"));
        let (mut tx, mut rx) = spsc(&path);
        tx.attach().unwrap();
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        drop(tx);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)), "round {round}");
        let (mut tx, _) = spsc(&path);
        fill(&mut tx);
        assert!(matches!(tx.try_send(&[7; 200]), Err(TrySendError::Full(()))));
        drop(rx);
        let refused = tx.try_send(&[7; 200]);
        assert!(matches!(refused, Err(TrySendError::Disconnected(()))), "round {round}");
        known += 2;
    }
    for order in ORDERS {
        for round in 0..50 {
            let (mut tx, mut rx) = mpsc(&dir.file(&format!("{order:?} {round}")), order);
            tx.attach().unwrap();
            assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
            drop(tx);
            let refused = rx.try_recv();
            assert!(matches!(refused, Err(TryRecvError::Disconnected)), "{order:?} {round}");
            known += 1;
        }
    }
    println!("{known} closes known at once");
    assert_eq!(known, 500);
}

#[test]
fn an_orderly_close_of_another_process_is_known_at_the_next_call() {
    let dir = Dir::new();
    for round in 0..10 {
        let path = dir.file(&round.to_string());
        let (_, mut rx) = spsc(&path);
        let sender = peer("sender", &path);
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
        sender.finish(); // and is reaped
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)), "round {round}");
    }
}

#[test]
fn a_sender_with_space_is_not_asked_about_its_receiver() {
    let dir = Dir::new();
    let (mut tx, mut rx) = spsc(&dir.file("r"));
    rx.attach().unwrap();
    tx.send(b"x").unwrap();
    drop(rx);
    for disconnect in [Disconnect::Met, Disconnect::Ever, Disconnect::Never] {
        tx.set_disconnect(disconnect);
        tx.send(b"x").unwrap();
        tx.try_send(b"x").unwrap();
    }
}

#[test]
fn every_send_says_disconnected_as_long_as_it_is_true() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = spsc(&path);
    rx.attach().unwrap();
    tx.attach().unwrap();
    fill(&mut tx);
    drop(rx);
    for round in 0..3 {
        assert!(matches!(tx.send(&[7; 200]), Err(SendError::Disconnected(()))), "round {round}");
        let refused = tx.send_timeout(&[7; 200], SOON);
        assert!(matches!(refused, Err(SendTimeoutError::Disconnected(()))));
        assert!(matches!(tx.try_send(&[7; 200]), Err(TrySendError::Disconnected(()))));
        assert!(matches!(tx.send_batch(&[&[7; 200]]), Err(SendError::Disconnected(0))));
        assert!(matches!(tx.reserve(200), Err(SendError::Disconnected(()))));
        let refused = tx.send_packet(MessagePacket::from(b"with a handle").handle(a_file()));
        assert!(matches!(refused, Err(SendError::Disconnected(_))));
    }
    let (_, mut rx) = spsc(&path);
    (0..2).for_each(|_| drop(rx.recv().unwrap())); // one more than is sent, for the padding
    tx.send(&[8; 200]).unwrap();
}

fn a_file() -> std::fs::File {
    std::fs::File::open("/proc/self/exe").unwrap()
}

/// A receiver that is restarted on an empty ring whose senders are gone.
#[test]
fn which_senders_count_is_set_at_the_receiver() {
    let dir = Dir::new();
    for order in ORDERS {
        let path = dir.file(&format!("{order:?}"));
        let (mut tx, _) = mpsc(&path, order);
        let (_, mut first) = mpsc(&path, order);
        first.set_disconnect(Disconnect::Ever);
        assert!(matches!(first.try_recv(), Err(TryRecvError::Empty)), "none came yet");
        drop(first);
        tx.attach().unwrap();
        drop(tx);
        let (_, mut rx) = mpsc(&path, order);
        assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)), "{order:?}");
        rx.set_disconnect(Disconnect::Ever);
        assert!(matches!(rx.recv(), Err(RecvError::Disconnected)), "{order:?}");
        rx.set_disconnect(Disconnect::Met);
        assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)), "{order:?}");
        drop(rx);
        let (_, mut before) = mpsc(&path, order);
        before.set_disconnect(Disconnect::Ever); // before it attaches
        assert!(matches!(before.recv(), Err(RecvError::Disconnected)), "{order:?}");
        before.set_disconnect(Disconnect::Never);
        assert!(matches!(before.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
    }
}

#[test]
fn a_message_that_was_taken_counts_as_its_sender_met() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, _) = spsc(&path);
    tx.send(b"left behind").unwrap();
    drop(tx);
    let (_, mut rx) = spsc(&path);
    assert_eq!(rx.recv().unwrap().data, b"left behind");
    assert!(matches!(rx.recv(), Err(RecvError::Disconnected)));
    rx.set_disconnect(Disconnect::Never);
    assert!(matches!(rx.recv_timeout(SHORT), Err(RecvTimeoutError::Timeout)));
}

#[test]
fn a_sender_that_came_and_went_between_two_calls_was_met() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = spsc(&path);
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Empty)));
    for leave in [Peer::kill, Peer::finish] {
        leave(peer("sender", &path));
        assert!(matches!(rx.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected)));
    }
}

/// A sender that comes after its receiver died.
#[test]
fn which_receivers_count_is_set_at_the_sender() {
    let dir = Dir::new();
    let path = dir.file("r");
    peer("receiver", &path).kill();
    let (mut tx, _) = spsc(&path);
    fill(&mut tx);
    let full = |tx: &mut SpscSender| tx.send_timeout(&[7; 200], SHORT);
    assert!(matches!(full(&mut tx), Err(SendTimeoutError::Timeout(()))));
    tx.set_disconnect(Disconnect::Ever);
    assert!(matches!(tx.send(&[7; 200]), Err(SendError::Disconnected(()))));
    tx.set_disconnect(Disconnect::Never);
    assert!(matches!(full(&mut tx), Err(SendTimeoutError::Timeout(()))));
    let receiver = peer("receiver", &path);
    receiver.kill();
    assert!(matches!(full(&mut tx), Err(SendTimeoutError::Timeout(()))));
    tx.set_disconnect(Disconnect::Met);
    assert!(matches!(tx.send(&[7; 200]), Err(SendError::Disconnected(()))));
}

#[test]
fn a_receiver_is_named_once_each_time_it_became_disconnected() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (_, mut rx) = spsc(&path);
    let (mut other_tx, mut other) = spsc(&dir.file("other"));
    for round in 0..3u8 {
        let (mut tx, _) = spsc(&path);
        tx.attach().unwrap();
        let timed_out = wait_any(&mut [&mut other, &mut rx], SHORT);
        assert!(matches!(timed_out, Err(RecvTimeoutError::Timeout)), "round {round}");
        drop(tx);
        assert_eq!(wait_any(&mut [&mut other, &mut rx], SOON).unwrap(), 1, "round {round}");
        let timed_out = wait_any(&mut [&mut other, &mut rx], SHORT);
        assert!(matches!(timed_out, Err(RecvTimeoutError::Timeout)), "named twice");
        assert!(matches!(rx.try_recv(), Err(TryRecvError::Disconnected)));
        other_tx.send(&[round]).unwrap();
        assert_eq!(wait_any(&mut [&mut other, &mut rx], SOON).unwrap(), 0);
        other.recv().unwrap();
    }
}

#[test]
fn peers_are_counted() {
    let dir = Dir::new();
    for order in ORDERS {
        let path = dir.file(&format!("{order:?}"));
        let (_, mut rx) = mpsc(&path, order);
        let peers = rx.peers().unwrap();
        assert_eq!((peers.alive, peers.ever, peers.met), (0, 0, false));
        let mut writers: Vec<_> = (0..8).map(|_| mpsc(&path, order).0).collect();
        writers.iter_mut().for_each(|tx| tx.attach().unwrap());
        let peers = rx.peers().unwrap();
        assert_eq!((peers.alive, peers.ever, peers.met), (8, 8, true), "{order:?}");
        writers.truncate(3);
        let peers = rx.peers().unwrap();
        assert_eq!((peers.alive, peers.ever, peers.met), (3, 8, true), "{order:?}");
        let receivers = writers[0].peers().unwrap();
        assert_eq!((receivers.alive, receivers.ever, receivers.met), (1, 1, true));
        drop(writers);
        let peers = rx.peers().unwrap();
        assert_eq!((peers.alive, peers.ever, peers.met), (0, 8, true), "{order:?}");
        drop(rx);
        let (mut tx, mut rx) = mpsc(&path, order);
        let peers = rx.peers().unwrap();
        assert_eq!((peers.alive, peers.ever, peers.met), (0, 8, false), "{order:?}");
        tx.attach().unwrap();
        assert_eq!(rx.peers().unwrap().ever, 9);
        assert_eq!(tx.peers().unwrap().ever, 2);
    }
}

#[test]
fn a_peer_can_be_waited_for() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut tx, mut rx) = spsc(&path);
    assert!(matches!(rx.wait_for_peer(SHORT), Err(RecvTimeoutError::Timeout)));
    drop(rx);
    assert!(matches!(tx.wait_for_peer(SHORT), Err(SendTimeoutError::Timeout(()))));
    let (_, mut rx) = spsc(&path);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| tx.wait_for_peer(SOON));
        thread::sleep(SHORT);
        rx.attach().unwrap();
        waiting.join().unwrap().unwrap();
    });
    rx.wait_for_peer(SHORT).unwrap();
    drop(tx);
    assert!(matches!(rx.wait_for_peer(SHORT), Err(RecvTimeoutError::Timeout)));
    let interrupter = rx.interrupter();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| rx.wait_for_peer(SOON * 10));
        thread::sleep(SHORT);
        interrupter.interrupt();
        assert!(matches!(waiting.join().unwrap(), Err(RecvTimeoutError::Interrupted)));
    });
}

/// Waiting for one that is alive would never end: the only lane has its next owner once it is empty.
#[test]
fn a_sender_that_came_and_left_something_while_none_was_waited_for_is_one() {
    let dir = Dir::new();
    for order in [MpscOrder::Total, MpscOrder::PerProducer] {
        let path = dir.file(&format!("{order:?}"));
        let options = options().mpsc_order(order).producers(1);
        let open =
            || EventsRegion::open_path_with(&path, options.clone()).unwrap().split_mpsc().unwrap();
        let (_, mut rx) = open();
        rx.attach().unwrap();
        for told_first in [true, false] {
            open().0.attach().unwrap();
            let told = rx.recv_timeout(SOON);
            assert!(matches!(told, Err(RecvTimeoutError::Disconnected)), "{told:?}");
            if told_first {
                open().0.send(b"left").unwrap();
                rx.wait_for_peer(SOON).unwrap();
            } else {
                thread::scope(|scope| {
                    let waiting = scope.spawn(|| rx.wait_for_peer(SOON));
                    thread::sleep(SHORT);
                    open().0.send(b"left").unwrap();
                    waiting.join().unwrap().unwrap();
                });
            }
            assert_eq!(rx.recv_timeout(SOON).unwrap().data, b"left");
        }
    }
}

/// A call that blocks, and whether it says *interrupted*.
type Blocks<T> = fn(&mut T) -> bool;

const RECEIVES: [Blocks<SpscReceiver>; 7] = [
    |rx| matches!(rx.recv(), Err(RecvError::Interrupted)),
    |rx| matches!(rx.recv_timeout(SOON * 10), Err(RecvTimeoutError::Interrupted)),
    |rx| matches!(rx.recv_into(&mut [0; 9]), Err(RecvError::Interrupted)),
    |rx| matches!(rx.recv_ref(), Err(RecvError::Interrupted)),
    |rx| matches!(rx.wait_for_peer(SOON * 10), Err(RecvTimeoutError::Interrupted)),
    |rx| matches!(wait_any(&mut [rx], SOON * 10), Err(RecvTimeoutError::Interrupted)),
    |rx| rx.iter().next().is_none(),
];

const SENDS: [Blocks<SpscSender>; 6] = [
    |tx| matches!(tx.send(&[7; 200]), Err(SendError::Interrupted(()))),
    |tx| matches!(tx.send_timeout(&[7; 200], SOON * 10), Err(SendTimeoutError::Interrupted(()))),
    |tx| matches!(tx.send_batch(&[&[7; 200]]), Err(SendError::Interrupted(0))),
    |tx| matches!(tx.reserve(200), Err(SendError::Interrupted(()))),
    |tx| matches!(tx.wait_for_peer(SOON * 10), Err(SendTimeoutError::Interrupted(()))),
    |tx| {
        let packet = MessagePacket::from(b"comes back").handle(a_file());
        match tx.send_packet_timeout(packet, SOON * 10) {
            Err(SendTimeoutError::Interrupted(packet)) => {
                packet.data == b"comes back" && packet.handles.len() == 1
            }
            _ => false,
        }
    },
];

/// Interrupts a blocked `call`, then one before a call, then two.
fn is_ended<T: Send>(end: &mut T, interrupter: &Interrupter, call: Blocks<T>) {
    thread::scope(|scope| {
        let waiting = scope.spawn(|| assert!(call(end), "it blocked"));
        thread::sleep(Duration::from_millis(20));
        interrupter.interrupt();
        waiting.join().unwrap();
    });
    interrupter.interrupt();
    assert!(call(end), "before the call");
    interrupter.interrupt();
    interrupter.interrupt();
    assert!(call(end), "two before the call");
}

#[test]
fn every_blocked_receive_can_be_interrupted_and_two_interrupts_are_one() {
    let dir = Dir::new();
    for (index, call) in RECEIVES.into_iter().enumerate() {
        for attached in [false, true] {
            let (_, mut rx) = spsc(&dir.file(&format!("{index} {attached}")));
            if attached {
                rx.attach().unwrap();
            }
            let interrupter = rx.interrupter();
            is_ended(&mut rx, &interrupter, call);
            let timed_out = rx.recv_timeout(SHORT);
            assert!(matches!(timed_out, Err(RecvTimeoutError::Timeout)), "{index} {attached}");
        }
    }
}

#[test]
fn every_blocked_send_can_be_interrupted_and_gives_its_message_back() {
    let dir = Dir::new();
    for (index, call) in SENDS.into_iter().enumerate() {
        let path = dir.file(&index.to_string());
        let (mut tx, mut rx) = spsc(&path);
        fill(&mut tx);
        let interrupter = tx.interrupter();
        is_ended(&mut tx, &interrupter, call);
        let timed_out = tx.send_timeout(&[7; 200], SHORT);
        assert!(matches!(timed_out, Err(SendTimeoutError::Timeout(()))), "call {index}");
        let all_there = std::iter::from_fn(|| rx.try_recv().ok()).all(|it| it.data == [7; 200]);
        assert!(all_there, "call {index}");
        tx.send(b"it goes on").unwrap();
        assert_eq!(rx.recv().unwrap().data, b"it goes on");
    }
}

/// The next call ends, whether or not it would have waited; nothing is lost by it.
#[test]
fn an_interrupt_ends_the_next_call_also_if_there_is_a_message_or_space() {
    let dir = Dir::new();
    for order in ORDERS {
        let (mut tx, mut rx) = mpsc(&dir.file(&format!("{order:?}")), order);
        let (sends, receives) = (tx.interrupter(), rx.interrupter());
        tx.send(b"one").unwrap();
        receives.interrupt();
        assert!(matches!(rx.recv_into(&mut [0; 9]), Err(RecvError::Interrupted)));
        assert_eq!(rx.recv().unwrap().data, b"one");
        sends.interrupt();
        assert!(matches!(tx.send(b"two"), Err(SendError::Interrupted(()))));
        tx.send(b"three").unwrap();
        receives.interrupt();
        assert_eq!(rx.try_recv().unwrap().data, b"three", "it doesn't block");
        assert!(matches!(rx.recv(), Err(RecvError::Interrupted)));
    }
}

#[test]
fn an_interrupted_batch_says_how_many_were_sent() {
    let dir = Dir::new();
    let (mut tx, mut rx) = spsc(&dir.file("r"));
    let interrupter = tx.interrupter();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            let message: &[u8] = &[7; 200];
            tx.send_batch(&[message; 100])
        });
        thread::sleep(SHORT);
        interrupter.interrupt();
        let Err(SendError::Interrupted(sent)) = waiting.join().unwrap() else { panic!() };
        let received = std::iter::from_fn(|| rx.try_recv().ok()).count();
        assert_eq!(sent, received);
        assert!((1..100).contains(&sent));
    });
}

#[test]
fn an_interrupt_ends_the_wait_for_an_endpoint_that_another_owns() {
    let dir = Dir::new();
    let path = dir.file("r");
    let (mut first_tx, mut first_rx) = spsc(&path);
    first_tx.attach().unwrap();
    first_rx.attach().unwrap();
    let (mut tx, mut rx) = spsc(&path);
    let (sends, receives) = (tx.interrupter(), rx.interrupter());
    thread::scope(|scope| {
        let sending = scope.spawn(|| tx.send_timeout(b"x", SOON * 10));
        let receiving = scope.spawn(|| rx.recv_timeout(SOON * 10));
        thread::sleep(SHORT * 3);
        sends.interrupt();
        receives.interrupt();
        assert!(matches!(sending.join().unwrap(), Err(SendTimeoutError::Interrupted(()))));
        assert!(matches!(receiving.join().unwrap(), Err(RecvTimeoutError::Interrupted)));
    });
}

/// Clones wait at once, and each has interrupters of its own.
#[test]
fn a_call_that_does_not_block_tries_for_an_endpoint_as_long_as_ever_and_leaves_the_interrupt() {
    let dir = Dir::new();
    let path = dir.file("r");
    let ((mut owns_tx, mut owns_rx), (mut tx, mut rx)) = (spsc(&path), spsc(&path));
    owns_tx.attach().unwrap();
    owns_rx.attach().unwrap();
    rx.interrupter().interrupt();
    tx.interrupter().interrupt();
    let is_patient = |call: &mut dyn FnMut() -> bool| {
        let start = Instant::now();
        call() && start.elapsed() >= Duration::from_millis(100)
    };
    assert!(is_patient(&mut || matches!(rx.attach(), Err(Error::Busy { .. }))));
    assert!(is_patient(&mut || rx.try_recv().is_err()));
    assert!(is_patient(&mut || matches!(tx.attach(), Err(Error::Busy { .. }))));
    assert!(is_patient(&mut || tx.try_send(b"").is_err()));
    assert!(matches!(rx.recv(), Err(RecvError::Interrupted)));
    assert!(matches!(tx.send(b""), Err(SendError::Interrupted(()))));
}

#[test]
fn a_clone_is_not_interrupted_by_the_others_interrupter() {
    let dir = Dir::new();
    for order in ORDERS {
        let (mut tx, _) = mpsc(&dir.file(&format!("{order:?}")), order);
        while tx.try_send(&[7; 200]).is_ok() {}
        let interrupter = tx.interrupter();
        let mut clone = tx.clone();
        while clone.try_send(&[7; 200]).is_ok() {}
        interrupter.interrupt();
        let timed_out = clone.send_timeout(&[7; 200], SHORT);
        assert!(matches!(timed_out, Err(SendTimeoutError::Timeout(()))), "{order:?}");
        let interrupted = tx.send_timeout(&[7; 200], SHORT);
        assert!(matches!(interrupted, Err(SendTimeoutError::Interrupted(()))), "{order:?}");
    }
}

static BY_SIGNAL: AtomicPtr<Interrupter> = AtomicPtr::new(std::ptr::null_mut());
static SIGNALS: AtomicU32 = AtomicU32::new(0);

extern "C" fn on_signal(_: libc::c_int) {
    // SAFETY: null, or made from a box that lives to the end of the program.
    if let Some(interrupter) = unsafe { BY_SIGNAL.load(Ordering::Acquire).as_ref() } {
        SIGNALS.fetch_add(1, Ordering::Relaxed);
        interrupter.interrupt();
    }
}

/// As Ctrl-C does it; the signal comes at any instruction of the call.
#[test]
fn a_signal_handler_may_interrupt() {
    let dir = Dir::new();
    let (_, mut rx) = spsc(&dir.file("r"));
    let interrupter = Box::into_raw(Box::new(rx.interrupter()));
    BY_SIGNAL.store(interrupter, Ordering::Release);
    // SAFETY: the handler only calls what a handler may.
    let before = unsafe { libc::signal(libc::SIGUSR1, on_signal as *const () as usize) };
    assert_ne!(before, libc::SIG_ERR);
    rx.set_spin_max(Duration::from_micros(5));
    let rounds = 2000;
    thread::scope(|scope| {
        let receiver = scope.spawn(|| {
            // SAFETY: names the calling thread, which lives until it is joined.
            let own = unsafe { libc::pthread_self() };
            THREAD.store(own as usize, Ordering::Release);
            let mut ended = 0;
            while ended < rounds {
                assert!(matches!(rx.recv_timeout(SOON * 10), Err(RecvTimeoutError::Interrupted)));
                ended += 1;
                ENDED.store(ended, Ordering::Release);
            }
        });
        while THREAD.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        for round in 0..rounds {
            // SAFETY: the thread lives until it is joined below.
            let sent =
                unsafe { libc::pthread_kill(THREAD.load(Ordering::Acquire) as _, libc::SIGUSR1) };
            assert_eq!(sent, 0);
            let start = Instant::now();
            while ENDED.load(Ordering::Acquire) <= round {
                assert!(start.elapsed() < SOON, "an interrupt was lost in round {round}");
                std::hint::spin_loop();
            }
        }
        receiver.join().unwrap();
    });
    println!("{} signals", SIGNALS.load(Ordering::Relaxed));
}

static THREAD: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
static ENDED: AtomicU32 = AtomicU32::new(0);
