//! The report of `tombolo inspect` for people: health, identity, geometry, rings, endpoints.

use std::io::{self, Write};
use std::ops::Range;

use tombolo::inspect::{Boot, EndpointView, Image, Liveness, Process, RingView};
use tombolo_abi::{Header, RegionState, Role, SlotState, caps, slot_flags, wake};

use crate::columns::Columns;
use crate::lanes::Unused;
use crate::units::{count, counted, hex, moment, percent, printable, printable_bytes, size};
use crate::{channel, endpoints, health, lanes, stuck};

/// Problems that are listed in full.
const PROBLEMS_SHOWN: usize = 20;
/// What to do about any of them.
const ADVICE: &str = "  save what `tombolo dump` still shows, then close all users of the region and remove the file";

pub(crate) fn write(image: &Image, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", health::line(image))?;
    write_stuck(image, out)?;
    write_problems(image, out)?;
    write_identity(image, out)?;
    if image.rings().is_empty() {
        return Ok(());
    }
    if let Some(view) = image.channel() {
        channel::write(view, out)?;
    }
    let unused = lanes::unused(image);
    write_geometry(image, &unused, out)?;
    write_rings(image, &unused, out)?;
    write_traffic(image, &unused, out)?;
    write_remarks(image, &unused, out)?;
    endpoints::write(image, out)
}

fn write_stuck(image: &Image, out: &mut impl Write) -> io::Result<()> {
    let Some(first) = image.stuck().first().filter(|_| health::is_stuck(image)) else {
        return Ok(());
    };
    writeln!(out, "  {}", stuck::advice(image, first))?;
    if image.stuck().len() == 1 {
        return Ok(()); // the first line is about it
    }
    writeln!(out, "\nSTUCK")?;
    image.stuck().iter().try_for_each(|one| writeln!(out, "  {}", stuck::text(image, one)))
}

fn write_problems(image: &Image, out: &mut impl Write) -> io::Result<()> {
    if image.problems().is_empty() {
        return Ok(());
    }
    writeln!(out, "{ADVICE}")?;
    if image.problems().len() == 1 {
        return Ok(()); // the first line is about it
    }
    writeln!(out, "\nPROBLEMS")?;
    for problem in image.problems().iter().take(PROBLEMS_SHOWN) {
        writeln!(out, "  {}", printable(&problem.to_string()))?;
    }
    match image.problems().len().saturating_sub(PROBLEMS_SHOWN) {
        0 => Ok(()),
        more => writeln!(out, "  and {more} more, all of them with --json"),
    }
}

fn write_identity(image: &Image, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nREGION")?;
    let mut line = |name: &str, value: String| writeln!(out, "  {name:<10}{value}");
    let path = printable(&image.path().to_string_lossy());
    line("path", format!("{path} (inode {})", image.inode()))?;
    let Some(page) = image.page() else {
        return line("file", size(image.file_len()));
    };
    let header = &page.header;
    line("name", printable_bytes(&header.name))?;
    line("uuid", hex(&header.region_uuid))?;
    line("format", format_words(header))?;
    line("state", format!("{} (generation {})", state_words(header), header.generation))?;
    line("size", size_words(header, image.file_len()))?;
    let creator = health::process(&image.creator());
    line("created", moment(header.created_unix_ns))?;
    line("creator", format!("pid {} {creator}", header.creator_pid))?;
    if image.is_copy() && image.boot() != Boot::Earlier {
        let inode = header.file_inode;
        line("copy", format!("of the file with inode {inode}, whose locks tell who is alive"))?;
    }
    match image.boot() {
        Boot::This => {}
        Boot::Earlier => {
            let words = "an earlier one: no process is alive, and the last writes may be missing";
            line("boot", words.to_owned())?;
        }
        _ => {
            let id = hex(&header.boot_id);
            let words = "the id is another's, but it was made since this machine started";
            line("boot", format!("unclear: {id}; {words}"))?;
        }
    }
    line("snapshot", format!("consistent: {}", snapshot_words(image)))
}

