//! `tombolo inspect` and `tombolo dump` on sound regions and on regions with one known thing wrong.

mod common;

use std::os::unix::fs::MetadataExt;

use bytemuck::Zeroable;
use common::{CAPACITY, RegionImage, START, look, look_json};
use tombolo_abi::{
    LockWord, Record, RecordKind, RegionState, RingControl, RingState, Slot, SlotState,
};

#[test]
fn a_sound_region_is_healthy_and_shown_whole() {
    let directory = tempfile::tempdir().unwrap();
    let path = RegionImage::with_records().save(directory.path());
    let (code, out, err) = look("inspect", &path, &[]);
    println!("{out}");
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.lines().next(), Some("healthy: 2 rings, 0 endpoints alive"));
    for wanted in
        ["name      demo", "v1.0, requires EXT, HANDLES", "ring 1 data", "6 msgs", "2 msgs"]
    {
        assert!(out.contains(wanted), "{wanted:?} is missing");
    }
    assert!(!out.lines().any(|line| line.ends_with(' ')), "blanks at the end of a line");
}

#[test]
fn the_json_of_a_sound_region_has_its_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let path = RegionImage::with_records().save(directory.path());
    let (code, json) = look_json("inspect", &path);
    assert_eq!(code, 0);
    assert_eq!(json["schema"], "tombolo.inspect/1");
    assert_eq!(json["health"], "healthy");
    assert_eq!(json["snapshot_consistent"], true);
    assert_eq!(json["header"]["name"], "demo");
    assert_eq!(json["header"]["key"], 0x1234_5678_9abc_def0u64.to_string());
    assert_eq!(json["rings"][0]["kind"], "spsc");
    assert_eq!(json["rings"][0]["depth"]["msgs"], "6");
    assert_eq!(json["rings"][0]["control"]["head"], START.to_string());
    assert_eq!(json["rings"][1]["entry"]["tx_slot_count"], 5);
    assert_eq!(json["problems"].as_array().map(Vec::len), Some(0));
    assert!(json["header"].get("reserved_108").is_none(), "reserved fields only where not zero");
}

/// Whether files in `directory` are gone after a start of the machine.
fn is_in_memory(directory: &std::path::Path) -> bool {
    let output =
        std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(directory).output();
    output.is_ok_and(|output| output.stdout.starts_with(b"tmpfs"))
}

