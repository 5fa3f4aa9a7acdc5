//! Other crates that pass messages, as systems of the benchmark's harness. One file for each; its
//! head says how it is configured and what it leaves behind.

#[cfg(feature = "aeron")]
pub mod driver;
mod item;
mod meet;
mod processes;
mod runtime;
mod threads;
mod wait;

use tombolo_benches::Registry;

/// All of them, beside what the machine asks for, the rings and channels of this crate, and the
/// kernel's sockets in calls.
pub fn registry() -> Registry {
    let registry = Registry::new().floors().ours_copying().kernel_calls();
    threads::register(processes::register(registry))
}
