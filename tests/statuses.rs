//! Each error has one of Zircon's numbers: the one that the table in the documents says.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::io;
use std::time::Duration;

use rustix::io::Errno;
use tombolo::handle::{DispositionError, HandleError};
use tombolo::inspect::{RecordError, RingKind};
use tombolo::object::{ChannelError, ObjectError, Status, TableError};
use tombolo::{
    Damage, Error, HandleType, LayoutError, RecvError, RecvTimeoutError, Rights, SendError,
    SendTimeoutError, Signal, TryRecvError, TrySendError,
};
use tombolo_abi::Section;

/// An error's type and variant, and its status.
type Row = (String, Status);

/// The name of a variant, as its error shows itself.
fn row(of: &str, error: &impl Debug, status: Status) -> Row {
    let shown = format!("{error:?}");
    let end = shown.find(|one: char| !one.is_alphanumeric()).unwrap_or(shown.len());
    (format!("{of}::{}", &shown[..end]), status)
}

fn path() -> std::path::PathBuf {
    "a".into()
}

fn refused() -> io::Error {
    Errno::NOENT.into()
}

/// One of each.
fn errors() -> Vec<Error> {
    let (path, source) = (path, refused);
    let (found, wanted, reason) = ("found", "wanted", "reason");
    vec![
        Error::Io { action: "do", path: path(), source: source() },
        Error::Misaligned { address: 1, align: 2 },
        Error::RegionTooSmall { path: path(), found_len: 1, claimed_len: 2 },
        Error::Layout { path: path(), reason: LayoutError::NotReady { state: 1 } },
        Error::InvalidName { name: String::new(), reason },
        Error::InvalidPath { path: path(), reason },
        Error::InvalidOption { option: "o", ring: None, found: 1, wanted },
        Error::WrongFileType { path: path(), found },
        Error::UnclearBoot {
            path: path(),
            ring: 0,
            found: String::new(),
            here: String::new(),
            after_start: Duration::ZERO,
        },
        Error::WrongDescriptor { path: path(), index: 0, found, wanted },
        Error::UnsafePath { path: path(), reason },
        Error::Permission { path: path(), owner: 0, euid: 0, mode: 0, hint: "hint" },
        Error::UnsupportedFileSystem { path: path(), magic: 0, name: "nfs" },
        Error::Copied { path: path(), found: 1, wanted: 2 },
        Error::NoSpace { path: path(), wanted_len: 1, source: source() },
        Error::FileSizeLimit { wanted_len: 1, limit: 0 },
        Error::NotFound { path: path() },
        Error::InUse { path: path(), pid: 1 },
        Error::Replaced { path: path() },
        Error::RegionPoisoned { path: path() },
        Error::Poisoned { ring: 0, position: 0, reason: Damage::Marked { code: 1 } },
        Error::Busy { ring: 0, role: "sender", pid: 1, places: 1 },
        Error::LaneNotEmpty { ring: 0, lanes: 1 },
        Error::Stalled { ring: 0, slot: 1, pid: 1 },
        Error::LockLost { slot: 1 },
        Error::ForkedChild,
        Error::MessageTooLong { ring: 0, found: 2, limit: 1 },
        Error::BufferTooSmall { needed: 2, available: 1 },
        Error::BuffersTooSmall { needed: 2, available: 1, needed_handles: 2, available_handles: 1 },
        Error::TooManyFiles { ring: 0, source: source() },
        Error::HandlesLost { ring: 0, position: 0, count: 1, data: vec![] },
        Error::ProtocolViolation { ring: 0, slot: 1, position: 0, reason },
        Error::Handles { source: DispositionError::TooManyHandles { found: 65, limit: 64 } },
        Error::HandlesNotCarried { ring: 0, reason },
        Error::WaitCount { found: 0, limit: 128 },
        Error::Unsupported { what: "what", source: source() },
    ]
}

fn layout_errors() -> Vec<LayoutError> {
    let section = Section::Header;
    let other = |found| LayoutError::OtherRing { ring: Some(1), found, wanted: RingKind::Spsc };
    vec![
        LayoutError::BadMagic { found: [0; 8] },
        LayoutError::Truncated { found_len: 1, wanted_len: 2 },
        LayoutError::ForeignEndian { found: 1 },
        LayoutError::UnsupportedMajor { found: 2, supported: 1 },
        LayoutError::UnknownCapability { unknown: 1 },
        LayoutError::NotReady { state: 1 },
        LayoutError::Checksum { found: 1, computed: 2 },
        LayoutError::TooSmall { found_len: 1, claimed_len: 2 },
        LayoutError::Field { field: "f", ring: None, found: 1, wanted: "above", limit: 1 },
        LayoutError::OptionTooSmall { option: "o", ring: None, kind: None, found: 1, wanted: 2 },
        LayoutError::Option { option: "o", found: "a", wanted: "b" },
        LayoutError::NoChannel,
        other(Some(RingKind::Mpsc)),
        other(None),
        LayoutError::OutOfBounds { section, offset: 1, len: 1, total_len: 1 },
        LayoutError::Overlap { first: section, second: section, offset: 1 },
        LayoutError::SharedSlot { slot: 1, first_ring: 0, second_ring: 1 },
    ]
}

