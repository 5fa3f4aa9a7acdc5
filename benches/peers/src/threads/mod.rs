//! Peers between threads of one process.

mod channel;
mod disruptor;
mod kanal;
mod queue;
mod rtrb;
mod rtrb_chunks;

use tombolo_benches::Registry;

/// Adds them all.
pub(crate) fn register(registry: Registry) -> Registry {
    let registry = rtrb::register(registry);
    let registry = rtrb_chunks::register(registry);
    let registry = disruptor::register(registry);
    let registry = queue::register(registry);
    let registry = channel::register(registry);
    kanal::register(registry)
}
