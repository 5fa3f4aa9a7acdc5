//! No single bit of the immutable part can change unnoticed.

mod common;

use bytemuck::{bytes_of, bytes_of_mut, cast_slice_mut};
use common::{Image, default_region, lanes, with_memory};

const STATE: std::ops::Range<usize> = 0x14..0x18;

#[test]
fn every_bit_of_the_immutable_part_counts() {
    for image in [default_region(), lanes(), with_memory()] {
        let image = image.sealed();
        assert_eq!(image.judge(), Ok(()));
        let header_bits = size_of_val(&image.header) * 8;
        for bit in (0..header_bits).filter(|bit| !STATE.contains(&(bit / 8))) {
            let mut flipped = image.clone();
            bytes_of_mut(&mut flipped.header)[bit / 8] ^= 1 << (bit % 8);
            assert!(flipped.judge().is_err(), "bit {bit} of the header");
        }
        for bit in 0..image.directory().len() * 8 {
            let mut flipped = image.clone();
            let bytes: &mut [u8] = cast_slice_mut(&mut flipped.entries);
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(flipped.judge().is_err(), "bit {bit} of the directory");
        }
    }
}

#[test]
fn bits_of_the_state_word_do_not_count() {
    let image = default_region().sealed();
    for bit in STATE.start * 8..STATE.end * 8 {
        let mut flipped = Image { ..image.clone() };
        bytes_of_mut(&mut flipped.header)[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(bytes_of(&flipped.header), bytes_of(&image.header));
        assert_eq!(flipped.judge(), Ok(()), "bit {bit}");
    }
}
