//! Sending: bytes, batches, packets with handles.

use std::time::{Duration, Instant};

use tombolo::{Error, MessagePacket, SendError, SendTimeoutError, TrySendError};

use super::context::Context;
use super::model::Fit;
use super::play::{Kind, Play};
use crate::Failure;

/// How long a call waits that must not have to.
pub(super) const LONG: Duration = Duration::from_secs(20);
/// Calls to fill a ring by, at the most.
const SENDS_TO_FILL: u32 = 60;
/// Handles on their way through a ring, at the most: the system counts them, for all processes together.
const HANDLES_ON_THEIR_WAY: usize = 32;

/// Why nothing was sent.
#[derive(Debug)]
pub(super) enum Refused {
    /// No space, now or until the deadline.
    Full,
    Disconnected,
    NoReceiver,
    Failed(Error),
}

/// An error without the message, and the message.
pub(super) trait Split<T> {
    fn split(self) -> Result<(Refused, T), Failure>;
}

impl<T> Split<T> for TrySendError<T> {
    fn split(self) -> Result<(Refused, T), Failure> {
        Ok(match self {
            Self::Full(message) => (Refused::Full, message),
            Self::Disconnected(message) => (Refused::Disconnected, message),
            Self::NoReceiver(message) => (Refused::NoReceiver, message),
            Self::Failed { message, source } => (Refused::Failed(source), message),
            Self::Contended { pid, .. } => return Err(format!("contended by {pid}").into()),
            _ => return Err("an unknown refusal".into()),
        })
    }
}

impl<T> Split<T> for SendTimeoutError<T> {
    fn split(self) -> Result<(Refused, T), Failure> {
        Ok(match self {
            Self::Timeout(message) => (Refused::Full, message),
            Self::Disconnected(message) => (Refused::Disconnected, message),
            Self::NoReceiver(message) => (Refused::NoReceiver, message),
            Self::Failed { message, source } => (Refused::Failed(source), message),
            _ => return Err("an unknown refusal".into()),
        })
    }
}

impl<T> Split<T> for SendError<T> {
    fn split(self) -> Result<(Refused, T), Failure> {
        Ok(match self {
            Self::Disconnected(message) => (Refused::Disconnected, message),
            Self::Failed { message, source } => (Refused::Failed(source), message),
            _ => return Err("an unknown refusal".into()),
        })
    }
}

/// What came of sending something.
type Sent<T> = Result<(), (Refused, T)>;

fn split<T, E: Split<T>>(sent: Result<(), E>) -> Result<Sent<T>, Failure> {
    match sent {
        Ok(()) => Ok(Ok(())),
        Err(error) => error.split().map(Err),
    }
}

impl<K: Kind> Play<K> {
    /// Sends something by a sender that is drawn.
    pub(super) fn send(&mut self, context: &mut Context) -> Result<(), Failure> {
        if self.txs.is_empty() {
            return Ok(());
        }
        let tx = context.rng.below(self.txs.len() as u64) as usize;
        match context.rng.below(100) {
            0..45 => self.send_bytes(tx, context),
            45..65 => self.send_batch(tx, context),
            65..90 if self.max_handles > 0 => self.send_packet(tx, context),
            _ if K::build(self, context)? => Ok(()),
            _ => self.send_packet(tx, context),
        }
    }

    /// Sends on one line until that is full. Now and then the receiver goes then, of which the sender is
    /// told.
    pub(super) fn fill(&mut self, context: &mut Context) -> Result<(), Failure> {
        if self.txs.is_empty() {
            return Ok(());
        }
        let tx = context.rng.below(self.txs.len() as u64) as usize;
        (0..3).try_for_each(|_| self.send_packet(tx, context))?;
        let mut left = SENDS_TO_FILL;
        while left > 0 && self.fit(tx, self.max_message, false) != Fit::No {
            left -= 1;
            match left % 8 {
                0 => self.send_batch(tx, context)?,
                _ => self.send_bytes(tx, context)?,
            }
        }
        (0..3).try_for_each(|_| self.send_batch(tx, context))?;
        if self.rx.is_none() || !context.rng.percent(40) {
            return Ok(());
        }
        self.drop_receiver(context);
        (0..2).try_for_each(|_| self.send_packet(tx, context))?;
        self.wait_for_no_receiver(tx, context)
    }

