//! A ring that moves while it is looked at, written by a model of a producer and a consumer whose
//! every store is a `pwrite` of its own, in the order that the layout prescribes.
//!
//! The ring is as small as rings get, so that most looks are overtaken by a whole lap, and payloads
//! are no legal header words, so that a stale look would take them for damage.

mod common;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;

use common::{CAPACITY, RegionImage, START};
use tombolo::inspect::{Health, Image};
use tombolo_abi::{Record, RingControl};

const LOOKS: u32 = 5000;
const FILL: u8 = 0xee;

/// Both ends of ring 0.
struct Model<'a> {
    image: &'a RegionImage,
    file: File,
    head: u64,
    tail: u64,
    /// Where the records that are not yet received end.
    ends: VecDeque<u64>,
}

impl<'a> Model<'a> {
    fn new(image: &'a RegionImage, path: &Path) -> Self {
        let file = OpenOptions::new().write(true).open(path).unwrap();
        Self { image, file, head: START, tail: START, ends: VecDeque::new() }
    }

    fn store(&self, offset: u64, word: u64) {
        self.file.write_all_at(&word.to_le_bytes(), offset).unwrap();
    }

    fn store_control(&self, field: &str, word: u64) {
        let field = RingControl::TABLE.field(field).unwrap();
        self.store(self.image.entries[0].control_offset + field.offset as u64, word);
    }

    fn store_header(&self, record: &Record, position: u64) {
        let word = self.image.rules(0).encode(record, position);
        self.store(self.image.data_at(0, position), word);
    }

    /// Zeroes the word behind, writes the payload, then its header, then the padding's, then tail.
    fn send(&mut self, payload: &[u8]) {
        let record = Record::data(payload.len() as u32);
        let record_len = self.image.rules(0).record_len(&record);
        let to_end = CAPACITY - self.tail % CAPACITY;
        let pad_len = if record_len > to_end { to_end } else { 0 };
        while CAPACITY - (self.tail - self.head) < pad_len + record_len + 8 {
            self.receive();
        }
        let start = self.tail + pad_len;
        let end = start + record_len;
        self.store(self.image.data_at(0, end), 0);
        self.file.write_all_at(payload, self.image.data_at(0, start) + 8).unwrap();
        self.store_header(&record, start);
        if pad_len > 0 {
            self.store_header(&Record::pad(pad_len), self.tail);
        }
        self.store_control("tail", end);
        self.tail = end;
        self.ends.push_back(end);
    }

    fn receive(&mut self) {
        if let Some(end) = self.ends.pop_front() {
            self.head = end;
            self.store_control("head", end);
        }
    }
}

fn keep_moving(image: &RegionImage, path: &Path, stop: &AtomicBool) -> u64 {
    let mut model = Model::new(image, path);
    let mut sent = 0u64;
    while !stop.load(Relaxed) {
        sent += 1;
        let len = (sent.wrapping_mul(2_654_435_761) >> 7) % 900;
        model.send(&vec![FILL; len as usize]);
        if sent.is_multiple_of(3) {
            model.receive();
        }
    }
    sent
}

#[derive(Debug, Default)]
struct Seen {
    records: u64,
    missed: u64,
    moved: u32,
}

impl Seen {
    /// One look at everything. Damage, or a payload that isn't whole, is an error.
    fn look(&mut self, path: &Path) -> Result<(), String> {
        let image = Image::open(path).map_err(|error| error.to_string())?;
        if image.health() != Health::Healthy {
            return Err(format!("{:?}", image.problems()));
        }
        self.moved += u32::from(!image.is_consistent());
        let mut records = image.records(0, 500, 4000).ok_or("no ring 0")?;
        for record in records.by_ref() {
            let view = record.map_err(|problem| problem.to_string())?;
            if view.payload.iter().any(|byte| *byte != FILL) {
                return Err(format!("overwritten: {view:?}"));
            }
            self.records += 1;
        }
        self.missed += records.missed();
        Ok(())
    }
}

#[test]
fn a_moving_ring_never_looks_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let image = RegionImage::new();
    let path = image.save(directory.path());
    let stop = AtomicBool::new(false);
    let mut seen = Seen::default();
    let (sent, looked) = thread::scope(|scope| {
        let moving = scope.spawn(|| keep_moving(&image, &path, &stop));
        let looked = (0..LOOKS).try_for_each(|_| seen.look(&path));
        stop.store(true, Relaxed);
        (moving.join().unwrap(), looked)
    });
    println!("{LOOKS} looks while {sent} messages went through: {seen:?}");
    looked.unwrap();
    assert!(seen.records > 0 && seen.moved > 0, "nothing moved");
}
