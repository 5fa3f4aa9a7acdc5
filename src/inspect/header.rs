//! The header page and the directory of a file that may be anything.

use tombolo_abi::{
    ENTRY_LEN, HEADER_LEN, Header, LayoutError, PAGE_LEN_MIN, RING_COUNT_MAX, RegionState,
    RingEntry, SharedLayout, check_directory, header_crc, parse_entries, parse_header,
};

use super::file::RegionFile;
use super::problem::{Place, Problem, header_offset};

/// Attempts to read a header that seems damaged before that is believed.
const TRIES: usize = 4;

/// What the first bytes of a file are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A region with a valid header and directory.
    Region,
    /// A region with something wrong.
    Damaged(Vec<Problem>),
    /// A region whose creation is not finished, or an empty file.
    NotInitialized,
    /// A region that this build cannot use.
    Unsupported(LayoutError),
    /// Something else.
    NotARegion(LayoutError),
}

/// The header page and the directory as found.
#[derive(Clone, Debug)]
pub(super) struct HeaderImage {
    pub(super) verdict: Verdict,
    /// The header, zero-filled beyond the end of the file. `None` without the magic.
    pub(super) page: Option<SharedLayout>,
    /// Entries that can be decoded, each with its ring's number.
    pub(super) entries: Vec<(u32, RingEntry)>,
    /// Whether the file is a copy of the region's own, by a header with a valid checksum.
    pub(super) is_copy: bool,
}

impl HeaderImage {
    /// Reads until the header is valid, or damaged twice in the same way.
    pub(super) fn read(file: &RegionFile) -> Self {
        let mut image = Self::read_once(file);
        for _ in 1..TRIES {
            if !matches!(image.verdict, Verdict::Damaged(_)) {
                break;
            }
            let again = Self::read_once(file);
            let same = again.verdict == image.verdict;
            image = again;
            if same {
                break;
            }
        }
        image
    }

    fn read_once(file: &RegionFile) -> Self {
        let bytes = file.bytes_at(0, size_of::<SharedLayout>());
        let parsed = parse_header(&bytes);
        if bytes.is_empty() {
            return Self::without_rings(Verdict::NotInitialized, None);
        }
        if let Err(error @ LayoutError::BadMagic { .. }) = parsed {
            return Self::without_rings(Verdict::NotARegion(error), None);
        }
        let mut page: SharedLayout = bytemuck::Zeroable::zeroed(); // what is missing reads as zeros
        bytemuck::bytes_of_mut(&mut page)[..bytes.len()].copy_from_slice(&bytes);
        if let Err(
            error @ (LayoutError::ForeignEndian { .. } | LayoutError::UnsupportedMajor { .. }),
        ) = parsed
        {
            return Self::without_rings(Verdict::Unsupported(error), Some(page));
        }
        let state = RegionState::from_word(page.header.state);
        let is_unfinished = matches!(state, Some(RegionState::Empty | RegionState::Initializing));
        if bytes.len() >= HEADER_LEN && is_unfinished {
            return Self::without_rings(Verdict::NotInitialized, Some(page));
        }
        let header = &page.header;
        // At most 4 MiB, whatever the header says.
        let count = header.ring_count.min(RING_COUNT_MAX) as usize;
        let stride = header.entry_len.clamp(ENTRY_LEN, PAGE_LEN_MIN) as usize;
        let directory = file.bytes_at(header.directory_offset, count * stride);
        let verdict = verdict(parsed, header, &directory, file.len);
        let entries = entries(header, &directory, &verdict);
        let is_intact = header.crc == header_crc(header, &directory);
        let is_copy = is_intact && header.is_copy_in(file.lasting_inode);
        Self { verdict, page: Some(page), entries, is_copy }
    }

    fn without_rings(verdict: Verdict, page: Option<SharedLayout>) -> Self {
        Self { verdict, page, entries: Vec::new(), is_copy: false }
    }
}

fn verdict(
    parsed: Result<Header, LayoutError>,
    header: &Header,
    directory: &[u8],
    file_len: u64,
) -> Verdict {
    let mut problems = Vec::new();
    match parsed.and_then(|header| check_directory(&header, directory, file_len, PAGE_LEN_MIN)) {
        Ok(()) => {}
        Err(error @ LayoutError::UnknownCapability { .. }) => return Verdict::Unsupported(error),
        Err(error) => {
            problems.push(Problem::from_layout(&error, header));
            if let LayoutError::Checksum { .. } = error {
                problems.extend(beyond_checksum(header, directory, file_len));
            }
        }
    }
    if RegionState::from_word(header.state).is_none() {
        let problem = Problem::new(
            "state",
            Place::Header,
            "state",
            header.state,
            "2, 3 or 4 (0 or 1 before)",
        );
        problems.push(problem.at(header_offset("state")));
    }
    if problems.is_empty() { Verdict::Region } else { Verdict::Damaged(problems) }
}

/// What is wrong with a header besides its checksum: often the very field that changed.
fn beyond_checksum(header: &Header, directory: &[u8], file_len: u64) -> Option<Problem> {
    let mut summed = *header;
    summed.crc = header_crc(header, directory);
    let error = check_directory(&summed, directory, file_len, PAGE_LEN_MIN).err()?;
    Some(Problem::from_layout(&error, header))
}

/// Of a damaged directory only the entries of known kinds, which are less likely to be noise.
fn entries(header: &Header, directory: &[u8], verdict: &Verdict) -> Vec<(u32, RingEntry)> {
    let is_usable = *verdict == Verdict::Region;
    (0u32..)
        .zip(parse_entries(header, directory))
        .filter(|(_, entry)| is_usable || entry.ring_kind().is_some())
        .collect()
}