    /// Waits until a sender on a full line is told that its receiver is gone.
    fn wait_for_no_receiver(&mut self, tx: usize, context: &mut Context) -> Result<(), Failure> {
        let len = self.len_on(self.txs[tx].line, self.max_message);
        let is_full = self.fit(tx, len, false) == Fit::No;
        if !is_full || !self.has_lost_receiver(tx) {
            return Ok(());
        }
        context.trace(|| format!("{}: {tx} waits for a departure", self.name));
        match split(self.txs[tx].end.send_timeout(&vec![0; len], LONG))? {
            Err((Refused::Disconnected, ())) => self.note_departure(tx, context),
            other => Err(format!("a departure was to be told: {other:?}").into()),
        }
    }

    /// Draws a length, now and then none or the longest.
    pub(super) fn draw_len(&self, tx: usize, context: &mut Context) -> usize {
        let longest = self.max_message as u64;
        let len = match context.rng.below(40) {
            0 => 0,
            1 => longest,
            2..38 if self.are_small => context.rng.below(12),
            2..20 => context.rng.below(40),
            _ => context.rng.length(longest),
        };
        self.len_on(self.txs[tx].line, len as usize)
    }

    /// Sends one message, which is too long now and then.
    fn send_bytes(&mut self, tx: usize, context: &mut Context) -> Result<(), Failure> {
        let number = context.number();
        let is_too_long = context.rng.percent(3);
        let len = match is_too_long {
            true => self.max_message + 1 + context.rng.below(100) as usize,
            false => self.draw_len(tx, context),
        };
        let message = if is_too_long { vec![0; len] } else { context.message(number, len) };
        let fit = if is_too_long { Fit::No } else { self.fit(tx, len, false) };
        let may_wait = fit == Fit::Surely || is_too_long;
        let calls = ["try_send", "send_timeout", "send_until", "send"];
        let call = calls[context.rng.below(if may_wait { 4 } else { 3 }) as usize];
        let wait = if may_wait { LONG } else { Duration::ZERO };
        self.note_send(context, call, tx, number, len, fit);
        let end = &mut self.txs[tx].end;
        let sent = match call {
            "try_send" => split(end.try_send(&message))?,
            "send_timeout" => split(end.send_timeout(&message, wait))?,
            "send_until" => split(end.send_timeout(&message, Instant::now() + wait))?,
            _ => split(end.send(&message))?,
        };
        if is_too_long {
            self.count(context, "message too long");
            return self.check_too_long(tx, len, sent);
        }
        match sent {
            Ok(()) => self.note_sent(tx, number, len, Vec::new(), context),
            Err((refused, ())) => self.check_refused(tx, fit, refused, context),
        }
    }

    fn note_send(
        &self,
        context: &mut Context,
        call: &'static str,
        tx: usize,
        number: u64,
        len: usize,
        fit: Fit,
    ) {
        let line = self.txs[tx].line;
        context.trace(|| {
            format!("{}: {call} {tx} on line {line}: {number} of {len} bytes, {fit:?}", self.name)
        });
        self.count(context, call);
    }

    fn fit(&self, tx: usize, len: usize, has_handles: bool) -> Fit {
        self.lines[self.txs[tx].line].fit(len, has_handles)
    }

    /// Notes that a message was sent, which must have fitted.
    fn note_sent(
        &mut self,
        tx: usize,
        number: u64,
        len: usize,
        files: Vec<usize>,
        context: &mut Context,
    ) -> Result<(), Failure> {
        let line = self.txs[tx].line;
        if self.fit(tx, len, !files.is_empty()) == Fit::No {
            return Err(format!("{len} bytes were sent though they do not fit").into());
        }
        context.tally.sent += 1;
        self.note_what(len, &files, context);
        let line = &mut self.lines[line];
        let wraps = line.wraps;
        line.push(number, len, files);
        if line.wraps > wraps {
            self.count(context, "position at 2^64");
        }
        Ok(())
    }

