//! Copies between private bytes and words that another process may be writing.
//!
//! A racing peer makes the result of a copy arbitrary bytes, never undefined behaviour: single words
//! go through relaxed atomics, more by machine instructions that the compiler cannot see into. The
//! reader validates the copy.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// From how many bytes on the copy instruction is faster than single moves. Measured: it costs a fixed
/// 10 to 15 ns to get going.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
const STRING_COPY_MIN: usize = 512;

/// Writes `bytes` to the start of `words`, and zeros to the end of the last word.
///
/// # Panics
/// If `words` are fewer than `bytes` take.
#[inline(always)]
pub(crate) fn copy_in(words: &[AtomicU64], bytes: &[u8]) {
    let (body, rest) = bytes.as_chunks::<8>();
    assert!(words.len() >= body.len() + usize::from(!rest.is_empty()), "{TOO_FEW}");
    write_whole(&words[..body.len()], body);
    if !rest.is_empty() {
        words[body.len()].store(word_of(rest), Relaxed);
    }
}

/// Reads the first bytes of `words` into `bytes`.
///
/// # Panics
/// If `words` hold fewer than `bytes` asks for.
#[inline(always)]
pub(crate) fn copy_out(words: &[AtomicU64], bytes: &mut [u8]) {
    let (body, rest) = bytes.as_chunks_mut::<8>();
    assert!(words.len() >= body.len() + usize::from(!rest.is_empty()), "{TOO_FEW}");
    read_whole(&words[..body.len()], body);
    if !rest.is_empty() {
        put_word(rest, words[body.len()].load(Relaxed));
    }
}

/// Fewer than eight bytes, and zeros behind them. Pieces of fixed lengths, as a copy of any length is
/// a call.
#[inline(always)]
fn word_of(bytes: &[u8]) -> u64 {
    let (four, rest) = bytes.as_chunks::<4>();
    let (two, one) = rest.as_chunks::<2>();
    let (mut word, mut shift) = (0, 0);
    if let [four, ..] = four {
        (word, shift) = (u32::from_le_bytes(*four).into(), 32);
    }
    if let [two, ..] = two {
        word |= u64::from(u16::from_le_bytes(*two)) << shift;
        shift += 16;
    }
    if let [one, ..] = one {
        word |= u64::from(*one) << shift;
    }
    word
}

/// The first bytes of `word`, as many as fit: fewer than eight.
#[inline(always)]
fn put_word(bytes: &mut [u8], mut word: u64) {
    let (four, rest) = bytes.as_chunks_mut::<4>();
    let (two, one) = rest.as_chunks_mut::<2>();
    if let [four, ..] = four {
        *four = (word as u32).to_le_bytes();
        word >>= 32;
    }
    if let [two, ..] = two {
        *two = (word as u16).to_le_bytes();
        word >>= 16;
    }
    if let [one, ..] = one {
        *one = word as u8;
    }
}

const TOO_FEW: &str = "fewer words than bytes to copy";

/// Writes `bytes` from byte `offset` of `words` on and leaves every other byte as it is. For a range
/// without another writer: what shares a word with its ends is loaded and stored again.
///
/// # Panics
/// If `words` end before the bytes do.
#[inline]
pub(crate) fn merge_in(words: &[AtomicU64], offset: usize, bytes: &[u8]) {
    if offset.is_multiple_of(8) && bytes.len().is_multiple_of(8) {
        return copy_in(&words[offset / 8..], bytes);
    }
    merge_parts_in(words, offset, bytes);
}