fn snapshot_words(image: &Image) -> String {
    if image.has_moved() {
        return "no, it moved while it was read".to_owned();
    }
    match image.rings().iter().find(|ring| ring.is_behind) {
        Some(ring) => {
            let number = ring.ring;
            format!("no, a sender of ring {number} is in the middle of a send, or died there")
        }
        None => "yes".to_owned(),
    }
}

fn format_words(header: &Header) -> String {
    let mut needs = Vec::new();
    for (bit, name) in [
        (caps::EXT, "EXT"),
        (caps::HANDLES, "HANDLES"),
        (caps::HUGE, "HUGE"),
        (caps::LANES, "LANES"),
    ] {
        if header.caps_required & bit != 0 {
            needs.push(name.to_owned());
        }
    }
    let unknown = header.caps_required & !caps::REQUIRED_KNOWN;
    if unknown != 0 {
        needs.push(format!("unknown {unknown:#x}"));
    }
    let needs = if needs.is_empty() { "nothing".to_owned() } else { needs.join(", ") };
    format!("v{}.{}, requires {needs}", header.major, header.minor)
}

fn state_words(header: &Header) -> String {
    match RegionState::from_word(header.state) {
        Some(RegionState::Empty) => "EMPTY".to_owned(),
        Some(RegionState::Initializing) => "INITIALIZING".to_owned(),
        Some(RegionState::Ready) => "READY".to_owned(),
        Some(RegionState::Retired) => "RETIRED".to_owned(),
        Some(RegionState::Poisoned) => "POISONED".to_owned(),
        None => format!("unknown, {}", header.state),
    }
}

fn size_words(header: &Header, file_len: u64) -> String {
    let region = format!("{} ({} bytes)", size(header.total_len), count(header.total_len));
    if header.total_len == file_len {
        return region;
    }
    format!("{region}, in a file of {} ({} bytes)", size(file_len), count(file_len))
}

fn write_geometry(image: &Image, unused: &Unused, out: &mut impl Write) -> io::Result<()> {
    let Some(page) = image.page() else { return Ok(()) };
    let header = &page.header;
    let mut table = Columns::new("SECTION, >OFFSET, >SIZE, HOLDS");
    let mut section = |name: String, offset: u64, len: u64, holds: String| {
        table.row([name, format!("{offset:#x}"), size(len), holds]);
    };
    let header_len = u64::from(header.header_len);
    section("header".into(), 0, header_len, "identity and geometry".into());
    let (slots, slot_len) = (u64::from(header.slot_count), u64::from(header.slot_len));
    let holds = format!("{slots} endpoints of {slot_len} bytes");
    section("slots".into(), header.slot_offset, slots * slot_len, holds);
    let (rings, entry_len) = (u64::from(header.ring_count), u64::from(header.entry_len));
    let holds = format!("{rings} rings of {entry_len} bytes");
    section("directory".into(), header.directory_offset, rings * entry_len, holds);
    for ring in image.rings().iter().filter(|ring| !unused.has(ring)) {
        let (number, entry) = (ring.ring, &ring.entry);
        if ring.control.is_some() {
            let len = header.control_len.into();
            let holds = "positions, wake words, counters".into();
            section(format!("ring {number} control"), entry.control_offset, len, holds);
        }
        let holds = data_words(ring);
        section(format!("ring {number} data"), entry.data_offset, entry.capacity, holds);
    }
    writeln!(out, "\nGEOMETRY")?;
    table.write(out)
}

fn data_words(ring: &RingView) -> String {
    let entry = &ring.entry;
    if ring.control.is_none() {
        return "plain memory".to_owned();
    }
    let align = 1u64.checked_shl(entry.align_shift.into()).unwrap_or(0);
    let longest = count(entry.max_message.into());
    format!("records at multiples of {align}, up to {longest} bytes, {} handles", entry.max_handles)
}