#[test]
fn a_boot_is_called_an_earlier_one_if_two_witnesses_say_so() {
    let since_1970 = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = since_1970.as_nanos() as u64;
    let mut count = 0;
    for root in ["/tmp", "/dev/shm"] {
        let Ok(directory) = tempfile::tempdir_in(root) else { continue };
        for (created, on_disk) in [(1, "earlier"), (now, "unclear")] {
            let mut image = RegionImage::with_records();
            (image.header.boot_id, image.header.created_unix_ns) = ([7; 16], created);
            image.seal();
            let path = image.save(directory.path());
            let wanted = if is_in_memory(directory.path()) { "this" } else { on_disk };
            let (code, json) = look_json("inspect", &path);
            assert_eq!((code, &json["boot"]), (0, &wanted.into()));
            let (_, out, _) = look("inspect", &path, &[]);
            let line = out.lines().find(|line| line.trim_start().starts_with("boot "));
            let words = line.map(|line| line.trim_start()["boot ".len()..].trim().to_owned());
            let starts = |start: &str| words.as_ref().is_some_and(|words| words.starts_with(start));
            match wanted {
                "this" => assert_eq!(words, None),
                "earlier" => assert!(starts("an earlier one: "), "{words:?}"),
                _ => assert!(starts(&format!("unclear: {}", "07".repeat(16))), "{words:?}"),
            }
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn what_tail_and_counters_do_not_tell_yet_is_no_consistent_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let of_ring = |ring: usize, change: fn(&mut RingControl)| {
        let mut image = RegionImage::with_records();
        image.change_control(ring, change);
        look_json("inspect", &image.save(directory.path())).1
    };
    let wrong: [fn(&mut RingControl); 6] = [
        |control| control.head = control.tail + 64,
        |control| control.tail = control.head, // and records behind it
        |control| control.received_msgs = control.sent_msgs + 1,
        |control| control.received_bytes = control.sent_bytes + 1,
        |control| control.handles_taken = 1,
        |control| control.sent_msgs = u64::MAX, // wraps: one less than none
    ];
    for (number, change) in wrong.into_iter().enumerate() {
        for ring in 0..2 {
            let json = of_ring(ring, change);
            assert_eq!(json["snapshot_consistent"], false, "{number} in ring {ring}: {json:#}");
            assert_eq!(json["rings"][ring]["snapshot_consistent"], false);
            assert_eq!(json["rings"][1 - ring]["snapshot_consistent"], true);
        }
    }
    let mut image = RegionImage::with_records();
    let mut sender = Slot::zeroed();
    (sender.state, sender.incarnation, sender.role) = (2, 1, 2);
    (sender.ring, sender.msgs) = (1, 3);
    image.put_slot(4, &sender); // of a ring that counts two
    let (_, out, _) = look("inspect", &image.save(directory.path()), &[]);
    assert!(out.contains("consistent: no, a sender of ring 1 is in the middle of a send"), "{out}");
}

#[test]
fn a_dump_shows_records_padding_and_what_lies_behind_the_wrap() {
    let directory = tempfile::tempdir().unwrap();
    let path = RegionImage::with_records().save(directory.path());
    let (code, out, _) = look("dump", &path, &["--bytes", "16"]);
    println!("{out}");
    assert_eq!(code, 0);
    assert!(out.contains("padding"), "no padding shown");
    assert!(out.contains("|write to this|"), "no text shown");
    assert!(out.contains("... 284 more bytes"), "a cut payload must say so");
    assert!(out.contains("call  5 B  flags 0x07  txid 0x0"));

    let (_, json) = look_json("dump", &path);
    let records = json["rings"][0]["records"].as_array().unwrap();
    let kinds: Vec<_> = records.iter().map(|record| record["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["data", "data", "data", "padding", "data", "data", "call"]);
    assert_eq!(records[4]["position"], (6 * CAPACITY).to_string());
    assert_eq!(records[6]["payload_text"], "hello");
    assert_eq!(json["rings"][1]["end"], "uncommitted");
}

#[test]
fn a_dump_keeps_to_its_limits() {
    let directory = tempfile::tempdir().unwrap();
    let path = RegionImage::with_records().save(directory.path());
    let (code, out, _) = look("dump", &path, &["--ring", "0", "--limit", "2", "--bytes", "0"]);
    assert_eq!(code, 0);
    assert_eq!(out.matches("data  300 B").count(), 2, "{out}");
    assert!(out.contains("2 shown; there may be more"));
    let (code, _, err) = look("dump", &path, &["--ring", "9"]);
    assert_eq!(code, 2);
    assert!(err.contains("has no ring 9, it has 2 rings"), "{err}");
}

#[test]
fn positions_may_wrap_around_u64() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    image.start_at(1, 0u64.wrapping_sub(128));
    let rules = image.rules(1);
    for n in 0..4u64 {
        let position = 0u64.wrapping_sub(128).wrapping_add(n * 64);
        image.put(image.data_at(1, position), &rules.encode(&Record::data(8), position));
    }
    image.change_control(1, |control| control.tail = 128);
    let (code, json) = look_json("inspect", &image.save(directory.path()));
    assert_eq!((code, &json["rings"][1]["depth"]["msgs"]), (0, &"4".into()), "{json:#}");
    assert_eq!(json["rings"][1]["depth"]["len"], "256");
}

#[test]
fn a_tail_that_lags_or_leads_by_a_record_is_no_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    image.push(1, Record::data(8), b"unmoved!");
    image.change_control(1, |control| control.tail = 0); // published, tail not yet stored
    let (code, json) = look_json("inspect", &image.save(directory.path()));
    assert_eq!((code, &json["rings"][1]["depth"]["msgs"]), (0, &"1".into()));

    image.change_control(1, |control| control.head = 64); // and already received
    let (code, json) = look_json("inspect", &image.save(directory.path()));
    assert_eq!((code, &json["rings"][1]["depth"]["len"]), (0, &"0".into()));
}

#[test]
fn names_and_payloads_cannot_move_the_cursor() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    let evil = b"\x1b]0;owned\x07\x1b[2J\r\n\xc2\x9b1m\xe2\x80\xae\xff";
    image.header.name[..evil.len()].copy_from_slice(evil);
    image.seal();
    image.push(0, Record::data(evil.len() as u32), evil);
    let path = image.save(directory.path());
    let mut checked = 0;
    for command in ["inspect", "dump"] {
        for args in [&[][..], &["--json"]] {
            let (code, out, _) = look(command, &path, args);
            assert_eq!(code, 0);
            let harmful = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
            assert!(!out.contains(harmful), "{command} {args:?} let through: {out:?}");
            checked += 1;
        }
    }
    println!("{checked} outputs checked");
    assert_eq!(checked, 4);
}

#[test]
fn looking_leaves_no_trace_on_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = RegionImage::with_records().save(directory.path());
    let times = || {
        let found = path.metadata().unwrap();
        [found.atime_nsec(), found.mtime_nsec(), found.ctime_nsec(), found.mode().into()]
    };
    let before = times();
    for command in ["inspect", "dump"] {
        assert_eq!(look(command, &path, &[]).0, 0);
        assert_eq!(times(), before, "{command} changed access, modification or change time");
    }
    println!("2 commands left all times as they were");
}

