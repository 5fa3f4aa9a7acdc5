//! Named places at which a test makes the process kill or stop itself.
//!
//! With the feature `__crash_points`, the environment variable `TOMBOLO_CRASH=point:n` kills the
//! process at its `n`-th passage of `point` (`n` is 1 if it is left out). `point:n:stop` stops
//! it there instead, until it gets SIGCONT; `point:n:kill` is `point:n`. Without the
//! feature there is no code at all.
//!
//! The unit tests of this crate can run code of their own at a crash point, and at the *test points*
//! between them, on the thread that comes there, so that a race needs no luck. Only their build has these.

/// Kills or stops the process here if the environment says so.
macro_rules! crash_point {
    ($point:literal) => {
        $crate::crash::test_point!($point);
        #[cfg(feature = "__crash_points")]
        {
            const { assert!($crate::crash::is_listed($point), "not in crash::POINTS") };
            $crate::crash::pass($point);
        }
    };
}
pub(crate) use crash_point;

/// Runs what a unit test has put here.
macro_rules! test_point {
    ($point:literal) => {
        #[cfg(test)]
        $crate::crash::visits::pass($point);
    };
}
pub(crate) use test_point;

/// Lets other threads of a search on before a lock is taken, and until it is free.
macro_rules! test_lock {
    ($point:literal, $mutex:expr) => {
        #[cfg(test)]
        $crate::crash::turns::lock($point, $mutex);
    };
}
pub(crate) use test_lock;

/// Whether a search leaves this step out, to show that it is found to be missing. Never but in unit tests.
macro_rules! left_out {
    ($step:literal) => {{
        #[cfg(test)]
        let is_left_out = $crate::crash::turns::is_left_out($step);
        #[cfg(not(test))]
        let is_left_out = false;
        is_left_out
    }};
}
pub(crate) use left_out;

#[cfg(feature = "__crash_points")]
pub use armed::POINTS;
#[cfg(feature = "__crash_points")]
pub(crate) use armed::{is_listed, pass};

#[cfg(feature = "__crash_points")]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustix::process::{Signal, getpid, kill_process};

    /// All crash points, for a runner that visits each of them.
    pub const POINTS: &[&str] = &[
        "create.after-tmpfile",
        "create.after-reserve",
        "create.before-linkat",
        "create.after-linkat",
        "create.after-empty-file",
        "in-place.after-lock",
        "in-place.after-first-page",
        "in-place.after-truncate",
        "in-place.after-reserve",
        "in-place.before-ready",
        "in-place.after-ready",
        "replace.after-lock",
        "replace.after-new-file",
        "replace.after-retire",
        "replace.after-rename",
        "replace.after-unlink",
        "replace.after-linkat",
        "join.after-map",
        "attach.slot-renewed",
        "attach.locked",
        "attach.filled",
        "attach.slot-attached",
        "send.before-payload",
        "send.before-commit",
        "send.after-commit",
        "batch.before-commit",
        "carry.before-hand-over",
        "carry.after-hand-over",
        "transfer.before-roll",
        "transfer.after-roll",
        "recv.before-free",
        "recv.before-take",
        "recv.before-count",
        "detach.detaching",
        "detach.without-pulse",
        "detach.freed",
        "meet.connected",
        "call.registered",
        "call.sent",
        "withdraw.before-mark",
        "withdraw.before-count",
        "reply.before-take",
        "reply.withdrawn",
        "reply.after-take",
        "reply.before-delivery",
        "close.before-reason",
        "close.after-text",
        "close.after-reason",
        "close.between-halves",
        "release.after-lock",
        "release.after-sockets",
        "release.gave-inbox-up",
        "release.before-pass-on",
        "release.slot-passed-on",
        "release.after-pass-on",
        "adopt.before-slots",
        "adopt.after-slots",
    ];

    /// Whether `point` is in [`POINTS`].
    pub(crate) const fn is_listed(point: &str) -> bool {
        let mut i = 0;
        while i < POINTS.len() {
            if same(POINTS[i].as_bytes(), point.as_bytes()) {
                return true;
            }
            i += 1;
        }
        false
    }

    const fn same(a: &[u8], b: &[u8]) -> bool {
        let mut i = 0;
        while i < a.len() && i < b.len() && a[i] == b[i] {
            i += 1;
        }
        i == a.len() && i == b.len()
    }

    /// What to do to the process, and where.
    struct Wanted {
        point: String,
        nth: u32,
        signal: Signal,
    }

    /// Kills or stops the process if this is the passage of `point` that the environment names. A signal to
    /// the own process takes effect before the call returns.
    pub(crate) fn pass(point: &str) {
        static PASSED: AtomicU32 = AtomicU32::new(0);
        let Some(wanted) = wanted() else { return };
        if wanted.point == point && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == wanted.nth {
            let _ = kill_process(getpid(), wanted.signal);
        }
    }

    fn wanted() -> Option<&'static Wanted> {
        static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
        WANTED.get_or_init(|| parse(&std::env::var("TOMBOLO_CRASH").ok()?)).as_ref()
    }

    fn parse(text: &str) -> Option<Wanted> {
        let mut parts = text.split(':');
        let point = parts.next()?.to_owned();
        let nth = parts.next().map_or(Some(1), |nth| nth.parse().ok())?;
        let signal = match parts.next() {
            None | Some("kill") => Signal::KILL,
            Some("stop") => Signal::STOP,
            Some(_) => return None,
        };
        Some(Wanted { point, nth, signal })
    }
}

