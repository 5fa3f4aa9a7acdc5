//! Ends of channels that go from one process, or one channel, to another.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tombolo::handle::{DispositionError, HandleError};
use tombolo::object::ChannelError;
use tombolo::{Channel, Error, Handle, HandleType, MessagePacket, Rights};

mod support;
use support::process::{Peer, report, role, wait_for_parent};

const LONG: Duration = Duration::from_secs(20);

fn handle() -> Handle {
    Handle::new(File::open("/proc/self/exe").unwrap())
}

fn carrying(end: &Channel) -> MessagePacket {
    MessagePacket::from(b"an end").handle(end.release().unwrap())
}

fn taken_from(channel: &Channel) -> Channel {
    let handle = channel.read_timeout(LONG).unwrap().handles.remove(0);
    assert_eq!(handle.handle_type(), HandleType::Channel);
    Channel::from_handle(handle).unwrap()
}

/// The end as it comes out of another channel.
fn pass_on(end: &Channel) -> Channel {
    let (ours, theirs) = Channel::create().unwrap();
    ours.write(carrying(end)).unwrap();
    taken_from(&theirs)
}

/// Waits until `end` is told that its peer has gone.
fn wait_for_closing(end: &Channel) {
    let start = Instant::now();
    let read = end.read_timeout(LONG);
    assert!(matches!(read, Err(ChannelError::PeerClosed)), "{read:?}");
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
}

#[test]
fn what_was_not_read_goes_with_the_end_in_order_and_both_sides_go_on() {
    let (a, b) = Channel::create().unwrap();
    for index in 0..50u8 {
        a.write(MessagePacket::from(vec![index]).handle(handle())).unwrap();
    }
    b.write(b"from b").unwrap();
    let id = b.id();
    let b = pass_on(&pass_on(&b));
    assert_eq!(b.id(), id);
    a.write(vec![50]).unwrap();
    b.write(b"from b, later").unwrap();
    for index in 0..51u8 {
        let message = b.read().unwrap();
        assert_eq!((message.data[0], message.handles.len()), (index, usize::from(index < 50)));
    }
    assert_eq!(a.read().unwrap().data, b"from b");
    assert_eq!(a.read().unwrap().data, b"from b, later");
    assert!(matches!(a.read(), Err(ChannelError::ShouldWait)));
    drop(b);
    wait_for_closing(&a);
}

#[test]
fn handles_of_messages_that_a_call_has_passed_go_with_the_end() {
    let (a, b) = Channel::create().unwrap();
    thread::scope(|scope| {
        let caller =
            scope.spawn(|| a.call(b"\0\0\0\0", LONG).map(|reply| reply.handles.len()).ok());
        let request = b.read_timeout(LONG).unwrap();
        for count in 1..4u8 {
            let mut message = MessagePacket::from(vec![count]);
            message.handles.extend((0..count).map(|_| handle()));
            b.write(message).unwrap();
        }
        b.write(MessagePacket::from(request.data).handle(handle())).unwrap();
        assert_eq!(caller.join().unwrap(), Some(1));
    });
    b.write(MessagePacket::from(vec![4]).handle(handle())).unwrap();
    let a = pass_on(&a);
    let counts: Vec<_> = (0..4).map(|_| a.read().unwrap().handles.len()).collect();
    assert_eq!(counts, [1, 2, 3, 1]);
}

