//! What client and server say to each other.

use crate::Failure;

/// What is asked of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// A reply, once all others that want one are there.
    Reply = 1,
    /// None.
    Nothing = 2,
    /// A reply when it is too late.
    LateReply = 3,
    /// All late replies now. No request.
    Late = 4,
}

/// A request, and its reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) txid: u32,
    pub(super) wish: Wish,
    pub(super) number: u64,
}

impl Message {
    pub(super) fn of(wish: Wish, number: u64) -> Self {
        Self { txid: 0, wish, number }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let Self { txid, wish, number } = self;
        let words = [txid, wish as u32, number as u32, (number >> 32) as u32];
        words.map(u32::to_ne_bytes).concat()
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, Failure> {
        let none = || format!("no such message: {bytes:?}");
        let (words, []) = bytes.as_chunks::<4>() else { return Err(none().into()) };
        let [txid, wish, low, high] = *words else { return Err(none().into()) };
        let [txid, wish, low, high] = [txid, wish, low, high].map(u32::from_ne_bytes);
        let wishes = [Wish::Reply, Wish::Nothing, Wish::LateReply, Wish::Late];
        let wish = wishes.into_iter().find(|one| *one as u32 == wish).ok_or_else(none)?;
        Ok(Self { txid, wish, number: u64::from(high) << 32 | u64::from(low) })
    }
}