fn handle_errors() -> Vec<HandleError> {
    let (held, missing, wanted) = (Rights::empty(), Rights::READ, Rights::READ);
    vec![
        HandleError::BadHandle { number: 3 },
        HandleError::AlreadyMoved,
        HandleError::InvalidOperation { found: 2 },
        HandleError::WrongType { found: HandleType::File, wanted: HandleType::Socket },
        HandleError::AccessDenied { held, missing },
        HandleError::InvalidRights { held, wanted },
        HandleError::ThroughItself,
        HandleError::NoDescriptor,
        HandleError::NotReleased { status: Status::NOT_SUPPORTED },
        HandleError::Descriptor { action: "do", errno: 24 },
    ]
}

fn damages() -> Vec<Damage> {
    vec![
        Damage::Record(RecordError::Kind { found: 15 }),
        Damage::Position { word: "head", found: 1, against: "tail", other: 0 },
        Damage::LockOwner { slot: 1 },
        Damage::Marked { code: 1 },
    ]
}

/// One of each variant of each type, with what it says of itself.
fn all() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(errors().iter().map(|error| row("Error", error, error.status())));
    rows.extend(layout_errors().into_iter().map(|reason| {
        let status = Error::Layout { path: path(), reason }.status();
        row("LayoutError", &reason, status)
    }));
    rows.extend(handle_errors().iter().map(|error| row("HandleError", error, error.status())));
    rows.extend(damages().iter().map(|damage| row("Damage", damage, damage.status())));
    let source = || HandleError::AlreadyMoved;
    let lists = [
        DispositionError::TooManyHandles { found: 65, limit: 64 },
        DispositionError::Handle { index: 0, source: source() },
        DispositionError::Channel { source: source() },
    ];
    rows.extend(lists.iter().map(|error| row("DispositionError", error, error.status())));
    let (message, source) = ((), || Error::ForkedChild);
    let sent = [
        SendError::Disconnected(()),
        SendError::Interrupted(()),
        SendError::Failed { message, source: source() },
    ];
    rows.extend(sent.iter().map(|error| row("SendError", error, error.status())));
    let sent = [
        SendTimeoutError::Timeout(()),
        SendTimeoutError::NoReceiver(()),
        SendTimeoutError::Disconnected(()),
        SendTimeoutError::Interrupted(()),
        SendTimeoutError::Failed { message, source: source() },
    ];
    rows.extend(sent.iter().map(|error| row("SendTimeoutError", error, error.status())));
    let sent = [
        TrySendError::Full(()),
        TrySendError::Disconnected(()),
        TrySendError::NoReceiver(()),
        TrySendError::Contended { message, pid: 1 },
        TrySendError::Failed { message, source: source() },
    ];
    rows.extend(sent.iter().map(|error| row("TrySendError", error, error.status())));
    let received =
        [RecvError::Disconnected, RecvError::Interrupted, RecvError::Failed { source: source() }];
    rows.extend(received.iter().map(|error| row("RecvError", error, error.status())));
    let received = [
        RecvTimeoutError::Timeout,
        RecvTimeoutError::Disconnected,
        RecvTimeoutError::Interrupted,
        RecvTimeoutError::Failed { source: source() },
    ];
    rows.extend(received.iter().map(|error| row("RecvTimeoutError", error, error.status())));
    let received = [
        TryRecvError::Empty,
        TryRecvError::Disconnected,
        TryRecvError::Failed { source: source() },
    ];
    rows.extend(received.iter().map(|error| row("TryRecvError", error, error.status())));
    let (found, limit, held) = (1, 0, Rights::WRITE);
    let of_channels = [
        ChannelError::ShouldWait,
        ChannelError::PeerClosed,
        ChannelError::TimedOut,
        ChannelError::Canceled,
        ChannelError::Closed,
        ChannelError::BufferTooSmall {
            needed: 1,
            available: 0,
            needed_handles: 0,
            available_handles: 0,
            is_discarded: false,
        },
        ChannelError::TooLong { found, limit },
        ChannelError::TooManyParts { found, limit },
        ChannelError::TooShortForCall { found },
        ChannelError::TxidInUse { txid: 1 },
        ChannelError::AccessDenied { held, missing: Rights::READ },
        ChannelError::Handles { source: DispositionError::TooManyHandles { found, limit } },
        ChannelError::Failed { source: Box::new(source()) },
    ];
    rows.extend(of_channels.iter().map(|error| row("ChannelError", error, error.status())));
    let by_number = [
        TableError::WriteOptions { found: 2 },
        TableError::ReadOptions { found: 2 },
        TableError::Handle { source: HandleError::AlreadyMoved },
        TableError::NotOpened { number: 3, source: ChannelError::TimedOut },
        TableError::Channel { source: ChannelError::TimedOut },
    ];
    rows.extend(by_number.iter().map(|error| row("TableError", error, error.status())));
    let (found, allowed, type_name) = (Signal::READABLE, Signal::USER_ALL, "type");
    let of_objects = [
        ObjectError::InvalidSignals { found, allowed },
        ObjectError::AccessDenied { held, missing: Rights::WAIT },
        ObjectError::NotSupported { type_name, what: "peer" },
        ObjectError::WrongType { type_name },
        ObjectError::PeerClosed,
        ObjectError::TimedOut,
        ObjectError::Canceled,
        ObjectError::Closed,
        ObjectError::Failed { source: Box::new(source()) },
    ];
    rows.extend(of_objects.iter().map(|error| row("ObjectError", error, error.status())));
    rows
}

