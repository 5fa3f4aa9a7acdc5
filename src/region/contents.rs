//! What a creator writes.

use std::ffi::OsStr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tombolo_abi::{HEADER_PAGE_LEN, RegionState, SharedLayout};

use super::description::Description;
use super::options::OpenOptions;
use super::plan::Plan;
use super::{name, refusal};
use crate::error::Error;
use crate::os::file::{reserve, write_at};
use crate::os::file_system;
use crate::os::process::ProcessId;
use crate::os::random;

/// The contents of one new region, ready to be written.
#[derive(Debug)]
pub(crate) struct NewContents {
    plan: Plan,
}

impl NewContents {
    /// A region as the options say, different from all others. `file_name` gives its name for people, `boot_id` the
    /// boot that it belongs to, `path` stands in errors. The process's limit on file size is checked here, before
    /// anything is written, because exceeding it kills by SIGXFSZ.
    pub(crate) fn new(
        options: &OpenOptions,
        generation: u64,
        file_name: &OsStr,
        boot_id: [u8; 16],
        path: &Path,
    ) -> Result<Self, Error> {
        let mut plan = options.plan();
        let random: [u8; 32] =
            random::bytes().map_err(|error| refusal::io("draw an id for", path, error))?;
        let (uuid, key) = random.split_at(16);
        let process = ProcessId::current();
        let header = &mut plan.header;
        header.region_uuid.copy_from_slice(uuid);
        header.key = key.first_chunk().map_or(0, |key| u64::from_ne_bytes(*key));
        header.boot_id = boot_id;
        header.generation = generation;
        header.creator_pid = process.pid;
        header.creator_start_ticks = process.start_ticks;
        header.pid_namespace = process.pid_namespace;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        header.created_unix_ns = since_1970.map_or(0, |age| age.as_nanos() as u64);
        let name = name::of_file(file_name);
        let len = name.len().min(header.name.len());
        header.name[..len].copy_from_slice(&name[..len]);
        options.check_total_len(plan.total_len())?;
        check_file_size_limit(plan.total_len())?;
        Ok(Self { plan })
    }

    /// Gives the file space from its end `from` on.
    pub(crate) fn reserve(
        &self,
        file: BorrowedFd<'_>,
        path: &Path,
        from: u64,
    ) -> Result<(), Error> {
        let wanted_len = self.plan.total_len();
        reserve(file, from, wanted_len).map_err(|error| refusal::no_room(path, wanted_len, error))
    }

    /// Makes the file as long as the region, without space for it.
    pub(crate) fn claim(&self, file: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        rustix::fs::ftruncate(file, self.plan.total_len())
            .map_err(|error| refusal::io("set the length of", path, error))
    }

    /// Writes everything that is not zero, the header page with `state` last. From then on these are
    /// the contents of that file and of no other.
    pub(crate) fn write(
        &mut self,
        file: BorrowedFd<'_>,
        path: &Path,
        state: RegionState,
    ) -> Result<(), Error> {
        let wanted_len = self.plan.total_len();
        let write = |bytes: &[u8], offset| {
            write_at(file, bytes, offset).map_err(|error| match error {
                Errno::NOSPC | Errno::DQUOT => refusal::no_room(path, wanted_len, error),
                _ => refusal::io("write", path, error),
            })
        };
        let inode = file_system::lasting_inode(file);
        self.plan.header.file_inode = inode.map_err(|error| refusal::io("stat", path, error))?;
        self.plan.seal();
        write(self.plan.directory(), self.plan.header.directory_offset)?;
        let mut page: SharedLayout = bytemuck::Zeroable::zeroed();
        page.header = self.plan.header;
        page.header.state = state as u32;
        write(bytemuck::bytes_of(&page), 0)
    }

    /// What a reader of the region will find. After [`Self::write`].
    pub(crate) fn into_description(self) -> Description {
        let Plan { header, entries } = self.plan;
        Description { header, entries }
    }

    /// Marks a file as a region that is being made: its first page, with nothing but magic number,
    /// byte order, version and state.
    pub(crate) fn write_claim(&self, file: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let mut page: SharedLayout = bytemuck::Zeroable::zeroed();
        let header = self.plan.header;
        page.header.magic = header.magic;
        page.header.endian = header.endian;
        page.header.major = header.major;
        page.header.minor = header.minor;
        page.header.state = RegionState::Initializing as u32;
        write_at(file, bytemuck::bytes_of(&page), 0)
            .map_err(|error| refusal::no_room(path, HEADER_PAGE_LEN, error))
    }
}