    fn note_what(&self, len: usize, files: &[usize], context: &mut Context) {
        if !files.is_empty() {
            self.count(context, "message with handles");
        }
        if len < self.lines.len() {
            self.count(context, "message of no bytes"); // of lanes, all but none
        }
        if len + self.lines.len() > self.max_message {
            self.count(context, "message of the most bytes");
        }
    }

    fn check_too_long<T>(&self, tx: usize, len: usize, sent: Sent<T>) -> Result<(), Failure> {
        match sent {
            Err((Refused::Failed(Error::MessageTooLong { ring, found, limit }), _))
                if (ring, found) == (self.txs[tx].end.ring(), len)
                    && limit as usize == self.max_message =>
            {
                Ok(())
            }
            Err((other, _)) => Err(format!("{len} bytes are too long: {other:?}").into()),
            Ok(()) => Err(format!("{len} bytes were sent though they are too long").into()),
        }
    }

    /// Judges that a message without handles was refused which fits as told.
    pub(super) fn check_refused(
        &mut self,
        tx: usize,
        fit: Fit,
        refused: Refused,
        context: &mut Context,
    ) -> Result<(), Failure> {
        match refused {
            _ if fit == Fit::Surely => Err(format!("{refused:?} though it fits").into()),
            Refused::Full if self.has_lost_receiver(tx) => {
                Err("a sender was not told that its receiver is gone".into())
            }
            Refused::Full => {
                self.count(context, "ring full");
                Ok(())
            }
            Refused::Disconnected => self.note_departure(tx, context),
            other => Err(format!("refused as {other:?}").into()),
        }
    }

    /// Judges that a sender was told that its receiver is gone.
    fn note_departure(&mut self, tx: usize, context: &mut Context) -> Result<(), Failure> {
        self.count(context, "departure told to a sender");
        match self.has_lost_receiver(tx) {
            true => Ok(()),
            false => Err("a sender was told of a departure, and there was none".into()),
        }
    }

    /// Whether a sender without space is told that its receiver is gone.
    fn has_lost_receiver(&self, tx: usize) -> bool {
        self.rx.is_none() && self.txs[tx].receivers.has_met()
    }

    /// Sends several messages at once, of which one is too long now and then.
    fn send_batch(&mut self, tx: usize, context: &mut Context) -> Result<(), Failure> {
        let many_percent = if self.are_small { 15 } else { 3 };
        let is_many = context.rng.percent(many_percent);
        let count = if is_many { 300 } else { context.rng.below(12) as usize };
        let lens: Vec<_> = (0..count).map(|_| self.draw_batch_len(tx, count, context)).collect();
        let numbers: Vec<_> = lens.iter().map(|_| context.number()).collect();
        let messages: Vec<_> =
            numbers.iter().zip(&lens).map(|(&number, &len)| context.message(number, len)).collect();
        let mut slices: Vec<_> = messages.iter().map(Vec::as_slice).collect();
        let fits = self.lines[self.txs[tx].line].fit_all(&lens);
        let too_long = vec![0; self.max_message + 1];
        let is_too_long = count > 0 && count < 256 && context.rng.percent(4);
        if is_too_long {
            slices[context.rng.below(count as u64) as usize] = &too_long;
        }
        let may_wait = *fits.start() == count || is_too_long;
        let calls = ["try_send_batch", "send_batch_timeout", "send_batch"];
        let call = calls[context.rng.below(if may_wait { 3 } else { 2 }) as usize];
        let name = self.name;
        context.trace(|| format!("{name}: {call} {tx}: {numbers:?}, lengths {lens:?}, {fits:?}"));
        self.count(context, call);
        let end = &mut self.txs[tx].end;
        let (sent, refused) = match call {
            "try_send_batch" => match end.try_send_batch(&slices) {
                Ok(sent) => (sent, None),
                Err(error) => (0, Some(error.split()?.0)),
            },
            "send_batch_timeout" => {
                of_batch(end.send_batch_timeout(&slices, Duration::ZERO), count)?
            }
            _ => of_batch(end.send_batch(&slices), count)?,
        };
        if is_too_long {
            self.count(context, "message too long");
            let refused = refused.map_or(Ok(()), |refused| Err((refused, ())));
            return self.check_too_long(tx, too_long.len(), refused);
        }
        if !fits.contains(&sent) {
            return Err(format!("{sent} of {count} messages were sent, {fits:?} fit").into());
        }
        for (&number, &len) in numbers.iter().zip(&lens).take(sent) {
            self.note_sent(tx, number, len, Vec::new(), context)?;
        }
        if sent < count {
            self.count(context, "batch cut short");
        }
        match refused {
            Some(refused) => {
                let fit = self.fit(tx, lens[sent], false);
                self.check_refused(tx, fit, refused, context)
            }
            None if sent == count || sent > 0 && call == "try_send_batch" => Ok(()),
            None => Err(format!("Ok though {sent} of {count} were sent").into()),
        }
    }

