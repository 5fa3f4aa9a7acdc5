//! A call that waits at an inbox for its reply.
//!
//! It is registered and its request published under the lock of those who look: its reply is not seen before it is
//! expected, and nothing is taken for the reply to a request that was not published.

use std::task::{Poll, Waker};

use super::channel_error::ChannelError;
use super::inbox::{Inbox, Locked};
use super::looking::State;
use super::waiters::WaiterId;
use crate::crash::crash_point;
use crate::deadline::Deadline;
use crate::endpoint::Interrupts;
use crate::ends::MessagePacket;

impl Inbox {
    /// Registers a call for its reply and lets `send` send its request, with the id that `choose` gives; it is told
    /// whether another call has an id. No record is looked at in between: what came before the request was sent is
    /// no reply to it, and a call whose request was not sent never takes a message. Tasks that are to be woken come
    /// to `woken`: the caller holds a lock.
    ///
    /// # Errors
    /// That of `send`; inside, that of `choose`, and [`ChannelError::Closed`].
    pub(super) fn register_and_send<E>(
        &self,
        woken: &mut Vec<Waker>,
        choose: impl FnOnce(&dyn Fn(u32) -> bool) -> Result<u32, ChannelError>,
        send: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<Result<Registered<'_>, ChannelError>, E> {
        let mut guard = match self.lock() {
            Ok(guard) => guard,
            Err(error) => return Ok(Err(error.into())),
        };
        let Some(state) = guard.as_mut() else { return Ok(Err(ChannelError::Closed)) };
        let passed = state.pass_all(&self.scanned).map_err(ChannelError::from);
        let chosen = passed.and_then(|()| choose(&|txid| state.waiters.has_call(txid)));
        let registered = chosen.map(|txid| {
            let (id, interrupts) = state.waiters.add_call(txid);
            crash_point!("call.registered");
            let sent = send(txid);
            crash_point!("call.sent");
            if sent.is_err() {
                state.waiters.remove(id);
            }
            state.show_calls();
            sent.map(|()| (id, interrupts))
        });
        woken.extend(guard.unlock());
        match registered {
            Ok(sent) => sent.map(|(id, interrupts)| Ok(Registered { inbox: self, id, interrupts })),
            Err(error) => Ok(Err(error)),
        }
    }
}

/// A call that is registered for its reply. Dropping it unregisters it: its reply is a message like any other then.
#[derive(Debug)]
pub(super) struct Registered<'a> {
    pub(super) inbox: &'a Inbox,
    pub(super) id: WaiterId,
    pub(super) interrupts: Interrupts,
}

impl Registered<'_> {
    /// Waits for the reply until `deadline`.
    ///
    /// # Errors
    /// [`ChannelError::TimedOut`], [`ChannelError::PeerClosed`], [`ChannelError::Canceled`].
    pub(super) fn wait(self, deadline: Deadline) -> Result<MessagePacket, ChannelError> {
        let mut this = std::mem::ManuallyDrop::new(self); // `wait` takes it away
        let interrupts = std::mem::take(&mut this.interrupts);
        let guard = this.inbox.lock()?;
        let take = |state: &mut State| this.take_reply(state);
        this.inbox.wait(guard, (this.id, &interrupts), deadline, take, |it| this.take_left(it))
    }

    /// The reply, if it has come.
    fn take_reply(&self, state: &mut State) -> Result<Option<MessagePacket>, ChannelError> {
        state.waiters.take_reply(self.id).transpose().map_err(ChannelError::from)
    }

    /// What to say if the end was closed: the reply, if it had come.
    fn take_left(&self, guard: &mut Locked<'_>) -> Result<MessagePacket, ChannelError> {
        guard.take_left(self.id).map_or(Err(ChannelError::Canceled), |reply| Ok(reply?))
    }

    /// The reply, if it has come; if not, has `waker` woken when it does.
    ///
    /// # Errors
    /// [`ChannelError::PeerClosed`], [`ChannelError::Canceled`].
    pub(super) fn poll(&self, waker: &Waker) -> Poll<Result<MessagePacket, ChannelError>> {
        let mut guard = match self.inbox.lock() {
            Ok(guard) => guard,
            Err(error) => return Poll::Ready(Err(error.into())),
        };
        let Some(state) = guard.as_mut() else { return Poll::Ready(self.take_left(&mut guard)) };
        state.waiters.set_task(self.id, waker);
        let mut take = |state: &mut State| self.take_reply(state);
        let polled = state.poll(self.id, &self.inbox.scanned, &mut take);
        polled.transpose().map_or(Poll::Pending, Poll::Ready)
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let Ok(mut guard) = self.inbox.lock() else { return };
        let reply = match guard.as_mut() {
            Some(state) => {
                let reply = state.waiters.remove(self.id);
                state.show_calls();
                reply
            }
            None => guard.take_left(self.id),
        };
        drop(guard);
        drop(reply); // closes handles: without the lock
    }
}

