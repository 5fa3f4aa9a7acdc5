//! The processes that keep messages from getting through an intact region, in words and as data.

use serde_json::{Value, json};
use tombolo::inspect::{EndpointView, Image, Process, RingView, Stuck, StuckReason};
use tombolo_abi::RingKind;

use crate::health;
use crate::units::{count, counted, printable};

/// Rings that a line names.
const NAMED_MAX: usize = 4;

/// What is wrong, which process causes it, and what waits.
pub(crate) fn text(image: &Image, stuck: &Stuck) -> String {
    let endpoint = endpoint(image, stuck);
    let (rings, who, stopped) =
        (rings(image, stuck), process_words(endpoint), stopped_words(endpoint));
    let its = if stuck.rings.len() == 1 { "its" } else { "their" };
    let with_rest = |first: String| {
        let waits = stuck.sender_waits.then(|| "a sender waits for space".to_owned());
        sentence([Some(first), full_words(stuck), waits])
    };
    match stuck.reason {
        StuckReason::ReceiverStopped => {
            let unread = with_rest(unread_words(image, stuck));
            format!("{rings}: {its} receiver, {who}, {stopped}; {unread}")
        }
        StuckReason::ReceiverDead => {
            format!("{rings}: {its} receiver, {who}, {}", with_rest("is dead".to_owned()))
        }
        StuckReason::ReceiverMissing => {
            format!("{rings}: {}", with_rest("no process receives".to_owned()))
        }
        StuckReason::HolderStopped => {
            format!("a sender, {who}, holds the lock of {rings} and {stopped}")
        }
        StuckReason::SenderStopped => {
            let words = "in the middle of a send, and has not woken the receiver";
            format!("{rings}: its sender, {who}, {stopped} {words}; {}", unread_words(image, stuck))
        }
        _ => format!("{rings}: messages don't get through"),
    }
}

fn full_words(stuck: &Stuck) -> Option<String> {
    let words = match (stuck.rings.len(), stuck.reason) {
        (1, _) => "the ring is full",
        (_, StuckReason::ReceiverStopped) => "not all of them have space",
        _ => "the rings are full",
    };
    stuck.is_full.then(|| words.to_owned())
}

/// What there is of `parts`, with commas and an *and*.
fn sentence(parts: impl IntoIterator<Item = Option<String>>) -> String {
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    match parts.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// What to do about it.
pub(crate) fn advice(image: &Image, stuck: &Stuck) -> String {
    let is_channel = image.channel().is_some();
    match (stuck.reason, endpoint(image, stuck)) {
        (StuckReason::ReceiverDead | StuckReason::ReceiverMissing, _) | (_, None) => {
            let what = if is_channel { "open the other end" } else { "start a receiver" };
            format!("{what}: it gets what is unread")
        }
        (_, Some(endpoint)) => {
            let pid = endpoint.fields.pid;
            let go_on = match &endpoint.process {
                Process::Running { state: 't', .. } => "let its debugger continue it".to_owned(),
                _ => format!("let it go on by `kill -CONT {pid}`"),
            };
            let what_follows = if is_channel {
                "the channel is over then, and what it has sent can be read"
            } else {
                "what was sent is kept, and another process may take its place"
            };
            format!("{go_on}, or end it: {what_follows}")
        }
    }
}

pub(crate) fn to_json(image: &Image, stuck: &Stuck) -> Value {
    let endpoint = endpoint(image, stuck);
    let (process, command) = match endpoint.map(|endpoint| &endpoint.process) {
        Some(process @ Process::Running { command, .. }) => {
            (if process.is_stopped() { "stopped" } else { "running" }, Some(printable(command)))
        }
        Some(Process::Gone) => ("gone", None),
        Some(Process::Reused) => ("reused", None),
        Some(Process::OtherNamespace) => ("other_pid_namespace", None),
        _ => ("unknown", None),
    };
    let pid = command.is_some().then(|| endpoint.map(|endpoint| endpoint.fields.pid)).flatten();
    json!({
        "rings": stuck.rings,
        "reason": reason(stuck.reason),
        "slot": stuck.slot,
        "role": role(stuck.reason),
        "pid": pid,
        "process": process,
        "command": command,
        "full": stuck.is_full,
        "sender_waits": stuck.sender_waits,
        "unread": unread(image, stuck).map(|msgs| msgs.to_string()),
        "text": text(image, stuck),
    })
}

fn reason(reason: StuckReason) -> &'static str {
    match reason {
        StuckReason::ReceiverStopped => "receiver_stopped",
        StuckReason::ReceiverDead => "receiver_dead",
        StuckReason::ReceiverMissing => "receiver_missing",
        StuckReason::HolderStopped => "lock_holder_stopped",
        StuckReason::SenderStopped => "sender_stopped",
        _ => "unknown",
    }
}

fn role(reason: StuckReason) -> &'static str {
    match reason {
        StuckReason::HolderStopped | StuckReason::SenderStopped => "sender",
        _ => "receiver",
    }
}

/// The endpoint at fault; none if no process owns it.
fn endpoint<'a>(image: &'a Image, stuck: &Stuck) -> Option<&'a EndpointView> {
    if stuck.reason == StuckReason::ReceiverMissing {
        return None;
    }
    image.endpoints().iter().find(|endpoint| endpoint.slot == stuck.slot)
}

fn process_words(endpoint: Option<&EndpointView>) -> String {
    let Some(endpoint) = endpoint else { return "an unknown process".to_owned() };
    health::owner(endpoint.fields.pid, &endpoint.process)
}

fn stopped_words(endpoint: Option<&EndpointView>) -> &'static str {
    match endpoint.map(|endpoint| &endpoint.process) {
        Some(Process::Running { state: 't', .. }) => "is stopped by a debugger",
        _ => "is stopped (SIGSTOP)",
    }
}

/// The rings, or lanes, by their numbers.
fn rings(image: &Image, stuck: &Stuck) -> String {
    let is_lane = |number: &u32| {
        let ring = image.rings().iter().find(|ring| ring.ring == *number);
        ring.is_some_and(|ring| ring.entry.ring_kind() == Some(RingKind::Lane))
    };
    let noun = if stuck.rings.iter().any(is_lane) { "lane" } else { "ring" };
    let mut named: Vec<String> = stuck.rings.iter().take(NAMED_MAX).map(u32::to_string).collect();
    match stuck.rings.len().saturating_sub(NAMED_MAX) {
        0 => {}
        more => named.push(format!("{} more", count(more as u64))),
    }
    let plural = if named.len() == 1 { "" } else { "s" };
    format!("{noun}{plural} {}", sentence(named.into_iter().map(Some)))
}

/// Messages that were published and not received; `None` if they could not be counted.
fn unread(image: &Image, stuck: &Stuck) -> Option<u64> {
    let of_it = |ring: &&RingView| stuck.rings.contains(&ring.ring);
    image.rings().iter().filter(of_it).map(|ring| ring.depth?.msgs).sum()
}

fn unread_words(image: &Image, stuck: &Stuck) -> String {
    match unread(image, stuck) {
        Some(1) => "1 message is unread".to_owned(),
        Some(msgs) => format!("{} are unread", counted(msgs, "message")),
        None => "messages are unread".to_owned(),
    }
}
