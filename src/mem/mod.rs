//! Island 1 of unsafe: mapped bytes.
//!
//! Another process may write any byte of a mapping at any time, so nothing here hands out a
//! `&[u8]` or a `&T` into it. There are three ways in: *words* as `&AtomicU32` or `&AtomicU64`, one
//! width a word; *descriptions*, copied out and checked by `tombolo-abi`; *payload*, copied in and
//! out word by word.
#![allow(unsafe_code)]

pub(crate) mod copy;
mod delivery;
mod guard;
mod handler;
mod lock_mapping;
mod mapping;
mod payload;
mod pin;
mod ring_span;
mod robust_list;

pub(crate) use lock_mapping::LockMapping;
pub(crate) use mapping::Mapping;
pub(crate) use payload::Payload;
pub(crate) use ring_span::RingSpan;
pub(crate) use robust_list::RobustList;