#[test]
fn waits_and_calls_on_an_end_that_is_released_are_canceled() {
    let (a, b) = Channel::create().unwrap();
    let a = Arc::new(a);
    let reader = thread::spawn({
        let a = a.clone();
        move || a.read_timeout(LONG).map(drop)
    });
    let caller = thread::spawn({
        let a = a.clone();
        move || a.call(b"\0\0\0\0", LONG).map(drop).map_err(|refused| refused.error)
    });
    let mut request = b.read_timeout(LONG).unwrap();
    thread::sleep(Duration::from_millis(20)); // until both wait
    let moved = Channel::from_handle(a.release().unwrap()).unwrap();
    for ended in [reader.join().unwrap(), caller.join().unwrap()] {
        assert!(matches!(ended, Err(ChannelError::Canceled)), "{ended:?}");
    }
    assert!(matches!(a.read(), Err(ChannelError::Closed)));
    assert!(matches!(a.release(), Err(ChannelError::Closed)));
    request.data.push(1);
    b.write(request).unwrap(); // a late reply, to a call of an earlier owner
    assert_eq!(moved.read().unwrap().data.len(), 5);
    let reply = thread::scope(|scope| {
        let caller = scope.spawn(|| moved.call(b"\0\0\0\0", LONG).map(|reply| reply.data).ok());
        b.write(b.read_timeout(LONG).unwrap()).unwrap();
        caller.join().unwrap()
    });
    assert_eq!(reply.unwrap().len(), 4);
}

#[test]
fn an_end_on_its_way_is_open_and_closes_with_what_carries_it() {
    let (a, b) = Channel::create().unwrap();
    let released = b.release().unwrap();
    a.write(b"to an end on its way").unwrap();
    assert!(matches!(a.read_timeout(Duration::from_millis(1200)), Err(ChannelError::TimedOut)));
    drop(released);
    wait_for_closing(&a);
    let (a, b) = Channel::create().unwrap();
    let (carrier, other) = Channel::create().unwrap();
    carrier.write(carrying(&b)).unwrap();
    drop(carrier);
    assert!(matches!(a.read(), Err(ChannelError::ShouldWait)));
    drop(other); // with the message in it
    wait_for_closing(&a);
}

#[test]
fn an_end_goes_neither_through_itself_nor_through_its_peer() {
    for through_peer in [false, true] {
        let (a, b) = Channel::create().unwrap();
        let (spare, _spare_peer) = Channel::create().unwrap();
        let moved = if through_peer { &b } else { &spare };
        let released = moved.release().unwrap();
        let refused = a.try_write(MessagePacket::from(b"?").handle(released));
        if !through_peer {
            refused.unwrap();
            continue;
        }
        let refused = refused.unwrap_err();
        assert!(
            matches!(
                refused.error,
                ChannelError::Handles {
                    source: DispositionError::Handle { source: HandleError::ThroughItself, .. }
                }
            ),
            "{refused:?}"
        );
        let mut message = refused.message;
        let b = Channel::from_handle(message.handles.remove(0)).unwrap(); // it is whole
        b.write(b"still here").unwrap();
        assert_eq!(a.read().unwrap().data, b"still here");
    }
}

#[test]
fn what_is_no_end_is_given_back() {
    let (_a, b) = Channel::create().unwrap();
    let whole = b.release().unwrap();
    let part = whole.as_fd().try_clone_to_owned().unwrap();
    for no_end in [handle(), Handle::new(part)] {
        let file_type = no_end.handle_type();
        let refused = Channel::from_handle(no_end).unwrap_err();
        let ChannelError::Handles { .. } = refused.error else { panic!("{refused:?}") };
        assert_eq!(refused.handle.handle_type(), file_type);
    }
    assert!(Channel::from_handle(whole).is_ok());
}

#[test]
fn rights_that_were_taken_from_an_end_on_its_way_bind_its_next_owner() {
    let (a, b) = Channel::create().unwrap();
    let only_to_read = b.release().unwrap().replace(Rights::READ | Rights::TRANSFER).unwrap();
    let (ours, theirs) = Channel::create().unwrap();
    ours.write(MessagePacket::from(b"").handle(only_to_read)).unwrap();
    let b = taken_from(&theirs);
    a.write(b"to b").unwrap();
    assert_eq!(b.read().unwrap().data, b"to b");
    let refused = b.write(b"from b");
    assert!(matches!(refused, Err(ChannelError::AccessDenied { .. })), "{refused:?}");
    let refused = b.call(b"\0\0\0\0", LONG).unwrap_err().error;
    assert!(matches!(refused, ChannelError::AccessDenied { .. }), "{refused:?}");
}

