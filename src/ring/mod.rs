//! The ring algorithms, written once.
//!
//! ```text
//!            head                                  tail
//!             v                                     v
//!   ..freed..|hdr payload|hdr payload|hdr payload  |0  ..old bytes..
//!             consumer polls here                   and then here
//! ```
//!
//! A ring is a data area of a power of two bytes and a control block. Positions are free-running
//! 64-bit byte counts, compared by difference only. A record is a header word and a payload, never
//! split: what doesn't fit before the end of the area starts at its beginning, behind a padding
//! record. **A header word of 0 means that nothing has been committed there.** One Release store of
//! the header publishes a record; the consumer learns of it by loading that very word, so that one
//! cache line changes hands for a small message.
//!
//! Invariants:
//! - the header word at `tail` is 0 unless a send is under way: a producer stores a zero behind a record
//!   before it publishes that record;
//! - nothing else is believed of the words behind it, so a producer that stops half way, also by dying,
//!   leaves nothing to clean up;
//! - no byte is stored over a record that was not freed.
//!
//! | edge | release side | acquire side | carries |
//! |---|---|---|---|
//! | `commit` | producer stores the record header | consumer loads the record header | payload, header fields, the zero word behind |
//! | `free` | consumer stores `head` | producer loads `head` | the right to overwrite |
//! | `poison` | finder stores `state` | all ends load `state` | `reason` |
//! | `lock` | holder stores 0 to `lock`, or dies | next holder's compare-exchange | `tail`, `head_cache` |
//! | `wake`, `space` | | | a sleeper is notified, see `doorbell` |
//! | `summary` | | | which lanes to poll, see `summary` |
//!
//! *Lanes* are rings with one producer each that share a consumer. The group's first lane holds the words
//! on which the consumer sleeps, the mark of poison and the summary; each lane has all else of its own.
//!
//! The code is generic over [`Memory`], a handful of operations on shared words: mapped for use,
//! on the heap for property tests, modelled for exhaustive search, recorded for comparing the two.
//!
//! Sources: the commit word in the record is that of Aeron's ring buffers. Zeros that stand for free space,
//! and the lock that names its holder, are this crate's.

pub(crate) mod carry;
mod consumer;
pub(crate) mod doorbell;
mod lane;
mod memory;
mod mpsc;
mod spsc;
mod summary;
mod window;

pub(crate) use consumer::{Consumer, Front, Nothing, Run};
pub(crate) use doorbell::{SpaceWanted, Wakes};
pub(crate) use lane::LaneProducer;
pub(crate) use memory::{Memory, Ring, Word};
pub(crate) use mpsc::{Held, Locked, SharedProducer, touch, transfer, try_lock};
pub(crate) use spsc::SpscProducer;
pub(crate) use summary::{Attention, SummaryBit};
pub(crate) use window::{Refusal, Reserved, SendFast, Sent, Window};

#[cfg(test)]
#[path = "../../tests/ring/mod.rs"]
mod tests;