fn write_rings(image: &Image, unused: &Unused, out: &mut impl Write) -> io::Result<()> {
    let mut table =
        Columns::new("RING, LISTED, KIND, STATE, >WAITING, >DEPTH, >CAPACITY, >FULL, >HEAD, >TAIL");
    for ring in image.rings().iter().filter(|ring| !unused.has(ring)) {
        let depth = ring.depth;
        let msgs = depth.and_then(|depth| depth.msgs);
        let position = |word: Option<u64>| word.map_or_else(dash, |word| word.to_string());
        table.row([
            ring.ring.to_string(),
            ring.listed.map_or_else(dash, |index| index.to_string()),
            kind(ring),
            ring_state(ring).unwrap_or_else(dash),
            msgs.map_or_else(dash, |msgs| counted(msgs, "msg")),
            depth.map_or_else(dash, |depth| size(depth.len)),
            size(ring.entry.capacity),
            depth.map_or_else(dash, |depth| percent(depth.len, ring.entry.capacity)),
            position(ring.control.map(|control| control.head)),
            position(ring.control.map(|control| control.tail)),
        ]);
    }
    writeln!(
        out,
        "\nRINGS (LISTED: the index in EventsRegion::rings; all lanes of a consumer are one ring)"
    )?;
    table.write(out)?;
    unused.words().map_or(Ok(()), |words| writeln!(out, "  {words}"))
}

fn write_traffic(image: &Image, unused: &Unused, out: &mut impl Write) -> io::Result<()> {
    let mut table = Columns::new(
        "RING, >SENT, >BYTES, >RECEIVED, >BYTES, >HANDLES, >FULL, >SLEEPS, >SPURIOUS, \
         >LOCK BREAKS, >SKIPPED",
    );
    for ring in image.rings().iter().filter(|ring| !unused.has(ring)) {
        let Some(control) = &ring.control else { continue };
        table.row([
            ring.ring.to_string(),
            count(control.sent_msgs),
            size(control.sent_bytes),
            count(control.received_msgs),
            size(control.received_bytes),
            format!("{}/{}", count(control.handles_taken), count(control.handles_sent)),
            count(control.full_events),
            count(control.sleeps),
            count(control.spurious),
            count(control.lock_breaks),
            count(control.skipped),
        ]);
    }
    writeln!(
        out,
        "\nTRAFFIC (since the region was made; HANDLES: taken/sent; FULL: sends that found no space)"
    )?;
    table.write(out)
}

fn write_remarks(image: &Image, unused: &Unused, out: &mut impl Write) -> io::Result<()> {
    let of_ring = |ring| {
        let carrying = carrying(image, ring).filter(|_| !unused.has(ring));
        remarks(image, ring).into_iter().chain(carrying)
    };
    let remarks: Vec<String> = image.rings().iter().flat_map(of_ring).collect();
    if !remarks.is_empty() {
        writeln!(out)?;
    }
    remarks.iter().try_for_each(|remark| writeln!(out, "  {remark}"))
}

fn remarks(image: &Image, ring: &RingView) -> Vec<String> {
    let mut remarks = Vec::new();
    let number = ring.ring;
    let owner = |slot: u16| image.endpoints().iter().find(|one| one.slot == u32::from(slot));
    let is_unseen = |endpoint: &&EndpointView| endpoint.process == Process::OtherNamespace;
    if let Some(lock) = &ring.lock {
        let (slot, word) = (lock.slot, health::liveness(lock.liveness));
        let holder = match owner(slot).filter(is_unseen) {
            Some(_) => "a process of another PID namespace".to_owned(),
            None => format!("pid {}", lock.pid),
        };
        remarks.push(format!("ring {number}: its lock is held by slot {slot} ({holder}, {word})"));
    }
    let Some(control) = &ring.control else { return remarks };
    if control.rx_wake & (wake::ARMED_FUTEX | wake::ARMED_FD) != 0 {
        remarks.push(format!("ring {number}: its receiver waits for a message"));
    }
    if control.tx_wake & (wake::ARMED_FUTEX | wake::ARMED_FD) != 0 {
        remarks.push(format!("ring {number}: a sender waits for space"));
    }
    let receiver = owner(ring.entry.rx_slot).filter(is_unseen);
    let is_waited_for = ring.depth.is_some_and(|depth| depth.len > 0);
    if receiver.is_some_and(|receiver| receiver.liveness == Liveness::Alive) && is_waited_for {
        let unseen = "is in another PID namespace, from which its state is not seen here";
        remarks.push(format!("ring {number}: its receiver {unseen}"));
    }
    remarks
}