/// Each but the first lies in a message to the one before it, and is dropped with that.
#[test]
fn two_hundred_ends_in_one_another_close_with_the_outermost() {
    const DEPTH: usize = 200;
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum.or(Some(16_384)), ..limit };
    if raised.current.is_some_and(|limit| limit < 16 * DEPTH as u64) {
        return eprintln!("skipped: this process may not have so many descriptors");
    }
    setrlimit(Resource::Nofile, raised).unwrap();
    let (mut outer, outermost) = Channel::create().unwrap();
    let mut peers = Vec::new();
    for _ in 0..DEPTH {
        let (peer, inner) = Channel::create().unwrap();
        let (next, carried) = Channel::create().unwrap();
        // `inner` lies in the queue of `carried`, which lies in that of the one before.
        next.write(carrying(&inner)).unwrap();
        let written = outer.try_write(carrying(&carried));
        if let Err(refused) = written {
            return eprintln!("skipped: this kernel nests no deeper: {refused}");
        }
        outer = next;
        peers.push(peer);
    }
    drop(outer);
    drop(outermost);
    peers.iter().for_each(wait_for_closing);
    println!("{} ends closed", peers.len());
}

/// What a process of its own does, which keeps what it is sent and reads nothing; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    let _channel = Channel::open_path(path).unwrap();
    report("ready");
    wait_for_parent();
}

#[test]
fn an_end_closes_if_the_process_is_killed_to_which_it_was_on_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c");
    let carrier = Channel::open_path(&path).unwrap();
    let child = Peer::start("peer_process", "keeper", &path);
    let (a, b) = Channel::create().unwrap();
    carrier.write_timeout(carrying(&b), LONG).unwrap();
    assert!(matches!(a.read_timeout(Duration::from_millis(300)), Err(ChannelError::TimedOut)));
    child.kill();
    wait_for_closing(&a);
    wait_for_closing(&carrier);
}

/// However often it goes on, and whatever a call has passed each time.
#[test]
fn an_end_goes_on_any_number_of_times_with_handles_that_calls_have_passed() {
    const TIMES: u8 = 8;
    let (mut a, b) = Channel::create().unwrap();
    for time in 0..TIMES {
        thread::scope(|scope| {
            let caller = scope.spawn(|| a.call(b"\0\0\0\0", LONG).map(drop).map_err(|it| it.error));
            let request = b.read_timeout(LONG).unwrap();
            b.write(MessagePacket::from(vec![time]).handle(handle())).unwrap();
            b.write(MessagePacket::from(request.data).handle(handle())).unwrap();
            caller.join().unwrap().unwrap();
        });
        a = pass_on(&a);
        if time >= 2 {
            // Not all are read before the end goes on.
            let message = a.read().unwrap();
            assert_eq!((message.data[0], message.handles.len()), (time - 2, 1));
        }
    }
    for time in TIMES - 2..TIMES {
        let message = a.read().unwrap();
        assert_eq!((message.data[0], message.handles.len()), (time, 1));
    }
    b.write(MessagePacket::from(b"new").handle(handle())).unwrap();
    a.write(MessagePacket::from(b"new").handle(handle())).unwrap();
    assert_eq!(a.read().unwrap().handles.len() + b.read().unwrap().handles.len(), 2);
}

