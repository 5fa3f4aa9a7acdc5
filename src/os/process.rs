//! This process's identity: what distinguishes it from another with the same number.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::MetadataExt;

use super::fork::Owner;

/// This process as it is written into a region, for people and tools. Zeros if `/proc` is not
/// mounted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessId {
    /// The process id in its own namespace.
    pub(crate) pid: u32,
    /// When it started, in clock ticks since boot (field 22 of its `stat`).
    pub(crate) start_ticks: u64,
    /// The inode of its pid namespace.
    pub(crate) pid_namespace: u64,
}

impl ProcessId {
    /// The calling process. A process keeps all of it as long as it lives, so each thread asks once.
    pub(crate) fn current() -> Self {
        thread_local! {
            /// With the number of the process that asked: a forked child is another.
            static KNOWN: Cell<Option<(u64, ProcessId)>> = const { Cell::new(None) };
        }
        let Ok(owner) = Owner::current() else { return Self::asked() };
        if let Some((of, known)) = KNOWN.get()
            && of == owner.number()
        {
            return known;
        }
        let found = Self::asked();
        if found.start_ticks != 0 {
            KNOWN.set(Some((owner.number(), found))); // else `/proc` may come
        }
        found
    }

    fn asked() -> Self {
        Self {
            pid: std::process::id(),
            start_ticks: start_ticks().unwrap_or(0),
            pid_namespace: pid_namespace(),
        }
    }
}

/// The inode of this process's pid namespace, 0 if `/proc` is not mounted.
fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |found| found.ino())
}

/// `pid` if it means the same process here as in `namespace`, else 0.
pub(crate) fn pid_here(pid: u32, namespace: u64) -> u32 {
    if namespace != 0 && namespace == pid_namespace() { pid } else { 0 }
}

fn start_ticks() -> Option<u64> {
    parse_field(&fs::read_to_string("/proc/self/stat").ok()?, 22)
}

/// How many threads the calling process has; `None` if `/proc` is not mounted.
pub(crate) fn thread_count() -> Option<u64> {
    parse_field(&fs::read_to_string("/proc/self/stat").ok()?, 20)
}

/// A field behind the second, the command's name, which may hold spaces and parentheses: so they are
/// counted from its end.
fn parse_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;
    use rustix::process::{Resource, getrlimit, setrlimit};

    use super::*;
    use crate::os::staged::{self, Call};

    #[test]
    fn a_pid_means_a_process_in_its_own_namespace_alone() {
        let own = pid_namespace();
        assert_eq!((pid_here(7, own), pid_here(7, own + 1), pid_here(7, 0)), (7, 0, 0));
        let without_proc = Call::any(libc::SYS_statx);
        let unknown = staged::refusing(without_proc, Errno::NOENT, || {
            (pid_namespace() == 0).then(|| (pid_here(7, own), pid_here(7, 0)))
        });
        match unknown.flatten() {
            Some(unknown) => assert_eq!(unknown, (0, 0)),
            None => eprintln!("skipped: no filters, or another call"),
        }
    }

    #[test]
    fn a_forked_child_does_not_take_its_parents_identity_for_its_own() {
        let ours = ProcessId::current();
        assert_eq!((ours.pid, ProcessId::current().pid), (std::process::id(), ours.pid));
        assert!(staged::in_child(|| {
            let here = ProcessId::current();
            here.pid == std::process::id() && here.pid != ours.pid && here.start_ticks != 0
        }));
    }

    #[test]
    fn what_could_not_be_read_is_asked_for_again_and_what_was_is_kept() {
        assert!(staged::in_child(|| {
            let limit = getrlimit(Resource::Nofile);
            let without_descriptors = || {
                staged::limit_descriptors(0);
                let found = ProcessId::current().start_ticks;
                setrlimit(Resource::Nofile, limit).unwrap();
                found
            };
            let unknown = without_descriptors();
            let known = ProcessId::current().start_ticks;
            unknown == 0 && known != 0 && without_descriptors() == known
        }));
    }

    #[test]
    fn fields_are_found_behind_any_command_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4 100 0 0 0 1 2 3 4 20 0 5 0 4242 9 9";
        assert_eq!((parse_field(stat, 20), parse_field(stat, 22)), (Some(5), Some(4242)));
        assert_eq!(parse_field("7 (cut", 22), None);
        assert!(thread_count().is_some_and(|count| count > 1), "the test has one of its own");
        assert_ne!(ProcessId::current().start_ticks, 0);
    }
}
