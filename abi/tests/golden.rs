//! The bytes that v1 writes, kept as a file: a region of today must be readable tomorrow.
//!
//! `UPDATE_GOLDEN=1 cargo test -p tombolo-abi --test golden` writes the file anew.

mod common;

use std::fmt::Write;
use std::path::Path;

use bytemuck::bytes_of;

const ADVICE: &str = "the layout has changed. If that is meant, change together: the field tables \
    (abi/src), MAJOR or MINOR (abi/src/limits.rs), the format document (abi/README.md, tables by \
    UPDATE_LAYOUT_DOCUMENT=1 cargo test -p tombolo-abi --test layout_document), the changelog, and \
    this golden file (UPDATE_GOLDEN=1 cargo test -p tombolo-abi --test golden)";

#[test]
fn a_default_region_starts_with_the_bytes_it_always_had() {
    let image = common::default_region().sealed();
    let mut found = String::from("header\n");
    dump(&mut found, 0, bytes_of(&image.header));
    found.push_str("directory\n");
    dump(&mut found, image.header.directory_offset as usize, &image.directory());

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/default_region.hex");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("the golden file is writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    for (found, golden) in found.lines().zip(golden.lines()) {
        assert_eq!(found, golden, "{ADVICE}");
    }
    assert_eq!(found.lines().count(), golden.lines().count(), "{ADVICE}");
}

#[test]
fn the_golden_bytes_are_still_accepted() {
    let golden = include_str!("golden/default_region.hex");
    let bytes: Vec<u8> = golden
        .lines()
        .filter_map(|line| line.split_once("  "))
        .flat_map(|(_, bytes)| bytes.split(' '))
        .map(|byte| u8::from_str_radix(byte, 16).expect("two hex digits"))
        .collect();
    let (header, directory) = bytes.split_at(tombolo_abi::HEADER_LEN);
    let header = tombolo_abi::parse_header(header).expect("v1 reads v1");
    let judged = tombolo_abi::check_directory(&header, directory, header.total_len, 4096);
    assert_eq!(judged, Ok(()));
}

fn dump(out: &mut String, offset: usize, bytes: &[u8]) {
    for (line, chunk) in bytes.chunks(16).enumerate() {
        let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
        writeln!(out, "{:06x}  {}", offset + line * 16, hex.join(" ")).expect("strings take all");
    }
}
