//! The mapped bytes of one ring: its control block and its data area.

use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, fence};

use tombolo_abi::{CONTROL_LEN, ISOLATION_LEN};

use super::Mapping;
use crate::os::fork::Owner;

/// One ring in a mapping.
///
/// Invariants, established by [`RingSpan::new`] and kept because nothing changes the fields:
/// - `control` and `group` point to `CONTROL_LEN` bytes and `area` to `mask + 8` bytes inside `mapping`;
/// - all are aligned to 8 bytes, and don't overlap with anything of another width;
/// - `mask + 8` is a power of two from 8.
#[derive(Clone, Debug)]
pub(crate) struct RingSpan {
    control: NonNull<u8>,
    /// The control block of the group's first lane; the ring's own if it is no lane.
    group: NonNull<u8>,
    area: NonNull<AtomicU64>,
    /// The bits of a position that choose a word of the area.
    mask: u64,
    /// The mapping's, here so that asking takes one load.
    owner: Owner,
    cut: &'static AtomicBool,
    #[expect(dead_code, reason = "keeps what the pointers lead to")]
    mapping: Arc<Mapping>,
}

// SAFETY: the pointers lead into `mapping`, which moves along; what they point to is accessed
// through atomics and copies that tolerate any other writer.
unsafe impl Send for RingSpan {}
// SAFETY: as for `Send`.
unsafe impl Sync for RingSpan {}

impl RingSpan {
    /// The ring with its control block, its group's and its data area at these offsets, or `None` if they
    /// don't lie inside the mapping, are not aligned, or `capacity` is no power of two from 8.
    pub(crate) fn new(
        mapping: Arc<Mapping>,
        (control_offset, group_offset): (u64, u64),
        data_offset: u64,
        capacity: u64,
    ) -> Option<Self> {
        let inside =
            |offset: u64, len| offset.checked_add(len).is_some_and(|end| end <= mapping.len());
        let is_control = |offset: u64| {
            offset.is_multiple_of(ISOLATION_LEN.into()) && inside(offset, CONTROL_LEN.into())
        };
        let is_area = data_offset.is_multiple_of(8) && capacity.is_power_of_two() && capacity >= 8;
        if !is_control(control_offset) || !is_control(group_offset) || !is_area {
            return None;
        }
        if !inside(data_offset, capacity) {
            return None;
        }
        let control = NonNull::new(mapping.base().wrapping_add(control_offset as usize))?;
        let group = NonNull::new(mapping.base().wrapping_add(group_offset as usize))?;
        let area = NonNull::new(mapping.base().wrapping_add(data_offset as usize))?.cast();
        let (owner, cut) = (mapping.owner(), mapping.cut_mark());
        Some(Self { control, group, area, mask: capacity - 8, owner, cut, mapping })
    }

    /// Whether this process made the mapping, and is no forked child of the one that did.
    #[inline]
    pub(crate) fn is_ours(&self) -> bool {
        self.owner.is_here()
    }

    /// Whether the file was cut short and some of the bytes are no longer the region's.
    #[inline]
    pub(crate) fn is_cut(&self) -> bool {
        fence(Acquire); // `cut`: behind the loads that may have seen zeros
        self.cut.load(Relaxed)
    }

