//! Peers between processes.

#[cfg(feature = "aeron")]
mod aeron;
mod iceoryx2;
mod iceoryx2_calls;
mod iceoryx2_node;
mod ipc_channel;
mod shaq;
mod shaq_lanes;
mod shmem_ipc;
mod shmipc;
mod tarpc;

use tombolo_benches::Registry;

/// Adds them all.
pub(crate) fn register(registry: Registry) -> Registry {
    let registry = iceoryx2::register(registry);
    #[cfg(feature = "aeron")]
    let registry = aeron::register(registry);
    let registry = shmem_ipc::register(registry);
    let registry = shaq::register(registry);
    let registry = shaq_lanes::register(registry);
    let registry = ipc_channel::register(registry);
    let registry = iceoryx2_calls::register(registry);
    let registry = shmipc::register(registry);
    tarpc::register(registry)
}
