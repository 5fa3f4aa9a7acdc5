//! Files that are no region, regions of other versions, and how regions are named: every exit code.

mod common;

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{RegionImage, look, look_json, tombolo};

/// Both commands give this exit code and say these words on one of their outputs, at once.
fn expect(path: &Path, code: i32, words: &str) {
    for command in ["inspect", "dump"] {
        let started = Instant::now();
        let (found, out, err) = look(command, path, &[]);
        assert_eq!(found, code, "{command} {}: {out}{err}", path.display());
        assert!(out.contains(words) || err.contains(words), "{words:?} is not in {out}{err}");
        assert!(started.elapsed() < Duration::from_secs(2), "{command} waited");
    }
}

#[test]
fn what_is_no_region_is_named_and_never_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("empty"), b"").unwrap();
    std::fs::write(path("zeros"), [0; 8192]).unwrap();
    std::fs::write(path("short"), b"\x89TM").unwrap();
    std::fs::write(path("text"), b"# notes\x1b[2J\n").unwrap();
    make_fifo(&path("fifo"));
    let _listener = UnixListener::bind(path("socket")).unwrap();
    let sound = RegionImage::new().save(directory.path());
    symlink(&sound, path("link")).unwrap();
    let cases = [
        (path("empty"), "the file is empty"),
        (path("zeros"), "not a region"),
        (path("short"), "not a region"),
        (env!("CARGO_BIN_EXE_tombolo").into(), "not a region: starts with 7f 45 4c 46 "),
        (path("text"), "not a region: starts with 23 20 6e 6f 74 65 73 1b (# notes.);"),
        (path("fifo"), "FIFO"),
        (path("socket"), "socket"),
        (directory.path().into(), "directory"),
        ("/dev/null".into(), "device"),
        (path("link"), "symbolic link"),
        (path("missing"), "start its creator first, or set TOMBOLO_DIR as the creator has it"),
    ];
    for (path, words) in &cases {
        expect(path, 3, words);
    }
    println!("{} wrong files, 2 commands each", cases.len());
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn other_versions_are_told_from_damage() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    image.header.major = 2;
    image.seal();
    let path = image.save(directory.path());
    expect(&path, 4, "layout version 2, this build reads version 1");
    let (_, json) = look_json("inspect", &path);
    assert_eq!((&json["health"], &json["header"]["major"]), (&"unsupported".into(), &2.into()));

    image = RegionImage::new();
    image.header.endian = image.header.endian.swap_bytes();
    image.seal();
    expect(&image.save(directory.path()), 4, "another byte order");

    image = RegionImage::new();
    image.header.caps_required |= 1 << 40;
    image.seal();
    expect(&image.save(directory.path()), 4, "unknown capabilities 0x10000000000");
}

#[test]
fn a_half_made_region_is_not_called_damaged() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    image.header.state = 1;
    image.seal();
    image.bytes[0x18..].fill(0);
    let path = image.save(directory.path());
    expect(&path, 3, "its creator is gone");
    assert_eq!(look_json("inspect", &path).1["health"], "not_initialized");
}

#[test]
fn a_retired_region_is_sound() {
    let directory = tempfile::tempdir().unwrap();
    let mut image = RegionImage::new();
    image.header.state = 3;
    image.seal();
    expect(&image.save(directory.path()), 0, "another region took its name");
}

#[test]
fn wrong_usage_is_2() {
    let cases: [&[&str]; 5] =
        [&[], &["inspect"], &["dump", "x", "--ring", "y"], &["frob"], &["layout", "x"]];
    for args in cases {
        let output = tombolo(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(!output.stderr.is_empty() && output.stdout.is_empty());
    }
    println!("{} wrong usages", cases.len());
}

#[test]
fn a_name_leads_to_the_directory_of_regions_unless_a_file_has_it() {
    let directory = tempfile::tempdir().unwrap();
    RegionImage::new().save(directory.path());
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |region: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
        command.args(["inspect", region]).env("TOMBOLO_DIR", directory.path());
        command.current_dir(elsewhere.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(run("demo"), Some(0));
    assert_eq!(run("other"), Some(3));
    assert_eq!(run("./demo"), Some(3));
    std::fs::write(elsewhere.path().join("demo"), b"something else").unwrap();
    assert_eq!(run("demo"), Some(3), "the file of that very name wins");
}

#[test]
fn the_layout_lists_every_field_of_every_type() {
    let text = String::from_utf8(tombolo(&["layout"]).stdout).unwrap();
    let json = tombolo(&["layout", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!(json["schema"], "tombolo.layout/1");
    let mut fields = 0;
    for (index, table) in tombolo_abi::TABLES.iter().enumerate() {
        assert_eq!(json["types"][index]["name"], table.name);
        for (index_of_field, field) in table.fields.iter().enumerate() {
            let listed = &json["types"][index]["fields"][index_of_field];
            assert_eq!(
                (&listed["name"], &listed["offset"]),
                (&field.name.into(), &field.offset.into())
            );
            assert!(text.contains(field.name));
            fields += 1;
        }
    }
    println!("{fields} fields");
    assert!(fields > 100);
}

#[test]
fn a_reader_that_has_seen_enough_ends_the_command_quietly() {
    let script = "\"$0\" layout --json | head -n 1; \"$0\" layout | head -n 1";
    let shell = [OsStr::new("-c"), script.as_ref(), env!("CARGO_BIN_EXE_tombolo").as_ref()];
    let output = Command::new("sh").args(shell).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 2);
}
