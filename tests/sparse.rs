//! What a region's file claims and has not got costs nothing to write: nor does it cost who joins it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tombolo::ends::Topology;
use tombolo::options::{CreatePolicy, MpscOrder, Prefault, RingOptions};
use tombolo::{
    Error, EventsRegion, LayoutError, OpenOptions, Receiver, Sender, TryRecvError, TrySendError,
};

mod support;
use support::mount::Mount;
use support::{Dir, directory_of, forge, forge_entry, header_of, small, write_private};

/// Bytes of a ring that is claimed and not there.
const CLAIMED_LEN: u64 = 256 << 20;
/// What small messages may take of it.
const SPENT_MAX: u64 = 256 << 10;

/// The region that `options` make, written into `path` with ring `ring` moved to the end and made longer,
/// of which the file has nothing.
fn write_sparse(path: &Path, options: OpenOptions, ring: usize, capacity: u64) {
    let template = path.with_extension("template");
    drop(EventsRegion::open_path_with(&template, options).unwrap());
    let mut bytes = fs::read(&template).unwrap();
    fs::remove_file(template).unwrap();
    let data_offset = bytes.len() as u64;
    let header = header_of(&bytes);
    assert!(directory_of(&header).end < bytes.len());
    forge_entry(&mut bytes, ring, |entry| {
        (entry.data_offset, entry.capacity) = (data_offset, capacity)
    });
    forge(&mut bytes, |header| {
        header.file_inode = 0;
        header.total_len = data_offset + capacity;
    });
    write_private(path, &bytes);
    File::options().write(true).open(path).unwrap().set_len(data_offset + capacity).unwrap();
}

