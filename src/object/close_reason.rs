//! Why an end of a channel was closed, as it is stored for the other end.

use std::mem::offset_of;
use std::sync::atomic::Ordering::{Acquire, Release};

use tombolo_abi::{CloseWord, RingControl};

use crate::crash::crash_point;
use crate::mem::RingSpan;

/// Bytes of a word.
const WORD_LEN: usize = 8;

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
        crash_point!("close.before-reason");
        let ends = text.char_indices().map(|(start, char)| start + char.len_utf8());
        let text =
            &text[..ends.take_while(|end| *end <= CloseWord::TEXT_MAX.into()).last().unwrap_or(0)];
        for (index, bytes) in text.as_bytes().chunks(WORD_LEN).enumerate() {
            let mut word = [0; WORD_LEN];
            word[..bytes.len()].copy_from_slice(bytes);
            let offset = offset_of!(RingControl, close_text) + index * WORD_LEN;
            ring.control_u64(offset).store(u64::from_le_bytes(word), Release);
        }
        crash_point!("close.after-text");
        let word = CloseWord { code, text_len: text.len() as u8 }.to_word();
        ring.control_u64(offset_of!(RingControl, close)).store(word, Release);
        crash_point!("close.after-reason");
    }

    /// The reason stored there, if there is one. Whatever a peer has written is a reason, or none.
    pub(super) fn load(ring: &RingSpan) -> Option<Self> {
        let word = ring.control_u64(offset_of!(RingControl, close)).load(Acquire);
        let CloseWord { code, text_len } = CloseWord::from_word(word)?;
        let len = usize::from(text_len);
        let mut text = Vec::with_capacity(CloseWord::TEXT_MAX.into());
        for offset in (0..len).step_by(WORD_LEN) {
            let word = ring.control_u64(offset_of!(RingControl, close_text) + offset).load(Acquire);
            text.extend(word.to_le_bytes());
        }
        text.truncate(len);
        Some(Self { code, text: String::from_utf8_lossy(&text).into_owned() })
    }
}
