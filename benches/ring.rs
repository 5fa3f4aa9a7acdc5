//! What a message costs, beside what the hardware asks for.
//!
//! Two threads, each with a mapping of its own and pinned to a CPU of its own where there are two,
//! which is what two processes would do. Systems take turns in short runs; printed are medians and
//! their ratio to the floor of the same turns: one cache line that changes hands.
//!
//! `cargo bench -- --quick` takes some seconds, `cargo bench` about half a minute.

use std::hint::spin_loop;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Instant;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tombolo::{Discipline, EventsRegion, Receiver, Sender};

/// One run of so many rounds; gives nanoseconds a round.
type Run = Box<dyn FnMut(u64) -> f64>;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick");
    let (turns, rounds) = if quick { (31, 2_000) } else { (101, 20_000) };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let open = |name: &str| EventsRegion::open_path(dir.path().join(name)).expect("a region");

    println!("round trip, busy-poll: ns, median of {turns} turns of {rounds}");
    let mut systems: Vec<(String, Run)> = vec![("floor: one line".into(), Box::new(line))];
    for len in [8, 64, 1024, 4096] {
        let (mut there, mut back) = (open(&format!("s{len}")), open(&format!("t{len}")));
        let (spsc, spsc_back) = (there.split_spsc().unwrap(), back.split_spsc().unwrap());
        let (mpsc, mpsc_back) = (there.split_mpsc().unwrap(), back.split_mpsc().unwrap());
        systems.push((format!("spsc {len} B"), round_trip(spsc, spsc_back, len)));
        systems.push((format!("mpsc {len} B"), round_trip(mpsc, mpsc_back, len)));
    }
    report(&mut systems, turns, rounds);

    println!("\none way, busy-poll: ns a message, median of {turns} turns of {}", rounds * 5);
    let mut systems: Vec<(String, Run)> = vec![("floor: one line".into(), Box::new(line))];
    for len in [8, 64, 1024, 4096] {
        let mut region = open(&format!("o{len}"));
        let (spsc, mpsc) = (region.split_spsc().unwrap(), region.split_mpsc().unwrap());
        systems.push((format!("spsc {len} B"), one_way(spsc, len)));
        systems.push((format!("mpsc {len} B"), one_way(mpsc, len)));
    }
    report(&mut systems, turns, rounds * 5);
}

/// Lets the systems take turns, and prints medians and what they are of the first one's.
fn report(systems: &mut [(String, Run)], turns: usize, rounds: u64) {
    let mut taken = vec![vec![]; systems.len()];
    for _ in 0..turns {
        for ((_, run), taken) in systems.iter_mut().zip(&mut taken) {
            taken.push(run(rounds));
        }
    }
    let median = |taken: &mut Vec<f64>| {
        taken.sort_by(f64::total_cmp);
        taken[taken.len() / 2]
    };
    let medians: Vec<f64> = taken.iter_mut().map(median).collect();
    for ((name, _), ns) in systems.iter().zip(&medians) {
        println!("  {name:<16} {ns:>9.1}   {:>6.2} x floor", ns / medians[0]);
    }
}

/// A word that two threads hand to and fro.
fn line(rounds: u64) -> f64 {
    static WORD: AtomicU64 = AtomicU64::new(0);
    let answer = move |own: u64| {
        for round in 0..rounds {
            while WORD.load(SeqCst) != round * 2 + own {
                spin_loop();
            }
            WORD.store(round * 2 + own + 1, SeqCst);
        }
    };
    WORD.store(0, SeqCst);
    timed(rounds, move || answer(0), move || answer(1))
}

fn round_trip<K: Discipline>(
    (mut tx, mut rx): (Sender<K>, Receiver<K>),
    (mut back_tx, mut back_rx): (Sender<K>, Receiver<K>),
    len: usize,
) -> Run {
    claim(&mut tx, &mut rx);
    claim(&mut back_tx, &mut back_rx);
    Box::new(move |rounds| {
        let ping = || {
            let (message, mut room) = (vec![1; len], vec![0; len]);
            for _ in 0..rounds {
                while tx.try_send(&message).is_err() {}
                while back_rx.try_recv_into(&mut room).is_err() {}
            }
        };
        let pong = || {
            let mut room = vec![0; len];
            for _ in 0..rounds {
                while rx.try_recv_into(&mut room).is_err() {}
                while back_tx.try_send(&room).is_err() {}
            }
        };
        timed(rounds, ping, pong)
    })
}

fn one_way<K: Discipline>((mut tx, mut rx): (Sender<K>, Receiver<K>), len: usize) -> Run {
    claim(&mut tx, &mut rx);
    Box::new(move |count| {
        let send = || {
            let message = vec![1; len];
            (0..count).for_each(|_| while tx.try_send(&message).is_err() {});
        };
        let receive = || {
            let mut room = vec![0; len];
            (0..count).for_each(|_| while rx.try_recv_into(&mut room).is_err() {});
        };
        timed(count, send, receive)
    })
}

fn claim<K: Discipline>(tx: &mut Sender<K>, rx: &mut Receiver<K>) {
    tx.claim().expect("a sender");
    rx.claim().expect("a receiver");
}

/// Runs both at once, each on a CPU of its own where there are two, and gives nanoseconds a round.
fn timed(rounds: u64, first: impl FnOnce() + Send, second: impl FnOnce() + Send) -> f64 {
    let both_ready = Barrier::new(2);
    let took = thread::scope(|scope| {
        scope.spawn(|| {
            pin(0);
            both_ready.wait();
            first();
        });
        pin(1);
        both_ready.wait();
        let start = Instant::now();
        second();
        start.elapsed()
    });
    took.as_nanos() as f64 / rounds as f64
}

/// Pins this thread to the `index`-th CPU that the process may use, if it has so many.
fn pin(index: usize) {
    static ALLOWED: std::sync::OnceLock<CpuSet> = std::sync::OnceLock::new();
    let allowed = ALLOWED.get_or_init(|| sched_getaffinity(None).expect("an affinity"));
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu)).collect();
    let mut set = CpuSet::new();
    set.set(cpus[index % cpus.len()]);
    sched_setaffinity(None, &set).expect("a CPU of this process");
}