#[cfg(test)]
mod tests {
    use std::array::from_fn;
    use std::fs::File;
    use std::io::PipeReader;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::pin::pin;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::{Relaxed, Release};
    use std::task::{Context, Wake};
    use std::time::{Duration, Instant};

    use rustix::event::{PollFd, PollFlags, Timespec};

    use super::*;
    use crate::Channel;
    use crate::crash::visits;
    use crate::error::Damage;
    use crate::ring::{Memory, Word};

    const LONG: Duration = Duration::from_secs(20);

    /// A call whose request was answered, before `then`, or then.
    fn call(is_looked_for: bool, then: impl FnOnce(&Channel)) -> Result<Vec<u8>, ChannelError> {
        let (client, server) = Channel::create().unwrap();
        let mut request = MessagePacket::from(b"\0\0\0\0");
        let sent = client.send_request(&mut request, Deadline::PAST, |_| Ok(7));
        let registered = sent.unwrap().unwrap();
        server.write(server.read().unwrap()).unwrap();
        if is_looked_for {
            assert!(matches!(client.read(), Err(ChannelError::ShouldWait))); // this delivers the reply
        }
        then(&client);
        Ok(registered.wait(LONG.into())?.data)
    }

    fn poison(client: &Channel) {
        client.inbox.with_end(|end| end.ring.poison(Damage::Marked { code: 1 }));
    }

    #[test]
    fn a_call_gets_a_reply_that_had_come_before_its_end_was_closed_released_or_damaged() {
        let ends: [fn(&Channel); 3] =
            [Channel::close, |client| drop(client.release().unwrap()), poison];
        for end in ends {
            assert_eq!(call(true, end).unwrap(), 7u32.to_ne_bytes());
            assert!(call(false, end).is_err(), "nothing had looked");
        }
    }

    #[test]
    fn it_does_if_the_same_look_finds_damage_behind_it() {
        let found = call(false, |client| {
            client.inbox.with_end(|end| {
                let tail = end.ring.memory.load(Word::Tail, Relaxed);
                end.ring.memory.store(Word::Data(tail), u64::MAX, Release);
            });
        });
        assert_eq!(found.unwrap(), 7u32.to_ne_bytes());
    }

    #[test]
    fn handles_of_a_reply_that_nothing_takes_are_closed_with_its_call() {
        let (client, server) = Channel::create().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut request = MessagePacket::from(b"\0\0\0\0");
        let sent = client.send_request(&mut request, Deadline::PAST, |_| Ok(7));
        let registered = sent.unwrap().unwrap();
        let reply = server.read().unwrap();
        server.write(reply.handle(writer)).unwrap();
        assert!(matches!(client.read(), Err(ChannelError::ShouldWait)));
        client.close();
        drop(registered);
        assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
    }