/// The variants that have the status of their source.
const PASSED_ON: [&str; 18] = [
    "Error::Io",
    "Error::Layout",
    "Error::Handles",
    "DispositionError::Handle",
    "DispositionError::Channel",
    "SendError::Failed",
    "SendTimeoutError::Failed",
    "TrySendError::Failed",
    "RecvError::Failed",
    "RecvTimeoutError::Failed",
    "TryRecvError::Failed",
    "ChannelError::Handles",
    "ChannelError::Failed",
    "HandleError::NotReleased",
    "TableError::Handle",
    "TableError::NotOpened",
    "TableError::Channel",
    "ObjectError::Failed",
];

/// The rows of the table in the documents: a status' name and number, and its errors.
fn table() -> Vec<(String, i32, Vec<String>)> {
    let quoted = |cell: &str| -> Vec<String> {
        cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let document = include_str!("../src/status.rs");
    let lines = document.lines().filter_map(|line| line.strip_prefix("/// | [`"));
    lines
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let name = cells[0].split('`').next().unwrap().to_owned();
            (name, cells[1].parse().unwrap(), quoted(cells[2]))
        })
        .collect()
}

/// The variants of a public error, as its source lists them.
fn variants(source: &str, name: &str) -> Vec<String> {
    let head = format!("\npub enum {name}");
    let (_, behind) = source.split_once(&head).unwrap_or_else(|| panic!("no {name}"));
    let body = behind.lines().skip(1).take_while(|line| *line != "}");
    let is_of_a_variant =
        |line: &&str| line.starts_with("    ") && line.as_bytes()[4].is_ascii_uppercase();
    let names = body.filter(is_of_a_variant).map(|line| {
        let line = line.trim();
        let end = line.find(|one: char| !one.is_alphanumeric()).unwrap_or(line.len());
        format!("{name}::{}", &line[..end])
    });
    names.collect()
}

#[test]
fn the_numbers_are_zircons() {
    let rows = table();
    assert_eq!(rows.len(), 21);
    for (name, number, _) in &rows {
        let status = Status::from_number(*number);
        assert_eq!((&status.to_string(), status.number()), (name, *number));
    }
    assert_eq!(
        format!("{} {:?}", Status::from_number(-77), Status::PEER_CLOSED),
        "-77 PEER_CLOSED"
    );
    let some =
        [Status::OK, Status::INTERNAL, Status::INVALID_ARGS, Status::SHOULD_WAIT, Status::STOP];
    assert_eq!(some.map(Status::number), [0, -1, -10, -22, -60]);
}

#[test]
fn each_variant_of_each_error_has_the_status_that_the_table_says() {
    let mut rows = all();
    rows.retain(|(variant, _)| !PASSED_ON.contains(&variant.as_str()));
    let found: BTreeSet<_> =
        rows.iter().map(|(name, status)| (status.number(), name.clone())).collect();
    let said: BTreeSet<_> = table()
        .into_iter()
        .flat_map(|(_, number, errors)| errors.into_iter().map(move |name| (number, name)))
        .collect();
    println!("errors compared: {}", said.len());
    let lacking: Vec<_> = found.difference(&said).collect();
    let too_many: Vec<_> = said.difference(&found).collect();
    assert!(
        lacking.is_empty() && too_many.is_empty(),
        "not said: {lacking:?}; not so: {too_many:?}"
    );
}

