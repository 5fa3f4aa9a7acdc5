//! The numbers of the v1 layout.

/// The first eight bytes of a region. As in PNG, the high bit and the line ends betray a copy that
/// went through a text mode.
pub const MAGIC: [u8; 8] = *b"\x89TMBLO\r\n";
/// The endian tag as a little-endian machine reads it.
pub const ENDIAN_TAG: u32 = 0x0A0B_0C0D;
/// The major version. A reader opens no other.
pub const MAJOR: u16 = 1;
/// The minor version. A newer minor version only adds what an older reader may ignore.
pub const MINOR: u16 = 6;

/// Bytes of the header page, and the alignment that a mapping's base must have.
pub const HEADER_PAGE_LEN: u64 = 4096;
/// Bytes at the start of the file that [`crate::Header`] describes.
pub const HEADER_LEN: usize = 512;
/// The shortest `header_len` that holds all of v1's words.
pub const HEADER_LEN_MIN: u32 = 0x300;
/// Bytes of a slot.
pub const SLOT_LEN: u32 = 256;
/// Bytes of a directory entry.
pub const ENTRY_LEN: u32 = 64;
/// Bytes of a ring's control block.
pub const CONTROL_LEN: u32 = 1024;
/// Bytes that two writers keep between them: a cache line and its prefetched neighbour.
pub const ISOLATION_LEN: u32 = 128;
/// Bytes of a cache line.
pub const LINE_LEN: u64 = 64;
/// The smallest page, and what every page size is a multiple of.
pub const PAGE_LEN_MIN: u32 = 4096;
/// What data areas are aligned to if the region requires huge pages.
pub const HUGE_PAGE_LEN: u32 = 1 << 21;

/// The most rings of one region.
pub const RING_COUNT_MAX: u32 = 1024;
/// The most slots of one region.
pub const SLOT_COUNT_MAX: u32 = 8192;
/// The smallest data area of a ring, in bytes.
pub const CAPACITY_MIN: u64 = 1 << 12;
/// The largest data area of a ring, in bytes.
pub const CAPACITY_MAX: u64 = 1 << 40;
/// The largest region, in bytes.
pub const TOTAL_LEN_MAX: u64 = 1 << 46;
/// The longest payload, in bytes. A record header states up to 2^28 - 1, but the padding in front
/// of the longest record, extension included, must fit its header too.
pub const MESSAGE_LEN_MAX: u32 = (1 << 28) - 8;
/// The most handles of one message.
pub const HANDLE_COUNT_MAX: u16 = 64;
/// The smallest record alignment, as a power of two.
pub const ALIGN_SHIFT_MIN: u8 = 3;
/// The largest record alignment, as a power of two.
pub const ALIGN_SHIFT_MAX: u8 = 12;
/// The most lanes of one group: the bits of the eight summary words.
pub const LANE_COUNT_MAX: u16 = 512;

/// Bytes of a record's header word.
pub const RECORD_HEADER_LEN: u64 = 8;
/// Bytes of the extension that follows the header word if the EXT bit is set.
pub const RECORD_EXT_LEN: u64 = 8;

/// Offset of the file's first lock byte. It lies beyond every region, so that locks and data never
/// meet.
pub const LOCK_BASE: u64 = 0x4000_0000_0000_0000;
/// Lock byte of processes that initialise or replace a region (exclusive) or attach to it (shared).
pub const LOCK_INIT: u64 = LOCK_BASE;
/// Lock byte of the process that replaces a region.
pub const LOCK_RECOVERY: u64 = LOCK_BASE + 1;
/// Lock byte of slot 0; slot `n` has the byte at `LOCK_SLOTS + n`.
pub const LOCK_SLOTS: u64 = LOCK_BASE + 64;
