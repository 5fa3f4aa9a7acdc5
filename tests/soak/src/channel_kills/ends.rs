//! The ends that the survivor has, and what became of the other ends of their channels.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::{ChannelError, CloseReason};
use tombolo::{Channel, Handle};

use super::letter::{Carried, Letter, stream};
use super::notes::{NO_REASON, Notes, OfEnd, VICTIMS_FIRST};
use super::reason_of;
use super::tally::Tally;
use crate::Failure;
use crate::sending::PATIENCE;

/// One of them.
#[derive(Debug)]
struct Held {
    /// `None` once the other end was closed.
    channel: Option<Channel>,
    /// Why it was.
    reason: Option<CloseReason>,
    /// Messages that were written to the other end before it went.
    given: u64,
    /// Messages that have come.
    got: u64,
}

/// All of them, by their ids.
#[derive(Debug, Default)]
pub(super) struct Ends {
    held: BTreeMap<u64, Held>,
    /// Those other ends that came back.
    returned: BTreeMap<u64, Channel>,
    handles: u64,
}

impl Ends {
    /// Adds the end `id`, of which the other end is with the victim or on its way there, with `given` messages.
    pub(super) fn add(&mut self, id: u64, channel: Channel, given: u64) -> Result<(), Failure> {
        let held = Held { channel: Some(channel), reason: None, given, got: 0 };
        match self.held.insert(id, held) {
            None => Ok(()),
            Some(_) => Err(format!("end {id} came twice").into()),
        }
    }

    /// Adds an end that has come in a message.
    pub(super) fn take(&mut self, carried: Carried, handle: Handle) -> Result<(), Failure> {
        let channel = Channel::from_handle(handle)
            .map_err(|error| format!("{carried:?} cannot be adopted: {error}"))?;
        match carried {
            Carried::Near(id) if id >= VICTIMS_FIRST => self.add(id, channel, 0),
            Carried::Far(id) => match self.returned.insert(id, channel) {
                None => Ok(()),
                Some(_) => Err(format!("end {id} came back twice").into()),
            },
            Carried::Near(_) => Err(format!("{carried:?} is no end of the victim's").into()),
        }
    }

    /// How many have the other end at the victim.
    pub(super) fn open_count(&self) -> usize {
        self.open().count()
    }

    fn open(&self) -> impl Iterator<Item = u64> {
        let is_open =
            |(id, held): &(&u64, &Held)| held.channel.is_some() && !self.returned.contains_key(*id);
        self.held.iter().filter(is_open).map(|(id, _)| *id)
    }

    /// Reads all that is there to be read. Gives how many messages that were.
    pub(super) fn read_all(&mut self) -> Result<u64, Failure> {
        let (mut came, mut count) = (Vec::new(), 0);
        for (id, held) in &mut self.held {
            while let Some(channel) = &held.channel {
                let packet = match channel.read() {
                    Ok(packet) => packet,
                    Err(ChannelError::ShouldWait) => break,
                    Err(ChannelError::PeerClosed) => {
                        held.reason = channel.close_reason()?;
                        held.channel = None;
                        break;
                    }
                    Err(error) => return Err(format!("end {id}: {error}").into()),
                };
                let (letter, end) = Letter::open(packet)?;
                if (letter.stream, letter.number) != (stream::over(*id), held.got) {
                    return Err(format!("{letter:?} at end {id} behind {}", held.got).into());
                }
                held.got += 1;
                count += 1;
                self.handles += letter.count() as u64;
                came.extend(letter.end.zip(end));
            }
        }
        came.into_iter().try_for_each(|(carried, handle)| self.take(carried, handle))?;
        Ok(count)
    }

