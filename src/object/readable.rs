//! What waits at an inbox beside the threads that read and call: tasks and pollers, and `wait_any`.
//!
//! Once a task or a poller waits, the process's thread for all of those sleeps in the place of a leader: it *drives* the
//! inbox each time that something has come. `wait_any` has the end alone, and sleeps on its doorbell among others.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};

use super::channel_error::ChannelError;
use super::inbox::{Inbox, Lead};
use super::looking::{Pollers, State};
use crate::error::Error;
use crate::os::eventfd::EventFd;
use crate::os::futex::Sleeping;
use crate::ring::doorbell::Arming;
use crate::wait::{Ready, SLEEP_MAX, Sleep, Standby, Standing};

/// Looks of one call of [`Inbox::drive`].
const DRIVES_MAX: u32 = 64;

/// How long after a refusal of the kernel's to look again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

impl Inbox {
    /// Lets tasks and pollers wait from now on, and returns what is readable while there may be something to read.
    ///
    /// # Errors
    /// [`ChannelError::Closed`]; if the process can have no more descriptors or threads.
    pub(super) fn stand_by(self: &Arc<Self>) -> Result<Arc<EventFd>, ChannelError> {
        let mut guard = self.lock()?;
        let state = guard.as_mut().ok_or(ChannelError::Closed)?;
        state.end.check_usable()?;
        if let Some(pollers) = &state.pollers {
            return Ok(pollers.descriptor.clone());
        }
        let descriptor = EventFd::readable().map_err(|error| {
            state.end.slot.region().io_error("make a descriptor for", error.into())
        })?;
        let descriptor = Arc::new(descriptor);
        let (standby, is_readable) = (Standby::new(&state.end)?, true);
        state.pollers = Some(Pollers { standby, descriptor: descriptor.clone(), is_readable });
        state.waiters.note_standby();
        state.wake_all();
        drop(guard);
        drop(self.lead()); // the leader has left the ring
        self.drive();
        Ok(descriptor)
    }

    /// Looks at what has come, tells those that it belongs to, and arms for what comes next. For the thread that
    /// sleeps in the place of a leader.
    fn drive(self: &Arc<Self>) {
        for _ in 0..DRIVES_MAX {
            let Ok(mut guard) = self.lock() else { return };
            let Some(state) = guard.as_mut() else { return };
            state.look_at_signals();
            state.waiters.tell_observer(); // also of what it left for later
            let looked = state.look_for_all(&self.scanned);
            if !matches!(looked, Ok(false)) {
                state.tell_readable();
                state.wake_all(); // each finds out why
                if !matches!(looked, Err(Error::Io { .. })) {
                    return;
                }
                // What the kernel cannot do now it may do later.
                drop(guard);
                return self.drive_after(RETRY_AFTER);
            }
            let Some(Pollers { standby, .. }) = &state.pollers else { return };
            let Lead { bell, .. } = &mut *self.lead();
            let (end, known) = (&state.end, state.peer.asked());
            bell.note_time_out(); // if the last arming stood for so long
            let armed = bell.arm(end, &mut self.cursor(state));
            let armed = armed.ok().flatten().filter(|_| end.may_sleep(known));
            let stands = bell.stand(end, &standby.bridge, armed, known);
            if stands && standby.bridge.wait(&Waker::from(self.clone())) {
                return;
            }
        }
        self.drive_after(Duration::ZERO);
    }

    /// Has [`Self::drive`] called again, after others for which the same thread sleeps, and not before so long.
    pub(super) fn drive_after(self: &Arc<Self>, wait: Duration) {
        let Ok(mut guard) = self.lock() else { return };
        let Some(state) = guard.as_mut() else { return };
        let Some(Pollers { standby, .. }) = &state.pollers else { return };
        let (due, peer_exits) = (Some(Instant::now() + wait), None);
        let standing = Standing { arming: Arming::Time, due, peer_exits };
        let (ring, word) = (&state.end.ring, state.end.rx_wake());
        // If it is due at once, the thread may be faster than this one.
        if !standby.bridge.stand_for(ring, word, standing, Waker::from(self.clone())) {
            state.tell_readable(); // the ring is damaged
            state.wake_all();
        }
    }

    /// Whether the next read would not say that there is nothing, but for a closing that was named before.
    pub(super) fn is_ready(&self) -> bool {
        let Ok(mut guard) = self.lock() else { return true };
        guard.as_mut().is_none_or(|state| self.is_ready_in(state))
    }

    fn is_ready_in(&self, state: &mut State) -> bool {
        match state.first(&self.scanned) {
            Ok(None) => match state.none_left(&self.scanned) {
                Ok(ChannelError::ShouldWait) => {
                    state.note_empty();
                    false
                }
                Ok(ChannelError::PeerClosed) => state.peer.is_to_be_named(),
                _ => true,
            },
            _ => true,
        }
    }

    /// Notes that `wait_any` has named it. If that was not for a message, its closing has been told.
    pub(super) fn note_named(&self) {
        if let Ok(mut guard) = self.lock()
            && let Some(state) = guard.as_mut()
            && matches!(state.first(&self.scanned), Ok(None))
        {
            state.peer.note_named();
        }
    }

