//! Tables on the terminal.

use std::fs;

use super::say;
use crate::cell::{Disturbance, Outcome};
use crate::measure::Effort;
use crate::place::Cpus;
use crate::registry::Kind;
use crate::stats::Summary;
use crate::test::Test;

/// The processor and the kernel.
pub(crate) fn machine() -> String {
    let machine = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = machine.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{model}, Linux {}", kernel.trim())
}

/// What is going to be done, and where.
pub(crate) fn print_head(effort: Effort, cpus: Cpus) {
    say(machine());
    if cpus.is_one() {
        say(format_args!(
            "Only one CPU: both sides share CPU {} and yield. These are no latencies.",
            cpus.lead
        ));
    } else {
        let are = if cpus.are_siblings() { " (two threads of one core)" } else { "" };
        say(format_args!("Senders on CPU {}, receivers on CPU {}{are}.", cpus.lead, cpus.follow));
    }
    let count = effort.repetitions;
    say(format_args!(
        "Medians of {count} turns, without those in which something else ran on these CPUs."
    ));
}

/// A table for each test.
pub(crate) fn print(outcomes: &[Outcome]) {
    for test in Test::ALL {
        let of_test: Vec<&Outcome> = outcomes.iter().filter(|o| o.test == test).collect();
        if of_test.is_empty() {
            continue;
        }
        let unit = if test.is_one_way() { "million messages a second" } else { "ns" };
        say(format_args!("\n{}: {}, {unit}", test.name(), test.title()));
        say(format_args!("{}", heading(test)));
        let mut last = None;
        for outcome in sorted(of_test) {
            let place = (outcome.size, outcome.producers);
            if last.replace(place).is_some_and(|last| last != place) {
                say("");
            }
            say(format_args!("{}", line(outcome, floor_of(outcome, outcomes)).trim_end()));
        }
    }
    let mostly = |outcome: &&Outcome| outcome.disturbance == Disturbance::Mostly;
    let count = outcomes.iter().filter(mostly).count();
    if count > 0 {
        say(format_args!(
            "\n* {count} of {} rows: in nearly all turns something else ran",
            outcomes.len()
        ));
        say(format_args!("  on the same CPUs. Don't believe those rows."));
    }
}

/// By size and producers; within them as they were registered.
fn sorted(mut outcomes: Vec<&Outcome>) -> Vec<&Outcome> {
    outcomes.sort_by_key(|outcome| (outcome.size, outcome.producers));
    outcomes
}

fn heading(test: Test) -> String {
    let what = match test {
        Test::FanIn => "senders",
        Test::PassHandles => "handles",
        _ => "size",
    };
    let rest = if test.is_one_way() {
        format!("{:>9}", "GB/s")
    } else {
        format!("{:>9} {:>9} {:>9}", "p50", "p99", "p99.9")
    };
    format!(
        "  {what:>8}  {:<28}{:>10}  {:>19}  {:>8}{rest}",
        "system", "median", "middle half", "x floor"
    )
}

fn line(outcome: &Outcome, floor: Option<&Outcome>) -> String {
    let size = match outcome.test {
        Test::FanIn => outcome.producers.to_string(),
        Test::PassHandles => outcome.size.to_string(),
        _ if outcome.size == 0 => String::new(),
        _ => format!("{} B", outcome.size),
    };
    let threads = if outcome.kind == Kind::Threads { " (threads)" } else { "" };
    let begin = format!("  {size:>8}  {:<28}", format!("{}{threads}", outcome.system));
    let (summary, percentiles) = match &outcome.result {
        Ok(result) => result,
        Err(why) => return format!("{begin} failed: {why}"),
    };
    let shown = |ns| if outcome.test.is_one_way() { figure(1e3 / ns) } else { figure(ns) };
    let ratio = floor.and_then(|floor| outcome.over(floor));
    let ratio = ratio.map_or_else(String::new, |ratio| match outcome.test.is_one_way() {
        true => format!("{:.3}", 1.0 / ratio),
        false => format!("{ratio:.2}"),
    });
    let ends = ends(outcome.test, summary);
    let half = format!("{} .. {}", shown(ends.0), shown(ends.1));
    let rest = if outcome.test.is_one_way() {
        format!("{:>9.2}", outcome.size as f64 / summary.median)
    } else {
        let shown = percentiles.map(|all| all.map(|ns| format!("{:>9}", figure(ns))).join(" "));
        shown.unwrap_or_default()
    };
    let mark = if outcome.disturbance == Disturbance::Mostly { '*' } else { ' ' };
    format!("{begin}{:>10}{mark} {half:>19}  {ratio:>8}{rest}", shown(summary.median))
}

/// The quartiles, the one that is shown as the smaller number first.
fn ends(test: Test, summary: &Summary) -> (f64, f64) {
    if test.is_one_way() { (summary.upper, summary.lower) } else { (summary.lower, summary.upper) }
}

/// The floor that belongs to it: at its size, if it was measured there.
fn floor_of<'a>(outcome: &Outcome, outcomes: &'a [Outcome]) -> Option<&'a Outcome> {
    let name = outcome.test.floor()?;
    let same = |floor: &&Outcome| {
        floor.system == name && floor.test.turn(floor.size) == outcome.test.turn(outcome.size)
    };
    let at_size = outcomes.iter().filter(same).find(|floor| floor.size == outcome.size);
    at_size.or_else(|| outcomes.iter().find(same))
}

/// Three or four digits, with commas.
pub(crate) fn figure(value: f64) -> String {
    if value < 1.0 {
        format!("{value:.3}")
    } else if value < 10.0 {
        format!("{value:.2}")
    } else if value < 100.0 {
        format!("{value:.1}")
    } else {
        let digits = format!("{value:.0}");
        let mut text = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        text
    }
}