/// Bytes that the file system has given the file.
fn spent(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// Claims both ends and passes messages; gives what that and opening have spent.
fn use_sparse<K: Topology>(
    path: &Path,
    split: impl FnOnce(&mut EventsRegion) -> Result<(Sender<K>, Receiver<K>), Error>,
) -> [u64; 2] {
    let before = spent(path);
    let mut region = EventsRegion::open_path(path).unwrap();
    let opened = spent(path) - before;
    let (mut tx, mut rx) = split(&mut region).unwrap();
    rx.attach().unwrap();
    for number in 0..100u8 {
        tx.send(&[number; 300]).unwrap();
        assert_eq!(rx.recv().unwrap().data, [number; 300]);
    }
    [opened, spent(path) - before]
}

#[test]
fn opening_and_using_a_file_takes_none_of_the_pages_that_it_only_claims() {
    let dir = Dir::new();
    let path = |name: &str| -> PathBuf { dir.file(name) };
    let lanes = || small().mpsc_order(MpscOrder::PerProducer);
    for (name, options, ring) in [("spsc", small(), 0), ("mpsc", small(), 1), ("lane", lanes(), 1)]
    {
        let path = path(name);
        write_sparse(&path, options, ring, CLAIMED_LEN);
        let [opened, used] = match ring {
            0 => use_sparse(&path, EventsRegion::split_spsc),
            _ => use_sparse(&path, EventsRegion::split_mpsc),
        };
        println!("{name}: {opened} bytes taken by opening, {used} with messages");
        assert_eq!(opened, 0, "{name}");
        assert!(used <= SPENT_MAX, "{name}: {used} bytes");
        assert!(fs::metadata(&path).unwrap().len() > CLAIMED_LEN, "{name}");
    }
}

/// Bytes of the region's mapping that are in memory.
fn resident(region: &EventsRegion) -> u64 {
    let start = format!("{:x}-", region.as_ptr() as usize);
    let maps = fs::read_to_string("/proc/self/smaps").unwrap();
    let lines = maps.lines().skip_while(|line| !line.starts_with(&start));
    let rss = lines.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
    rss.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn a_joiner_faults_in_all_that_the_creator_has_reserved() {
    let dir = Dir::new();
    let path = dir.file("r");
    let on_demand = OpenOptions::new().prefault(Prefault::OnDemand);
    let created = EventsRegion::open_path_with(&path, on_demand).unwrap();
    let joined = EventsRegion::open_path(&path).unwrap();
    let total_len = fs::metadata(&path).unwrap().len();
    assert_eq!(resident(&joined), total_len);
    assert!(resident(&created) < total_len / 2);
}

/// Bytes of memory that the region's file has.
fn taken(region: &EventsRegion) -> u64 {
    File::from(region.to_fd().unwrap()).metadata().unwrap().blocks() * 512
}

#[test]
fn a_region_without_a_name_takes_memory_at_once_or_with_its_messages() {
    let strict = fs::read_to_string("/proc/sys/vm/overcommit_memory");
    if strict.is_ok_and(|found| found.trim() == "2") {
        return eprintln!("skipped: memory is given out strictly here");
    }
    let made = |prefault| {
        let rings = || RingOptions::spsc().capacity(1 << 22);
        let options = OpenOptions::new().ring(rings()).ring(rings()).prefault(prefault);
        EventsRegion::anonymous(options).unwrap()
    };
    let region = made(Prefault::AtOpen);
    assert_eq!((taken(&region), resident(&region)), (region.total_len(), region.total_len()));
    let region = made(Prefault::OnDemand);
    let joined = EventsRegion::from_fd(region.to_fd().unwrap(), OpenOptions::new()).unwrap();
    assert!(taken(&region) <= SPENT_MAX, "{} bytes", taken(&region));
    let (mut tx, mut rx) = (region.spsc_sender(1).unwrap(), joined.spsc_receiver(1).unwrap());
    for number in 0..200u8 {
        tx.try_send(&[number; 60_000]).unwrap();
        assert_eq!(rx.try_recv().unwrap().data, [number; 60_000]);
    }
    let used = taken(&region);
    assert!((1 << 21..(1 << 22) + SPENT_MAX).contains(&used), "of one ring, not of two: {used}");
}

#[test]
fn a_producer_faults_in_its_own_lane_when_it_attaches() {
    const CAPACITY: u64 = 1 << 22;
    let dir = Dir::new();
    let options = small().mpsc_order(MpscOrder::PerProducer).mpsc_capacity(CAPACITY).producers(2);
    let mut region = EventsRegion::open_path_with(dir.file("r"), options).unwrap();
    let (mut tx, _) = region.split_mpsc().unwrap();
    let before = resident(&region);
    tx.attach().unwrap();
    let came = resident(&region) - before;
    assert!((CAPACITY..3 * CAPACITY / 2).contains(&came), "{came} bytes");
}

#[test]
fn a_consumer_faults_in_the_start_of_a_lane_at_its_first_turn() {
    const START: u64 = 1 << 20;
    let dir = Dir::new();
    let options = || {
        let options = small().mpsc_order(MpscOrder::PerProducer).mpsc_capacity(4 * START);
        options.producers(2)
    };
    let open = || EventsRegion::open_path_with(dir.file("r"), options()).unwrap();
    let (mut tx, _) = open().split_mpsc().unwrap();
    let mut region = open();
    let (_, mut rx) = region.split_mpsc().unwrap();
    rx.attach().unwrap();
    let mut other = tx.clone();
    tx.attach().unwrap();
    other.send(b"in the second lane").unwrap();
    let before = resident(&region);
    rx.recv().unwrap();
    let came = resident(&region) - before;
    assert!((START / 2..2 * START).contains(&came), "{came} bytes");
}

#[test]
fn a_joiner_faults_in_what_is_there_of_a_file_with_holes() {
    let dir = Dir::new();
    let path = dir.file("r");
    write_sparse(&path, OpenOptions::new(), 1, CLAIMED_LEN);
    let there = spent(&path);
    let joined = EventsRegion::open_path(&path).unwrap();
    println!("{there} bytes are there");
    assert_eq!((resident(&joined), spent(&path)), (there, there));
}

#[test]
fn a_region_longer_than_allowed_is_neither_joined_nor_made() {
    let dir = Dir::new();
    let path = dir.file("r");
    drop(EventsRegion::open_path_with(&path, small()).unwrap());
    let total_len = fs::metadata(&path).unwrap().len();
    let at_most = |bytes| OpenOptions::new().max_total_len(bytes);
    let is_too_long = |error: &Error| {
        let Error::Layout { reason, .. } = error else { return false };
        matches!(reason, LayoutError::Field { field: "total_len", found, limit, .. }
            if (*found, *limit) == (total_len, total_len - 1))
    };
    dir.refuses_with(&path, at_most(total_len - 1), is_too_long);
    drop(EventsRegion::open_path_with(&path, at_most(total_len)).unwrap());
    let fd = File::options().read(true).write(true).open(&path).unwrap().into();
    assert!(is_too_long(&EventsRegion::from_fd(fd, at_most(total_len - 1)).unwrap_err()));

    let is_option =
        |error: &Error| matches!(error, Error::InvalidOption { option: "max_total_len", .. });
    let new = || small().max_total_len(total_len - 1);
    dir.refuses_with(&dir.file("new"), new(), is_option);
    dir.refuses_with(&path, new().policy(CreatePolicy::CreateNew), is_option);
    assert!(is_option(&EventsRegion::anonymous(new()).unwrap_err()));
    drop(EventsRegion::anonymous(small().max_total_len(total_len)).unwrap());
}

#[test]
fn a_hole_that_finds_no_space_when_it_is_written_is_an_error_and_ends_nothing() {
    let dir = Dir::new();
    let Some(mount) = Mount::memory(1 << 20, dir.path()) else { return };
    let path = dir.file("r");
    write_sparse(&path, small(), 0, 2 << 20);
    let mut region = EventsRegion::open_path(&path).unwrap();
    let (mut tx, mut rx) = region.split_spsc().unwrap();
    rx.attach().unwrap();
    let error = loop {
        match tx.try_send(&[7; 300]) {
            Ok(()) => {}
            Err(TrySendError::Failed { source, .. }) => break source,
            Err(error) => panic!("{error}"),
        }
    };
    assert!(matches!(error, Error::NoSpace { .. }), "{error:?}");
    assert!(error.to_string().contains("no space"), "{error}");
    let received = std::iter::from_fn(|| rx.try_recv().ok());
    assert!(received.take(10_000).all(|message| message.data == [7; 300]), "zeros were delivered");
    assert!(matches!(rx.try_recv(), Err(TryRecvError::Failed { source: Error::NoSpace { .. } })));
    drop((tx, rx, region));
    drop(mount);
}
