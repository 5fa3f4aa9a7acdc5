//! Channels: a first look at each operation, and calls by many threads.

use std::fs::File;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::{CallPhase, ChannelError};
use tombolo::{Channel, Error, Handle, MessagePacket, OpenOptions};

const LONG: Duration = Duration::from_secs(20);

fn handle() -> Handle {
    Handle::new(File::open("/proc/self/exe").unwrap())
}

fn txid(message: &MessagePacket) -> u32 {
    u32::from_ne_bytes(*message.data.first_chunk().unwrap())
}

#[test]
fn messages_go_both_ways_in_order_and_empty_ones_too() {
    let (a, b) = Channel::create().unwrap();
    for index in 0..100u8 {
        a.write(vec![index]).unwrap();
        b.write(vec![index; 2]).unwrap();
    }
    a.write(b"").unwrap();
    for index in 0..100u8 {
        assert_eq!(b.read().unwrap().data, [index]);
        assert_eq!(a.read().unwrap().data, [index; 2]);
    }
    assert!(b.read().unwrap().data.is_empty());
    assert!(matches!(b.read(), Err(ChannelError::ShouldWait)));
}

#[test]
fn handles_cross_and_a_closed_peer_is_told_after_the_last_message() {
    let (a, b) = Channel::create().unwrap();
    a.write(MessagePacket::from(b"one").handle(handle()).handle(handle())).unwrap();
    drop(a);
    let message = b.read().unwrap();
    assert_eq!((&message.data[..], message.handles.len()), (&b"one"[..], 2));
    assert!(matches!(b.read(), Err(ChannelError::PeerClosed)));
    assert!(matches!(b.write(b"two"), Err(ChannelError::PeerClosed)));
}

#[test]
fn twenty_threads_call_and_are_answered_in_reverse_order() {
    let (client, server) = Channel::create().unwrap();
    let client = Arc::new(client);
    let callers: Vec<_> = (0..20u8)
        .map(|number| {
            let client = client.clone();
            thread::spawn(move || client.call(vec![0, 0, 0, 0, number], LONG).unwrap().data[4])
        })
        .collect();
    let mut requests: Vec<_> = (0..20).map(|_| server.read_timeout(LONG).unwrap()).collect();
    requests.reverse();
    for mut request in requests {
        assert!(txid(&request) >= 1 << 31);
        request.data[4] += 100;
        server.write(request).unwrap();
    }
    for (number, caller) in (100..).zip(callers) {
        assert_eq!(caller.join().unwrap(), number);
    }
    assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
}

/// Nothing but calls takes anything at the client's end, but for one message in between.
#[test]
fn calls_alone_free_the_space_of_their_replies() {
    const CALLS: u8 = 100;
    let options = OpenOptions::new().spsc_capacity(4096).max_message(1000);
    let (client, server) = Channel::create_with(options).unwrap();
    let serving = thread::spawn(move || {
        for number in 0..CALLS {
            let request = server.read_timeout(LONG).unwrap();
            if number == CALLS / 2 {
                server.write(b"no reply").unwrap();
            }
            server.write_timeout(request, LONG).unwrap();
        }
    });
    for number in 0..CALLS {
        let reply = client.call(vec![number; 700], LONG).unwrap();
        assert_eq!(reply.data[4..], [number; 696]);
        if number == CALLS / 2 + 3 {
            assert_eq!(client.read().unwrap().data, b"no reply"); // replies behind it were taken
        }
    }
    serving.join().unwrap();
}

#[test]
fn what_a_call_passes_stays_for_reading_with_its_handles() {
    let (client, server) = Channel::create().unwrap();
    thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(b"\0\0\0\0", LONG).unwrap());
        let request = server.read_timeout(LONG).unwrap();
        for index in 0..3u8 {
            server.write(MessagePacket::from(vec![index]).handle(handle())).unwrap();
        }
        let reply = MessagePacket::from(request.data.clone()).handle(handle()).handle(handle());
        server.write(reply).unwrap();
        assert_eq!(caller.join().unwrap().handles.len(), 2);
        server.write(request.data).unwrap(); // a second reply is a message
    });
    for index in 0..3u8 {
        let message = client.read().unwrap();
        assert_eq!((&message.data[..], message.handles.len()), (&[index][..], 1));
    }
    assert_eq!(client.read().unwrap().data.len(), 4);
    assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
}

