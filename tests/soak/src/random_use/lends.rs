//! Messages that are looked at where they lie: one, or many in a row.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tombolo::{Error, RecordRef};

use super::context::Context;
use super::play::{Kind, Play};
use super::receives::Missed;
use crate::Failure;

/// What is done with a message that was borrowed.
#[derive(Clone, Copy, Debug)]
enum Use {
    Drop,
    Copy,
    Read,
    Handles,
    Keep,
    Forget,
    Panic,
}

impl Use {
    const ALL: [Self; 7] =
        [Self::Drop, Self::Copy, Self::Read, Self::Handles, Self::Keep, Self::Forget, Self::Panic];

    fn name(self) -> &'static str {
        match self {
            Self::Drop => "record dropped",
            Self::Copy => "record copied",
            Self::Read => "record read in pieces",
            Self::Handles => "record's handles",
            Self::Keep => "record kept",
            Self::Forget => "record forgotten",
            Self::Panic => "record left by a panic",
        }
    }
}

/// What is thrown, and reported by no panic hook.
struct Thrown;

/// Something that is done when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Does something while a panic unwinds that has nothing to do with it.
fn while_unwinding<T>(run: impl FnOnce() -> T) -> Option<T> {
    let (mut run, mut done) = (Some(run), None);
    let _ = catch_unwind(AssertUnwindSafe(|| {
        let _on_drop = OnDrop(|| done = run.take().map(|run| run()));
        resume_unwind(Box::new(Thrown));
    }));
    done
}

impl<K: Kind> Play<K> {
    /// Borrows the next message and uses it in one way or another.
    pub(super) fn borrow(&mut self, context: &mut Context) -> Result<(), Failure> {
        let what = context.rng.choose(&Use::ALL);
        if !matches!(what, Use::Panic) && context.rng.percent(10) {
            self.count(context, "taken while a panic unwinds");
            return while_unwinding(|| self.borrow_for(what, context)).unwrap_or(Ok(()));
        }
        self.borrow_for(what, context)
    }

    fn borrow_for(&mut self, what: Use, context: &mut Context) -> Result<(), Failure> {
        let calls = ["try_recv_ref", "recv_ref_timeout", "recv_ref"];
        let (call, wait) = (self.draw_call(context, &calls, 1), self.wait());
        self.note_receive(context, call, &format!(", {what:?}"));
        let Some(mut rx) = self.rx.take() else { return Ok(()) };
        let borrowed = match call {
            "try_recv_ref" => rx.end.try_recv_ref().map_err(Missed::from),
            "recv_ref_timeout" => rx.end.recv_ref_timeout(wait).map_err(Missed::from),
            _ => rx.end.recv_ref().map_err(Missed::from),
        };
        let used = borrowed.map(|record| self.use_record(record, what, context));
        self.rx = Some(rx);
        match used {
            Ok(taken) => match taken? {
                Some(line) => self.take(line).map(drop),
                None => Ok(()),
            },
            Err(missed) => self.check_nothing(missed, context),
        }
    }

    /// Uses a record, and gives its line if that takes it.
    fn use_record(
        &self,
        record: RecordRef<'_>,
        what: Use,
        context: &mut Context,
    ) -> Result<Option<usize>, Failure> {
        let line = self.check_record(&record, context)?;
        self.count(context, what.name());
        match what {
            Use::Drop => {}
            Use::Copy => {
                let mut buffer = vec![0; record.len() + 1];
                let short = record.len().checked_sub(1).map(|len| &mut buffer[..len]);
                if let Some(short) = short
                    && !matches!(record.copy_to(short), Err(Error::BufferTooSmall { .. }))
                {
                    return Err("a message was copied to a buffer that is too small".into());
                }
                let len = record.copy_to(&mut buffer)?;
                self.check_bytes(context, &buffer[..len])?;
            }
            Use::Read => {
                let mut bytes = Vec::new();
                record.for_each_chunk(|chunk| bytes.extend_from_slice(chunk))?;
                let mut tail = vec![0; record.len()];
                let read = record.read_at(record.len() / 2, &mut tail)?;
                record.check()?;
                self.check_bytes(context, &bytes)?;
                if tail[..read] != bytes[record.len() / 2..] {
                    return Err("two ways of reading differ".into());
                }
            }
            Use::Handles => self.check_handles_of(&record, context)?,
            Use::Keep => {
                record.keep();
                return Ok(None);
            }
            Use::Forget => {
                std::mem::forget(record);
                return Ok(None);
            }
            Use::Panic => {
                let thrown = catch_unwind(AssertUnwindSafe(|| {
                    let _record = record;
                    resume_unwind(Box::new(Thrown));
                }));
                return if thrown.is_err() { Ok(None) } else { Err("no panic".into()) };
            }
        }
        drop(record);
        Ok(Some(line))
    }