#[cfg(test)]
pub(crate) mod visits {
    use std::cell::RefCell;

    type Body = Box<dyn FnOnce()>;

    thread_local! {
        static NEXT: RefCell<Option<(&'static str, Body)>> = const { RefCell::new(None) };
    }

    /// A visit that is still to come; the test fails if it ends before.
    #[must_use]
    pub(crate) struct Visit(());

    /// Runs `body` when this thread next comes to `point`, once.
    pub(crate) fn at(point: &'static str, body: impl FnOnce() + 'static) -> Visit {
        NEXT.with_borrow_mut(|next| *next = Some((point, Box::new(body))));
        Visit(())
    }

    pub(crate) fn pass(point: &'static str) {
        super::turns::pass(point);
        let visit = NEXT.with_borrow_mut(|next| next.take_if(|(wanted, _)| *wanted == point));
        if let Some((_, body)) = visit {
            body(); // which may come here itself
        }
    }

    impl Drop for Visit {
        fn drop(&mut self) {
            let left = NEXT.with_borrow_mut(Option::take);
            if let (Some((point, _)), false) = (left, std::thread::panicking()) {
                panic!("nothing came to {point}");
            }
        }
    }
}

/// Searches through all orders of the steps of several threads: each thread that takes part asks for its turn at
/// the points, and sleeps without the kernel.
#[cfg(test)]
pub(crate) mod turns {
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering::SeqCst;
    use std::sync::{Mutex, TryLockError};

    /// What a search does for a thread that takes part.
    pub(crate) trait Turns {
        /// Waits for the turn.
        fn pass(&self, point: &'static str);
        /// Waits until another thread has had its turn, as this one can do nothing.
        fn pass_until_others_have(&self, point: &'static str);
        /// Sleeps on words, which are what was expected, by their addresses.
        fn sleep(&self, words: Vec<usize>);
        /// Wakes what sleeps on a word.
        fn wake(&self, word: usize);
        fn is_left_out(&self, step: &'static str) -> bool;
    }

    thread_local! {
        static TURNS: RefCell<Option<Rc<dyn Turns>>> = const { RefCell::new(None) };
        static IS_QUIET: Cell<bool> = const { Cell::new(false) };
        static IS_PROCESS: Cell<bool> = const { Cell::new(false) };
    }

    fn turns() -> Option<Rc<dyn Turns>> {
        TURNS.with_borrow(Clone::clone)
    }

    /// Has this thread take part while `body` runs, or none if there are no turns.
    pub(crate) fn with<T>(turns: Option<Rc<dyn Turns>>, body: impl FnOnce() -> T) -> T {
        let before = TURNS.replace(turns);
        let done = body();
        TURNS.set(before);
        done
    }

    pub(crate) fn pass(point: &'static str) {
        if let Some(turns) = turns().filter(|_| !IS_QUIET.get()) {
            turns.pass(point);
        }
    }

    /// Lets others on, as this thread can do nothing before.
    pub(crate) fn pass_until_others_have(point: &'static str) {
        if let Some(turns) = turns() {
            turns.pass_until_others_have(point);
        }
    }

    /// Runs `body` as one step; what it wakes is woken.
    pub(crate) fn quietly<T>(body: impl FnOnce() -> T) -> T {
        IS_QUIET.set(true);
        let done = body();
        IS_QUIET.set(false);
        done
    }

    /// Runs `body` as a process of its own would: what it holds off is held off in that alone.
    pub(crate) fn as_process<T>(body: impl FnOnce() -> T) -> T {
        IS_PROCESS.set(true);
        let done = body();
        IS_PROCESS.set(false);
        done
    }

    /// Whether this thread stands for a process.
    pub(crate) fn is_process() -> bool {
        IS_PROCESS.get()
    }

    pub(crate) fn lock<T>(point: &'static str, mutex: &Mutex<T>) {
        let Some(turns) = turns().filter(|_| !IS_QUIET.get()) else { return };
        turns.pass(point);
        while matches!(mutex.try_lock(), Err(TryLockError::WouldBlock)) {
            turns.pass_until_others_have(point);
        }
    }

    /// Sleeps unless one of `words` is no longer what is expected; gives whether it is this that decides.
    pub(crate) fn sleep(words: &[(&AtomicU32, u32)]) -> bool {
        let Some(turns) = turns() else { return false };
        if words.iter().all(|(word, expected)| word.load(SeqCst) == *expected) {
            turns.sleep(words.iter().map(|(word, _)| std::ptr::from_ref(*word).addr()).collect());
        }
        true
    }

    pub(crate) fn wake(word: &AtomicU32) {
        if let Some(turns) = turns() {
            turns.wake(std::ptr::from_ref(word).addr());
        }
    }

    pub(crate) fn is_left_out(step: &'static str) -> bool {
        turns().is_some_and(|turns| turns.is_left_out(step))
    }
}
