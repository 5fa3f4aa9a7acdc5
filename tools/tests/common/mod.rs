//! A region's image made by hand from the layout's types, and the command run on it.
#![allow(dead_code)] // each test file uses its part

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use bytemuck::{Pod, Zeroable, bytes_of, bytes_of_mut};
use tombolo_abi::{
    CONTROL_LEN, ENDIAN_TAG, ENTRY_LEN, HEADER_PAGE_LEN, Header, ISOLATION_LEN, LOCK_BASE, MAGIC,
    MAJOR, NO_GROUP, NO_RING, Record, RecordRules, RegionState, RingControl, RingEntry, RingKind,
    SLOT_LEN, Slot, caps, header_crc,
};

/// Bytes of each ring's data area.
pub(crate) const CAPACITY: u64 = 4096;
/// Where ring 0 starts: near the end of a lap, so that a few records wrap.
pub(crate) const START: u64 = 5 * CAPACITY + 3072;

const SLOT_COUNT: u32 = 8;
const SLOT_OFFSET: u64 = HEADER_PAGE_LEN;
const DIRECTORY_OFFSET: u64 = SLOT_OFFSET + SLOT_COUNT as u64 * SLOT_LEN as u64;
const CONTROL_OFFSET: u64 = (DIRECTORY_OFFSET + 2 * ENTRY_LEN as u64).next_multiple_of(128);
const DATA_OFFSET: u64 = (CONTROL_OFFSET + 2 * CONTROL_LEN as u64).next_multiple_of(4096);

/// A sound region: ring 0 SPSC (slots 0 and 1), ring 1 MPSC (slot 2, producers 3 to 7).
pub(crate) struct RegionImage {
    pub(crate) bytes: Vec<u8>,
    pub(crate) header: Header,
    pub(crate) entries: [RingEntry; 2],
}

impl RegionImage {
    pub(crate) fn new() -> Self {
        let total_len = DATA_OFFSET + 2 * CAPACITY;
        let mut header = Header::zeroed();
        header.magic = MAGIC;
        header.endian = ENDIAN_TAG;
        header.major = MAJOR;
        header.header_len = HEADER_PAGE_LEN as u32;
        header.state = RegionState::Ready as u32;
        header.total_len = total_len;
        header.caps_required = caps::EXT | caps::HANDLES;
        header.region_uuid = [0xab; 16];
        header.boot_id = boot_id();
        header.generation = 1;
        header.created_unix_ns = 1_790_000_000_000_000_000;
        header.isolation_len = ISOLATION_LEN;
        header.page_len = 4096;
        header.ring_count = 2;
        header.slot_count = SLOT_COUNT;
        header.directory_offset = DIRECTORY_OFFSET;
        header.entry_len = ENTRY_LEN;
        header.control_len = CONTROL_LEN;
        header.slot_offset = SLOT_OFFSET;
        header.slot_len = SLOT_LEN;
        header.lock_base = LOCK_BASE;
        header.key = 0x1234_5678_9abc_def0;
        header.name[..4].copy_from_slice(b"demo");
        let entries = [entry(0), entry(1)];
        let mut image = Self { bytes: vec![0; total_len as usize], header, entries };
        image.seal();
        image.start_at(0, START);
        image
    }

    /// A region with messages, padding and a wrapped record in ring 0, and two in ring 1.
    pub(crate) fn with_records() -> Self {
        let mut image = Self::new();
        for n in 0..5u8 {
            image.push(0, Record::data(300), &[b'a' + n; 300]);
        }
        let call =
            Record { kind: tombolo_abi::RecordKind::Call, ext: true, flags: 7, ..Record::data(5) };
        image.push(0, call, b"hello");
        image.push(1, Record::data(13), b"write to this");
        image.push(1, Record::data(0), b"");
        image
    }

    /// Writes header and directory with their checksum.
    pub(crate) fn seal(&mut self) {
        for (index, entry) in self.entries.into_iter().enumerate() {
            self.put(DIRECTORY_OFFSET + index as u64 * u64::from(ENTRY_LEN), &entry);
        }
        let directory = bytemuck::cast_slice(&self.entries);
        self.header.crc = header_crc(&self.header, directory);
        self.put(0, &self.header.clone());
    }

    pub(crate) fn put<T: Pod>(&mut self, offset: u64, value: &T) {
        let start = offset as usize;
        self.bytes[start..start + size_of::<T>()].copy_from_slice(bytes_of(value));
    }

