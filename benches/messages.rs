//! The benchmark of this crate: its rings, what the machine asks for, and pipes and sockets.

use std::process::ExitCode;

use tombolo_benches::Registry;

fn main() -> ExitCode {
    tombolo_benches::main(Registry::new())
}
