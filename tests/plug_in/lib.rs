//! A plug-in that uses tombolo inside, for the tests to load and unload.
//!
//! Its functions take a path and give 0, or 1 if something failed.

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tombolo::{EventsRegion, OpenOptions};

/// Opens the region in the file `path` and drops it.
#[unsafe(no_mangle)]
extern "C" fn plug_in_opens(path: *const c_char) -> c_int {
    with(path, |path| open(path).map(drop))
}

/// As `plug_in_opens`, with both ends claimed and a message sent and received.
#[unsafe(no_mangle)]
extern "C" fn plug_in_sends(path: *const c_char) -> c_int {
    with(path, |path| {
        let (mut tx, mut rx) = open(path)?.split_spsc().ok()?;
        tx.send(b"inside").ok()?;
        (rx.recv().ok()?.data == b"inside").then_some(())
    })
}

/// Cuts the region's file short while it is open, and uses it.
#[unsafe(no_mangle)]
extern "C" fn plug_in_survives_a_cut(path: *const c_char) -> c_int {
    with(path, |path| {
        let (mut tx, mut rx) = open(path)?.split_spsc().ok()?;
        rx.attach().ok()?;
        tx.attach().ok()?;
        File::options().write(true).open(path).ok()?.set_len(0).ok()?;
        tx.try_send(b"gone").is_err().then_some(())
    })
}

fn open(path: &Path) -> Option<EventsRegion> {
    EventsRegion::open_path_with(path, OpenOptions::new().spsc_capacity(4096)).ok()
}

fn with(path: *const c_char, run: fn(&Path) -> Option<()>) -> c_int {
    // SAFETY: the caller gives the address of a string that ends with a zero.
    let path = unsafe { CStr::from_ptr(path) };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    if run(path).is_some() { 0 } else { 1 }
}