    /// Compares all with what the victim, which is dead, has noted.
    pub(super) fn judge(mut self, notes: &Notes, tally: &mut Tally) -> Result<(), Failure> {
        self.wait_for_closings()?;
        let ids: Vec<_> = self.held.keys().copied().collect();
        let unknown = self.returned.keys().find(|id| !self.held.contains_key(*id));
        if let Some(id) = unknown {
            return Err(format!("end {id} came back, and its peer was never here").into());
        }
        for id in ids {
            let judged = match self.returned.remove(&id) {
                Some(returned) => self.judge_returned(id, returned, notes, tally),
                None => self.judge_closed(id, notes, tally),
            };
            judged.map_err(|error| format!("end {id}: {error}"))?;
        }
        tally.handles += self.handles;
        Ok(())
    }

    /// Reads all that the dead has written, and waits until all ends that did not come back are closed. What it had
    /// handed over for a message that it did not write any more is closed with the channel of that message.
    fn wait_for_closings(&mut self) -> Result<(), Failure> {
        let start = Instant::now();
        while self.read_all()? > 0 || self.open_count() > 0 {
            if start.elapsed() > PATIENCE {
                let open: Vec<_> = self.open().collect();
                return Err(format!("the ends {open:?} are open, and their peers are gone").into());
            }
            thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }

    fn held(&mut self, id: u64) -> Result<&mut Held, Failure> {
        self.held.get_mut(&id).ok_or_else(|| format!("end {id} is not there").into())
    }

    /// Of an end whose other end is with us: all goes both ways.
    fn judge_returned(
        &mut self,
        id: u64,
        returned: Channel,
        notes: &Notes,
        tally: &mut Tally,
    ) -> Result<(), Failure> {
        let held = self.held(id)?;
        let Some(channel) = &held.channel else { return Err("closed, but it came back".into()) };
        let read = notes.get_end(id, OfEnd::Read);
        for number in read..held.given {
            let (letter, _) = Letter::open(returned.read_timeout(PATIENCE)?)?;
            if (letter.stream, letter.number) != (stream::into(id), number) {
                return Err(format!("{letter:?} for {number} of what it had").into());
            }
        }
        for (from, to) in [(channel, &returned), (&returned, channel)] {
            from.write(b"still open")?;
            match to.read_timeout(PATIENCE) {
                Ok(message) if message.data == b"still open" => {}
                other => return Err(format!("{other:?} between both ends").into()),
            }
        }
        let written = notes.get_end(id, OfEnd::Written);
        if held.got != written {
            return Err(format!("{written} messages were written, {} came", held.got).into());
        }
        if notes.get_end(id, OfEnd::Closing) != 0 || notes.get_end(id, OfEnd::Returning) == 0 {
            return Err("it came back though it was not sent".into());
        }
        tally.messages += held.got;
        tally.ends_returned += 1;
        Ok(())
    }

    /// Of an end whose other end is not with us: it is closed.
    fn judge_closed(&mut self, id: u64, notes: &Notes, tally: &mut Tally) -> Result<(), Failure> {
        let held = self.held(id)?;
        let noted = notes.get_end(id, OfEnd::Written);
        if held.got < noted || held.got > noted + 1 {
            return Err(format!("{noted} writes returned, {} messages came", held.got).into());
        }
        if notes.get_end(id, OfEnd::Returned) != 0 {
            return Err("it was sent back, and did not come".into());
        }
        let reason = held.reason.as_ref().map(|reason| (reason.code, reason.text.clone()));
        let [closing, closed] = [OfEnd::Closing, OfEnd::Closed].map(|of| notes.get_end(id, of));
        let may_have_one = closing != 0 && closing != NO_REASON;
        let must_have_one = may_have_one && closed == closing;
        match &reason {
            None if must_have_one => return Err("its reason is missing".into()),
            Some(found) if !may_have_one || *found != reason_of(id) => {
                return Err(format!("closed for {found:?}").into());
            }
            _ => {}
        }
        tally.reasons += u64::from(reason.is_some());
        tally.messages += held.got;
        match closed {
            0 => tally.ends_of_the_dead += 1,
            _ => tally.ends_closed += 1,
        }
        Ok(())
    }
}
