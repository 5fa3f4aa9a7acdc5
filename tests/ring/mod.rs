//! Tests of the ring algorithms over memories that are not mapped.

mod calls;
mod carrying;
mod counting;
mod exhaustive;
mod heap;
mod hostile;
mod processes;
mod property;
mod recording;
mod replay;
mod steps;
mod wake_steps;

use tombolo_abi::RecordRules;

use super::{Memory, Refusal, Ring, Sent, Window};

/// A ring of `capacity` bytes over `memory`.
fn ring<M>(memory: M, capacity: u64, align_shift: u8, max_message: u32) -> Ring<M> {
    let align = 1 << align_shift;
    let rules = RecordRules { capacity, align, max_message, max_handles: 0, key: 0x5eed };
    Ring { memory, rules }
}

/// The step of sending as an endpoint does it: by the fast path, and if that gives none, by the slow one.
fn send_step<M: Memory>(
    payload: &[u8],
) -> impl FnOnce(&mut Window, &Ring<M>) -> Result<Sent, Refusal> {
    move |window, ring| match window.send_fast(ring, payload) {
        Some(sent) => Ok(sent),
        None => window.send(ring, payload),
    }
}