    pub(crate) fn control(&self, ring: usize) -> RingControl {
        let start = self.entries[ring].control_offset as usize;
        bytemuck::pod_read_unaligned(&self.bytes[start..start + size_of::<RingControl>()])
    }

    pub(crate) fn change_control(&mut self, ring: usize, change: impl FnOnce(&mut RingControl)) {
        let mut control = self.control(ring);
        change(&mut control);
        self.put(self.entries[ring].control_offset, &control);
    }

    pub(crate) fn put_slot(&mut self, slot: u64, fields: &Slot) {
        self.put(SLOT_OFFSET + slot * u64::from(SLOT_LEN), fields);
    }

    pub(crate) fn start_at(&mut self, ring: usize, position: u64) {
        self.change_control(ring, |control| (control.head, control.tail) = (position, position));
    }

    pub(crate) fn rules(&self, ring: usize) -> RecordRules {
        RecordRules::of(&self.entries[ring], self.header.key)
    }

    pub(crate) fn data_at(&self, ring: usize, position: u64) -> u64 {
        self.entries[ring].data_offset + position % CAPACITY
    }

    /// Publishes a record, with padding where it doesn't fit before the end.
    pub(crate) fn push(&mut self, ring: usize, record: Record, payload: &[u8]) {
        let rules = self.rules(ring);
        let mut position = self.control(ring).tail;
        let to_end = CAPACITY - position % CAPACITY;
        if rules.record_len(&record) > to_end {
            let word = rules.encode(&Record::pad(to_end), position);
            self.put(self.data_at(ring, position), &word);
            position += to_end;
        }
        let start = self.data_at(ring, position);
        self.put(start, &rules.encode(&record, position));
        let from = (start + record.payload_offset()) as usize;
        self.bytes[from..from + payload.len()].copy_from_slice(payload);
        self.change_control(ring, |control| {
            control.tail = position + rules.record_len(&record);
            control.sent_msgs += 1;
            control.sent_bytes += payload.len() as u64;
        });
    }

    pub(crate) fn save(&self, directory: &Path) -> PathBuf {
        let path = directory.join("demo.tombolo");
        std::fs::write(&path, &self.bytes).unwrap();
        path
    }
}

fn entry(ring: u64) -> RingEntry {
    let kinds = [(RingKind::Spsc, 3, 0, 1, 1), (RingKind::Mpsc, 6, 2, 3, 5)];
    let (kind, align_shift, rx_slot, tx_slot_first, tx_slot_count) = kinds[ring as usize];
    let mut entry = RingEntry::zeroed();
    entry.kind = kind as u32;
    entry.control_offset = CONTROL_OFFSET + ring * u64::from(CONTROL_LEN);
    entry.data_offset = DATA_OFFSET + ring * CAPACITY;
    entry.capacity = CAPACITY;
    entry.max_message = 1000;
    entry.align_shift = align_shift;
    entry.max_handles = 64;
    entry.peer_ring = NO_RING;
    entry.rx_slot = rx_slot;
    entry.tx_slot_first = tx_slot_first;
    entry.tx_slot_count = tx_slot_count;
    entry.group = NO_GROUP;
    entry
}

fn boot_id() -> [u8; 16] {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let mut id = [0; 16];
    let number = u128::from_str_radix(&text.trim().replace('-', ""), 16).unwrap();
    bytes_of_mut(&mut id).copy_from_slice(&number.to_be_bytes());
    id
}

/// Runs the command to its end.
pub(crate) fn tombolo<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tombolo"));
    command.args(args).env_remove("TOMBOLO_DIR").stdin(Stdio::null()).output().unwrap()
}

/// Runs `command PATH ARGS..` and returns exit code, standard output and standard error.
pub(crate) fn look(command: &str, path: &Path, args: &[&str]) -> (i32, String, String) {
    let mut all = vec![command.as_ref(), path.as_os_str()];
    all.extend(args.iter().map(std::ffi::OsStr::new));
    let output = tombolo(&all);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap_or_else(|| panic!("{}", output.status));
    (code, text(output.stdout), text(output.stderr))
}

/// Runs the command with `--json` and parses what it prints.
pub(crate) fn look_json(command: &str, path: &Path) -> (i32, serde_json::Value) {
    let (code, out, _) = look(command, path, &["--json"]);
    (code, serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}")))
}