    /// Arms and looks once more, for a thread that alone uses the end. Gives what to sleep on and for how long at
    /// most, or `None` if it is not to sleep. [`Self::disarm`] afterwards, either way.
    pub(super) fn arm(&self) -> Option<(Sleeping, Duration)> {
        let mut guard = self.lock().ok()?;
        let state = guard.as_mut()?;
        if let Some(Pollers { standby, .. }) = &state.pollers {
            let bridge = standby.bridge.clone();
            let seen = bridge.ends(); // what is found behind the look ends the sleep
            return (!self.is_ready_in(state)).then(|| (bridge.sleeping(seen), SLEEP_MAX));
        }
        state.look_at_signals(); // or the arming would find that they have changed, again and again
        state.consumer.notify_pending(&state.end.ring, &state.wakes);
        let (end, known) = (&state.end, state.peer.asked());
        let armed = self.lead().bell.arm(end, &mut self.cursor(state));
        let Sleep { word, limit } = armed.ok()?.filter(|_| end.may_sleep(known))?;
        Some((Sleeping::on(end.rx_wake(), word), limit))
    }

    /// Ends an arming by [`Self::arm`]; `timed_out` if time alone has ended the sleep.
    pub(super) fn disarm(&self, timed_out: bool) {
        if let Ok(guard) = self.lock()
            && let Some(state) = guard.as_ref()
            && state.pollers.is_none()
        {
            let Lead { bell, .. } = &mut *self.lead();
            if timed_out {
                bell.note_time_out();
            }
            bell.disarm(&state.end);
        }
    }
}

/// For the thread that sleeps in the place of a leader.
impl Wake for Inbox {
    fn wake(self: Arc<Self>) {
        self.drive();
    }
}

/// What is ready while there may be something to read at an inbox.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) inbox: Arc<Inbox>,
    pub(super) descriptor: Arc<EventFd>,
}

impl Ready for Reading {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }

    fn when_ready(self: Arc<Self>, waker: &Waker) -> bool {
        let Ok(mut guard) = self.inbox.lock() else { return false };
        let Some(state) = guard.as_mut() else { return false };
        let is_readable = state.pollers.as_ref().is_none_or(|pollers| pollers.is_readable);
        if !is_readable {
            state.waiters.set_reading_task(waker);
        }
        !is_readable
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use rustix::event::{PollFd, PollFlags, Timespec};

    use rustix::io::Errno;

    use super::*;
    use crate::Channel;
    use crate::crash::visits;
    use crate::os::futex::{self, Moment, Woken};
    use crate::os::staged::{self, Call};

    /// Has tasks wait at `inbox`, which nothing has driven yet: as the moment after an arming was ended.
    fn undriven(inbox: &Inbox) -> Arc<EventFd> {
        let mut guard = inbox.lock().unwrap();
        let state = guard.as_mut().unwrap();
        let standby = Standby::new(&state.end).unwrap();
        let descriptor = Arc::new(EventFd::readable().unwrap());
        descriptor.clear();
        state.pollers =
            Some(Pollers { standby, descriptor: descriptor.clone(), is_readable: false });
        descriptor
    }

    fn is_told(descriptor: &EventFd) -> bool {
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        rustix::event::poll(&mut [PollFd::new(descriptor, PollFlags::IN)], Some(&limit)) == Ok(1)
    }

    #[test]
    fn an_inbox_at_which_the_kernel_refused_to_look_is_looked_at_again() {
        let (near, far) = Channel::create().unwrap();
        let inbox = near.inbox.clone();
        let descriptor = undriven(&inbox);
        inbox.lock().unwrap().as_mut().unwrap().peer.ask_again();
        let look = Call::with(libc::SYS_fcntl, 1, libc::F_OFD_GETLK);
        let Some(()) = staged::refusing(look, Errno::NOLCK, || inbox.drive()) else {
            return eprintln!("skipped: no filters");
        };
        assert!(is_told(&descriptor), "of the refusal");
        assert!(matches!(near.read(), Err(ChannelError::ShouldWait)));
        far.write(b"a message").unwrap();
        assert!(is_told(&descriptor), "of the message");
    }

    /// As it is in the first moment, and after one was taken otherwise.
    #[test]
    fn a_wait_for_several_sleeps_at_an_empty_inbox_that_was_readable() {
        let (near, far) = Channel::create().unwrap();
        let descriptor = near.inbox.stand_by().unwrap();
        assert!(!near.inbox.is_ready());
        assert!(near.inbox.arm().is_some());
        far.write(b"a message").unwrap();
        assert!(is_told(&descriptor));
        assert!(near.inbox.arm().is_none());
        near.read().unwrap();
        assert!(near.inbox.arm().is_some());
        drop(far);
        assert!(is_told(&descriptor));
        assert!(near.inbox.arm().is_none());
        near.inbox.note_named();
        assert!(near.inbox.arm().is_some(), "its closing was named");
    }

    #[test]
    fn a_wait_for_several_that_begins_behind_the_end_of_an_arming_is_woken_by_what_is_found_then() {
        let (near, far) = Channel::create().unwrap();
        undriven(&near.inbox);
        let (sleeping, _) = near.inbox.arm().unwrap();
        far.write(b"a message").unwrap();
        near.inbox.drive();
        let woken = futex::wait_any(&[sleeping], Moment::after(Duration::ZERO)).unwrap();
        assert!(matches!(woken, Woken::Perhaps), "{woken:?}");
    }

    #[test]
    fn what_drives_an_inbox_later_does_so_also_if_that_is_due_at_once() {
        let (near, far) = Channel::create().unwrap();
        let inbox = near.inbox.clone();
        let descriptor = undriven(&inbox);
        let of = |state: &State| state.pollers.as_ref().unwrap().standby.bridge.clone();
        let bridge = inbox.lock().unwrap().as_ref().map(of).unwrap();
        let visit = visits::at("bridge.stood", move || {
            // The arming is due, so the thread ends it.
            while bridge.ends() == 0 {
                thread::yield_now();
            }
        });
        inbox.drive_after(Duration::ZERO);
        drop(visit);
        far.write(b"a message").unwrap();
        assert!(is_told(&descriptor));
    }
}
