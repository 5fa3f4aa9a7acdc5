//! The process that dies: it writes, reads, calls, answers, closes, and hands ends over, in no order.

use std::fs::File;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::ChannelError;
use tombolo::{Channel, Handle, OpenOptions};

use super::letter::{Carried, Kind, Letter, stream};
use super::notes::{ENDS_MAX, NO_REASON, Notes, Of, OfEnd, VICTIMS_FIRST};
use super::{RING_LEN, reason_of};
use crate::process::leave_no_core;
use crate::sending::PATIENCE;
use crate::{Failure, Rng, required};

pub(super) const NAME: &str = "channel-kills.victim";

/// Ends that it has at most.
const ENDS_AT_ONCE: usize = 5;
/// Messages that it reads in a row at most.
const READS: u64 = 6;

/// Lives until it is killed: path, notes, FIFO, seed.
pub(super) fn live(arguments: &[String]) -> Result<(), Failure> {
    leave_no_core()?;
    let path: PathBuf = required(arguments, 0)?;
    let notes = Notes::at(&required::<PathBuf>(arguments, 1)?)?;
    let fifo = File::options().write(true).open(required::<PathBuf>(arguments, 2)?)?;
    let mut rng = Rng::new(required(arguments, 3)?);
    let options = OpenOptions::new().spsc_capacity(RING_LEN);
    let opened = Channel::open_path_with(path, options)?;
    notes.set(Of::Opened, 1);
    let (_, carried) = Letter::open(opened.read_timeout(PATIENCE)?)?;
    let channel = carried.map(Channel::from_handle).transpose()?;
    let channel = channel.as_ref().unwrap_or(&opened);
    notes.set(Of::Started, 1);
    let asking = Rng::new(rng.number());
    thread::scope(|scope| {
        scope.spawn(|| {
            if let Err(error) = ask(channel, &notes, &fifo, asking) {
                eprintln!("{NAME}, asking: {error}");
                std::process::exit(1);
            }
        });
        let victim = Victim {
            channel,
            notes: &notes,
            fifo: &fifo,
            rng,
            ends: Vec::new(),
            next_id: VICTIMS_FIRST,
            requests: Vec::new(),
            written: 0,
            read: 0,
            replied: 0,
        };
        if let Err(error) = victim.run() {
            eprintln!("{NAME}: {error}");
            std::process::exit(1);
        }
    });
    Ok(())
}

/// Calls, one call after the other.
fn ask(channel: &Channel, notes: &Notes, fifo: &File, mut rng: Rng) -> Result<(), Failure> {
    for number in 0.. {
        let letter = Letter::draw(Kind::Request, stream::ASKED_BY_VICTIM, number, &mut rng);
        notes.set(Of::Asked, number + 1);
        let reply = channel.call(letter.packet(fifo, None)?, PATIENCE)?;
        let (reply, _) = Letter::open(reply)?;
        let asked = (Kind::Reply, stream::ASKED_BY_VICTIM, number);
        if (reply.kind, reply.stream, reply.number) != asked {
            return Err(format!("{reply:?} for {letter:?}").into());
        }
        notes.set(Of::Answered, number + 1);
        thread::sleep(Duration::from_micros(rng.below(300)));
    }
    Ok(())
}

/// An end whose peer the survivor has.
struct End {
    id: u64,
    channel: Channel,
    written: u64,
    read: u64,
}

struct Victim<'a> {
    channel: &'a Channel,
    notes: &'a Notes,
    fifo: &'a File,
    rng: Rng,
    ends: Vec<End>,
    /// Of the next channel that it makes.
    next_id: u64,
    /// Those that were not answered.
    requests: Vec<Letter>,
    written: u64,
    read: u64,
    replied: u64,
}

