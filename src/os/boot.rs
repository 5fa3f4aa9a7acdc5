//! Which boot of the machine made a file.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::file_system;

/// How far two readings of the wall clock in one boot may be apart.
const SLACK: Duration = Duration::from_secs(10);

/// What is known of the boot that made a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MadeIn {
    ThisBoot,
    EarlierBoot,
    /// The boot id is another's, but the file is younger than this boot: a container may show an id of its
    /// own, and a clock may have been set.
    Unclear {
        /// Nanoseconds since 1970.
        began_unix_ns: u64,
    },
}

/// Decides from the boot id of then and the time when `file` was made, in nanoseconds since 1970.
///
/// No single witness proves that a boot is over: a file in memory would be lost; another id may be that of
/// a container; and clocks are set.
pub(crate) fn judge(
    file: BorrowedFd<'_>,
    then: [u8; 16],
    created_unix_ns: u64,
) -> Result<MadeIn, Errno> {
    let (now, unknown) = (boot_id(), [0; 16]);
    if now == then || now == unknown || then == unknown {
        return Ok(MadeIn::ThisBoot);
    }
    if file_system::is_memory(file_system::magic(file)?) {
        return Ok(MadeIn::ThisBoot);
    }
    let began_unix_ns = began_unix_ns();
    let is_older = created_unix_ns.saturating_add(SLACK.as_nanos() as u64) < began_unix_ns;
    Ok(if is_older { MadeIn::EarlierBoot } else { MadeIn::Unclear { began_unix_ns } })
}

/// When this boot began; 0 if that is not known.
fn began_unix_ns() -> u64 {
    let shown = clock_gettime(ClockId::Boottime);
    let shown = i128::from(shown.tv_sec) * 1_000_000_000 + i128::from(shown.tv_nsec);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let Some(offset) = boottime_offset_ns() else { return 0 };
    u64::try_from(since_1970.as_nanos() as i128 - (shown - offset)).unwrap_or(0)
}

/// What this process's time namespace adds to the time since the machine's start; `None` if it can't be read.
fn boottime_offset_ns() -> Option<i128> {
    match fs::read_to_string("/proc/self/timens_offsets") {
        Ok(text) => parse_offset(&text),
        Err(error) if error.kind() == ErrorKind::NotFound => Some(0), // a kernel without such namespaces
        Err(_) => None,
    }
}

fn parse_offset(text: &str) -> Option<i128> {
    let line = text.lines().find_map(|line| line.strip_prefix("boottime"))?;
    let mut words = line.split_ascii_whitespace().map(str::parse::<i128>);
    let (seconds, nanoseconds) = (words.next()?.ok()?, words.next()?.ok()?);
    Some(seconds * 1_000_000_000 + nanoseconds)
}

/// The number of this boot, or zeros if `/proc` is not mounted.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    parse_uuid(&text).unwrap_or([0; 16])
}

/// The number of the boot in which this process started, asked once. It is another one's if the process was
/// brought here from another machine: then it must not be written into what lasts longer than the process.
pub(crate) fn boot_id_at_start() -> [u8; 16] {
    thread_local! {
        static KNOWN: Cell<[u8; 16]> = const { Cell::new([0; 16]) };
    }
    if KNOWN.get() == [0; 16] {
        KNOWN.set(boot_id());
    }
    KNOWN.get()
}

/// A boot id as `/proc` shows it.
pub(crate) fn uuid_text(id: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(id));
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| &digits[part]);
    parts.join("-")
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
    use std::os::fd::AsFd;

    use super::*;
    use crate::os::staged::{self, Call};

    #[test]
    fn a_boot_that_was_asked_for_once_is_kept() {
        assert!(staged::in_child(|| {
            let known = boot_id_at_start();
            staged::limit_descriptors(0);
            boot_id() == [0; 16] && known != [0; 16] && boot_id_at_start() == known
        }));
    }

    #[test]
    fn a_boot_id_is_sixteen_bytes_in_the_order_of_its_text() {
        let id = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f\n").unwrap();
        assert_eq!(id[..4], [0, 1, 2, 3]);
        assert_eq!(parse_uuid("0001"), None);
        assert_ne!(boot_id(), [0; 16]);
        assert_eq!([(); 2].map(|()| boot_id_at_start()), [boot_id(); 2]);
        assert_eq!(uuid_text(id), "00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    #[test]
    fn a_time_namespaces_offset_is_seconds_and_nanoseconds() {
        let text = "monotonic           1         2\nboottime          -15 500000000\n";
        assert_eq!(parse_offset(text), Some(-14_500_000_000));
        assert_eq!(parse_offset("boottime"), None);
        assert_eq!(parse_offset(""), None);
        assert!(boottime_offset_ns().is_some());
    }

    #[test]
    fn an_offset_that_cannot_be_read_is_unknown_unless_the_kernel_has_none() {
        for (errno, expected) in [(Errno::NOENT, Some(0)), (Errno::ACCESS, None)] {
            let found = staged::refusing(Call::any(libc::SYS_openat), errno, || {
                fs::read("/proc/self/exe").is_err().then(boottime_offset_ns)
            });
            match found.flatten() {
                Some(found) => assert_eq!(found, expected),
                None => eprintln!("skipped: no filters, or another call"),
            }
        }
    }

    #[test]
    fn without_a_boot_id_every_file_is_taken_for_this_boots() {
        let disk = fs::File::open("/proc/self/exe").unwrap();
        let judged = staged::refusing(Call::any(libc::SYS_openat), Errno::NOENT, || {
            (boot_id() == [0; 16]).then(|| judge(disk.as_fd(), [7; 16], 0))
        });
        match judged.flatten() {
            Some(judged) => assert_eq!(judged, Ok(MadeIn::ThisBoot)),
            None => eprintln!("skipped: no filters, or another call"),
        }
    }

    #[test]
    fn an_earlier_boot_has_another_id_and_was_over_before_this_one_began() {
        let disk = fs::File::open("/proc/self/exe").unwrap();
        let memory = rustix::fs::memfd_create(c"m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let began = began_unix_ns();
        let second = 1_000_000_000;
        let (before, about, after) = (began - 12 * second, began - 8 * second, began + second);
        let of_disk = |id, created| judge(disk.as_fd(), id, created).unwrap();
        for created in [0, before, about, after, u64::MAX] {
            assert_eq!(of_disk(boot_id(), created), MadeIn::ThisBoot);
            assert_eq!(of_disk([0; 16], created), MadeIn::ThisBoot);
            assert_eq!(judge(memory.as_fd(), [7; 16], created), Ok(MadeIn::ThisBoot));
        }
        if file_system::is_memory(file_system::magic(disk.as_fd()).unwrap()) {
            eprintln!("skipped: this program lies in memory");
            return;
        }
        for created in [0, before] {
            assert_eq!(of_disk([7; 16], created), MadeIn::EarlierBoot);
        }
        for created in [about, after, u64::MAX] {
            assert!(matches!(of_disk([7; 16], created), MadeIn::Unclear { .. }));
        }
    }
}
