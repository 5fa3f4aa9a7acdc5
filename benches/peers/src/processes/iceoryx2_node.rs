//! How processes take part in iceoryx2, and what that leaves behind.
//!
//! Its bookkeeping lies in the directory that the harness removes. Its shared memory is in /dev/shm,
//! under a prefix that is the run's own: what the processes of a run left there is removed by name at
//! its end, or before the next run if it was killed.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::{fs, path};

use ::iceoryx2::node::Node;
use ::iceoryx2::prelude::*;
use tombolo_benches::system::{Failure, Meeting};

/// What the names in /dev/shm begin with. It is short, since its sockets have such names too, below
/// the directory, and a socket's path has but 107 bytes.
const PREFIX: &str = "tp-";

/// What the run's names begin with. The first part of `unique` tells the harness's process.
fn prefix(meeting: &Meeting) -> String {
    let run = meeting.unique.split('-').next().unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    meeting.unique.hash(&mut hasher);
    format!("{PREFIX}{run}-{:08x}-", hasher.finish() as u32)
}

/// Removes what a run that was killed left in /dev/shm.
pub(super) fn remove_memory_of_the_dead() {
    remove_memory(|name| {
        let run = name.strip_prefix(PREFIX)?.split('-').next()?;
        let process: u32 = run.strip_prefix('b')?.parse().ok()?;
        (!path::Path::new(&format!("/proc/{process}")).exists()).then_some(())
    });
}

/// Removes what this run left in /dev/shm.
pub(super) fn remove_memory_of(meeting: &Meeting) {
    let prefix = prefix(meeting);
    remove_memory(|name| name.starts_with(&prefix).then_some(()));
}

/// Removes the shared memory whose name is picked.
fn remove_memory(pick: impl Fn(&str) -> Option<()>) {
    for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
        if entry.file_name().to_str().and_then(&pick).is_some() {
            let _ = fs::remove_file(entry.path()); // another run may be faster
        }
    }
}

pub(super) fn node(meeting: &Meeting) -> Result<Node<ipc::Service>, Failure> {
    set_log_level(LogLevel::Error);
    let mut config = Config::default();
    config.global.prefix = FileName::new(prefix(meeting).as_bytes())?;
    config.global.set_root_path(&Path::new(meeting.directory.as_os_str().as_encoded_bytes())?);
    let builder = NodeBuilder::new().signal_handling_mode(SignalHandlingMode::Disabled);
    Ok(builder.config(&config).create()?)
}

pub(super) fn service_name(meeting: &Meeting) -> Result<ServiceName, Failure> {
    Ok(meeting.unique.try_into()?)
}
