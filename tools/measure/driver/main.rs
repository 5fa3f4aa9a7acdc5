//! The calls that `tools/measure/trace` follows in a debugger. It builds this program against a copy of
//! the tree; `mark` and `watch` are where the debugger stops.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tombolo::{EventsRegion, MessagePacket, OpenOptions, SpscReceiver, SpscSender};

/// Begins the call `name`; an empty name ends it.
#[inline(never)]
fn mark(name: &str) {
    black_box(name);
}

/// A word whose last change in the next call publishes the message.
#[inline(never)]
fn watch(address: usize) {
    black_box(address);
}

fn traced<T>(name: &str, call: impl FnOnce() -> T) -> T {
    mark(name);
    let result = call();
    mark("");
    result
}

#[cfg(feature = "attach")]
macro_rules! attach {
    ($end:expr) => {
        $end.attach().expect("the endpoint is free")
    };
}
#[cfg(not(feature = "attach"))]
macro_rules! attach {
    ($end:expr) => {
        $end.claim().expect("the endpoint is free")
    };
}

fn main() {
    let path = std::env::args_os().nth(1).expect("the path of a region to create");
    let path = Path::new(&path);
    let options = OpenOptions::new().max_handles(4);
    let region = traced("open", || EventsRegion::open_path_with(path, options));
    let mut region = region.expect("the region is new");
    let (mut tx, mut rx) = region.split_spsc().expect("the ends are free");
    traced("first attach", || attach!(tx));
    attach!(rx);
    messages(&mut tx, &mut rx, path);
    packets(&mut tx, &mut rx);
}

fn messages(tx: &mut SpscSender, rx: &mut SpscReceiver, path: &Path) {
    for payload in [[0xA5; 64], [0x5A; 64]] {
        tx.send(&payload).expect("there is space");
    }
    watch_next_header(path, &[[0xA5; 64], [0x5A; 64]]);
    let message = [0xC3; 64];
    traced("try_send", || tx.try_send(&message)).expect("there is space");
    for _ in 0..2 {
        rx.recv().expect("a message is there");
    }
    let received = traced("recv", || rx.recv()).expect("a message is there");
    assert_eq!(received.data, message);
}

fn packets(tx: &mut SpscSender, rx: &mut SpscReceiver) {
    for (send, recv) in
        [("first send_packet", "first recv of a packet"), ("send_packet", "recv of a packet")]
    {
        let file = File::open("/proc/self/exe").expect("this program can be read");
        let packet = MessagePacket::from(b"with a handle").handle(file);
        traced(send, || tx.send_packet(packet)).expect("the receiver is there");
        let received = traced(recv, || rx.recv()).expect("a message is there");
        assert_eq!(received.handles.len(), 1);
    }
}

/// Watches the header word of the record that follows two neighbours in the file.
fn watch_next_header(path: &Path, last: &[[u8; 64]; 2]) {
    let bytes = fs::read(path).expect("the region is a file");
    let [first, second] = last.map(|payload| {
        bytes.windows(64).position(|window| window == payload).expect("it was sent")
    });
    let header = second + (second - first) - 8;
    let inode = fs::metadata(path).expect("the region is a file").ino();
    for address in addresses(header, inode) {
        watch(address);
    }
}

/// At which addresses this process has mapped the byte `offset` of the file `inode`.
fn addresses(offset: usize, inode: u64) -> Vec<usize> {
    let maps = fs::read_to_string("/proc/self/maps").expect("proc is mounted");
    let mapped = maps.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let (start, end) = (hex(start), hex(end));
        let file_offset = hex(fields.nth(1)?);
        let is_it = fields.nth(1)?.parse() == Ok(inode);
        let is_within = (file_offset..file_offset + (end - start)).contains(&offset);
        (is_it && is_within).then(|| start + (offset - file_offset))
    });
    mapped.collect()
}

fn hex(digits: &str) -> usize {
    usize::from_str_radix(digits, 16).expect("the kernel writes hexadecimal numbers")
}
