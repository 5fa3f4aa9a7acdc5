//! What an open region and a message take besides the region itself.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use tombolo::ends::Topology;
use tombolo::{EventsRegion, Receiver, Sender};

use crate::place::Directory;
use crate::system::Failure;

/// The system's allocator, counting for each thread.
#[derive(Debug)]
pub struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Memory {
    /// Allocations for each message, of the ring that makes more.
    pub(crate) by_send: f64,
    pub(crate) by_receive: f64,
    /// Resident bytes of this process for a region with both ends claimed, less the region.
    pub(crate) resident: i64,
}

const ROUNDS: u64 = 10_000;

/// Looks at both rings. The process should have nothing else to do.
pub(crate) fn look() -> Result<Memory, Failure> {
    let parent = Directory::create()?;
    let directory = parent.within("memory")?;
    let path = directory.join("memory.tombolo");
    resident(&directory)?; // whatever reading takes, it has taken by now
    let before = resident(&directory)?;
    let mut region = EventsRegion::open_path(&path)?;
    let (mut tx, mut rx) = region.split_spsc()?;
    let spsc = allocations(&mut tx, &mut rx)?;
    let (mut many_tx, mut many_rx) = region.split_mpsc()?;
    let mpsc = allocations(&mut many_tx, &mut many_rx)?;
    let resident = resident(&directory)? - before - fs::metadata(&path)?.len() as i64;
    Ok(Memory { by_send: spsc.0.max(mpsc.0), by_receive: spsc.1.max(mpsc.1), resident })
}

/// Of each send, and of each receive into a buffer.
fn allocations<K: Topology>(
    tx: &mut Sender<K>,
    rx: &mut Receiver<K>,
) -> Result<(f64, f64), Failure> {
    let (message, mut room) = ([1; 64], [0; 64]);
    tx.send(&message)?; // claims
    rx.recv_into(&mut room)?;
    let (mut by_send, mut by_receive) = (0, 0);
    for _ in 0..ROUNDS {
        let start = ALLOCATIONS.get();
        tx.send(&message)?;
        let sent = ALLOCATIONS.get();
        rx.recv_into(&mut room)?;
        by_send += sent - start;
        by_receive += ALLOCATIONS.get() - sent;
    }
    Ok((by_send as f64 / ROUNDS as f64, by_receive as f64 / ROUNDS as f64))
}

/// Resident bytes of this process: of the region, the only file in that directory, all; of the rest
/// what was not read from a file, as programs and libraries are.
fn resident(directory: &Path) -> Result<i64, Failure> {
    let directory = directory.to_str().ok_or("a path that isn't text")?;
    let text = fs::read_to_string("/proc/self/smaps")?;
    let (mut is_region, mut kib) = (false, 0);
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["Rss:", value, "kB"] if is_region => kib += value.parse::<i64>()?,
            ["Anonymous:", value, "kB"] if !is_region => kib += value.parse::<i64>()?,
            [range, ..] if !range.ends_with(':') => is_region = line.contains(directory),
            _ => {}
        }
    }
    Ok(kib * 1024)
}

/// As one process tells another.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {} {}", self.by_send, self.by_receive, self.resident)
    }
}

impl FromStr for Memory {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [by_send, by_receive, resident] = words[..] else {
            return Err("no figures of memory".into());
        };
        let (by_send, by_receive) = (by_send.parse()?, by_receive.parse()?);
        Ok(Self { by_send, by_receive, resident: resident.parse()? })
    }
}