    /// Judges a record, all but its handles, and gives its line.
    fn check_record(&self, record: &RecordRef<'_>, context: &Context) -> Result<usize, Failure> {
        let line = self.check_bytes(context, &record.to_vec()?)?;
        let (_, front) = self.front_of(record.len())?;
        let found = (record.ring(), record.position(), record.handle_count(), record.is_empty());
        let wanted = (self.lines[line].ring, front.position, front.files.len(), record.is_empty());
        if found == wanted {
            return Ok(line);
        }
        Err(format!("ring, position, handles and emptiness {found:?} instead of {wanted:?}").into())
    }

    /// Asks for a record's handles, twice: it keeps them.
    fn check_handles_of(
        &self,
        record: &RecordRef<'_>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        for _ in 0..2 {
            let (_, front) = self.front_of(record.len())?;
            match record.handles() {
                Ok(handles) if !front.are_lost => context.check_handles(&handles, &front.files)?,
                Err(Error::HandlesLost { ring, position, count, data }) => {
                    self.check_lost(ring, position, count, &data, context)?;
                }
                other => return Err(format!("handles of {front:?}: {other:?}").into()),
            }
        }
        Ok(())
    }

    /// Takes many messages at once, and now and then panics in the midst of it, or leaves one there.
    pub(super) fn drain(&mut self, context: &mut Context) -> Result<(), Failure> {
        let limit = match context.rng.below(6) {
            0 => usize::MAX,
            1..4 => context.rng.below(70) as usize,
            _ => 55 + context.rng.below(10) as usize, // just before a lane's turn is over
        };
        let throws_at = context.rng.percent(30).then(|| context.rng.below(40) as usize);
        let leaves_at = context.rng.percent(30).then(|| context.rng.below(40) as usize);
        let asks = context.rng.percent(50);
        let call = if limit == usize::MAX { "drain" } else { "drain with a limit" };
        self.note_receive(
            context,
            call,
            &format!(" of {limit}, panics at {throws_at:?}, leaves {leaves_at:?}"),
        );
        let Some(mut rx) = self.rx.take() else { return Ok(()) };
        let (mut taken, mut is_left, mut outcome) = (0, false, Ok(()));
        let drained = catch_unwind(AssertUnwindSafe(|| {
            rx.end.drain(limit, |record| {
                let looked_at = self.look_at(record, asks, context);
                if looked_at.is_ok() && throws_at == Some(taken) {
                    resume_unwind(Box::new(Thrown));
                }
                is_left = looked_at.is_err() || leaves_at == Some(taken);
                if is_left {
                    outcome = looked_at.map(drop);
                    return ControlFlow::Break(());
                }
                outcome = looked_at.and_then(|line| self.take(line).map(drop));
                taken += 1;
                if outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        }));
        self.rx = Some(rx);
        outcome?;
        if let (Some(rx), true) = (&self.rx, taken > 0) {
            rx.senders.meet();
        }
        match drained {
            Ok(Ok(count)) if count == taken && is_left => {
                self.count(context, "drain that leaves one");
                Ok(())
            }
            Ok(Ok(count)) if count == taken && (count == limit || self.is_empty()) => Ok(()),
            Ok(drained) => {
                let left = self.lines.iter().map(|line| line.queue.len()).sum::<usize>();
                Err(format!("drained {drained:?} of {limit}, {taken} seen, {left} left").into())
            }
            Err(thrown) if thrown.is::<Thrown>() && throws_at == Some(taken) => {
                self.count(context, "drain with a panic");
                Ok(())
            }
            Err(other) => resume_unwind(other),
        }
    }

    fn look_at(
        &self,
        record: &RecordRef<'_>,
        asks: bool,
        context: &mut Context,
    ) -> Result<usize, Failure> {
        let line = self.check_record(record, context)?;
        if asks && record.handle_count() > 0 {
            self.check_handles_of(record, context)?;
        }
        Ok(line)
    }
}
