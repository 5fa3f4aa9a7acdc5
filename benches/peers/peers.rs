//! The benchmark of the peers: the same workloads as those of this crate's rings.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "aeron")]
    if let Some(directory) = tombolo_peers::driver::asked_for() {
        return tombolo_peers::driver::run(&directory);
    }
    tombolo_benches::main(&tombolo_peers::registry())
}
