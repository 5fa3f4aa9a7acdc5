//! A child process: one side of one cell, told by lines on its standard input what to do.
//!
//! It answers `open` once its ends are open, and `done NS EVICTIONS` to each order (`-` for NS where
//! another side takes the time; `ready` before that from a side that others wait for), `percentiles A B C` to `report`, and `failed WHY` whenever
//! something went wrong, which is the end of it.

use std::fs;
use std::io::{self, BufRead, Write};
use std::process::ExitCode;

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::actor::{Actor, Order, Role, Side};
use crate::place::pin;
use crate::registry::Registry;
use crate::system::{Failure, set_crowded};

/// Runs until standard input ends.
pub(crate) fn run(registry: &Registry, role: &Role) -> ExitCode {
    match obey_all(registry, role) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            say(&format!("failed {}", failure.to_string().replace('\n', " ")));
            ExitCode::FAILURE
        }
    }
}

fn obey_all(registry: &Registry, role: &Role) -> Result<(), Failure> {
    // A side whose other side is gone may wait for ever: it goes with the parent at the latest.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_crowded(role.crowded);
    pin(role.cpu)?;
    let entry = registry.find(role).ok_or("no such system")?;
    let mut actor = (entry.actor)(role)?;
    say("open");
    for line in io::stdin().lock().lines() {
        answer(&mut *actor, role.side, &line?)?;
    }
    Ok(())
}

fn answer(actor: &mut dyn Actor, side: Side, line: &str) -> Result<(), Failure> {
    let words: Vec<&str> = line.split(' ').collect();
    let order = match words[..] {
        ["check", count] => Order::Check { count: count.parse()? },
        ["run", count, samples] => Order::Run { count: count.parse()?, samples: samples.parse()? },
        ["report"] => {
            let all = actor.percentiles().map(|p| format!(" {} {} {}", p[0], p[1], p[2]));
            say(&format!("percentiles{}", all.unwrap_or_default()));
            return Ok(());
        }
        _ => return Err(format!("not an order: {line}").into()),
    };
    let before = evictions()?;
    let ns = actor.obey(order, &mut || {
        if side == Side::Follow {
            say("ready"); // the others are told to begin when it looks
        }
    })?;
    let ns = ns.map_or_else(|| "-".into(), |ns| ns.to_string());
    say(&format!("done {ns} {}", evictions()? - before));
    Ok(())
}

/// How often somebody else was given this thread's processor while it could have gone on.
fn evictions() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/thread-self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("nonvoluntary_ctxt_switches:"));
    Ok(line.ok_or("no count of context switches")?.trim().parse()?)
}

/// The parent reads it, or is gone, and then so are we.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}
