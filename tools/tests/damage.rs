//! A thousand randomly damaged regions: an answer for each, at once, and no byte changed.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{RegionImage, look};
use tombolo::inspect::{Health, Image};

const IMAGES: u64 = 1000;
/// Every tenth image is shown to the built command too.
const COMMAND_EVERY: u64 = 10;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    /// Numbers on the edges more often than others.
    fn number(&mut self) -> u64 {
        let edges = [0, 1, 7, 8, 0xffff, 1 << 31, u64::from(u32::MAX), 1 << 40, 1 << 46, 1 << 63];
        match self.below(4) {
            0 => edges[self.below(edges.len())],
            1 => edges[self.below(edges.len())].wrapping_neg(),
            2 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }
}

fn damage(image: &mut RegionImage, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let len = image.bytes.len();
        let within = if random.below(2) == 0 { 9000 } else { len };
        let offset = random.below(len.min(within));
        match random.below(5) {
            0 => image.bytes[offset] ^= 1 << random.below(8),
            1 | 2 => {
                let number = random.number().to_le_bytes();
                let start = offset & !7;
                let end = len.min(start + 8);
                image.bytes[start..end].copy_from_slice(&number[..end - start]);
            }
            3 if random.below(4) == 0 => image.bytes.truncate(offset.max(1)),
            3 => image.bytes[offset] = random.next() as u8,
            _ => change_description(image, random),
        }
    }
}

/// Damage under a valid checksum, as a hostile peer would write it.
fn change_description(image: &mut RegionImage, random: &mut Random) {
    if image.bytes.len() < 8192 {
        return;
    }
    let ring = random.below(2);
    match random.below(6) {
        0 => image.entries[ring].capacity = random.number(),
        1 => image.entries[ring].data_offset = random.number(),
        2 => image.entries[ring].control_offset = random.number(),
        3 => image.entries[ring].align_shift = random.next() as u8,
        4 => image.header.slot_offset = random.number(),
        _ => image.header.ring_count = random.number() as u32,
    }
    image.seal();
}

/// Everything that the library offers, on one file.
fn look_in_process(path: &Path) -> Health {
    let image = Image::open(path).unwrap();
    for ring in image.rings() {
        if let Some(mut records) = image.records(ring.ring, 1000, 64) {
            records.by_ref().for_each(drop);
            assert!(records.end().is_some());
        }
    }
    image.problems().iter().for_each(|problem| drop(problem.to_string()));
    assert_eq!(
        image.health() == Health::Damaged,
        !image.problems().is_empty() && image.health() != Health::Poisoned
    );
    image.health()
}

fn expected(health: Health) -> i32 {
    match health {
        Health::Healthy | Health::Retired => 0,
        Health::Unsupported => 4,
        Health::NotARegion | Health::NotInitialized => 3,
        _ => 1,
    }
}

#[test]
fn a_thousand_damaged_regions_are_answered_and_left_as_they_are() {
    let seed = std::env::var("TOMBOLO_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| std::process::id().into());
    println!("TOMBOLO_SEED={seed}");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().unwrap();
    let (mut codes, mut runs, mut slowest) = ([0; 5], 0, Duration::ZERO);
    for index in 0..IMAGES {
        let mut image = RegionImage::with_records();
        damage(&mut image, &mut random);
        let path = image.save(directory.path());
        let started = Instant::now();
        let code = expected(look_in_process(&path));
        codes[code as usize] += 1;
        if index.is_multiple_of(COMMAND_EVERY) {
            for (command, args) in [("inspect", &[][..]), ("inspect", &["--json"]), ("dump", &[])] {
                let (found, _, err) = look(command, &path, args);
                assert_eq!(found, code, "image {index}, {command} {args:?}: {err}");
                runs += 1;
            }
        }
        slowest = slowest.max(started.elapsed());
        assert_eq!(std::fs::read(&path).unwrap(), image.bytes, "image {index} was changed");
    }
    println!("{IMAGES} images, {runs} runs of the command, slowest {slowest:?}");
    println!(
        "healthy {}, damaged {}, no region {}, unsupported {}",
        codes[0], codes[1], codes[3], codes[4]
    );
    assert!(slowest < Duration::from_secs(2));
    // Much of a region is payload and unused room, where any bytes are sound.
    assert!(codes[1] > IMAGES / 4, "far too few are seen to be damaged");
}

#[test]
fn a_sparse_file_of_enormous_claims_is_answered_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    image.header.total_len = 1 << 42;
    image.entries[1].capacity = 1 << 40;
    image.entries[1].data_offset = 1 << 41;
    image.seal();
    image.change_control(1, |control| control.tail = 1 << 39);
    let path = image.save(directory.path());
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    if file.set_len(1 << 42).is_err() {
        println!("this file system has no files of 4 TiB; 0 checked");
        return;
    }
    let started = Instant::now();
    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}answered after {:?}", started.elapsed());
    assert_eq!(code, 1);
    assert!(out.contains("not committed"));
    assert!(started.elapsed() < Duration::from_secs(2));
}
