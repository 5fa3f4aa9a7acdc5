//! Receiving into buffers, new ones or one's own.

use std::time::{Duration, Instant};

use tombolo::{Error, Handle, RecvError, RecvTimeoutError, TryRecvError};

use super::context::Context;
use super::play::{Kind, Play};
use super::sends::LONG;
use crate::Failure;
use crate::parts::ReceiveParts;

/// Why nothing came.
#[derive(Debug)]
pub(super) enum Missed {
    /// There was nothing, now or until the deadline.
    Nothing,
    Disconnected,
    Failed(Error),
}

impl From<TryRecvError> for Missed {
    fn from(error: TryRecvError) -> Self {
        match error {
            TryRecvError::Empty => Self::Nothing,
            TryRecvError::Disconnected => Self::Disconnected,
            TryRecvError::Failed { source } => Self::Failed(source),
            _ => unreachable!("there are no others"),
        }
    }
}

impl From<RecvTimeoutError> for Missed {
    fn from(error: RecvTimeoutError) -> Self {
        match error {
            RecvTimeoutError::Timeout => Self::Nothing,
            RecvTimeoutError::Disconnected => Self::Disconnected,
            RecvTimeoutError::Failed { source } => Self::Failed(source),
            _ => unreachable!("there are no others"),
        }
    }
}

impl From<RecvError> for Missed {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::Disconnected => Self::Disconnected,
            RecvError::Failed { source } => Self::Failed(source),
            _ => unreachable!("there are no others"),
        }
    }
}

/// The caller's buffers, and what becomes of a message that is too large for them.
#[derive(Clone, Copy, Debug)]
struct Buffers {
    len: usize,
    handles: usize,
    discards: bool,
}

impl<K: Kind> Play<K> {
    /// Receives something, or nothing.
    pub(super) fn receive(&mut self, context: &mut Context) -> Result<(), Failure> {
        if self.rx.is_none() {
            return Ok(());
        }
        match context.rng.below(100) {
            0..22 => self.receive_new(context),
            22..40 => self.receive_into(context),
            40..56 => self.receive_parts(context),
            56..70 => self.receive_or_discard(context),
            70..88 => self.borrow(context),
            _ => {
                self.drain(context)?;
                (0..context.rng.below(6)).try_for_each(|_| self.receive_or_discard(context))
            }
        }
    }

    /// Whether a call without a deadline comes back.
    pub(super) fn may_wait(&self) -> bool {
        !self.is_empty()
    }

    pub(super) fn note_receive(&self, context: &mut Context, call: &'static str, with: &str) {
        context.trace(|| format!("{}: {call}{with}", self.name));
        self.count(context, call);
    }

    /// Draws one of `calls`, the last of which waits.
    pub(super) fn draw_call(
        &self,
        context: &mut Context,
        calls: &[&'static str],
        waiting: usize,
    ) -> &'static str {
        let count = if self.may_wait() { calls.len() } else { calls.len() - waiting };
        calls[context.rng.below(count as u64) as usize]
    }

    pub(super) fn wait(&self) -> Duration {
        if self.may_wait() { LONG } else { Duration::ZERO }
    }

    fn receive_new(&mut self, context: &mut Context) -> Result<(), Failure> {
        let calls = ["try_recv", "recv_timeout", "recv_until", "recv", "iter"];
        let (call, wait) = (self.draw_call(context, &calls, 2), self.wait());
        self.note_receive(context, call, "");
        let Some(rx) = &mut self.rx else { return Ok(()) };
        let received = match call {
            "try_recv" => rx.end.try_recv().map_err(Missed::from),
            "recv_timeout" => rx.end.recv_timeout(wait).map_err(Missed::from),
            "recv_until" => rx.end.recv_timeout(Instant::now() + wait).map_err(Missed::from),
            "recv" => rx.end.recv().map_err(Missed::from),
            _ => match rx.end.iter().next() {
                Some(received) => received.map_err(Missed::Failed),
                None => Err(Missed::Disconnected),
            },
        };
        match received {
            Ok(packet) => self.note_taken(&packet.data, &packet.handles, context),
            Err(missed) => self.check_missed(missed, None, context),
        }
    }

