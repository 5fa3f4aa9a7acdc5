//! What messages and their handles say.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;

use rustix::fs::MemfdFlags;
use tombolo::{Handle, MessagePacket};

use super::HANDLES_MAX;
use crate::{Failure, Rng};

/// A message: who sent it, which of theirs, how many handles say so, and whether one more is the
/// FIFO's writing end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) life: u64,
    pub(super) number: u64,
    pub(super) named: u64,
    pub(super) witness: u64,
}

impl Content {
    /// One with 0 to 8 handles.
    pub(super) fn draw(life: u64, number: u64, rng: &mut Rng) -> Self {
        let count = rng.below(HANDLES_MAX + 1);
        let witness = u64::from(count > 0 && rng.percent(25));
        Self { life, number, named: count - witness, witness }
    }

    /// The handles of it.
    pub(super) fn count(self) -> usize {
        (self.named + self.witness) as usize
    }

    pub(super) fn packet(self, fifo: &File) -> Result<MessagePacket, Failure> {
        let mut packet = MessagePacket::from(self.to_bytes());
        for index in 0..self.named {
            let memory = rustix::fs::memfd_create(c"numbered", MemfdFlags::CLOEXEC)?;
            rustix::io::write(&memory, &self.name(index))?;
            packet = packet.handle(memory);
        }
        if self.witness > 0 {
            packet = packet.handle(fifo.try_clone()?);
        }
        Ok(packet)
    }

    fn to_bytes(self) -> Vec<u8> {
        [self.life, self.number, self.named, self.witness].map(u64::to_le_bytes).concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        let (words, []) = bytes.as_chunks() else { return Err("no such message".into()) };
        let [life, number, named, witness] = *words else { return Err("no such message".into()) };
        let [life, number, named, witness] = [life, number, named, witness].map(u64::from_le_bytes);
        Ok(Self { life, number, named, witness })
    }

    /// What the handle at `index` holds.
    fn name(self, index: u64) -> [u8; 24] {
        let words: [[u8; 8]; 3] = [self.life, self.number, index].map(u64::to_le_bytes);
        let mut name = [0; 24];
        name.copy_from_slice(words.as_flattened());
        name
    }

    /// Whether these are its handles, all of them and in order.
    pub(super) fn check(self, handles: Vec<Handle>) -> Result<(), Failure> {
        if handles.len() != self.count() {
            return Err(format!("{} handles with {self:?}", handles.len()).into());
        }
        for (index, handle) in (0..).zip(handles) {
            let file = File::from(handle.into_fd());
            let is_right = if index < self.named {
                let mut found = [0; 24];
                let len = rustix::io::pread(&file, &mut found, 0)?;
                len == found.len() && found == self.name(index)
            } else {
                file.metadata()?.file_type().is_fifo()
            };
            if !is_right {
                return Err(format!("handle {index} of {self:?} is another's").into());
            }
        }
        Ok(())
    }
}