#[test]
fn a_late_reply_is_a_message_and_an_expired_deadline_still_sends() {
    let (client, server) = Channel::create().unwrap();
    let error = client.call(b"\0\0\0\0", Duration::ZERO).unwrap_err();
    assert_eq!(error.phase, CallPhase::Read);
    assert!(matches!(error.error, ChannelError::TimedOut));
    let request = server.read().unwrap();
    server.write(request.data.clone()).unwrap();
    assert_eq!(client.read().unwrap().data, request.data);
    let error = client.call(b"\0\0\0", LONG).unwrap_err();
    assert_eq!(error.phase, CallPhase::Write);
    assert_eq!(error.message.unwrap().data, b"\0\0\0");
}

#[test]
fn both_sides_call_at_once_with_the_same_ids() {
    let (a, b) = Channel::create().unwrap();
    let rounds = 200u32;
    let side = move |channel: Channel| {
        thread::scope(|scope| {
            let caller = scope.spawn(|| {
                for number in 0..rounds {
                    let mut request = vec![0; 4];
                    request.extend(number.to_ne_bytes());
                    let reply = channel.call(request, LONG).unwrap();
                    assert_eq!(reply.data[4..], (number + 7).to_ne_bytes());
                }
            });
            for _ in 0..rounds {
                let mut request = channel.read_timeout(LONG).unwrap();
                let number = u32::from_ne_bytes(*request.data[4..].first_chunk().unwrap()) + 7;
                request.data[4..].copy_from_slice(&number.to_ne_bytes());
                channel.write(request).unwrap();
            }
            caller.join().unwrap();
        });
        channel
    };
    let other = thread::spawn(move || side(b));
    let a = side(a);
    let b = other.join().unwrap();
    drop((a, b));
}

#[test]
fn closing_ends_calls_here_and_there() {
    let (a, b) = Channel::create().unwrap();
    let wait = |channel: &Channel| channel.call(b"\0\0\0\0", LONG).unwrap_err();
    thread::scope(|scope| {
        let here = scope.spawn(|| wait(&a));
        let (read, was_read) = std::sync::mpsc::channel();
        let b = &b;
        let there = scope.spawn(move || {
            b.read_timeout(LONG).unwrap();
            read.send(()).unwrap();
            b.read_timeout(LONG)
        });
        was_read.recv().unwrap();
        a.close_with_reason(3, "enough");
        assert!(matches!(here.join().unwrap().error, ChannelError::Canceled));
        assert!(matches!(there.join().unwrap(), Err(ChannelError::PeerClosed)));
    });
    let reason = b.close_reason().unwrap().unwrap();
    assert_eq!((reason.code, &*reason.text), (3, "enough"));
    assert!(matches!(a.read(), Err(ChannelError::Closed)));
}

#[test]
fn a_named_channel_has_two_ends_and_a_new_one_follows_when_one_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let first = Channel::open_path(&path).unwrap();
    first.write(b"before").unwrap();
    let second = Channel::open_path(&path).unwrap();
    let third = Channel::open_path(&path);
    assert!(matches!(third, Err(Error::Busy { .. })), "{third:?}");
    assert_eq!(second.read().unwrap().data, b"before");
    second.write(MessagePacket::from(b"with").handle(handle())).unwrap();
    drop(second);
    let newer = Channel::open_path(&path).unwrap();
    newer.write(b"newer").unwrap();
    assert_eq!(first.read().unwrap().handles.len(), 1);
    assert!(matches!(first.read(), Err(ChannelError::PeerClosed)));
    let other = Channel::open_path(&path).unwrap();
    assert_eq!(other.read().unwrap().data, b"newer");
}

#[test]
fn a_full_channel_lets_writers_wait_and_gives_messages_back() {
    let (a, b) = Channel::create().unwrap();
    let mut count = 0u32;
    let refused = loop {
        match a.try_write(count.to_ne_bytes().to_vec()) {
            Ok(()) => count += 1,
            Err(refused) => break refused,
        }
    };
    assert!(count > 3500, "{count}");
    assert!(matches!(refused.error, ChannelError::ShouldWait));
    assert_eq!(refused.message.data, count.to_ne_bytes());
    let start = Instant::now();
    let late = a.write_timeout(b"late", Duration::from_millis(20)).unwrap_err();
    assert!(matches!(late.error, ChannelError::TimedOut) && start.elapsed() < LONG);
    thread::scope(|scope| {
        scope.spawn(|| a.write(b"waits").unwrap());
        for index in 0..count {
            assert_eq!(b.read_timeout(LONG).unwrap().data, index.to_ne_bytes());
        }
        assert_eq!(b.read_timeout(LONG).unwrap().data, b"waits");
    });
}
