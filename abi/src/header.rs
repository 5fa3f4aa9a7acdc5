//! The header page.

use crate::table::stored;

stored! {
    "The immutable part of the header page: written once by the creator, covered by `crc` (all but \
     `state`), copied to private memory by a joiner and never read again."
    pub struct Header [512] {
        0x000 pub magic: [u8; 8], "`89 'T' 'M' 'B' 'L' 'O' 0D 0A`: a copy that went through a text mode is caught";
        0x008 pub endian: u32, "0x0A0B0C0D as the creator's machine writes it: foreign order is told from garbage";
        0x00C pub major: u16, "layout version; a reader opens only its own";
        0x00E pub minor: u16, "only adds what older readers may ignore";
        0x010 pub header_len: u32, "bytes of the header page, 4096 in v1; readers accept any multiple of 8 from 0x300 and skip what they don't know";
        0x014 pub state: u32, "atomic, futex: 0 EMPTY, 1 INITIALIZING, 2 READY, 3 RETIRED, 4 POISONED; not under the checksum";
        0x018 pub total_len: u64, "bytes of the region; at most the file's length";
        0x020 pub caps_compat: u64, "unknown bits may be ignored";
        0x028 pub caps_read_only: u64, "unknown bit: may be mapped for reading only";
        0x030 pub caps_required: u64, "unknown bit: refuse. Bit 0 EXT, 1 HANDLES, 3 HUGE, 4 LANES";
        0x038 pub region_uuid: [u8; 16], "random; tells that two paths are one region";
        0x048 pub boot_id: [u8; 16], "the creator's boot, as it was shown there: containers may have ids of their own";
        0x058 pub generation: u64, "1 for the first region at a path, one more at each replacement";
        0x060 pub creator_pid: u32, "for people, never for decisions";
        0x064 pub flags: u32, "zero in v1";
        0x068 pub creator_start_ticks: u64, "start time of the creator (field 22 of its stat), to tell a reused pid";
        0x070 pub pid_namespace: u64, "inode of the creator's pid namespace; pids mean nothing outside it";
        0x078 pub created_unix_ns: u64, "wall clock at creation, for people";
        0x080 pub isolation_len: u32, "128: bytes kept between two writers";
        0x084 pub page_len: u32, "the creator's page size: a power of two from 4096, and a multiple of the joiner's";
        0x088 pub ring_count: u32, "entries of the directory, 1 to 1024";
        0x08C pub slot_count: u32, "slots of the slot table, 1 to 8192";
        0x090 pub directory_offset: u64, "where the directory lies";
        0x098 pub entry_len: u32, "64: stride of the directory";
        0x09C pub control_len: u32, "1024: bytes of a control block";
        0x0A0 pub slot_offset: u64, "where the slot table lies";
        0x0A8 pub slot_len: u32, "256: stride of the slot table";
        0x0AC reserved_0ac: u32, "zero";
        0x0B0 pub lock_base: u64, "0x4000000000000000: offset of lock byte 0 (init); 1 is recovery, 64 + n is slot n";
        0x0B8 pub key: u64, "random; mixed into every record's tag";
        0x0C0 pub name: [u8; 64], "the region's name cut to 64 bytes, zero-filled, for people";
        0x100 pub file_inode: u64, "inode number of the region's file; a file with another is a copy. 0: not checked";
        0x108 reserved_108: [u8; 244], "zero";
        0x1FC pub crc: u32, "CRC32C of bytes 0 to 0x14, 0x18 to 0x1FC and the whole directory";
    }
}

stored! {
    "The header page: the immutable header, then the few words that change."
    pub struct SharedLayout [4096] {
        0x000 pub header: Header, "the immutable part";
        0x200 pub membership_seq: u32, "atomic, futex: one more whenever a slot changes hands";
        0x204 reserved_204: [u8; 124], "zero";
        0x280 pub successor_generation: u64, "with state RETIRED: the generation that took the name";
        0x288 pub koid_next: u64, "atomic: counter behind the ids of channel ends, which two processes must agree on";
        0x290 reserved_290: [u8; 3440], "zero";
    }
}

impl Header {
    /// Whether a file with this inode number, 0 if that is not to be relied on, is a copy of the
    /// region's file and not that file itself. A copy does not show which processes have the region open.
    ///
    /// # Examples
    /// ```
    /// use bytemuck::Zeroable;
    /// let mut header = tombolo_abi::Header::zeroed();
    /// header.file_inode = 7;
    /// assert!(header.is_copy_in(8) && !header.is_copy_in(7) && !header.is_copy_in(0));
    /// ```
    #[must_use]
    pub const fn is_copy_in(&self, inode: u64) -> bool {
        self.file_inode != 0 && inode != 0 && self.file_inode != inode
    }
}

/// Values of `Header::state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum RegionState {
    /// Nothing has been written.
    Empty = 0,
    /// A creator is filling the file in place.
    Initializing = 1,
    /// May be joined.
    Ready = 2,
    /// Another region took the name; attached processes go on, no other joins.
    Retired = 3,
    /// Damaged beyond use.
    Poisoned = 4,
}

impl RegionState {
    /// The state stored as `word`.
    #[must_use]
    pub fn from_word(word: u32) -> Option<Self> {
        [Self::Empty, Self::Initializing, Self::Ready, Self::Retired, Self::Poisoned]
            .into_iter()
            .find(|state| *state as u32 == word)
    }
}

/// Bits of the capability words.
pub mod caps {
    /// Required: records may have an extension word.
    pub const EXT: u64 = 1 << 0;
    /// Required: messages may carry handles.
    pub const HANDLES: u64 = 1 << 1;
    /// Required: data areas lie on huge pages.
    pub const HUGE: u64 = 1 << 3;
    /// Required: some rings are lanes.
    pub const LANES: u64 = 1 << 4;
    /// All bits of `caps_required` that v1 defines.
    pub const REQUIRED_KNOWN: u64 = EXT | HANDLES | HUGE | LANES;
    /// All bits of `caps_read_only` that v1 defines.
    pub const READ_ONLY_KNOWN: u64 = 0;
}
