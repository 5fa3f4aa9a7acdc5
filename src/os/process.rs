//! Who this process is: what tells it from another with the same number.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// This process as it is written into a region, for people and tools. Zeros where `/proc` is not
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
    /// The calling process.
    pub(crate) fn current() -> Self {
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

/// How many threads the calling process has; `None` where `/proc` is not mounted.
pub(crate) fn thread_count() -> Option<u64> {
    parse_field(&fs::read_to_string("/proc/self/stat").ok()?, 20)
}

/// A field behind the second, the command's name, which may hold spaces and parentheses: so they are
/// counted from its end.
fn parse_field(stat: &str, number: usize) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    after_name.split_ascii_whitespace().nth(number - 3)?.parse().ok()
}

/// The number of this boot, or zeros where `/proc` is not mounted.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    parse_uuid(&text).unwrap_or([0; 16])
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    if digits.len() != 32 {
        return None;
    }
    u128::from_str_radix(&digits, 16).ok().map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_behind_any_command_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4 100 0 0 0 1 2 3 4 20 0 5 0 4242 9 9";
        assert_eq!((parse_field(stat, 20), parse_field(stat, 22)), (Some(5), Some(4242)));
        assert_eq!(parse_field("7 (cut", 22), None);
        assert!(thread_count().is_some_and(|count| count > 1), "the test has one of its own");
        assert_ne!(ProcessId::current().start_ticks, 0);
    }

    #[test]
    fn a_boot_id_is_sixteen_bytes_in_the_order_of_its_text() {
        let id = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f\n").unwrap();
        assert_eq!(id[..4], [0, 1, 2, 3]);
        assert_eq!(parse_uuid("0001"), None);
        assert_ne!(boot_id(), [0; 16]);
    }
}