    #[test]
    fn a_reply_that_comes_behind_the_look_of_a_reader_is_no_message() {
        let (client, server) = Channel::create().unwrap();
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| client.call(b"\0\0\0\0", LONG));
            let request = server.read_timeout(LONG).unwrap();
            let (reply, expected) = (request.data.clone(), request.data);
            let visit = visits::at("inbox.looked", move || server.write(reply).unwrap());
            let read = client.read();
            assert!(matches!(read, Err(ChannelError::PeerClosed)), "{read:?}"); // with its reply written
            drop(visit);
            assert_eq!(caller.join().unwrap().unwrap().data, expected);
        });
    }

    /// Whether the other end of the pipe is closed, after as many seconds at most.
    fn is_closed_within(seconds: i64, reader: &PipeReader) -> bool {
        let mut polled = [PollFd::new(reader, PollFlags::IN)];
        let limit = Timespec { tv_sec: seconds, tv_nsec: 0 };
        rustix::event::poll(&mut polled, Some(&limit)).unwrap() == 1
    }

    /// Its sender died between the packet and the record; the next owner of the end published another there.
    #[test]
    fn handles_that_were_kept_for_a_record_that_never_came_are_closed_when_the_ring_has_passed_it()
    {
        let (client, server) = Channel::create().unwrap();
        let mut request = MessagePacket::from(b"\0\0\0\0");
        let sent = client.send_request(&mut request, Deadline::PAST, |_| Ok(7));
        let registered = sent.unwrap().unwrap();
        let reply = server.read().unwrap();
        let (reader, writer) = std::io::pipe().unwrap();
        let orphan = MessagePacket::from(b"never published").handle(writer);
        let visit = visits::at("carry.after-hand-over", || panic!("its process is killed"));
        assert!(catch_unwind(AssertUnwindSafe(|| server.write(orphan))).is_err());
        drop(visit);
        let server = Channel::from_handle(server.release().unwrap()).unwrap();
        server.write(b"a message").unwrap();
        server.write(reply.handle(File::open("/").unwrap())).unwrap();
        assert_eq!(registered.wait(LONG.into()).unwrap().handles.len(), 1);
        assert!(!is_closed_within(0, &reader), "not kept");
        assert_eq!(client.read().unwrap().data, b"a message");
        assert!(is_closed_within(20, &reader), "its other end is open still");
    }

    /// Each half of an end is told by itself that the peer has gone, and the other one later by a moment.
    #[test]
    fn a_write_says_that_the_peer_has_gone_as_soon_as_a_call_has_said_so() {
        let (near, far) = Channel::create().unwrap();
        near.inbox.lock().unwrap().as_ref().unwrap().has_peer_gone.store(true, Relaxed);
        let refused = near.try_write(b"too late").unwrap_err().error;
        assert!(matches!(refused, ChannelError::PeerClosed), "{refused:?}");
        let refused = near.call(b"\0\0\0\0", LONG).unwrap_err();
        assert_eq!(refused.phase, crate::object::CallPhase::Write);
        assert!(matches!(far.read(), Err(ChannelError::ShouldWait)));
        let (near, far) = Channel::create().unwrap();
        drop(far);
        assert!(matches!(near.read(), Err(ChannelError::PeerClosed)));
        assert!(near.inbox.has_peer_gone());
    }

    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn tasks_that_are_polled_in_turn_do_not_wake_one_another() {
        let (near, far) = Channel::create().unwrap();
        let ready = near.readable().unwrap();
        let counts: [Arc<Count>; 2] = from_fn(|_| Arc::new(Count(AtomicU32::new(0))));
        let polls = [ready.clone(), ready];
        assert!(matches!(near.read(), Err(ChannelError::ShouldWait)));
        for round in 0..10 {
            let waker = Waker::from(counts[round % 2].clone());
            assert!(polls[round % 2].poll_ready(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!([0, 1].map(|at| counts[at].0.load(Relaxed)), [0, 0]);
        far.write(b"for both to see").unwrap();
        let start = Instant::now();
        while counts.iter().any(|count| count.0.load(Relaxed) == 0) {
            assert!(start.elapsed() < LONG);
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_call_that_is_polled_by_a_new_waker_each_time_wakes_none_before_its_reply() {
        let (near, far) = Channel::create().unwrap();
        let mut call = pin!(near.call_async(b"\0\0\0\0"));
        let count = Arc::new(Count(AtomicU32::new(0)));
        for _ in 0..10 {
            // An allocation of its own: no waker is known again.
            let inner = count.clone();
            let waker = Waker::from(Arc::new(Passing(inner)));
            assert!(call.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        assert_eq!(count.0.load(Relaxed), 0);
        far.write(far.read_timeout(LONG).unwrap()).unwrap();
        let start = Instant::now();
        while count.0.load(Relaxed) == 0 {
            assert!(start.elapsed() < LONG);
            std::thread::yield_now();
        }
        assert_eq!(count.0.load(Relaxed), 1);
    }

    struct Passing(Arc<Count>);

    impl Wake for Passing {
        fn wake(self: Arc<Self>) {
            self.0.0.fetch_add(1, Relaxed);
        }
    }
}
