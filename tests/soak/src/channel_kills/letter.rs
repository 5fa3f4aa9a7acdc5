//! What messages and their handles say.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::MemfdFlags;
use tombolo::{Handle, HandleType, MessagePacket};

use crate::{Failure, Rng};

/// The most handles of a message that say whose they are.
const NAMED_MAX: u64 = 3;
const WORDS: usize = 6;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Request,
    Reply,
}

/// In which row of numbers a message has its own.
pub(super) mod stream {
    pub(crate) const FROM_VICTIM: u64 = 0;
    pub(crate) const TO_VICTIM: u64 = 1;
    pub(crate) const ASKED_BY_VICTIM: u64 = 2;
    pub(crate) const ASKED_BY_SURVIVOR: u64 = 3;

    /// To the survivor, over the end `id`.
    pub(crate) fn over(id: u64) -> u64 {
        1000 + 2 * id
    }

    /// To the end `id`, before it goes to the victim.
    pub(crate) fn into(id: u64) -> u64 {
        1001 + 2 * id
    }
}

/// Which end of a channel a message carries. The survivor has one end of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// The survivor's own end of a channel that the victim made.
    Near(u64),
    /// The other end.
    Far(u64),
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Letter {
    /// First of a request and a reply, and then the library's to say.
    pub(super) txid: u32,
    pub(super) kind: Kind,
    pub(super) stream: u64,
    pub(super) number: u64,
    /// Handles to memory that holds what the message says.
    pub(super) named: u64,
    /// Handles to the FIFO's writing end.
    pub(super) witnesses: u64,
    pub(super) end: Option<Carried>,
}

impl Letter {
    /// One with some handles, mostly few.
    pub(super) fn draw(kind: Kind, stream: u64, number: u64, rng: &mut Rng) -> Self {
        let named = if rng.percent(50) { 0 } else { rng.below(NAMED_MAX + 1) };
        let witnesses = u64::from(rng.percent(20));
        Self { txid: 0, kind, stream, number, named, witnesses, end: None }
    }

    /// Handles of it.
    pub(super) fn count(self) -> usize {
        (self.named + self.witnesses) as usize + usize::from(self.end.is_some())
    }

    /// The message, with `end` if it carries one.
    pub(super) fn packet(self, fifo: &File, end: Option<Handle>) -> Result<MessagePacket, Failure> {
        let mut packet = MessagePacket::from(self.to_bytes());
        for index in 0..self.named {
            let memory = rustix::fs::memfd_create(c"numbered", MemfdFlags::CLOEXEC)?;
            rustix::io::write(&memory, &self.name(index))?;
            packet = packet.handle(memory);
        }
        for _ in 0..self.witnesses {
            packet = packet.handle(fifo.try_clone()?);
        }
        packet.handles.extend(end);
        Ok(packet)
    }

    /// What a message says, and the end that it carries. All its handles are what it says, in order.
    pub(super) fn open(packet: MessagePacket) -> Result<(Self, Option<Handle>), Failure> {
        let letter = Self::from_bytes(&packet.data)?;
        let mut handles = packet.handles;
        if handles.len() != letter.count() {
            return Err(format!("{} handles with {letter:?}", handles.len()).into());
        }
        let end = letter.end.and_then(|_| handles.pop());
        if end.as_ref().is_some_and(|end| end.handle_type() != HandleType::Channel) {
            return Err(format!("the end in {letter:?} is something else").into());
        }
        for (index, handle) in (0..).zip(handles) {
            let file = File::from(handle.into_fd());
            let is_right = if index < letter.named {
                let mut found = [0; 24];
                let len = rustix::io::pread(&file, &mut found, 0)?;
                len == found.len() && found == letter.name(index)
            } else {
                file.metadata()?.file_type().is_fifo()
            };
            if !is_right {
                return Err(format!("handle {index} of {letter:?} is another's").into());
            }
        }
        Ok((letter, end))
    }

    fn to_bytes(self) -> Vec<u8> {
        let end = match self.end {
            None => 0,
            Some(Carried::Near(id)) => 1 + 2 * id,
            Some(Carried::Far(id)) => 2 + 2 * id,
        };
        // The first four bytes are the transaction id, in native order.
        let mut bytes = self.txid.to_ne_bytes().to_vec();
        bytes.extend((self.kind as u32).to_ne_bytes());
        let words = [self.stream, self.number, self.named, self.witnesses, end];
        bytes.extend(words.map(u64::to_ne_bytes).concat());
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        let none = || format!("no such message: {bytes:?}");
        let (words, []) = bytes.as_chunks::<8>() else { return Err(none().into()) };
        let words: [[u8; 8]; WORDS] = words.try_into().map_err(|_| none())?;
        let [head, rest @ ..] = words;
        let [stream, number, named, witnesses, end] = rest.map(u64::from_ne_bytes);
        let [a, b, c, d, kind @ ..] = head;
        let kind = match u32::from_ne_bytes(kind) {
            0 => Kind::Plain,
            1 => Kind::Request,
            2 => Kind::Reply,
            _ => return Err(none().into()),
        };
        let txid = u32::from_ne_bytes([a, b, c, d]);
        let end = match end.checked_sub(1) {
            None => None,
            Some(end) if end % 2 == 0 => Some(Carried::Near(end / 2)),
            Some(end) => Some(Carried::Far(end / 2)),
        };
        if named > NAMED_MAX || witnesses > 1 {
            return Err(none().into());
        }
        Ok(Self { txid, kind, stream, number, named, witnesses, end })
    }

    /// What the handle at `index` holds.
    fn name(self, index: u64) -> [u8; 24] {
        let words: [[u8; 8]; 3] = [self.stream, self.number, index].map(u64::to_ne_bytes);
        let mut name = [0; 24];
        name.copy_from_slice(words.as_flattened());
        name
    }
}