    fn draw_batch_len(&self, tx: usize, count: usize, context: &mut Context) -> usize {
        match count {
            300 => self.len_on(self.txs[tx].line, context.rng.below(8) as usize),
            _ => self.draw_len(tx, context),
        }
    }

    /// Sends a packet, with handles now and then.
    fn send_packet(&mut self, tx: usize, context: &mut Context) -> Result<(), Failure> {
        let (number, len) = (context.number(), self.draw_len(tx, context));
        let is_too_many = context.rng.percent(8);
        let line = &self.lines[self.txs[tx].line];
        let is_crowded = line.handle_count() + self.max_handles > HANDLES_ON_THEIR_WAY;
        let count = match () {
            () if is_too_many => self.max_handles + 1,
            () if self.max_handles == 0 || is_crowded => 0,
            () if context.rng.percent(20) => 0,
            () => 1 + context.rng.below(self.max_handles as u64) as usize,
        };
        let files = context.draw_files(count);
        let mut packet = MessagePacket::from(context.message(number, len));
        packet.handles = context.handles(&files)?;
        let fit = self.fit(tx, len, count > 0);
        let has_receiver = count == 0 || self.rx.is_some();
        let may_wait = is_too_many || fit == Fit::Surely && has_receiver;
        let calls = ["try_send_packet", "send_packet_timeout", "send_packet"];
        let call = calls[context.rng.below(if may_wait { 3 } else { 2 }) as usize];
        let wait = if may_wait { LONG } else { Duration::ZERO };
        self.note_send(context, call, tx, number, len, fit);
        let end = &mut self.txs[tx].end;
        let sent = match call {
            "try_send_packet" => split(end.try_send_packet(packet))?,
            "send_packet_timeout" => split(end.send_packet_timeout(packet, wait))?,
            _ => split(end.send_packet(packet))?,
        };
        let Err((refused, packet)) = sent else {
            if is_too_many || !has_receiver {
                return Err("handles were sent that cannot be".into());
            }
            return self.note_sent(tx, number, len, files, context);
        };
        context.content.check(number, &packet.data)?;
        context.check_handles(&packet.handles, &files[..])?;
        match refused {
            Refused::Failed(Error::Handles { .. }) if is_too_many && self.max_handles > 0 => {
                self.count(context, "too many handles");
                Ok(())
            }
            Refused::Failed(Error::HandlesNotCarried { .. })
                if is_too_many && self.max_handles == 0 =>
            {
                Ok(())
            }
            refused if is_too_many => Err(format!("too many handles: {refused:?}").into()),
            Refused::NoReceiver if !has_receiver => {
                self.count(context, "no receiver for handles");
                Ok(())
            }
            Refused::Disconnected if !has_receiver => self.note_departure(tx, context),
            Refused::Full if !has_receiver && fit != Fit::Surely => Ok(()),
            refused => self.check_refused(tx, fit, refused, context),
        }
    }
}

/// How many of a batch of `count` were sent, and why not more.
fn of_batch<E: Split<usize>>(
    sent: Result<(), E>,
    count: usize,
) -> Result<(usize, Option<Refused>), Failure> {
    match sent {
        Ok(()) => Ok((count, None)),
        Err(error) => error.split().map(|(refused, sent)| (sent, Some(refused))),
    }
}