#[test]
fn these_are_all_variants_of_all_errors() {
    let sources = [
        (include_str!("../src/error.rs"), &["Error", "Damage"][..]),
        (include_str!("../src/error/handles.rs"), &["HandleError", "DispositionError"]),
        (include_str!("../abi/src/error.rs"), &["LayoutError"]),
        (include_str!("../src/object/channel_error.rs"), &["ChannelError "]),
        (include_str!("../src/object/table_error.rs"), &["TableError"]),
        (include_str!("../src/object/object_error.rs"), &["ObjectError "]),
        (
            include_str!("../src/ends/errors.rs"),
            &[
                "SendError<",
                "SendTimeoutError<",
                "TrySendError<",
                "RecvError ",
                "RecvTimeoutError ",
                "TryRecvError ",
            ],
        ),
    ];
    let names = sources
        .iter()
        .flat_map(|(source, names)| names.iter().flat_map(move |name| variants(source, name)));
    let names: BTreeSet<_> = names.map(|name| name.replace([' ', '<'], "")).collect();
    let tried: BTreeSet<_> = all().into_iter().map(|(name, _)| name).collect();
    println!("variants: {}", names.len());
    assert_eq!(names, tried);
    assert!(PASSED_ON.iter().all(|name| names.contains(*name)));
}

#[test]
fn what_has_a_source_has_its_status() {
    let all = all();
    let of = |name: &str| all.iter().find(|(variant, _)| variant == name).unwrap().1;
    let wanted = [
        Status::NOT_FOUND,
        Status::TIMED_OUT,
        Status::OUT_OF_RANGE,
        Status::BAD_HANDLE,
        Status::BAD_HANDLE,
    ];
    let failed = [Status::BAD_HANDLE; 6];
    let of_channels = [Status::OUT_OF_RANGE, Status::BAD_HANDLE];
    let by_number =
        [Status::NOT_SUPPORTED, Status::BAD_HANDLE, Status::TIMED_OUT, Status::TIMED_OUT];
    let of_objects = [Status::BAD_HANDLE];
    let wanted = wanted.into_iter().chain(failed).chain(of_channels).chain(by_number);
    let wanted = wanted.chain(of_objects);
    let wanted: Vec<_> = wanted.collect();
    assert_eq!(PASSED_ON.map(of).to_vec(), wanted);
}

#[test]
fn what_the_kernel_said_has_the_status_that_it_stands_for() {
    let rows = [
        (Errno::NOENT, Status::NOT_FOUND),
        (Errno::ACCESS, Status::ACCESS_DENIED),
        (Errno::PERM, Status::ACCESS_DENIED),
        (Errno::ROFS, Status::ACCESS_DENIED),
        (Errno::EXIST, Status::ALREADY_EXISTS),
        (Errno::NOMEM, Status::NO_MEMORY),
        (Errno::MFILE, Status::NO_RESOURCES),
        (Errno::NFILE, Status::NO_RESOURCES),
        (Errno::NOLCK, Status::NO_RESOURCES),
        (Errno::NOBUFS, Status::NO_RESOURCES),
        (Errno::NOSPC, Status::NO_RESOURCES),
        (Errno::DQUOT, Status::NO_RESOURCES),
        (Errno::FBIG, Status::OUT_OF_RANGE),
        (Errno::INVAL, Status::INVALID_ARGS),
        (Errno::BADF, Status::BAD_HANDLE),
        (Errno::OPNOTSUPP, Status::NOT_SUPPORTED),
        (Errno::NOSYS, Status::NOT_SUPPORTED),
        (Errno::TIMEDOUT, Status::TIMED_OUT),
        (Errno::AGAIN, Status::SHOULD_WAIT),
        (Errno::INTR, Status::INTERRUPTED_RETRY),
        (Errno::PIPE, Status::PEER_CLOSED),
        (Errno::CONNREFUSED, Status::PEER_CLOSED),
        (Errno::CONNRESET, Status::PEER_CLOSED),
        (Errno::CONNABORTED, Status::PEER_CLOSED),
        (Errno::NOTCONN, Status::PEER_CLOSED),
        (Errno::IO, Status::INTERNAL),
    ];
    for (errno, wanted) in rows {
        let error = Error::Io { action: "do", path: path(), source: errno.into() };
        assert_eq!(error.status(), wanted, "{errno}");
    }
}