/// A change to a sound image, the code of the problem that it must give, and words of the first
/// line.
type Case = (&'static str, &'static str, fn(&mut RegionImage));

const CASES: [Case; 14] = [
    ("checksum", "checksum is 0x", |image| image.bytes[0xC0] ^= 1),
    ("checksum", "and 1 more problem", |image| image.bytes[0x80] ^= 1),
    ("field", "capacity is 4097", |image| {
        image.entries[1].capacity = 4097;
        image.seal();
    }),
    ("out_of_bounds", "data area of ring 1", |image| {
        image.entries[1].data_offset = 1 << 40;
        image.seal();
    }),
    ("truncated", "length is", |image| image.bytes.truncate(9000)),
    ("truncated", "length is 100 bytes", |image| image.bytes.truncate(100)),
    ("state", "state is 77", |image| {
        image.header.state = 77;
        image.seal();
    }),
    ("poisoned", "POISONED", |image| {
        image.header.state = RegionState::Poisoned as u32;
        image.seal();
    }),
    ("record", "record tag", |image| {
        let offset = image.data_at(0, START);
        image.bytes[offset as usize + 7] ^= 0x10;
    }),
    ("record", "not committed", |image| image.put(image.data_at(0, START), &0u64)),
    ("position", "head is", |image| {
        image.change_control(0, |control| control.head -= 2 * CAPACITY)
    }),
    ("position", "a multiple of 64", |image| image.change_control(1, |control| control.tail += 8)),
    ("ring_poisoned", "POISONED, reason 3", |image| {
        image.change_control(1, |control| {
            (control.state, control.reason) = (RingState::Poisoned as u32, 3);
        });
    }),
    ("lock", "held by slot 1", |image| {
        let holder = LockWord { slot: 1, incarnation: 1 };
        image.change_control(1, |control| control.lock = holder.to_word());
    }),
];

#[test]
fn one_thing_wrong_is_named_in_the_first_line() {
    let directory = tempfile::tempdir().unwrap();
    for (code, words, change) in CASES {
        let mut image = RegionImage::with_records();
        change(&mut image);
        let path = image.save(directory.path());
        let (exit, out, _) = look("inspect", &path, &[]);
        let first = out.lines().next().unwrap_or_default();
        println!("{first}");
        assert_eq!(exit, 1, "{code}: {out}");
        assert!(first.contains(words), "{code}: {words:?} is not in {first:?}");
        let (_, json) = look_json("inspect", &path);
        assert_eq!(json["problems"][0]["code"], code, "{json:#}");
    }
    println!("{} kinds of damage named", CASES.len());
}

#[test]
fn a_damaged_header_does_not_hide_rings_and_records() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::with_records();
    image.bytes[0xC1] ^= 0xff;
    let path = image.save(directory.path());
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["rings"][0]["depth"]["msgs"]), (1, &"6".into()));
    let (code, out, _) = look("dump", &path, &[]);
    assert_eq!(code, 1);
    assert!(out.starts_with("DAMAGED: header: checksum") && out.contains("|write to this|"));
}

#[test]
fn a_slot_whose_byte_is_free_is_dead_and_a_torn_one_is_marked() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    let mut slot = Slot::zeroed();
    slot.state = SlotState::Attached as u32;
    slot.incarnation = 4;
    slot.pid = 4_000_000_000;
    slot.role = 2;
    slot.seqlock = 3;
    image.put_slot(1, &slot);
    slot.state = SlotState::Free as u32;
    slot.seqlock = 0;
    image.put_slot(2, &slot);
    let path = image.save(directory.path());
    let (code, out, _) = look("inspect", &path, &[]);
    println!("{out}");
    assert_eq!(code, 0);
    assert!(out.starts_with("healthy: 2 rings, 0 endpoints alive, 1 DEAD\n"));
    assert!(out.contains("attached #4 ~torn"));
    let (_, json) = look_json("inspect", &path);
    assert_eq!(json["endpoints"][0]["liveness"], "dead");
    assert_eq!(json["endpoints"][0]["torn"], true);
    assert_eq!(json["endpoints"][1]["liveness"], "left");
}

#[test]
fn unknown_kinds_are_shown_and_not_counted_as_messages() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    let record = Record { kind: RecordKind::Unknown(9), ..Record::data(3) };
    image.push(0, record, b"new");
    let path = image.save(directory.path());
    let (code, json) = look_json("inspect", &path);
    assert_eq!((code, &json["rings"][0]["depth"]["msgs"]), (0, &"0".into()));
    let (_, out, _) = look("dump", &path, &[]);
    assert!(out.contains("unknown 9  3 B"), "{out}");
}