    /// The 64-bit word at `offset` bytes of the control block.
    ///
    /// # Panics
    /// If it is not aligned or not inside; offsets are constants, so the check is compiled away.
    #[inline]
    pub(crate) fn control_u64(&self, offset: usize) -> &AtomicU64 {
        let address = word_of(self.control, offset, 8).cast();
        // SAFETY:
        // - valid and aligned: `word_of` checked the offset against the control block, which
        //   lies aligned in the mapping that this value keeps;
        // - no data race: mapped words are touched through atomics of one width a word only.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// The 32-bit word at `offset` bytes of the control block.
    ///
    /// # Panics
    /// As [`Self::control_u64`].
    #[inline]
    pub(crate) fn control_u32(&self, offset: usize) -> &AtomicU32 {
        let address = word_of(self.control, offset, 4).cast();
        // SAFETY: as in `control_u64`, for four bytes.
        unsafe { AtomicU32::from_ptr(address) }
    }

    /// The 64-bit word at `offset` bytes of the control block that holds the group's words.
    ///
    /// # Panics
    /// As [`Self::control_u64`].
    #[inline]
    pub(crate) fn group_u64(&self, offset: usize) -> &AtomicU64 {
        let address = word_of(self.group, offset, 8).cast();
        // SAFETY: as in `control_u64`: `group` is a control block in the same mapping.
        unsafe { AtomicU64::from_ptr(address) }
    }

    /// The 32-bit word there.
    ///
    /// # Panics
    /// As [`Self::control_u64`].
    #[inline]
    pub(crate) fn group_u32(&self, offset: usize) -> &AtomicU32 {
        let address = word_of(self.group, offset, 4).cast();
        // SAFETY: as in `group_u64`, for four bytes.
        unsafe { AtomicU32::from_ptr(address) }
    }

    /// The word of the data area that holds `position`.
    #[inline]
    pub(crate) fn data_word(&self, position: u64) -> &AtomicU64 {
        // SAFETY: the offset is at most `mask`, the start of the last word of the data area, so the
        // result points inside the same mapping.
        let word = unsafe { self.area.byte_add(self.offset(position)) };
        // SAFETY: a word inside the mapping, aligned to 8 bytes as `area` is, alive as long as
        // `self.mapping`, and touched through 64-bit atomics only.
        unsafe { word.as_ref() }
    }

    /// The words of the data area from the one that holds `position` to the end.
    #[inline]
    pub(crate) fn words_from(&self, position: u64) -> &[AtomicU64] {
        let offset = self.offset(position);
        let len = (self.mask as usize - offset) / 8 + 1;
        let first = self.area.as_ptr().wrapping_byte_add(offset);
        // SAFETY:
        // - `area` points to `mask + 8` bytes of aligned words inside the mapping, alive as long as
        //   `self`, of which these are the ones from `offset` on;
        // - atomics may be written by anyone while shared references to them exist;
        // - the length is that of an existing mapping, so it fits an `isize`.
        unsafe { slice::from_raw_parts(first, len) }
    }

    /// The words of the data area that `len` bytes take from `position` on, a multiple of 8.
    ///
    /// # Panics
    /// If they reach beyond the end of the area.
    #[inline(always)]
    pub(crate) fn words(&self, position: u64, len: usize) -> &[AtomicU64] {
        let to_end = self.mask as usize + 8 - self.offset(position);
        assert!(len <= to_end, "a record beyond the end of the area");
        // SAFETY: the bytes up to the end are whole words, so that what `len` bytes take of them is
        // there, too.
        unsafe { self.words_from(position).get_unchecked(..len.div_ceil(8)) }
    }

    /// The address of the word that holds `position`.
    pub(crate) fn data_ptr(&self, position: u64) -> *mut u8 {
        self.area.as_ptr().cast::<u8>().wrapping_add(self.offset(position))
    }

    /// Has the processor get the line that holds `position`, without waiting for it: what is done until it is
    /// looked at takes no longer for that.
    #[inline]
    pub(crate) fn prefetch(&self, position: u64) {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

            let address = self.data_ptr(position).cast_const().cast();
            // SAFETY: a hint about an address inside the mapping; of any other the processor would take no notice.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = position;
    }

    /// As [`Self::prefetch`], to write there: no other processor has the line then.
    #[inline]
    pub(crate) fn prefetch_to_write(&self, position: u64) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint about an address inside the mapping, which changes no byte; processors that don't know it
        // take no notice.
        unsafe {
            std::arch::asm!(
                "prefetchw [{}]",
                in(reg) self.data_ptr(position),
                options(readonly, nostack, preserves_flags)
            );
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = position;
    }

    /// The offset in the data area of the word that holds `position`: at most `mask`.
    #[inline]
    fn offset(&self, position: u64) -> usize {
        (position & self.mask) as usize
    }
}

/// The address of `len` bytes at `offset` of a control block.
#[inline]
fn word_of(control: NonNull<u8>, offset: usize, len: usize) -> *mut u8 {
    assert!(offset.is_multiple_of(len) && offset + len <= CONTROL_LEN as usize);
    control.as_ptr().wrapping_add(offset)
}
