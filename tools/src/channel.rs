//! The ends of a region that is a channel, in a line, in a table and as data.

use std::io::{self, Write};

use serde_json::{Value, json};
use tombolo::inspect::{ChannelEnd, ChannelView, EndState, StoredReason};

use crate::columns::Columns;
use crate::health;
use crate::report::dash;
use crate::units::{count, counted, printable};

/// What has become of the channel: its ends that are over first.
pub(crate) fn line(channel: &ChannelView) -> String {
    let numbered = || (0..).zip(&channel.ends);
    let over = numbered().filter(|(_, end)| end.state.is_over());
    let rest = numbered().filter(|(_, end)| !end.state.is_over());
    let ends: Vec<_> = over.chain(rest).map(|(number, end)| end_words(number, end)).collect();
    let over = if channel.is_over() { " that is OVER" } else { "" };
    format!("a channel{over}: {}", ends.join("; "))
}

fn end_words(number: u32, end: &ChannelEnd) -> String {
    let owner = health::owner(end.pid, &end.process);
    let mut words = match end.state {
        EndState::NotTaken => format!("end {number} was not taken yet"),
        EndState::Open => format!("end {number}, {owner}, is open"),
        EndState::OnItsWay => format!("end {number} is on its way to another process"),
        EndState::Closed => format!("end {number}, {owner}, was closed"),
        EndState::Died => format!("end {number}, {owner}, died"),
        EndState::DroppedOnItsWay => format!("end {number} was dropped on its way"),
        _ => format!("of end {number} it is unknown whether it is open"),
    };
    if let Some(reason) = &end.reason {
        words += &format!(" with {}", reason_words(reason));
    }
    match end.unread {
        Some(unread) if unread > 0 && !end.state.is_over() => {
            words += &format!(", {} unread", counted(unread, "message"));
        }
        _ => {}
    }
    if end.calls > 0 {
        let wait = if end.calls == 1 { "waits" } else { "wait" };
        words += &format!(", {} {wait}", counted(end.calls, "call"));
    }
    words
}

/// What no end will read any more is lost.
fn unread_words(end: &ChannelEnd) -> String {
    match end.unread {
        Some(0) if end.state.is_over() => dash(),
        Some(unread) if end.state.is_over() => format!("{} lost", counted(unread, "msg")),
        unread => unread.map_or_else(dash, |unread| counted(unread, "msg")),
    }
}

/// The names of its user signals.
fn signals(end: &ChannelEnd) -> Vec<String> {
    (0..8).filter(|bit| end.user_signals >> bit & 1 != 0).map(|bit| format!("USER_{bit}")).collect()
}

fn reason_words(reason: &StoredReason) -> String {
    let StoredReason { code, text, .. } = reason;
    if text.is_empty() {
        return format!("code {code}");
    }
    format!("code {code}, \"{}\"", printable(text))
}

/// Writes the table of both ends.
pub(crate) fn write(channel: &ChannelView, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "\nCHANNEL (an end sends on the ring of its number, and receives on the other)")?;
    let mut table =
        Columns::new("END, STATE, >PID, COMMAND, >UNREAD, >CALLS, SIGNALS, NAME, CLOSED WITH");
    for (number, end) in (0..).zip(&channel.ends) {
        let number: u32 = number;
        let had_owner = end.state != EndState::NotTaken;
        table.row([
            number.to_string(),
            state(end.state).to_owned(),
            if had_owner { end.pid.to_string() } else { dash() },
            if had_owner { health::process(&end.process) } else { dash() },
            unread_words(end),
            if end.state == EndState::Open { count(end.calls) } else { dash() },
            if end.user_signals == 0 { dash() } else { signals(end).join(" ") },
            if end.name.is_empty() { dash() } else { format!("\"{}\"", printable(&end.name)) },
            end.reason.as_ref().map_or_else(dash, reason_words),
        ]);
    }
    table.write(out)
}

pub(crate) fn to_json(channel: &ChannelView) -> Value {
    let end = |(number, end): (u32, &ChannelEnd)| {
        json!({
            "end": number,
            "sends_on": number,
            "receives_on": 1 - number,
            "state": state(end.state).replace(' ', "_"),
            "over": end.state.is_over(),
            "pid": end.pid,
            "command": health::process(&end.process),
            "unread": end.unread.map(|unread| unread.to_string()),
            "calls": end.calls.to_string(),
            "name": printable(&end.name),
            "signals": signals(end),
            "reason": end.reason.as_ref().map(|StoredReason { code, text, .. }| json!({
                "code": code,
                "text": printable(text),
            })),
        })
    };
    json!({
        "over": channel.is_over(),
        "ends": (0..).zip(&channel.ends).map(end).collect::<Value>(),
    })
}

fn state(state: EndState) -> &'static str {
    match state {
        EndState::NotTaken => "not taken",
        EndState::Open => "open",
        EndState::OnItsWay => "on its way",
        EndState::Closed => "closed",
        EndState::Died => "died",
        EndState::DroppedOnItsWay => "dropped on its way",
        _ => "unknown",
    }
}
