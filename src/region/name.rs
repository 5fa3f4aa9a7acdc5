//! From the name of a region to its place, and the names beside it.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode};
use rustix::io::Errno;
use tombolo_abi::Header;

use super::place::{Place, open_dir};
use super::refusal;
use crate::error::Error;
use crate::os::file::FileId;

const NAME_LEN_MAX: usize = 128;
const SUFFIX: &str = ".tombolo";
/// How the names of sockets end.
pub(crate) const SOCKET_SUFFIX: &str = ".sock";

/// The place of the region `name`: `name.tombolo` in `$TOMBOLO_DIR`, else in
/// `/dev/shm/tombolo-<euid>`, which is made if it is missing.
pub(crate) fn place(name: &str) -> Result<Place, Error> {
    check(name)?;
    let file_name = format!("{name}{SUFFIX}");
    let (dir, dir_path) = match std::env::var_os("TOMBOLO_DIR").filter(|path| !path.is_empty()) {
        Some(path) => (open_dir(Path::new(&path))?, PathBuf::from(path)),
        None => default_dir()?,
    };
    let path = dir_path.join(&file_name);
    Place::in_dir(dir, OsStr::new(&file_name), &path)
}

/// The name of the region in the file `file_name`, for people.
pub(crate) fn of_file(file_name: &OsStr) -> &[u8] {
    let bytes = file_name.as_encoded_bytes();
    bytes.strip_suffix(SUFFIX.as_bytes()).unwrap_or(bytes)
}

/// What the names of all sockets of a region begin with, which lies in `file`.
pub(crate) fn socket_name_start(region: &Header, file: FileId) -> String {
    // Half of the id: an address holds 107 bytes, of which the way to the directory takes up to 32.
    let id = region.region_uuid.first_chunk().map_or(0, |half| u64::from_be_bytes(*half));
    format!(".{id:016x}.{:x}.{:x}.", file.dev, file.ino)
}

/// The name of the socket at which the consumer of ring `ring` listens, or of the lanes of which that is
/// the first; `number` is the one in its slot.
pub(crate) fn socket_name(region: &Header, file: FileId, ring: u32, number: u64) -> String {
    let start = socket_name_start(region, file);
    format!("{start}{ring}.{number:x}{SOCKET_SUFFIX}")
}

fn check(name: &str) -> Result<(), Error> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let reason = match name.as_bytes() {
        [] => "it is empty",
        [b'.', ..] => "it starts with a dot",
        bytes if bytes.len() > NAME_LEN_MAX => "it is longer than 128 bytes",
        bytes if !bytes.iter().copied().all(legal) => "it has another character",
        _ => return Ok(()),
    };
    Err(Error::InvalidName { name: name.chars().take(NAME_LEN_MAX).collect(), reason })
}

/// The default directory. Only this user may be able to write to it: others could put regions of their
/// own there.
fn default_dir() -> Result<(OwnedFd, PathBuf), Error> {
    let euid = rustix::process::geteuid();
    let path = PathBuf::from(format!("/dev/shm/tombolo-{}", euid.as_raw()));
    match rustix::fs::mkdirat(CWD, &path, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(refusal::io("create directory", &path, error)),
    }
    let dir = open_dir(&path)?;
    let stat = rustix::fs::fstat(&dir).map_err(|error| refusal::io("stat", &path, error))?;
    if stat.st_uid != euid.as_raw() || stat.st_mode & 0o022 != 0 {
        let hint = "the directory must be this user's and writable by nobody else; set TOMBOLO_DIR";
        return Err(refusal::permission(&path, &stat, hint));
    }
    Ok((dir, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_of_a_socket_fits_an_address() {
        let mut region: Header = bytemuck::Zeroable::zeroed();
        region.region_uuid = [0xff; 16];
        let mut stat = rustix::fs::stat("/").unwrap();
        stat.st_dev = u32::MAX.into(); // no device number that the kernel gives is longer
        stat.st_ino = u64::MAX;
        let (ring, number) = (tombolo_abi::RING_COUNT_MAX - 1, u64::MAX);
        let name = socket_name(&region, FileId::of(&stat), ring, number);
        let path = format!("/proc/thread-self/fd/{}/{name}", i32::MAX);
        assert!(path.len() <= 107, "{path} has {} bytes", path.len());
    }

    #[test]
    fn the_default_directory_is_this_users_and_no_other_may_write_there() {
        use rustix::fs::{Gid, Uid, chown, mkdir};
        use rustix::thread::{set_thread_res_gid, set_thread_res_uid};

        let user = Uid::from_raw(1_000_000 + std::process::id());
        let path = format!("/dev/shm/tombolo-{}", user.as_raw());
        let opened = |owner: Uid, mode| {
            mkdir(&path, Mode::from_raw_mode(0o700)).unwrap();
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).unwrap();
            let is_given = chown(&path, Some(owner), None).is_ok();
            let opened = std::thread::scope(|scope| {
                let other = scope.spawn(|| {
                    let group = Gid::from_raw(user.as_raw());
                    set_thread_res_gid(group, group, group).ok()?;
                    set_thread_res_uid(user, user, user).ok()?;
                    Some(default_dir().map(drop))
                });
                other.join().unwrap()
            });
            std::fs::remove_dir(&path).unwrap();
            opened.filter(|_| is_given)
        };
        let Some(own) = opened(user, 0o700) else { return eprintln!("skipped: not root") };
        own.unwrap();
        assert!(opened(user, 0o755).unwrap().is_ok());
        for (owner, mode) in [(user, 0o720), (user, 0o702), (Uid::ROOT, 0o755)] {
            let opened = opened(owner, mode).unwrap();
            assert!(matches!(opened, Err(Error::Permission { .. })), "{owner:?} {mode:o}");
        }
    }

    #[test]
    fn names_are_plain_file_names() {
        for name in ["a", "A.b_c-9", &"x".repeat(128)] {
            assert!(check(name).is_ok(), "{name}");
        }
        for name in ["", ".", "..", ".a", "a/b", "a b", "ä", "a\0", &"x".repeat(129)] {
            assert!(matches!(check(name), Err(Error::InvalidName { .. })), "{name}");
        }
    }
}
