//! The endpoints of a region, in a table.

use std::io::{self, Write};

use tombolo::inspect::{EndpointView, Image};
use tombolo_abi::{RingKind, Role};

use crate::columns::Columns;
use crate::health;
use crate::report::{dash, role, slot_state};
use crate::units::{age, count, size};

pub(crate) fn write(image: &Image, out: &mut impl Write) -> io::Result<()> {
    let slots = image.page().map_or(0, |page| page.header.slot_count) as usize;
    let unused = slots.saturating_sub(image.endpoints().len());
    writeln!(out, "\nENDPOINTS ({unused} of {slots} slots never used)")?;
    if image.endpoints().is_empty() {
        return writeln!(out, "  none yet");
    }
    let mut table = Columns::new(
        "SLOT, RING, ROLE, ALIVE, >PID, COMMAND, STATE, >SENT, >BYTES, >WAKES, \
         >ELIDED, >WAITS, >SLEEPS, >BY DEATH, >BREAKS, ATTACHED",
    );
    for endpoint in image.endpoints() {
        let fields = &endpoint.fields;
        let torn = if endpoint.torn { " ~torn" } else { "" };
        table.row([
            endpoint.slot.to_string(),
            fields.ring.to_string(),
            role(endpoint),
            alive(endpoint).to_owned(),
            fields.pid.to_string(),
            health::process(&endpoint.process),
            format!("{} #{}{torn}", slot_state(endpoint), fields.incarnation),
            if counts_sent(image, endpoint) { count(fields.msgs) } else { dash() },
            if counts_sent(image, endpoint) { size(fields.bytes) } else { dash() },
            count(fields.wakes_sent),
            count(fields.wakes_elided),
            count(fields.full_waits),
            count(fields.sleeps),
            count(fields.woken_by_death),
            count(fields.lock_breaks),
            age(fields.attach_ns),
        ]);
    }
    table.write(out)
}

/// Whether the slot counts what its owner sends: only if a ring has several senders.
fn counts_sent(image: &Image, endpoint: &EndpointView) -> bool {
    let ring = image.rings().iter().find(|ring| ring.ring == endpoint.fields.ring);
    endpoint.role() == Some(Role::Sender)
        && ring.is_some_and(|ring| ring.entry.ring_kind() == Some(RingKind::Mpsc))
}

fn alive(endpoint: &EndpointView) -> &'static str {
    match health::liveness(endpoint.liveness) {
        "alive" => "yes",
        "dead" => "DEAD",
        other => other,
    }
}
