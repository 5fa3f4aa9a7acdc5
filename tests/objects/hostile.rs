//! A peer that writes what it likes into the slots of a channel.

use std::fs::File;
use std::mem::offset_of;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::{KernelObject, Status};
use tombolo::{Channel, Signal};
use tombolo_abi::Slot;

use super::ends::LONG;
use super::support::{Dir, header_of};

/// Two ends, and the file behind them with where its slots lie.
struct Scene {
    near: Channel,
    far: Channel,
    file: File,
    slots: std::ops::Range<u64>,
    _dir: Dir,
}

impl Scene {
    fn new() -> Self {
        let dir = Dir::new();
        let path = dir.file("channel");
        let near = Channel::open_path(&path).unwrap();
        let far = Channel::open_path(&path).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut bytes = vec![0; 4096];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let header = header_of(&bytes);
        let slots = header.slot_offset..header.slot_offset + u64::from(header.slot_count) * 256;
        Self { near, far, file, slots, _dir: dir }
    }

    /// Writes into every slot.
    fn write(&self, offset: usize, bytes: &[u8]) {
        for slot in self.slots.clone().step_by(256) {
            self.file.write_all_at(bytes, slot + offset as u64).unwrap();
        }
    }
}

#[test]
fn any_bits_in_the_word_of_signals_are_user_signals_and_nothing_else() {
    let scene = Scene::new();
    for word in [0, 1, u32::MAX, 0x00ff_ffff, 0xff00_0000, 0x0080_000f, 0x8000_0001] {
        scene.write(offset_of!(Slot, signals), &word.to_ne_bytes());
        let user = Signal::from_bits_truncate(word) & Signal::USER_ALL;
        assert_eq!(scene.near.signal(), Signal::WRITABLE | user);
        assert_eq!(scene.near.peer().unwrap().signal(), Signal::WRITABLE | user);
        scene.near.signal_change(Signal::USER_ALL, Signal::USER_0).unwrap();
        assert_eq!(scene.near.signal(), Signal::WRITABLE | Signal::USER_0);
    }
}

#[test]
fn any_name_and_id_are_read_without_harm_and_a_writer_that_never_ends_holds_up_none() {
    let scene = Scene::new();
    scene.near.set_name("sound").unwrap();
    let ids = (scene.near.id(), scene.near.related_koid());
    for seq in [1u32, u32::MAX, 0, 7] {
        for byte in [0xff, 0xc3, b'x', 0] {
            scene.write(offset_of!(Slot, name_seq), &seq.to_ne_bytes());
            scene.write(offset_of!(Slot, name), &[byte; 32]);
            scene.write(offset_of!(Slot, koid), &[byte; 8]);
            let start = Instant::now();
            for name in [scene.near.name(), scene.near.peer().unwrap().name()] {
                assert_eq!(name.chars().count(), if byte == 0 { 0 } else { 31 }, "{name:?}");
            }
            assert!(start.elapsed() < Duration::from_secs(10));
            assert_eq!((scene.near.id(), scene.near.related_koid()), ids);
        }
    }
    scene.near.set_name("sound again").unwrap();
    assert_eq!(scene.far.peer().unwrap().name(), "sound again");
}

/// The word changes all the time, and no process notifies of it.
#[test]
fn a_word_of_signals_that_is_written_all_the_time_holds_up_no_call() {
    let scene = Scene::new();
    let told = Arc::new(AtomicU32::new(0));
    let count = told.clone();
    let callback = move |_| {
        count.fetch_add(1, Relaxed);
        false
    };
    scene.near.add_signal_callback(Box::new(callback)).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut word = 0u32;
            while !is_over.load(Relaxed) {
                word = word.wrapping_add(0x0100_0001);
                scene.write(offset_of!(Slot, signals), &word.to_ne_bytes());
            }
        });
        for _ in 0..200 {
            scene.near.signal_set(Signal::USER_0).unwrap();
            scene.near.signal_peer(Signal::USER_0, Signal::USER_1).unwrap();
            scene.far.write("text").unwrap();
            assert_eq!(scene.near.read_timeout(LONG).unwrap().data, b"text");
        }
        let waited = scene.near.wait_one(Signal::PEER_CLOSED, Duration::from_millis(50).into());
        assert_eq!(waited.unwrap_err().status(), Status::TIMED_OUT);
        is_over.store(true, Relaxed);
    });
    assert!(told.load(Relaxed) > 0);
}
