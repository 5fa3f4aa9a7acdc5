//! The measurement: systems take turns, many short ones each.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::actor::{Order, Role};
use crate::cell::{Cell, Outcome};
use crate::crew::{Crew, Turn};
use crate::place::Directory;
use crate::registry::Kind;
use crate::stats::Summary;
use crate::system::Failure;

/// How much time there is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    pub(crate) repetitions: usize,
    /// For all cells together.
    pub(crate) total: Duration,
    /// Of one repetition, at most.
    pub(crate) turn_max: Duration,
}

impl Effort {
    pub(crate) const QUICK: Self = Self {
        repetitions: 31,
        total: Duration::from_secs(45),
        turn_max: Duration::from_millis(2),
    };
    pub(crate) const FULL: Self = Self {
        repetitions: 101,
        total: Duration::from_secs(8 * 60),
        turn_max: Duration::from_millis(20),
    };
}

const TURN_MIN: Duration = Duration::from_micros(500);
/// Rounds that are timed one by one, beside those that are timed as a whole.
const SAMPLED: u64 = 4;
/// What a turn takes beside its run: telling two processes, the sampled rounds.
const OVERHEAD: f64 = 1.6;
/// Most messages, and most bytes, of the pass that compares every byte.
const CHECKED: u64 = 3000;
const CHECKED_BYTES: usize = 8 << 20;

/// A cell with its children, while its turns last.
struct Running<'a> {
    cell: &'a Cell<'a>,
    roles: Vec<Role>,
    crew: Option<Crew>,
    count: u64,
    taken: Vec<Turn>,
    failure: Option<String>,
}

/// Measures all turns and gives what came out.
pub(crate) fn measure(turns: &[Vec<Cell>], effort: Effort) -> Result<Vec<Outcome>, Failure> {
    let directory = Directory::create()?;
    let deadline = Instant::now() + effort.total;
    let mut left: usize = turns.iter().map(Vec::len).sum();
    let mut outcomes = vec![];
    for turn in turns {
        progress(&turn[0].describe());
        let time = deadline.saturating_duration_since(Instant::now());
        let share = time.div_f64(OVERHEAD * (left * effort.repetitions) as f64);
        let slice = share.clamp(TURN_MIN, effort.turn_max);
        outcomes.extend(take_turns(turn, &directory, slice, effort.repetitions)?);
        left -= turn.len();
    }
    progress("");
    Ok(outcomes)
}

/// What is being measured, on a terminal.
fn progress(what: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        write!(out, "\r\x1b[K{what}").and_then(|()| out.flush()).ok();
    }
}

fn take_turns(
    cells: &[Cell],
    directory: &Directory,
    slice: Duration,
    repetitions: usize,
) -> Result<Vec<Outcome>, Failure> {
    let mut all = vec![];
    for cell in cells {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let mut running = Running::new(cell, directory.within(&number.to_string())?);
        running.attempt(|running| running.begin(slice));
        all.push(running);
    }
    for _ in 0..repetitions {
        for running in &mut all {
            running.attempt(Running::repeat);
        }
    }
    Ok(all.into_iter().map(Running::end).collect())
}

impl<'a> Running<'a> {
    fn new(cell: &'a Cell<'a>, directory: PathBuf) -> Self {
        let roles = cell.roles(directory);
        Self { cell, roles, crew: None, count: 0, taken: vec![], failure: None }
    }

    /// Does it unless something has failed before.
    fn attempt(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Failure>) {
        if self.failure.is_none() {
            self.failure = step(self).err().map(|failure| failure.to_string());
        }
        if self.failure.is_some() {
            self.crew = None;
        }
    }

    /// Starts the children, compares every byte for a while, and finds out how many messages fill
    /// a turn.
    fn begin(&mut self, slice: Duration) -> Result<(), Failure> {
        self.roles[0].with_meetings(|there, back| {
            (self.cell.entry.prepare)(there)?;
            if self.cell.entry.kind == Kind::Processes && self.cell.test().is_round_trip() {
                (self.cell.entry.prepare)(back)?;
            }
            Ok::<_, Failure>(())
        })?;
        self.crew = Some(Crew::start(&self.roles)?);
        let one_turn = slice.as_nanos() as f64;
        self.count = 8;
        let slow = self.obey(self.order())?.ns * CHECKED as f64 > one_turn * 20.0;
        let size = self.roles[0].size.max(1);
        let most = if slow { CHECKED / 30 } else { CHECKED };
        self.obey(Order::Check { count: most.min((CHECKED_BYTES / size) as u64) })?;
        let producers = self.cell.producers() as f64;
        for _ in 0..4 {
            let ns = self.obey(self.order())?.ns * producers;
            let wanted = (one_turn / ns.max(0.1)).clamp(1.0, 1e9) as u64;
            let is_near = wanted < self.count * 2;
            self.count = wanted.min(self.count * 64).max(2);
            if is_near {
                break;
            }
        }
        self.obey(self.order()).map(drop)
    }

    fn repeat(&mut self) -> Result<(), Failure> {
        let turn = self.obey(self.order())?;
        self.taken.push(turn);
        Ok(())
    }

    fn order(&self) -> Order {
        let samples = if self.cell.test().is_round_trip() { self.count / SAMPLED } else { 0 };
        Order::Run { count: self.count, samples }
    }

    fn obey(&mut self, order: Order) -> Result<Turn, Failure> {
        self.crew.as_mut().ok_or("no children")?.obey(order)
    }

    fn end(mut self) -> Outcome {
        let percentiles = match &mut self.crew {
            Some(crew) => crew.percentiles().ok().flatten(),
            None => None,
        };
        self.crew = None;
        self.roles[0].with_meetings(|there, back| {
            (self.cell.entry.clean_up)(there);
            if self.cell.entry.kind == Kind::Processes && self.cell.test().is_round_trip() {
                (self.cell.entry.clean_up)(back);
            }
        });
        let (taken, disturbance) = self.cell.choose(&self.taken);
        let summary = Summary::of(taken).ok_or_else(|| "no repetition".to_owned());
        let result = match self.failure {
            Some(failure) => Err(failure),
            None => summary.map(|summary| (summary, percentiles)),
        };
        self.cell.outcome(result, disturbance, self.taken)
    }
}
