//! Other crates that pass messages, as systems of the benchmark's harness. One file for each; its
//! head says how it is configured and what it leaves behind.

#[cfg(feature = "aeron")]
pub mod driver;
mod item;
mod meet;
mod processes;
mod threads;
mod wait;

use tombolo_benches::Registry;

/// All of them, beside what the machine asks for and the rings of this crate.
pub fn registry() -> Registry {
    threads::register(processes::register(Registry::new().floors().ours_copying()))
}
