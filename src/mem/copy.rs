//! Copies between private bytes and words that somebody else may be writing.
//!
//! A racing peer makes the result of a copy arbitrary bytes, never undefined behaviour: a few words
//! go through relaxed atomics, more by machine instructions that the compiler cannot see into. Either
//! way each byte is copied once, and whoever reads it judges the copy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// From how many bytes on the copy instruction is faster than single words. Measured: it costs a
/// fixed 10 to 15 ns to get going.
#[cfg(target_arch = "x86_64")]
const STRING_COPY_MIN: usize = 512;

/// Writes `bytes` to `words`, which begin where the bytes shall, and zeros to the end of the last
/// word.
///
/// # Panics
/// Where `words` are fewer than `bytes` take.
#[inline(always)]
pub(crate) fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let (body, rest) = bytes.as_chunks::<8>();
    assert!(words.len() >= body.len() + usize::from(!rest.is_empty()), "{TOO_FEW}");
    write_whole(&words[..body.len()], body);
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        words[body.len()].store(u64::from_le_bytes(word), Relaxed);
    }
}

/// Reads the first bytes of `words` into `bytes`.
///
/// # Panics
/// Where `words` hold fewer than `bytes` asks for.
#[inline(always)]
pub(crate) fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    let (body, rest) = bytes.as_chunks_mut::<8>();
    assert!(words.len() >= body.len() + usize::from(!rest.is_empty()), "{TOO_FEW}");
    read_whole(&words[..body.len()], body);
    if !rest.is_empty() {
        let last = words[body.len()].load(Relaxed).to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

const TOO_FEW: &str = "fewer words than bytes to copy";

/// Writes `bytes` from byte `offset` of `words` on and leaves every other byte as it is. For a range
/// that nobody else writes: what shares a word with its ends is loaded and stored again.
///
/// # Panics
/// Where `words` end before the bytes do.
pub(crate) fn merge_in(words: &[AtomicU64], offset: usize, bytes: &[u8]) {
    let (words, skip) = (&words[offset / 8..], offset % 8);
    let (first, rest) = bytes.split_at(bytes.len().min((8 - skip) % 8));
    splice(words, skip, first);
    let words = &words[usize::from(skip > 0)..];
    let (body, last) = rest.split_at(rest.len() / 8 * 8);
    copy_in(words, body);
    splice(&words[body.len() / 8..], 0, last);
}

fn splice(words: &[AtomicU64], skip: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let mut word = words[0].load(Relaxed).to_le_bytes();
    word[skip..skip + bytes.len()].copy_from_slice(bytes);
    words[0].store(u64::from_le_bytes(word), Relaxed);
}

/// Reads from byte `offset` of `words` on.
///
/// # Panics
/// Where `words` end before the bytes do.
pub(crate) fn copy_out_at(words: &[AtomicU64], offset: usize, bytes: &mut [u8]) {
    let (words, skip) = (&words[offset / 8..], offset % 8);
    let (first, rest) = bytes.split_at_mut(bytes.len().min((8 - skip) % 8));
    if !first.is_empty() {
        first.copy_from_slice(&words[0].load(Relaxed).to_le_bytes()[skip..skip + first.len()]);
    }
    copy_out(&words[usize::from(skip > 0)..], rest);
}

/// Stores zeros to `words`.
#[inline]
pub(crate) fn zero(words: &[AtomicU64]) {
    let rest = zero_blocks(words);
    rest.iter().for_each(|word| word.store(0, Relaxed));
}

#[inline(always)]
fn write_whole(words: &[AtomicU64], bytes: &[[u8; 8]]) {
    debug_assert_eq!(words.len(), bytes.len());
    let (to, from) = (words.as_ptr() as *mut u8, bytes.as_ptr().cast());
    // SAFETY: `words` and `bytes` have the same length in bytes, as the caller made them; one is a
    // mapping or a slice of atomics, the other private, so they don't overlap.
    let copied = unsafe { copy_long(to, from, words.len()) };
    for (word, chunk) in words[copied..].iter().zip(&bytes[copied..]) {
        word.store(u64::from_le_bytes(*chunk), Relaxed);
    }
}

#[inline(always)]
fn read_whole(words: &[AtomicU64], bytes: &mut [[u8; 8]]) {
    debug_assert_eq!(words.len(), bytes.len());
    let (to, from) = (bytes.as_mut_ptr().cast(), words.as_ptr().cast());
    // SAFETY: as in `write_whole`, with the roles of the two exchanged.
    let copied = unsafe { copy_long(to, from, words.len()) };
    for (word, chunk) in words[copied..].iter().zip(&mut bytes[copied..]) {
        *chunk = word.load(Relaxed).to_le_bytes();
    }
}

/// Copies as many of `count` words as wide instructions take, and gives how many: at most `count`.
///
/// # Safety
/// As [`string_copy`], for so many words.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_long(to: *mut u8, from: *const u8, count: usize) -> usize {
    let len = count * 8;
    if len >= STRING_COPY_MIN {
        // SAFETY: what the caller vouches for.
        unsafe { string_copy(to, from, len) };
        return count;
    }
    let blocks = count / BLOCK_WORDS * BLOCK_WORDS;
    if blocks > 0 {
        // SAFETY: what the caller vouches for, of the first words.
        unsafe { copy_blocks(to, from, blocks * 8) };
    }
    blocks
}

#[cfg(not(target_arch = "x86_64"))]
unsafe fn copy_long(_: *mut u8, _: *const u8, _: usize) -> usize {
    0
}

