//! The one line that says how a region is, and the words for its parts.

use tombolo::inspect::{Boot, ChannelView, Health, Image, Liveness, Process};

use crate::channel;
use crate::stuck;
use crate::units::{counted, printable};

/// The first line of every report.
pub(crate) fn line(image: &Image) -> String {
    if is_stuck(image) {
        return format!("STUCK: {}", first_stuck(image));
    }
    match image.health() {
        Health::Healthy => format!("healthy: {}", summary(image)),
        Health::Retired => {
            format!("retired: another region took its name; {}", summary(image))
        }
        Health::NotInitialized => format!("not initialized: {}", unfinished(image)),
        Health::Unsupported => format!("UNSUPPORTED: {}", reason(image)),
        Health::NotARegion => reason(image),
        Health::Poisoned => format!("POISONED: {}", first_problem(image)),
        _ => format!("DAMAGED: {}", first_problem(image)),
    }
}

/// Whether the region is intact and messages don't get through it.
pub(crate) fn is_stuck(image: &Image) -> bool {
    matches!(image.health(), Health::Healthy | Health::Retired) && !image.stuck().is_empty()
}

/// The health in a word, for scripts.
pub(crate) fn word(image: &Image) -> &'static str {
    if is_stuck(image) {
        return "stuck";
    }
    match image.health() {
        Health::Healthy => "healthy",
        Health::Retired => "retired",
        Health::Damaged => "damaged",
        Health::Poisoned => "poisoned",
        Health::NotInitialized => "not_initialized",
        Health::Unsupported => "unsupported",
        Health::NotARegion => "not_a_region",
        _ => "unknown",
    }
}

fn summary(image: &Image) -> String {
    if let Some(view) = image.channel() {
        return channel_summary(image, view);
    }
    let rings = counted(image.rings().len() as u64, "ring");
    if image.is_copy() && image.boot() != Boot::Earlier {
        return format!("{rings}, a copy: who is alive is unknown");
    }
    let alive = counted(image.endpoint_count(Liveness::Alive) as u64, "endpoint");
    match image.endpoint_count(Liveness::Dead) {
        0 => format!("{rings}, {alive} alive"),
        dead => format!("{rings}, {alive} alive, {dead} DEAD"),
    }
}

fn channel_summary(image: &Image, view: &ChannelView) -> String {
    if image.boot() == Boot::Earlier {
        return "a channel of an earlier boot: no process has its ends".to_owned();
    }
    if image.is_copy() {
        return "a channel, a copy: who is alive is unknown".to_owned();
    }
    channel::line(view)
}

fn unfinished(image: &Image) -> String {
    if image.file_len() == 0 {
        return "the file is empty; whoever opens it as a region makes one of it".to_owned();
    }
    let state = image.page().map_or(0, |page| page.header.state);
    if image.is_being_changed() {
        return format!("state {state}, its creator is at work; look again in a moment");
    }
    format!("state {state}, and its creator is gone; whoever opens it next makes it anew")
}

fn reason(image: &Image) -> String {
    image.reason().map_or_else(String::new, |reason| printable(&reason.to_string()))
}

fn first_stuck(image: &Image) -> String {
    let Some(stuck) = image.stuck().first() else { return String::new() };
    let first = stuck::text(image, stuck);
    match image.stuck().len() - 1 {
        0 => first,
        more => format!("{first}, and {}", counted(more as u64, "more cause")),
    }
}

fn first_problem(image: &Image) -> String {
    let Some(problem) = image.problems().first() else { return "no particulars".to_owned() };
    let first = printable(&problem.to_string());
    match image.problems().len() - 1 {
        0 => first,
        more => format!("{first}, and {}", counted(more as u64, "more problem")),
    }
}

/// The boot that made the region, in a word.
pub(crate) fn boot(boot: Boot) -> &'static str {
    match boot {
        Boot::This => "this",
        Boot::Earlier => "earlier",
        _ => "unclear",
    }
}

/// The liveness in a word.
pub(crate) fn liveness(liveness: Liveness) -> &'static str {
    match liveness {
        Liveness::Alive => "alive",
        Liveness::Dead => "dead",
        Liveness::Left => "left",
        _ => "unknown",
    }
}

/// The owner of something, by the `pid` that it stored. A pid stands there only if it means that process here.
pub(crate) fn owner(pid: u32, process: &Process) -> String {
    match process {
        Process::Running { command, .. } => format!("pid {pid} ({})", printable(command)),
        Process::Gone => format!("formerly pid {pid}"),
        Process::Reused => format!("formerly pid {pid}, which is another process now"),
        Process::OtherNamespace => "a process of another PID namespace".to_owned(),
        _ => "an unknown process".to_owned(),
    }
}

/// A process in words.
pub(crate) fn process(process: &Process) -> String {
    match process {
        Process::Running { command, state: 'T' | 't' } => {
            format!("{} (stopped)", printable(command))
        }
        Process::Running { command, state: 'Z' | 'X' } => {
            format!("{} (zombie)", printable(command))
        }
        Process::Running { command, .. } => printable(command),
        Process::Gone => "(gone)".to_owned(),
        Process::Reused => "(pid is another's now)".to_owned(),
        Process::OtherNamespace => "(other pid namespace)".to_owned(),
        _ => "(unknown)".to_owned(),
    }
}