fn check_file_size_limit(wanted_len: u64) -> Result<(), Error> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if limit < wanted_len => Err(Error::FileSizeLimit { wanted_len, limit }),
        _ => Ok(()),
    }
}

/// Gives the file the mode asked for, whatever the umask made of it.
pub(crate) fn set_mode(
    file: BorrowedFd<'_>,
    path: &Path,
    options: &OpenOptions,
) -> Result<(), Error> {
    rustix::fs::fchmod(file, Mode::from_raw_mode(options.new_mode()))
        .map_err(|error| refusal::io("set the mode of", path, error))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::process::{Rlimit, setrlimit};
    use tombolo_abi::{ENDIAN_TAG, Header, MAGIC, MAJOR, MINOR};

    use super::*;
    use crate::EventsRegion;
    use crate::os::boot;
    use crate::os::file::read_at;
    use crate::os::staged::{self, Call};

    fn header(file: BorrowedFd<'_>) -> Header {
        let mut bytes = [0; size_of::<Header>()];
        read_at(file, &mut bytes, 0).unwrap();
        bytemuck::pod_read_unaligned(&bytes)
    }

    #[test]
    fn a_region_says_what_when_and_by_which_boot_it_was_made_and_is_unlike_all_others() {
        let unix_ns = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = unix_ns();
        let regions = [(); 2].map(|()| EventsRegion::anonymous(OpenOptions::new()).unwrap());
        let [one, other] = regions.each_ref().map(|region| *region.shared().header());
        assert!((before..=unix_ns()).contains(&one.created_unix_ns));
        assert_eq!(one.boot_id, boot::boot_id());
        assert!(one.name.starts_with(b"anonymous"));
        assert_ne!((one.region_uuid, one.key), (other.region_uuid, other.key));
        assert!(one.region_uuid != other.region_uuid && one.key != other.key);
    }

    #[test]
    fn a_region_that_is_being_made_says_of_which_version_it_will_be() {
        let file = rustix::fs::memfd_create(c"m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let (name, path) = (OsStr::new("name"), Path::new("name"));
        let contents = NewContents::new(&OpenOptions::new(), 1, name, [7; 16], path).unwrap();
        contents.write_claim(file.as_fd(), path).unwrap();
        let found = header(file.as_fd());
        let initializing = RegionState::Initializing as u32;
        assert_eq!((found.magic, found.endian), (MAGIC, ENDIAN_TAG));
        assert_eq!((found.major, found.minor, found.state), (MAJOR, MINOR, initializing));
        assert_eq!(found.total_len, 0);
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size as u64, HEADER_PAGE_LEN);
    }

    #[test]
    fn a_file_system_that_is_full_only_when_it_is_written_to_says_so() {
        let file = rustix::fs::memfd_create(c"m", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let (name, path) = (OsStr::new("name"), Path::new("name"));
        for (errno, is_full) in
            [(Errno::NOSPC, true), (Errno::DQUOT, true), (Errno::IO, false), (Errno::FBIG, false)]
        {
            let mut contents =
                NewContents::new(&OpenOptions::new(), 1, name, [7; 16], path).unwrap();
            let call = Call::any(libc::SYS_pwrite64);
            let written = staged::refusing(call, errno, || {
                contents.write(file.as_fd(), path, RegionState::Ready)
            });
            let Some(written) = written else { return eprintln!("skipped: no filters") };
            let is_so = match written.unwrap_err() {
                Error::NoSpace { wanted_len, .. } => {
                    is_full && wanted_len == contents.plan.total_len()
                }
                error => !is_full && matches!(error, Error::Io { action: "write", .. }),
            };
            assert!(is_so, "{errno}");
        }
    }

    #[test]
    fn a_region_may_be_as_long_as_the_limit_and_no_longer() {
        assert!(staged::in_child(|| {
            let limit = Some(1 << 20);
            setrlimit(Resource::Fsize, Rlimit { current: limit, maximum: limit }).unwrap();
            let is_refused = |len| {
                let refused = check_file_size_limit(len);
                matches!(refused, Err(Error::FileSizeLimit { limit: 0x10_0000, .. }))
            };
            !is_refused((1 << 20) - 1) && !is_refused(1 << 20) && is_refused((1 << 20) + 1)
        }));
    }
}