impl Victim<'_> {
    fn run(mut self) -> Result<(), Failure> {
        loop {
            match self.rng.below(14) {
                0..4 => self.write(None)?,
                4..8 => self.read()?,
                8 | 9 => self.reply()?,
                10 => self.make()?,
                11 | 12 => self.use_end()?,
                _ => thread::sleep(Duration::from_micros(self.rng.below(400))),
            }
        }
    }

    /// Writes the next message, with `end`.
    fn write(&mut self, end: Option<(Carried, Handle)>) -> Result<(), Failure> {
        let drawn = Letter::draw(Kind::Plain, stream::FROM_VICTIM, self.written, &mut self.rng);
        let (carried, handle) = end.unzip();
        let letter = Letter { end: carried, ..drawn };
        write_whole(self.channel, letter, self.fifo, handle)?;
        self.written += 1;
        self.notes.set(Of::Written, self.written);
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        for _ in 0..=self.rng.below(READS) {
            let packet = match self.channel.read() {
                Ok(packet) => packet,
                Err(ChannelError::ShouldWait) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let (letter, end) = Letter::open(packet)?;
            match letter.kind {
                Kind::Request if letter.stream == stream::ASKED_BY_SURVIVOR => {
                    self.requests.push(letter);
                    continue;
                }
                Kind::Plain if letter.stream == stream::TO_VICTIM && letter.number == self.read => {
                    self.read += 1;
                }
                _ => return Err(format!("{letter:?} behind {} others", self.read).into()),
            }
            if let (Some(Carried::Far(id)), Some(handle)) = (letter.end, end) {
                self.take(id, handle)?;
            }
        }
        Ok(())
    }

    /// Does something with an end that has come.
    fn take(&mut self, id: u64, handle: Handle) -> Result<(), Failure> {
        match self.rng.below(10) {
            0 | 1 => self.close_by(id, NO_REASON, || drop(handle)),
            2 | 3 => return self.send_back(id, handle),
            _ if self.ends.len() == ENDS_AT_ONCE => return self.send_back(id, handle),
            _ => {
                let channel = Channel::from_handle(handle)?;
                self.ends.push(End { id, channel, written: 0, read: 0 });
            }
        }
        Ok(())
    }

    fn close_by(&self, id: u64, code: u64, close: impl FnOnce()) {
        self.notes.set_end(id, OfEnd::Closing, code);
        close();
        self.notes.set_end(id, OfEnd::Closed, code);
    }

    fn send_back(&mut self, id: u64, handle: Handle) -> Result<(), Failure> {
        self.notes.set_end(id, OfEnd::Returning, 1);
        self.write(Some((Carried::Far(id), handle)))?;
        self.notes.set_end(id, OfEnd::Returned, 1);
        Ok(())
    }

    /// Answers one request, in no order.
    fn reply(&mut self) -> Result<(), Failure> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.requests.len() as u64) as usize;
        let Letter { txid, number, stream, .. } = self.requests.swap_remove(index);
        let reply = Letter::draw(Kind::Reply, stream, number, &mut self.rng);
        write_whole(self.channel, Letter { txid, ..reply }, self.fifo, None)?;
        self.replied += 1;
        self.notes.set(Of::Replied, self.replied);
        Ok(())
    }

    /// Makes a channel, and sends one end of it.
    fn make(&mut self) -> Result<(), Failure> {
        if self.next_id == ENDS_MAX || self.ends.len() == ENDS_AT_ONCE {
            return Ok(());
        }
        let id = self.next_id;
        self.next_id += 1;
        let (near, channel) = Channel::create_with(OpenOptions::new().spsc_capacity(RING_LEN))?;
        self.ends.push(End { id, channel, written: 0, read: 0 });
        for _ in 0..self.rng.below(4) {
            self.write_to(self.ends.len() - 1, None)?;
        }
        self.write(Some((Carried::Near(id), near.release()?)))
    }

    /// Writes to the end at `index`. Gives whether there was space.
    fn write_to(&mut self, index: usize, other: Option<(Carried, Handle)>) -> Result<(), Failure> {
        let end = &mut self.ends[index];
        let drawn = Letter::draw(Kind::Plain, stream::over(end.id), end.written, &mut self.rng);
        let (carried, handle) = other.unzip();
        write_whole(&end.channel, Letter { end: carried, ..drawn }, self.fifo, handle)?;
        end.written += 1;
        self.notes.set_end(end.id, OfEnd::Written, end.written);
        Ok(())
    }

    fn read_from(&mut self, index: usize) -> Result<(), Failure> {
        let end = &mut self.ends[index];
        let packet = match end.channel.read() {
            Ok(packet) => packet,
            Err(ChannelError::ShouldWait) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (letter, _) = Letter::open(packet)?;
        if (letter.stream, letter.number) != (stream::into(end.id), end.read) {
            return Err(format!("{letter:?} at end {}, number {}", end.id, end.read).into());
        }
        end.read += 1;
        self.notes.set_end(end.id, OfEnd::Read, end.read);
        Ok(())
    }

    /// Does something with one of its ends.
    fn use_end(&mut self) -> Result<(), Failure> {
        if self.ends.is_empty() {
            return Ok(());
        }
        let index = self.rng.below(self.ends.len() as u64) as usize;
        match self.rng.below(10) {
            0..3 => self.write_to(index, None),
            3 => self.read_from(index),
            4 => {
                let End { id, channel, .. } = self.ends.swap_remove(index);
                let (code, text) = reason_of(id);
                let close = || channel.close_with_reason(code, &text);
                self.close_by(id, code.into(), close);
                Ok(())
            }
            5 => {
                let End { id, channel, .. } = self.ends.swap_remove(index);
                self.close_by(id, NO_REASON, || drop(channel));
                Ok(())
            }
            6 => {
                let End { id, channel, .. } = self.ends.swap_remove(index);
                let handle = channel.release()?;
                self.close_by(id, NO_REASON, || drop(handle));
                Ok(())
            }
            7 => {
                let End { id, channel, .. } = self.ends.swap_remove(index);
                let handle = channel.release()?;
                self.send_back(id, handle)
            }
            8 if self.ends.len() > 1 => {
                let End { id, channel, .. } = self.ends.swap_remove(index);
                let through = self.rng.below(self.ends.len() as u64) as usize;
                self.notes.set_end(id, OfEnd::Returning, 1);
                let handle = channel.release()?;
                self.write_to(through, Some((Carried::Far(id), handle)))?;
                self.notes.set_end(id, OfEnd::Returned, 1);
                Ok(())
            }
            _ => {
                let end = &mut self.ends[index];
                end.channel = Channel::from_handle(end.channel.release()?)?;
                Ok(())
            }
        }
    }
}

/// Tries until it is written. What comes back has all its handles.
fn write_whole(
    channel: &Channel,
    letter: Letter,
    fifo: &File,
    end: Option<Handle>,
) -> Result<(), Failure> {
    let mut packet = letter.packet(fifo, end)?;
    let start = Instant::now();
    loop {
        let refused = match channel.write_timeout(packet, Duration::from_millis(50)) {
            Ok(()) => return Ok(()),
            Err(refused) => refused,
        };
        if refused.message.handles.len() != letter.count() {
            return Err(format!("{letter:?} came back without its handles").into());
        }
        match refused.error {
            ChannelError::TimedOut if start.elapsed() < PATIENCE => packet = refused.message,
            error => return Err(format!("writing {letter:?}: {error}").into()),
        }
    }
}