/// Words that are copied or zeroed by one round of wide instructions.
#[cfg(target_arch = "x86_64")]
const BLOCK_WORDS: usize = 8;

/// Copies `len` bytes, a multiple of a block and not 0, by instructions that move 16 bytes each.
///
/// # Safety
/// As [`string_copy`].
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn copy_blocks(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY:
    // - the loop reads and writes exactly the ranges that the caller vouches for, as `len` is a
    //   multiple of 64 and not 0;
    // - no alignment is asked for, and nobody depends on what others see of it meanwhile: payload is
    //   looked at behind the header that is stored after it;
    // - all registers changed are declared; there is no stack.
    unsafe {
        std::arch::asm!(
            "2:",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            "movups [{to}], {a}",
            "movups [{to} + 16], {b}",
            "movups [{to} + 32], {c}",
            "movups [{to} + 48], {d}",
            "add {from}, 64",
            "add {to}, 64",
            "sub {len}, 64",
            "jnz 2b",
            from = inout(reg) from => _,
            to = inout(reg) to => _,
            len = inout(reg) len => _,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack)
        );
    }
}

/// Zeroes as many words as make whole blocks, and gives the others.
#[cfg(target_arch = "x86_64")]
#[inline]
fn zero_blocks(words: &[AtomicU64]) -> &[AtomicU64] {
    let (blocks, rest) = words.split_at(words.len() / BLOCK_WORDS * BLOCK_WORDS);
    for block in blocks.chunks_exact(BLOCK_WORDS) {
        // SAFETY:
        // - the instructions write exactly the 64 bytes of `block`, which are words that others may
        //   write at the same time and that are accessed by nobody of this program but atomically;
        // - no alignment is asked for, and nobody depends on what others see of it meanwhile, as in
        //   `copy_blocks`;
        // - the one register changed is declared; there is no stack, and no flag is changed.
        unsafe {
            std::arch::asm!(
                "xorps {zero}, {zero}",
                "movups [{to}], {zero}",
                "movups [{to} + 16], {zero}",
                "movups [{to} + 32], {zero}",
                "movups [{to} + 48], {zero}",
                to = in(reg) block.as_ptr(),
                zero = out(xmm_reg) _,
                options(nostack, preserves_flags)
            );
        }
    }
    rest
}

#[cfg(not(target_arch = "x86_64"))]
fn zero_blocks(words: &[AtomicU64]) -> &[AtomicU64] {
    words
}

/// Copies `len` bytes with the processor's own instruction for it.
///
/// # Safety
/// `to` is valid for writes and `from` for reads of `len` bytes, they don't overlap, and whichever
/// of them is shared is accessed by others through atomics or from outside this program.
#[cfg(target_arch = "x86_64")]
#[inline]
unsafe fn string_copy(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY:
    // - the instruction reads and writes exactly the ranges that the caller vouches for;
    // - the direction flag is clear at function boundaries by the ABI, and so within this block;
    // - it changes rcx, rsi and rdi, all declared, no flags and no stack.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rdi") to => _,
            inout("rsi") from => _,
            options(nostack, preserves_flags)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_comes_back_whole_with_zeros_behind_it_and_nothing_else_touched() {
        let mut lengths = 0;
        for len in (0..200usize).chain(500..530).chain([4095, 4096, 65536]) {
            let bytes: Vec<u8> = (0..len).map(|i| (i * 7 + 1) as u8 | 1).collect();
            let words: Vec<_> =
                (0..len.div_ceil(8) + 1).map(|_| AtomicU64::new(u64::MAX)).collect();
            copy_in(&words, &bytes);
            let mut back = vec![0xee; len];
            copy_out(&words, &mut back);
            assert_eq!(back, bytes, "length {len}");
            if len % 8 != 0 {
                let last = words[len / 8].load(Relaxed).to_le_bytes();
                assert!(last[len % 8..].iter().all(|byte| *byte == 0));
            }
            assert_eq!(words[len.div_ceil(8)].load(Relaxed), u64::MAX);
            lengths += 1;
        }
        println!("{lengths} lengths");
    }

    #[test]
    fn any_number_of_words_is_zeroed_and_no_other() {
        for len in 0..40 {
            let words: Vec<_> = (0..42).map(|_| AtomicU64::new(u64::MAX)).collect();
            zero(&words[1..1 + len]);
            let zeros: Vec<_> = words.iter().map(|word| word.load(Relaxed) == 0).collect();
            let wanted: Vec<_> = (0..42).map(|index| (1..1 + len).contains(&index)).collect();
            assert_eq!(zeros, wanted);
        }
    }

    #[test]
    fn a_merge_changes_its_bytes_only_and_reads_back_from_any_offset() {
        let mut ranges = 0;
        for (offset, len) in
            (0..20usize).flat_map(|offset| (0..40usize).map(move |len| (offset, len)))
        {
            let words: Vec<_> = (0..8).map(|_| AtomicU64::new(u64::MAX)).collect();
            let bytes: Vec<u8> = (0..len as u8).collect();
            merge_in(&words, offset, &bytes);
            let mut all = [0; 64];
            copy_out(&words, &mut all);
            assert_eq!(&all[offset..offset + len], bytes);
            let outside = all[..offset].iter().chain(&all[offset + len..]);
            assert!(outside.copied().all(|byte| byte == 0xff), "{offset} {len}");
            let mut back = vec![0; len];
            copy_out_at(&words, offset, &mut back);
            assert_eq!(back, bytes);
            ranges += 1;
        }
        println!("{ranges} ranges");
    }
}