/// As many as may be under way, each in a message of its own.
#[test]
fn all_handles_that_a_call_has_passed_go_with_the_end_if_there_are_many() {
    let (a, b) = Channel::create().unwrap();
    let passed = thread::scope(|scope| {
        let caller = scope.spawn(|| a.call(b"\0\0\0\0", LONG).map(drop).map_err(|it| it.error));
        let request = b.read_timeout(LONG).unwrap();
        let passed = (0..250u8)
            .take_while(|index| {
                let message = MessagePacket::from(vec![*index]).handle(handle());
                b.write_timeout(message, Duration::from_millis(200)).is_ok()
            })
            .count();
        b.write_timeout(MessagePacket::from(request.data).handle(handle()), LONG).unwrap();
        caller.join().unwrap().unwrap();
        passed
    });
    println!("messages with a handle that were passed: {passed}");
    assert!(passed > 100);
    let a = pass_on(&a);
    for index in 0..passed {
        let message = a.read().unwrap();
        assert_eq!((usize::from(message.data[0]), message.handles.len()), (index, 1));
    }
}

#[test]
fn ends_that_were_opened_by_name_go_on_elsewhere_once_both_have_come() {
    for with_handles_before in [false, true] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let a = Channel::open_path(&path).unwrap();
        let refused = a.release().unwrap_err();
        assert!(
            matches!(&refused, ChannelError::Failed { source } if matches!(**source, Error::HandlesNotCarried { .. })),
            "{refused}"
        );
        let b = Channel::open_path(&path).unwrap();
        let both_ways = |a: &Channel, b: &Channel| {
            a.write_timeout(MessagePacket::from(b"to b").handle(handle()), LONG).unwrap();
            b.write_timeout(MessagePacket::from(b"to a").handle(handle()), LONG).unwrap();
        };
        let take = |a: &Channel, b: &Channel| {
            assert_eq!(b.read().unwrap().handles.len(), 1);
            assert_eq!(a.read().unwrap().handles.len(), 1);
        };
        if with_handles_before {
            both_ways(&a, &b);
            both_ways(&a, &b);
            take(&a, &b);
        }
        let (a, b) = (pass_on(&a), pass_on(&b));
        both_ways(&a, &b);
        take(&a, &b);
        if with_handles_before {
            take(&a, &b);
        }
        assert!(matches!(Channel::open_path(&path), Err(Error::Busy { .. })));
        drop(b);
        wait_for_closing(&a);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "a socket is left");
    }
}

/// That one has come to the other's door with a word of who it is, which its next owner is not.
#[test]
fn for_the_end_that_was_opened_first_nothing_happens_if_the_later_one_goes_on() {
    let with_handle = |bytes: &[u8]| MessagePacket::from(bytes).handle(handle());
    for (before, unread) in [(false, false), (true, false), (false, true), (true, true)] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("c");
        let a = Channel::open_path(&path).unwrap();
        let mut b = Channel::open_path(&path).unwrap();
        if before {
            b.write(with_handle(b"before")).unwrap();
            assert_eq!(a.read().unwrap().handles.len(), 1);
        }
        for _ in 0..3 {
            if unread {
                b.write(with_handle(b"unread")).unwrap();
            }
            b = pass_on(&b);
            b.write(with_handle(b"to a")).unwrap();
            if unread {
                assert_eq!(a.read().unwrap().handles.len(), 1);
            }
            assert_eq!(a.read().unwrap().handles.len(), 1);
        }
        a.write_timeout(with_handle(b"to b"), LONG).unwrap();
        assert_eq!(b.read().unwrap().handles.len(), 1);
        thread::scope(|scope| {
            let caller = scope.spawn(|| a.call(with_handle(b"\0\0\0\0"), LONG).unwrap());
            let request = b.read_timeout(LONG).unwrap();
            assert_eq!(request.handles.len(), 1);
            b.write(MessagePacket::from(request.data).handle(handle())).unwrap();
            assert_eq!(caller.join().unwrap().handles.len(), 1);
        });
        let a = pass_on(&a);
        a.write(with_handle(b"to b")).unwrap();
        assert_eq!(b.read().unwrap().handles.len(), 1);
        drop(b);
        wait_for_closing(&a);
    }
}