    /// Judges a message that was taken, and notes it.
    fn note_taken<'a>(
        &mut self,
        bytes: &[u8],
        handles: impl IntoIterator<Item = &'a Handle>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let line = self.check_bytes(context, bytes)?;
        let taken = self.take(line)?;
        if taken.are_lost {
            return Err(format!("lost handles came, of {taken:?}").into());
        }
        context.check_handles(handles, &taken.files)
    }

    /// Draws the length of a buffer: mostly enough, else next to what is there.
    fn draw_buffer(&self, context: &mut Context) -> usize {
        match context.rng.below(10) {
            0..5 => self.max_message,
            5 => context.rng.length(self.max_message as u64) as usize,
            _ => {
                let line = context.rng.below(self.lines.len() as u64) as usize;
                let len = self.lines[line].queue.front().map_or(1, |front| front.len);
                (len + context.rng.below(2) as usize).saturating_sub(1)
            }
        }
    }

    fn receive_into(&mut self, context: &mut Context) -> Result<(), Failure> {
        let mut buffer = vec![0; self.draw_buffer(context)];
        let calls = ["try_recv_into", "recv_into_timeout", "recv_into"];
        let (call, wait) = (self.draw_call(context, &calls, 1), self.wait());
        self.note_receive(context, call, &format!(", {} bytes", buffer.len()));
        let Some(rx) = &mut self.rx else { return Ok(()) };
        let received = match call {
            "try_recv_into" => rx.end.try_recv_into(&mut buffer).map_err(Missed::from),
            "recv_into_timeout" => {
                rx.end.recv_into_timeout(&mut buffer, wait).map_err(Missed::from)
            }
            _ => rx.end.recv_into(&mut buffer).map_err(Missed::from),
        };
        match received {
            Ok(len) => self.note_taken(&buffer[..len], [], context),
            Err(missed) => {
                let buffers = Buffers { len: buffer.len(), handles: 0, discards: false };
                self.check_missed(missed, Some(buffers), context)
            }
        }
    }

    fn receive_parts(&mut self, context: &mut Context) -> Result<(), Failure> {
        let len = self.draw_buffer(context);
        let calls = ["try_recv_parts", "recv_parts_timeout", "recv_parts"];
        let call = self.draw_call(context, &calls, 1);
        self.receive_parts_by(call, len, context)
    }

    /// Receives into buffers that are too small more often than not.
    fn receive_or_discard(&mut self, context: &mut Context) -> Result<(), Failure> {
        let len = match context.rng.below(4) {
            0 => self.draw_buffer(context),
            _ => context.rng.below(8) as usize,
        };
        self.receive_parts_by("try_recv_parts_or_discard", len, context)
    }

    fn receive_parts_by(
        &mut self,
        call: &'static str,
        len: usize,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let mut buffer = vec![0; len];
        let handle_count = match context.rng.below(3) {
            0 => context.rng.below(self.max_handles as u64 + 1) as usize,
            _ => self.max_handles,
        };
        let mut handles: Vec<_> = (0..handle_count).map(|_| None).collect();
        let wait = self.wait();
        self.note_receive(context, call, &format!(", {len} and {handle_count}"));
        let Some(rx) = &mut self.rx else { return Ok(()) };
        let (end, bytes, places) = (&mut rx.end, &mut buffer[..], &mut handles[..]);
        let received = match call {
            "try_recv_parts_or_discard" => {
                end.try_recv_parts_or_discard(bytes, places).map_err(Missed::from)
            }
            "try_recv_parts" => end.try_recv_parts(bytes, places).map_err(Missed::from),
            "recv_parts_timeout" => {
                end.recv_parts_timeout(bytes, places, wait).map_err(Missed::from)
            }
            _ => end.recv_parts(bytes, places).map_err(Missed::from),
        };
        match received {
            Ok((len, count)) => {
                let came = handles.iter().flatten();
                if came.clone().count() != count || !handles[..count].iter().all(Option::is_some) {
                    return Err(format!("{count} handles are not where they should be").into());
                }
                self.note_taken(&buffer[..len], came, context)
            }
            Err(missed) => {
                let discards = call == "try_recv_parts_or_discard";
                let buffers = Buffers { len, handles: handle_count, discards };
                self.check_missed(missed, Some(buffers), context)
            }
        }
    }

    /// Judges that nothing came, or not into these buffers.
    fn check_missed(
        &mut self,
        missed: Missed,
        buffers: Option<Buffers>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        match (missed, buffers) {
            (Missed::Failed(Error::BufferTooSmall { needed, available }), Some(buffers))
                if buffers.len == available && needed > available =>
            {
                let (_, front) = self.front_of(needed)?;
                if !front.files.is_empty() {
                    return Err("its handles are not spoken of".into());
                }
                self.count(context, "buffer too small");
                Ok(())
            }
            (
                Missed::Failed(Error::BuffersTooSmall {
                    needed,
                    available,
                    needed_handles,
                    available_handles,
                }),
                Some(buffers),
            ) if (buffers.len, buffers.handles) == (available, available_handles)
                && (needed > available || needed_handles > available_handles) =>
            {
                self.note_too_small(needed, needed_handles, buffers.discards, context)
            }
            (missed, _) => self.check_nothing(missed, context),
        }
    }

    fn note_too_small(
        &mut self,
        needed: usize,
        needed_handles: usize,
        discards: bool,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let (line, front) = self.front_of(needed)?;
        if front.files.len() != needed_handles {
            return Err(format!("{needed_handles} handles are told of {front:?}").into());
        }
        if needed_handles > 0 {
            self.count(context, "handle buffer too small");
        }
        if discards {
            self.count(context, "discarded");
            self.take(line)?;
        }
        Ok(())
    }

    /// Judges that nothing came, whatever the buffers.
    pub(super) fn check_nothing(
        &mut self,
        missed: Missed,
        context: &mut Context,
    ) -> Result<(), Failure> {
        match missed {
            Missed::Nothing => {
                self.count(context, "nothing there");
                if self.is_disconnected() {
                    return Err("a receiver was not told that all senders are gone".into());
                }
                self.check_empty()
            }
            Missed::Disconnected => self.note_departure_of_senders(context),
            Missed::Failed(Error::HandlesLost { ring, position, count, data }) => {
                let line = self.check_lost(ring, position, count, &data, context)?;
                self.take(line).map(drop)
            }
            Missed::Failed(error) => Err(format!("failed: {error}").into()),
        }
    }

    /// Judges what is told of a message whose handles are lost, and gives its line.
    pub(super) fn check_lost(
        &self,
        ring: u32,
        position: u64,
        count: usize,
        data: &[u8],
        context: &mut Context,
    ) -> Result<usize, Failure> {
        self.count(context, "message with lost handles");
        let line = self.check_bytes(context, data)?;
        let (_, front) = self.front_of(data.len())?;
        let is_it =
            (self.lines[line].ring, front.position, front.files.len()) == (ring, position, count);
        if is_it && front.are_lost {
            return Ok(line);
        }
        Err(format!("{count} handles at {position:#x} of ring {ring} are lost of {front:?}").into())
    }

    fn note_departure_of_senders(&mut self, context: &mut Context) -> Result<(), Failure> {
        self.check_empty()?;
        self.count(context, "departure told to a receiver");
        match self.is_disconnected() {
            true => Ok(()),
            false => Err("a receiver was told of a departure, and there was none".into()),
        }
    }

    /// Whether the receiver is told that all senders are gone, once it has taken all.
    pub(super) fn is_disconnected(&self) -> bool {
        self.txs.is_empty() && self.rx.as_ref().is_some_and(|rx| rx.senders.has_met())
    }

    /// Waits for the departure that is to be told, if there is one.
    pub(super) fn wait_for_departure(&mut self, context: &mut Context) -> Result<(), Failure> {
        if !self.is_empty() || !self.is_disconnected() {
            return Ok(());
        }
        let Some(rx) = &mut self.rx else { return Ok(()) };
        context.trace(|| "waits for a departure".to_owned());
        match rx.end.recv_timeout(LONG).map_err(Missed::from) {
            Err(Missed::Disconnected) => self.note_departure_of_senders(context),
            other => Err(format!("a departure was to be told: {other:?}").into()),
        }
    }
}
