//! Channels in tasks and pollers.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::ChannelError;
use tombolo::{Channel, MessagePacket};

const LONG: Duration = Duration::from_secs(20);

fn txid(message: &MessagePacket) -> u32 {
    u32::from_ne_bytes(*message.data.first_chunk().unwrap())
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

struct Parker(thread::Thread);

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Parker(thread::current())));
    let mut future = pin!(future);
    let start = Instant::now();
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        thread::park_timeout(LONG);
        assert!(start.elapsed() < LONG, "it was not woken");
    }
}

#[test]
fn many_calls_of_one_task_are_answered_in_reverse_order() {
    let (client, server) = Channel::create().unwrap();
    let count = Arc::new(Count::default());
    let waker = Waker::from(count.clone());
    let mut cx = Context::from_waker(&waker);
    let mut calls: Vec<_> =
        (0..50u8).map(|n| Box::pin(client.call_async(vec![0, 0, 0, 0, n]))).collect();
    calls.iter_mut().for_each(|call| assert!(call.as_mut().poll(&mut cx).is_pending()));
    let mut requests: Vec<_> = (0..50).map(|_| server.read().unwrap()).collect();
    requests.reverse();
    requests.into_iter().for_each(|request| server.write(request).unwrap());
    for (number, call) in (0..50u8).zip(calls) {
        assert_eq!(block_on(call).unwrap().data[4], number);
    }
    assert!(count.0.load(SeqCst) > 0);
}

#[test]
fn a_call_that_is_dropped_leaves_its_reply_to_be_read_and_readiness_says_so() {
    let (client, server) = Channel::create().unwrap();
    let ready = client.readable().unwrap();
    let mut call = Box::pin(client.call_async(b"\0\0\0\0"));
    let waker = Waker::noop();
    assert!(call.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    let request = server.read().unwrap();
    drop(call);
    assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
    server.write(request).unwrap();
    block_on(ready.ready());
    assert_eq!(client.read().unwrap().data.len(), 4);
    assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
    assert!(ready.poll_ready(&mut Context::from_waker(waker)).is_pending());
    drop(server);
    block_on(ready.ready());
    assert!(matches!(client.read(), Err(ChannelError::PeerClosed)));
}

#[test]
fn a_reply_makes_nothing_readable_and_threads_still_get_theirs() {
    let (client, server) = Channel::create().unwrap();
    let ready = client.readable().unwrap();
    assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
    thread::scope(|scope| {
        let caller = scope.spawn(|| client.call(b"\0\0\0\0", LONG));
        let request = server.read_timeout(LONG).unwrap();
        server.write(request).unwrap();
        caller.join().unwrap().unwrap();
    });
    assert!(ready.poll_ready(&mut Context::from_waker(Waker::noop())).is_pending());
    server.write(b"a message").unwrap();
    block_on(ready.ready());
    assert_eq!(client.read().unwrap().data, b"a message");
    thread::scope(|scope| {
        let reader = scope.spawn(|| client.read_timeout(LONG));
        thread::sleep(Duration::from_millis(50));
        server.write(b"another").unwrap();
        assert_eq!(reader.join().unwrap().unwrap().data, b"another");
    });
}

#[test]
fn calls_wait_for_space_as_tasks_and_end_when_a_side_closes() {
    let (client, server) = Channel::create().unwrap();
    while client.try_write(vec![0; 60_000]).is_ok() {}
    let writable = client.writable().unwrap();
    thread::scope(|scope| {
        let caller = scope.spawn(|| block_on(client.call_async(vec![0; 60_000])));
        thread::sleep(Duration::from_millis(50));
        let request = loop {
            match server.read_timeout(LONG).unwrap() {
                message if txid(&message) == 0 => {}
                request => break request,
            }
        };
        server.write(request.data[..4].to_vec()).unwrap();
        assert_eq!(caller.join().unwrap().unwrap().data.len(), 4);
    });
    block_on(writable.ready());
    client.try_write(b"again").unwrap();
    let mut call = Box::pin(client.call_async(b"\0\0\0\0"));
    assert!(call.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(server);
    assert!(matches!(block_on(call).unwrap_err().error, ChannelError::PeerClosed));
}

#[test]
fn channels_are_waited_for_beside_receivers_and_a_closed_one_is_named_once() {
    use tombolo::{EventsRegion, OpenOptions, RecvTimeoutError, wait_any};
    let (mut a, a_peer) = Channel::create().unwrap();
    let (mut b, b_peer) = Channel::create().unwrap();
    let region = EventsRegion::anonymous(OpenOptions::new());
    let (mut tx, mut rx) = region.unwrap().split_spsc().unwrap();
    let mut next = |a: &mut Channel, b: &mut Channel, time| wait_any(&mut [a, b, &mut rx], time);
    let short = Duration::from_millis(20);
    assert!(matches!(next(&mut a, &mut b, short), Err(RecvTimeoutError::Timeout)));
    tx.send(b"to the ring").unwrap();
    assert_eq!(next(&mut a, &mut b, LONG).unwrap(), 2);
    for ready in [false, true] {
        if ready {
            b.readable().unwrap(); // armed by another thread from now on
        }
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                thread::sleep(Duration::from_millis(50));
                b_peer.write(b"to b").unwrap();
            });
            while next(&mut a, &mut b, LONG).unwrap() != 1 {}
            assert_eq!(b.read().unwrap().data, b"to b");
            assert!(matches!(b.read(), Err(ChannelError::ShouldWait)));
            writer.join().unwrap();
        });
    }
    drop(a_peer);
    let named: Vec<_> = (0..4).map(|_| next(&mut a, &mut b, short)).collect();
    assert_eq!(named.iter().filter(|named| matches!(named, Ok(0))).count(), 1, "{named:?}");
}

#[test]
fn what_is_set_while_a_thread_sleeps_does_not_wait_for_it() {
    let (near, far) = Channel::create().unwrap();
    thread::scope(|scope| {
        let reader = scope.spawn(|| near.read_timeout(LONG));
        thread::sleep(Duration::from_millis(100)); // it sleeps by now
        let begin = Instant::now();
        near.set_spin_max(Duration::ZERO);
        assert!(begin.elapsed() < LONG / 2);
        far.write(b"wake up").unwrap();
        assert_eq!(reader.join().unwrap().unwrap().data, b"wake up");
    });
}

/// Calls the channel that wakes it, as a task's executor may.
struct Calls(Channel);

impl Wake for Calls {
    fn wake(self: Arc<Self>) {
        let _ = self.0.try_write(b"from the waker");
        let _ = self.0.read();
        let _ = self.0.writable();
    }
}

#[test]
fn a_waker_may_call_the_channel_that_wakes_it() {
    let (near, far) = Channel::create().unwrap();
    let calls = Arc::new(Calls(near));
    let waker = Waker::from(calls.clone());
    let near = &calls.0;
    let mut call = pin!(near.call_async(b"\0\0\0\0"));
    let mut readable = near.readable().unwrap();
    let mut writable = near.writable().unwrap();
    while near.try_write(vec![0; 4096]).is_ok() {}
    let cx = &mut Context::from_waker(&waker);
    for _ in 0..20 {
        let _ = call.as_mut().poll(cx);
        let _ = pin!(readable.ready()).as_mut().poll(cx);
        let _ = pin!(writable.ready()).as_mut().poll(cx);
        while far.read().is_ok() {}
        far.write(b"\0\0\0\0some message").unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    near.close();
}
