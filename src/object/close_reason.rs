//! Why an end of a channel was closed, as it is stored for the other end.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Acquire, Release};

use tombolo_abi::RingControl;

use crate::mem::RingSpan;

/// Bytes that the text of a reason takes at most.
const TEXT_MAX: usize = size_of::<[u8; 112]>();
/// Bytes of a word.
const WORD_LEN: usize = 8;

/// Set if there is a reason.
const IS_THERE: u64 = 1 << 63;

/// Why the other end of a channel was closed, by [`Channel::close_reason`](crate::Channel::close_reason).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReason {
    /// Its user's code.
    pub code: u32,
    /// Its user's text, at most 112 bytes.
    pub text: String,
}

impl CloseReason {
    /// Stores a reason in the control block of the ring on which the end that closes has sent. The end is still
    /// owned.
    pub(super) fn store(ring: &RingSpan, code: u32, text: &str) {
        let ends = text.char_indices().map(|(start, char)| start + char.len_utf8());
        let text = &text[..ends.take_while(|end| *end <= TEXT_MAX).last().unwrap_or(0)];
        for (index, bytes) in text.as_bytes().chunks(WORD_LEN).enumerate() {
            let mut word = [0; WORD_LEN];
            word[..bytes.len()].copy_from_slice(bytes);
            let offset = offset_of!(RingControl, close_text) + index * WORD_LEN;
            ring.control_u64(offset).store(u64::from_le_bytes(word), Release);
        }
        let word = IS_THERE | (text.len() as u64) << 32 | u64::from(code);
        ring.control_u64(offset_of!(RingControl, close)).store(word, Release);
    }

    /// The reason stored there, if there is one. Whatever a peer has written is a reason, or none.
    pub(super) fn load(ring: &RingSpan) -> Option<Self> {
        let word = ring.control_u64(offset_of!(RingControl, close)).load(Acquire);
        if word & IS_THERE == 0 {
            return None;
        }
        let len = usize::from((word >> 32) as u8).min(TEXT_MAX);
        let mut text = Vec::with_capacity(TEXT_MAX);
        for offset in (0..len).step_by(WORD_LEN) {
            let word = ring.control_u64(offset_of!(RingControl, close_text) + offset).load(Acquire);
            text.extend(word.to_le_bytes());
        }
        text.truncate(len);
        Some(Self { code: word as u32, text: String::from_utf8_lossy(&text).into_owned() })
    }
}
