//! Messages of one size, for crates whose rings hold values of a type.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use tombolo_benches::system::Meeting;

/// A message of a size that the type says.
pub(crate) trait Item: Copy + Send + Sync + 'static {
    /// Its bytes.
    const SIZE: usize;

    /// One of zeros.
    fn zeros() -> Self;

    /// What is in it.
    fn bytes(&self) -> &[u8];

    /// The same, to be written.
    fn bytes_mut(&mut self) -> &mut [u8];

    /// A copy of these bytes, which must be `SIZE`.
    fn copy_of(payload: &[u8]) -> Self;

    /// Writes it where it is to lie, without a copy on the way.
    #[inline]
    fn write_to(slot: &mut MaybeUninit<Self>, payload: &[u8]) {
        assert_eq!(payload.len(), Self::SIZE);
        // SAFETY: an item is `SIZE` bytes of which any value will do, and the payload has as many.
        unsafe {
            slot.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(payload.as_ptr(), Self::SIZE)
        };
    }

    /// Writes its first eight bytes where it is to lie.
    #[inline]
    fn number(slot: &mut MaybeUninit<Self>, number: u64) {
        // SAFETY: an item has eight bytes at least, and is aligned for them.
        unsafe { slot.as_mut_ptr().cast::<u64>().write(number) };
    }
}

/// Eight bytes, aligned to as much.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Word([u8; 8]);

/// Whole cache lines, `N` bytes in all, so that none of them is shared by two messages.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Lines<const N: usize>([u8; N]);

impl Item for Word {
    const SIZE: usize = 8;

    fn zeros() -> Self {
        Self([0; 8])
    }

    #[inline]
    fn copy_of(payload: &[u8]) -> Self {
        Self(payload.try_into().expect("the payload has the item's size"))
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl<const N: usize> Item for Lines<N> {
    const SIZE: usize = N;

    fn zeros() -> Self {
        const { assert!(N.is_multiple_of(64)) }
        Self([0; N])
    }

    #[inline]
    fn copy_of(payload: &[u8]) -> Self {
        Self(payload.try_into().expect("the payload has the item's size"))
    }

    #[inline]
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Which items a system holds, without holding any.
pub(crate) type Of<I> = PhantomData<fn() -> I>;

/// How many messages fill the capacity that the ring should have. A power of two for sizes that are.
pub(crate) fn count_in(meeting: &Meeting) -> usize {
    (meeting.capacity / meeting.size).max(2)
}

/// Adds a system for each size of item up to a page. What holds values by the type cannot do others,
/// and nobody hands on larger ones by value.
macro_rules! add_each_size {
    ($registry:expr, $kind:ident, $system:ident) => {
        $registry
            .$kind::<$system<$crate::item::Word>>()
            .$kind::<$system<$crate::item::Lines<64>>>()
            .$kind::<$system<$crate::item::Lines<256>>>()
            .$kind::<$system<$crate::item::Lines<1024>>>()
            .$kind::<$system<$crate::item::Lines<4096>>>()
    };
}
pub(crate) use add_each_size;