/// As [`merge_in`], if words are written in part.
fn merge_parts_in(words: &[AtomicU64], offset: usize, bytes: &[u8]) {
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
/// If `words` end before the bytes do.
#[inline]
pub(crate) fn copy_out_at(words: &[AtomicU64], offset: usize, bytes: &mut [u8]) {
    if offset.is_multiple_of(8) {
        return copy_out(&words[offset / 8..], bytes);
    }
    copy_out_between(words, offset, bytes);
}

/// As [`copy_out_at`], from within a word.
fn copy_out_between(words: &[AtomicU64], offset: usize, bytes: &mut [u8]) {
    let (words, skip) = (&words[offset / 8..], offset % 8);
    let (first, rest) = bytes.split_at_mut(bytes.len().min((8 - skip) % 8));
    if !first.is_empty() {
        first.copy_from_slice(&words[0].load(Relaxed).to_le_bytes()[skip..skip + first.len()]);
    }
    copy_out(&words[usize::from(skip > 0)..], rest);
}

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
fn write_whole(words: &[AtomicU64], bytes: &[[u8; 8]]) {
    for (word, chunk) in words.iter().zip(bytes) {
        word.store(u64::from_le_bytes(*chunk), Relaxed);
    }
}

#[cfg(not(all(target_arch = "x86_64", target_pointer_width = "64")))]
fn read_whole(words: &[AtomicU64], bytes: &mut [[u8; 8]]) {
    for (word, chunk) in words.iter().zip(bytes) {
        *chunk = word.load(Relaxed).to_le_bytes();
    }
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
fn write_whole(words: &[AtomicU64], bytes: &[[u8; 8]]) {
    debug_assert_eq!(words.len(), bytes.len());
    let (to, from) = (words.as_ptr() as *mut u8, bytes.as_ptr().cast());
    // SAFETY: `words` and `bytes` have the same length in bytes, as the caller made them; one is a
    // mapping or a slice of atomics, the other private, so they don't overlap.
    unsafe { move_words(to, from, words.len()) };
}

#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
fn read_whole(words: &[AtomicU64], bytes: &mut [[u8; 8]]) {
    debug_assert_eq!(words.len(), bytes.len());
    let (to, from) = (bytes.as_mut_ptr().cast(), words.as_ptr().cast());
    // SAFETY: as in `write_whole`, with the roles of the two exchanged.
    unsafe { move_words(to, from, words.len()) };
}

/// Copies `count` words. What is no multiple of the moves used is done by moves that overlap: some bytes
/// are copied twice, which changes nothing if they are private; if they are shared, either copy is as
/// good as the other.
///
/// # Safety
/// `to` is valid for writes and `from` for reads of so many words, they don't overlap, and whichever
/// of them is shared is accessed by others through atomics or from outside this program.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn move_words(to: *mut u8, from: *const u8, count: usize) {
    let len = count * 8;
    match count {
        0 => {}
        // SAFETY: what the caller vouches for, of one word.
        1 => unsafe { move_8(to, from) },
        // SAFETY: what the caller vouches for, of as many words as this moves.
        2..=4 => unsafe { move_16_to_32(to, from, len) },
        // SAFETY: as the one before.
        5..=8 => unsafe { move_32_to_64(to, from, len) },
        // SAFETY: as the one before.
        _ if len < STRING_COPY_MIN => unsafe { move_from_64(to, from, len) },
        // SAFETY: what the caller vouches for.
        _ => unsafe { string_copy(to, from, len) },
    }
}

// What holds for all of the following:
// - the instructions read and write exactly the bytes that the caller vouches for;
// - no alignment is asked for, and no code depends on what others see of it meanwhile: payload is read
//   behind the header that is stored after it;
// - all registers changed are declared; there is no stack, and flags are changed only if that is not
//   denied.
//
// Short copies take their first words one by one: a wider load would wait for what the caller has only
// just stored there, a number or a kind.

/// Copies 8 bytes.
///
/// # Safety
/// As [`move_words`].
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn move_8(to: *mut u8, from: *const u8) {
    // SAFETY: see above.
    unsafe {
        std::arch::asm!(
            "mov {bytes}, [{from}]",
            "mov [{to}], {bytes}",
            from = in(reg) from,
            to = in(reg) to,
            bytes = out(reg) _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies 16 to 32 bytes.
///
/// # Safety
/// As [`move_words`].
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn move_16_to_32(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: see above.
    unsafe {
        std::arch::asm!(
            "mov {a}, [{from}]",
            "mov {b}, [{from} + 8]",
            "movups {c}, [{from} + {len} - 16]",
            "mov [{to}], {a}",
            "mov [{to} + 8], {b}",
            "movups [{to} + {len} - 16], {c}",
            from = in(reg) from,
            to = in(reg) to,
            len = in(reg) len,
            a = out(reg) _,
            b = out(reg) _,
            c = out(xmm_reg) _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies 32 to 64 bytes.
///
/// # Safety
/// As [`move_words`].
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn move_32_to_64(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: see above.
    unsafe {
        std::arch::asm!(
            "mov {a}, [{from}]",
            "mov {b}, [{from} + 8]",
            "movups {c}, [{from} + 16]",
            "movups {d}, [{from} + {len} - 32]",
            "movups {e}, [{from} + {len} - 16]",
            "mov [{to}], {a}",
            "mov [{to} + 8], {b}",
            "movups [{to} + 16], {c}",
            "movups [{to} + {len} - 32], {d}",
            "movups [{to} + {len} - 16], {e}",
            from = in(reg) from,
            to = in(reg) to,
            len = in(reg) len,
            a = out(reg) _,
            b = out(reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            e = out(xmm_reg) _,
            options(nostack, preserves_flags)
        );
    }
}

/// Copies 64 bytes or more: blocks of 64 bytes, the last of which ends with the bytes.
///
/// # Safety
/// As [`move_words`].
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
#[inline(always)]
unsafe fn move_from_64(to: *mut u8, from: *const u8, len: usize) {
    // SAFETY: see above; `at` grows by 64, but not beyond `last`, and is `last` in the last round.
    unsafe {
        std::arch::asm!(
            "2:",
            "movups {a}, [{from} + {at}]",
            "movups {b}, [{from} + {at} + 16]",
            "movups {c}, [{from} + {at} + 32]",
            "movups {d}, [{from} + {at} + 48]",
            "movups [{to} + {at}], {a}",
            "movups [{to} + {at} + 16], {b}",
            "movups [{to} + {at} + 32], {c}",
            "movups [{to} + {at} + 48], {d}",
            "cmp {at}, {last}",
            "jae 3f",
            "add {at}, 64",
            "cmp {at}, {last}",
            "cmova {at}, {last}",
            "jmp 2b",
            "3:",
            from = in(reg) from,
            to = in(reg) to,
            at = inout(reg) 0usize => _,
            last = in(reg) len - 64,
            a = out(xmm_reg) _,
            b = out(xmm_reg) _,
            c = out(xmm_reg) _,
            d = out(xmm_reg) _,
            options(nostack)
        );
    }
}

/// Copies `len` bytes with the processor's own instruction for it.
///
/// # Safety
/// As [`move_words`], for so many bytes.
#[cfg(all(target_arch = "x86_64", target_pointer_width = "64"))]
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
