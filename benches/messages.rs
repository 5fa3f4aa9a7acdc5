//! The benchmark of this crate: its rings, what the machine asks for, and pipes and sockets.

use std::process::ExitCode;

use tombolo_benches::{Counting, Registry};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() -> ExitCode {
    tombolo_benches::main(&Registry::new().floors().ours().kernel().memory())
}
