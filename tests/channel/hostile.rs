//! A peer that writes what it likes: as messages, and into the words that ends share. What comes of it is an
//! error of that channel alone, in bounded time and memory, and nothing stays open.

use std::collections::BTreeMap;
use std::io::PipeReader;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo::object::{ChannelError, MessageBuf};
use tombolo::{Channel, Error, MessagePacket, OpenOptions};
use tombolo_abi::{Record, RecordKind};

use super::alone::alone;
use super::ends::{Failure, LONG, SHORT, SOON, id_of, request, status, with_id};
use super::support::Dir;
use super::support::carrying::{Forger, closes_soon, numbered, open_count};
use super::support::witness::witness;

/// Tests, each in a process of its own.
macro_rules! counted {
    ($($(#[$note:meta])* fn $name:ident() $body:block)*) => {
        $($(#[$note])* #[test] fn $name() {
            alone(concat!("hostile::", stringify!($name)), || $body);
        })*
    };
}

/// Both ends of a channel in the file `path`.
fn pair(path: &Path) -> (Channel, Channel) {
    pair_with(path, &OpenOptions::new())
}

fn pair_with(path: &Path, options: &OpenOptions) -> (Channel, Channel) {
    let open = || Channel::open_path_with(path, options.clone()).unwrap();
    (open(), open())
}

/// Small ones that are made by the thousand.
fn small() -> OpenOptions {
    OpenOptions::new().spsc_capacity(4096).max_message(256)
}

/// Sees that another channel of this process is as good as ever.
fn another_works(other: &(Channel, Channel)) {
    let (near, far) = other;
    thread::scope(|scope| {
        scope.spawn(|| far.write(far.read_timeout(LONG).unwrap()).unwrap());
        assert_eq!(near.call(request("still there"), LONG).unwrap().data[4..], *b"still there");
    });
}

fn with_handles(data: Vec<u8>, count: u64) -> MessagePacket {
    let mut message = MessagePacket::from(data);
    message.handles = (0..count).map(|number| numbered(number).into()).collect();
    message
}

counted! {
    fn replies_that_nobody_asked_for_are_messages_and_the_call_times_out() {
        let dir = Dir::new();
        let (near, far) = pair(&dir.file("channel"));
        let mut read = 0;
        thread::scope(|scope| {
            let call = scope.spawn(|| status(near.call(request("ping"), SHORT * 20)));
            let id = id_of(&far.read_timeout(LONG).unwrap());
            for number in 0..3000u32 {
                // Each bit turned, and any other id.
                let wrong = if number < 32 { id ^ 1 << number } else { id ^ number };
                let handles = u64::from(number % 64 == 0);
                far.write(with_handles(with_id(wrong, "wrong"), handles)).unwrap();
            }
            for number in 0..3000u32 {
                let wrong = if number < 32 { id ^ 1 << number } else { id ^ number };
                let message = near.read_timeout(LONG).unwrap();
                assert_eq!(id_of(&message), wrong);
                assert_eq!(message.handles.len(), usize::from(number % 64 == 0));
                read += 1;
            }
            assert_eq!(call.join().unwrap(), "TIMED_OUT in the read phase");
        });
        assert_eq!(status(near.read()), "SHOULD_WAIT");
        println!("{read} wrong replies were messages");
    }

    fn of_65_536_replies_to_one_call_the_first_is_its_own_and_the_others_are_messages() {
        let dir = Dir::new();
        let (near, far) = pair(&dir.file("channel"));
        let count = 1 << 16;
        thread::scope(|scope| {
            scope.spawn(|| {
                let asked = far.read_timeout(LONG).unwrap();
                for number in 0..count {
                    let handles = u64::from(number % 1024 == 1);
                    let data = with_id(id_of(&asked), &number.to_string());
                    far.write(with_handles(data, handles)).unwrap();
                }
            });
            assert_eq!(near.call(request("ping"), LONG).unwrap().data[4..], *b"0");
            for number in 1..count {
                let message = near.read_timeout(LONG).unwrap();
                assert_eq!(message.data[4..], *number.to_string().as_bytes());
                assert_eq!(message.handles.len(), usize::from(number % 1024 == 1));
            }
        });
        assert_eq!(status(near.read()), "SHOULD_WAIT");
        println!("{count} replies to one call");
    }

    fn a_flood_under_a_call_takes_no_more_than_the_ring_and_the_call_ends_at_its_deadline() {
        let dir = Dir::new();
        let (near, far) = pair(&dir.file("channel"));
        let mut witnesses: Vec<PipeReader> = Vec::new();
        thread::scope(|scope| {
            let flood = scope.spawn(|| {
                far.read_timeout(LONG).unwrap();
                let mut written = 0;
                while far.try_write(vec![7; 1 << 15]).is_ok() {
                    let (handle, other) = witness();
                    witnesses.push(other);
                    let last = MessagePacket::from(&[7; 64][..]).handle(handle.into_fd());
                    written += 1 + usize::from(far.try_write(last).is_ok());
                }
                written
            });
            let start = Instant::now();
            let late = near.call(request("ping"), SHORT * 20).unwrap_err();
            assert_eq!(late.outcome(), "TIMED_OUT in the read phase");
            assert!(start.elapsed() < SHORT * 20 + SOON);
            let written = flood.join().unwrap();
            assert!(written > 32, "{written}");
            println!("{written} messages came under a call");
        });
        near.read().unwrap();
        drop(near);
        assert!(witnesses.len() > 16);
        witnesses.into_iter().for_each(closes_soon);
    }

    fn a_flood_that_never_ends_is_read_beside_calls_that_time_out() {
        let dir = Dir::new();
        let (near, far) = pair(&dir.file("channel"));
        let (read, late) = thread::scope(|scope| {
            scope.spawn(|| while far.write(vec![7; 100]).is_ok() {});
            let caller = scope.spawn(|| {
                let calls = [(); 20].map(|()| near.call(request("ping"), SHORT).unwrap_err());
                calls.map(|error| assert_eq!(error.outcome(), "TIMED_OUT in the read phase")).len()
            });
            let mut read = 0;
            let mut buffer = MessageBuf::new();
            while !caller.is_finished() {
                read += usize::from(near.read_into(&mut buffer).is_ok());
            }
            near.close();
            (read, caller.join().unwrap())
        });
        println!("{read} messages were read beside {late} calls");
        assert!(read > 1000 && late == 20);
    }

    fn a_reply_whose_handles_cannot_be_had_fails_the_call_and_stays() {
        let dir = Dir::new();
        let (near, far) = pair(&dir.file("channel"));
        near.write(with_handles(vec![], 1)).unwrap(); // the connections are made
        far.write(with_handles(vec![], 1)).unwrap();
        near.read().unwrap();
        far.read().unwrap();
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(with_id(7, "ping"), LONG));
            far.read_timeout(LONG).unwrap();
            let reply = with_handles(with_id(7, "pong"), 32);
            let before = getrlimit(Resource::Nofile);
            let current = Some(open_count() as u64 - 16); // those that are open may stay
            setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
            far.write(reply).unwrap();
            let failed = call.join().unwrap().unwrap_err();
            setrlimit(Resource::Nofile, before).unwrap();
            let source = &failed.error;
            let is_told = matches!(source, ChannelError::Failed { source } if matches!(**source, Error::TooManyFiles { .. }));
            assert!(is_told, "{source:?}");
        });
        let reply = near.read().unwrap();
        assert_eq!((id_of(&reply), reply.handles.len()), (7, 32));
    }

    fn a_reply_that_stays_for_want_of_descriptors_is_told_to_those_that_wait_for_messages() {
        let dir = Dir::new();
        let (near, far) = pair(&dir.file("channel"));
        near.write(with_handles(vec![], 1)).unwrap(); // the connections are made
        far.write(with_handles(vec![], 1)).unwrap();
        near.read().unwrap();
        far.read().unwrap();
        let readable = near.readable().unwrap();
        near.read().unwrap_err();
        let is_told = |limit| {
            let limit = Timespec { tv_sec: limit, tv_nsec: 0 };
            poll(&mut [PollFd::new(&readable, PollFlags::IN)], Some(&limit)).unwrap() == 1
        };
        thread::scope(|scope| {
            let call = scope.spawn(|| near.call_with_txid(with_id(7, "ping"), LONG));
            far.read_timeout(LONG).unwrap();
            let reply = with_handles(with_id(7, "pong"), 32);
            assert!(!is_told(0));
            let before = getrlimit(Resource::Nofile);
            let current = Some(open_count() as u64 - 16); // those that are open may stay
            setrlimit(Resource::Nofile, Rlimit { current, ..before }).unwrap();
            far.write(reply).unwrap();
            call.join().unwrap().unwrap_err();
            setrlimit(Resource::Nofile, before).unwrap();
        });
        assert!(is_told(20));
        assert_eq!(near.read().unwrap().handles.len(), 32);
    }

    fn forged_records_are_replies_messages_or_damage() {
        let dir = Dir::new();
        let other = pair(&dir.file("other"));
        let data = |kind, handle_count| Record { kind, payload_len: 8, handle_count, ext: handle_count > 0, flags: 0xff };
        let kinds = [
            RecordKind::Data, RecordKind::Pad, RecordKind::Abort, RecordKind::Call, RecordKind::Reply,
            RecordKind::Control, RecordKind::Unknown(8), RecordKind::Unknown(15),
        ];
        let mut records: Vec<_> = kinds.iter().flat_map(|kind| [0, 1, 64, 65, 255].map(|count| data(*kind, count))).collect();
        records.extend([0, 3, 4, 255, 256, 257, 2048].map(|payload_len| Record { payload_len, ..data(RecordKind::Data, 0) }));
        let mut outcomes = BTreeMap::<String, usize>::new();
        for (number, record) in records.iter().enumerate() {
            let path = dir.file(&format!("forged-{number}"));
            let (near, far) = pair_with(&path, &small());
            let forger = Forger::at_ring(&path, 1);
            thread::scope(|scope| {
                let call = scope.spawn(|| near.call_with_txid(with_id(7, "ping"), SHORT * 5));
                far.read_timeout(LONG).unwrap();
                forger.publish_at(0, record, &with_id(7, "pong"));
                let start = Instant::now();
                let called = outcome(call.join().unwrap().map(drop));
                let read = outcome(near.read().map(drop));
                assert!(start.elapsed() < SOON);
                if record.kind == RecordKind::Call {
                    assert_ne!(called, "OK", "a request is no reply");
                }
                *outcomes.entry(format!("call: {called}, read: {read}")).or_default() += 1;
            });
            drop((near, far));
            std::fs::remove_file(path).unwrap();
        }
        another_works(&other);
        println!("{} forged records: {outcomes:#?}", records.len());
        assert!(outcomes.keys().any(|outcome| outcome.starts_with("call: OK")));
        assert!(outcomes.keys().any(|outcome| outcome.ends_with("read: OK")));
        assert!(outcomes.len() >= 4);
    }

    fn junk_in_each_shared_word_is_an_error_of_that_channel_alone() {
        let dir = Dir::new();
        let other = pair(&dir.file("other"));
        let (mut words, mut outcomes) = (0, BTreeMap::<String, usize>::new());
        let mut slowest = Duration::ZERO;
        for ring in 0..2 {
            let probe = dir.file("probe");
            let ends = pair_with(&probe, &small());
            let offsets = Forger::at_ring(&probe, ring).shared_words();
            drop(ends);
            for (index, offset) in offsets.into_iter().enumerate() {
                let junk = [0, 1, u64::MAX, 1 << 63, 0x0102_0304_0506_0708][index % 5];
                for junk in [junk, !junk] {
                    let path = dir.file("junk");
                    let took = under_junk(&path, (ring, offset, junk), &mut outcomes);
                    slowest = slowest.max(took);
                    let _ = std::fs::remove_file(path);
                    words += 1;
                }
            }
            another_works(&other);
        }
        println!("{words} words of junk, the slowest took {slowest:?}: {outcomes:#?}");
        assert!(words > 1000 && slowest < LONG);
        assert!(outcomes.keys().any(|outcome| outcome != "OK"));
    }
}