/// The processes connected for handles, of a ring with messages that may carry some.
fn carrying(image: &Image, ring: &RingView) -> Option<String> {
    let control = ring.control.as_ref().filter(|_| ring.entry.max_handles > 0)?;
    if image.is_copy() {
        return None;
    }
    let entry = &ring.entry;
    // By the slot: the receiver's has the number of its first lane only.
    let connected = |role, slots: Range<u16>| {
        let is_connected = |one: &&EndpointView| {
            (u32::from(slots.start)..slots.end.into()).contains(&one.slot)
                && one.role() == Some(role)
                && one.liveness == Liveness::Alive
                && one.fields.flags & slot_flags::HAS_SOCKET != 0
        };
        image.endpoints().iter().filter(is_connected).count()
    };
    let rx_slot = entry.rx_slot..entry.rx_slot.saturating_add(1);
    let listens =
        if connected(Role::Receiver, rx_slot) > 0 { "listens" } else { "does not listen" };
    let senders = counted(connected(Role::Sender, entry.tx_slots()) as u64, "sender");
    // Counted by two sides, one after the other: what is below zero is on its way too.
    let on_the_way = control.handles_sent.wrapping_sub(control.handles_taken) as i64;
    let under_way = counted(on_the_way.max(0) as u64, "handle");
    let number = ring.ring;
    if image.channel().is_some() {
        // They cross over sockets that came with the end, mostly.
        return (on_the_way > 0).then(|| format!("ring {number}: {under_way} on the way"));
    }
    Some(format!(
        "ring {number}: its receiver {listens} for handles, {senders} connected, {under_way} on the way"
    ))
}

/// What stands if there is nothing to say.
pub(crate) fn dash() -> String {
    "-".to_owned()
}

/// The ring's kind in a word.
pub(crate) fn kind(ring: &RingView) -> String {
    match ring.entry.ring_kind() {
        Some(kind) => kind.name().to_owned(),
        None => format!("unknown {}", ring.entry.kind),
    }
}

/// The ring's state in a word; `None` for plain memory.
pub(crate) fn ring_state(ring: &RingView) -> Option<String> {
    use tombolo_abi::RingState::{Open, Poisoned, RxClosed, TxClosed};
    let control = ring.control.as_ref()?;
    Some(match ring.state() {
        Some(Open) => "open".to_owned(),
        Some(TxClosed) => "sender closed".to_owned(),
        Some(RxClosed) => "receiver closed".to_owned(),
        Some(Poisoned) => format!("POISONED {}", control.reason),
        None => format!("unknown {}", control.state),
    })
}

/// The slot's state in a word.
pub(crate) fn slot_state(endpoint: &EndpointView) -> String {
    match endpoint.state() {
        Some(SlotState::Free) => "free".to_owned(),
        Some(SlotState::Attaching) => "attaching".to_owned(),
        Some(SlotState::Attached) => "attached".to_owned(),
        Some(SlotState::InTransit) => "in transit".to_owned(),
        Some(SlotState::Detaching) => "detaching".to_owned(),
        None => format!("unknown {}", endpoint.fields.state),
    }
}

/// The endpoint's role in a word.
pub(crate) fn role(endpoint: &EndpointView) -> String {
    match endpoint.role() {
        Some(Role::Receiver) => "receiver".to_owned(),
        Some(Role::Sender) => "sender".to_owned(),
        None => format!("unknown {}", endpoint.fields.role),
    }
}
