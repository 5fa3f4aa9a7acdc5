//! Many at once: threads that call, both ends at a time, and a peer that is killed meanwhile.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use tombolo::{Channel, MessagePacket};

use super::alone::alone;
use super::ends::{Failure, LONG, SHORT, SOON, id_of, request, status, with_id};
use super::support::Dir;
use super::support::carrying::{numbered, numbers_of};
use super::support::process::Peer;

#[test]
fn twenty_threads_call_at_once_and_are_answered_in_reverse_order() {
    let (client, server) = Channel::create().unwrap();
    let rounds = 50;
    thread::scope(|scope| {
        for number in 0..20u64 {
            let client = &client;
            scope.spawn(move || {
                for round in 0..rounds {
                    let mut given = request(&format!("{number} {round}"));
                    given.handles.push(numbered(number).into());
                    let reply = client.call(given, LONG).unwrap();
                    assert_eq!(reply.data[4..], *format!("{number} {round}").as_bytes());
                    assert_eq!(numbers_of(&reply.handles), [number]);
                }
            });
        }
        for _ in 0..rounds {
            let requests: Vec<_> = (0..20).map(|_| server.read_timeout(LONG).unwrap()).collect();
            for request in requests.into_iter().rev() {
                assert!(id_of(&request) >= 1 << 31);
                server.write(request).unwrap();
            }
        }
    });
    assert_eq!(status(client.read()), "SHOULD_WAIT");
    assert_eq!(status(server.read()), "SHOULD_WAIT");
    println!("{} calls by 20 threads were answered in reverse order", 20 * rounds);
}

#[test]
fn both_ends_call_at_once_with_the_same_ids_and_answer_beside() {
    let rounds = 500u32;
    let (one, other) = Channel::create().unwrap();
    let side = |end: &Channel| {
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                for number in 0..rounds {
                    let reply = end.call(with_id(0, &number.to_string()), LONG).unwrap();
                    assert_eq!(reply.data[4..], *(number + 7).to_string().as_bytes());
                }
            });
            for number in 0..rounds {
                let asked = end.read_timeout(LONG).unwrap();
                assert_eq!(asked.data[4..], *number.to_string().as_bytes());
                end.write(with_id(id_of(&asked), &(number + 7).to_string())).unwrap();
            }
            caller.join().unwrap();
        });
    };
    thread::scope(|scope| {
        scope.spawn(|| side(&other));
        side(&one);
    });
}

/// A thread that reads also looks for the replies to calls, and wakes those that wait for them.
#[test]
fn calls_and_readers_that_wait_are_woken_by_whoever_finds_what_they_wait_for() {
    let (near, far) = Channel::create().unwrap();
    let (calls, is_over, start) = (3000, AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..calls).for_each(|_| drop(near.call(request("ping"), LONG).unwrap()));
                is_over.store(true, Relaxed);
            });
        }
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                assert_eq!(status(near.read()), "SHOULD_WAIT");
            }
        });
        (0..2 * calls).for_each(|_| far.write(far.read_timeout(LONG).unwrap()).unwrap());
    });
    // A sleep that is not ended lasts a second.
    println!("{} calls beside a reader took {:?}", 2 * calls, start.elapsed());
    assert!(start.elapsed() < SOON * 10);
}

#[test]
fn writers_readers_and_callers_of_one_end_get_each_message_once() {
    let (near, far) = Channel::create().unwrap();
    let (count, read) = (300, AtomicUsize::new(0));
    let seen = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for number in 0..4u32 {
            let (near, far, seen, read) = (&near, &far, &seen, &read);
            scope.spawn(move || {
                (0..count)
                    .for_each(|round| far.write(with_id(number, &round.to_string())).unwrap());
            });
            scope.spawn(move || {
                while read.fetch_add(1, Relaxed) < 4 * count {
                    let message = near.read_timeout(LONG).unwrap();
                    seen.lock().unwrap().push((id_of(&message), message.data[4..].to_vec()));
                }
            });
            scope.spawn(move || {
                (0..count).for_each(|_| drop(near.call(request("ping"), LONG).unwrap()));
            });
            scope.spawn(move || {
                for _ in 0..count {
                    far.write(far.read_timeout(LONG).unwrap()).unwrap();
                }
            });
        }
    });
    let mut seen = seen.into_inner().unwrap();
    assert_eq!(seen.len(), 4 * count);
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 4 * count, "each once");
    assert_eq!(status(near.read()), "SHOULD_WAIT");
}

#[test]
fn a_thousand_calls_end_soon_after_their_peer_is_killed_and_nothing_is_left_open() {
    let entry =
        "threads::a_thousand_calls_end_soon_after_their_peer_is_killed_and_nothing_is_left_open";
    alone(entry, end_a_thousand_calls);
}

fn end_a_thousand_calls() {
    let (dir, calls) = (Dir::new(), 1000);
    std::fs::create_dir(dir.file("files")).unwrap();
    let near = Arc::new(Channel::open_path(dir.file("channel")).unwrap());
    let mut peer = Peer::start("ends::peer_process", "end", dir.path());
    let callers: Vec<_> = (0..calls)
        .map(|number| {
            let near = near.clone();
            let mut given: MessagePacket = request("ping");
            if number % 10 == 0 {
                given.handles.push(numbered(number).into());
            }
            let call = move || (status(near.call(given, LONG * 10)), Instant::now());
            thread::Builder::new().stack_size(1 << 16).spawn(call).unwrap()
        })
        .collect();
    peer.tell(&format!("take {calls}"));
    assert_eq!(peer.next_report(), "OK", "all requests have come");
    thread::sleep(SHORT);
    let killed = Instant::now();
    peer.kill();
    let ended = callers.into_iter().map(|caller| {
        let (status, at) = caller.join().unwrap();
        assert_eq!(status, "PEER_CLOSED in the read phase");
        at.saturating_duration_since(killed)
    });
    let mut ended = Vec::from_iter(ended);
    ended.sort();
    let (median, latest) = (ended[ended.len() / 2], ended[ended.len() - 1]);
    println!(
        "{} calls ended with PEER_CLOSED, half after {median:?}, all after {latest:?}",
        ended.len()
    );
    assert!(ended.len() == 1000 && latest < SOON, "{latest:?}");
    assert_eq!(
        near.call(request("ping"), LONG).unwrap_err().outcome(),
        "PEER_CLOSED in the write phase"
    );
}