/// Every operation of an end whose peer has written `junk` at `offset`; how long all took.
fn under_junk(
    path: &Path,
    (ring, offset, junk): (u32, u64, u64),
    outcomes: &mut BTreeMap<String, usize>,
) -> Duration {
    let (near, far) = pair_with(path, &small());
    let forger = Forger::at_ring(path, ring);
    far.write(with_handles(b"one".to_vec(), 1)).unwrap();
    far.write("two").unwrap();
    near.write("three").unwrap();
    let start = Instant::now();
    let mut tell = |told: String| *outcomes.entry(told).or_default() += 1;
    thread::scope(|scope| {
        let call = scope.spawn(|| outcome(near.call(request("ping"), SHORT / 4).map(drop)));
        let reader = scope.spawn(|| outcome(far.read_timeout(SHORT / 4).map(drop)));
        forger.set_word(offset, junk);
        tell(call.join().unwrap());
        tell(reader.join().unwrap());
    });
    for end in [&near, &far] {
        tell(outcome(end.read().map(drop)));
        tell(outcome(end.write_timeout("late", SHORT / 10).map(drop)));
        let message = with_handles(b"with".to_vec(), 1);
        tell(outcome(end.write_timeout(message, SHORT / 10).map(drop)));
        tell(outcome(end.call(request("late"), SHORT / 10).map(drop)));
        tell(outcome(end.read_timeout(SHORT / 10).map(drop)));
        tell(outcome(end.close_reason().map(drop)));
    }
    near.close_with_reason(7, "junk");
    tell(outcome(far.read().map(drop)));
    drop((near, far));
    start.elapsed()
}

/// The name of what came of it, without numbers.
fn outcome<E: Failure>(result: Result<(), E>) -> String {
    let told = result.err().map_or_else(|| "OK".into(), |error| error.outcome());
    let told = told.rsplit('/').next().unwrap_or_default().to_owned();
    told.replace(|char: char| char.is_ascii_digit(), "")
}
