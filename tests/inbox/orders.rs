//! Goes through all orders in which threads have their turns: it runs them again and again, each time in another
//! order, until every step was taken from every state that is reached.
//!
//! The threads are real, and only the one runs whose turn it is: up to its next point, or until it sleeps. A state
//! that was reached before, by another order, is not gone on from again.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::crash::turns::{self, Turns};

/// Points at which another thread may have its turn. None lies inside a lock that is not waited for by turns.
const POINTS: [&str; 13] = [
    "inbox.lock",
    "outbox.lock",
    "inbox.lead",
    "bell.to-arm",
    "bell.armed",
    "signals.changed",
    "next",
    "adopt.to-claim",
    "attach.slot-renewed",
    "attach.filling",
    "attach.filled",
    "attach.slot-attached",
    "release.slot-passed-on",
];

/// Turns that one run takes at most.
const TURNS_MAX: usize = 500;

/// What is searched.
pub(super) trait Scene: Sync {
    /// How many threads take part.
    fn thread_count(&self) -> usize;
    /// What thread `index` does.
    fn act(&self, index: usize);
    /// All that decides how it goes on, but for where each thread is.
    fn state(&self) -> String;
    /// What is wrong when all threads are through.
    fn check(&self) -> Result<(), String>;
    /// Has all threads end.
    fn end(&self);
}

/// What a search went through.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Covered {
    pub(super) states: usize,
    pub(super) orders: usize,
    /// Runs to the end.
    pub(super) ends: usize,
    pub(super) sleeps: usize,
    pub(super) wakes: usize,
}

/// Where a thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Runs,
    At(&'static str),
    /// At a lock that another has; those that have had turns since are noted.
    Waits {
        point: &'static str,
        is_worth_another: bool,
    },
    Asleep(Vec<usize>),
    Over,
}

#[derive(Debug)]
struct Inside {
    places: Vec<Place>,
    turn: Option<usize>,
    /// The threads run on without turns.
    is_over: bool,
    sleeps: usize,
    wakes: usize,
}

/// One run of all threads.
#[derive(Debug)]
struct Run {
    inside: Mutex<Inside>,
    changed: Condvar,
    left_out: Option<&'static str>,
}

impl Run {
    fn new(count: usize, left_out: Option<&'static str>) -> Self {
        let places = vec![Place::Runs; count];
        let inside = Inside { places, turn: None, is_over: false, sleeps: 0, wakes: 0 };
        Self { inside: Mutex::new(inside), changed: Condvar::new(), left_out }
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Thread `index` is at `place` until it has its turn.
    fn stay(&self, index: usize, place: Place) {
        let mut inside = self.lock();
        if inside.is_over {
            return;
        }
        inside.sleeps += usize::from(matches!(place, Place::Asleep(_)));
        inside.places[index] = place;
        self.changed.notify_all();
        let wait = |inside: &mut Inside| inside.turn != Some(index) && !inside.is_over;
        inside = self.changed.wait_while(inside, wait).unwrap_or_else(PoisonError::into_inner);
        inside.turn = None;
        inside.places[index] = Place::Runs;
    }

    /// Where all threads are, once none runs.
    fn places(&self) -> Vec<Place> {
        let runs =
            |inside: &mut Inside| inside.turn.is_some() || inside.places.contains(&Place::Runs);
        let inside = self.changed.wait_while(self.lock(), runs);
        inside.unwrap_or_else(PoisonError::into_inner).places.clone()
    }

    fn give_turn(&self, to: usize) {
        let mut inside = self.lock();
        for (index, place) in inside.places.iter_mut().enumerate() {
            if let Place::Waits { is_worth_another, .. } = place
                && index != to
            {
                *is_worth_another = true;
            }
        }
        inside.turn = Some(to);
        self.changed.notify_all();
    }
}

/// A thread's part in a run.
struct Part {
    run: Arc<Run>,
    index: usize,
}

/// Also if the thread has panicked.
impl Drop for Part {
    fn drop(&mut self) {
        self.run.lock().places[self.index] = Place::Over;
        self.run.changed.notify_all();
    }
}

impl Turns for Part {
    fn pass(&self, point: &'static str) {
        if POINTS.contains(&point) {
            self.run.stay(self.index, Place::At(point));
        }
    }

    fn pass_until_others_have(&self, point: &'static str) {
        self.run.stay(self.index, Place::Waits { point, is_worth_another: false });
        thread::yield_now(); // if the run is over
    }

    fn sleep(&self, words: Vec<usize>) {
        self.run.stay(self.index, Place::Asleep(words));
    }

    fn wake(&self, word: usize) {
        let mut inside = self.run.lock();
        let Inside { places, wakes, .. } = &mut *inside;
        for place in places {
            if matches!(place, Place::Asleep(words) if words.contains(&word)) {
                *place = Place::At("woken");
                *wakes += 1;
            }
        }
    }

    fn is_left_out(&self, step: &'static str) -> bool {
        self.run.left_out == Some(step)
    }
}

/// A turn that was given, and to whom it could have been.
struct Choice {
    options: Vec<usize>,
    taken: usize,
}

pub(super) struct Search<F> {
    make: F,
    left_out: Option<&'static str>,
    seen: HashSet<String>,
    choices: Vec<Choice>,
    covered: Covered,
}

impl<S: Scene, F: Fn() -> S> Search<F> {
    /// Of the scenes that `make` makes, all alike.
    pub(super) fn new(make: F) -> Self {
        let covered = Covered::default();
        Self { make, left_out: None, seen: HashSet::new(), choices: Vec::new(), covered }
    }

    /// Without that step.
    pub(super) fn without(self, step: &'static str) -> Self {
        Self { left_out: Some(step), ..self }
    }

    /// Goes through all orders, up to the first that goes wrong.
    pub(super) fn run(mut self) -> Result<Covered, String> {
        loop {
            self.run_once()?;
            self.covered.orders += 1;
            while self.choices.pop_if(|last| last.taken + 1 == last.options.len()).is_some() {}
            let Some(last) = self.choices.last_mut() else { break };
            last.taken += 1;
        }
        self.covered.states = self.seen.len();
        Ok(self.covered)
    }

    fn run_once(&mut self) -> Result<(), String> {
        let scene = (self.make)();
        let run = Arc::new(Run::new(scene.thread_count(), self.left_out));
        let found = thread::scope(|scope| {
            for index in 0..scene.thread_count() {
                let (run, scene) = (run.clone(), &scene);
                scope.spawn(move || {
                    let part = Rc::new(Part { run, index });
                    turns::with(Some(part), || scene.act(index));
                });
            }
            let found = self.order(&scene, &run);
            run.lock().is_over = true;
            run.changed.notify_all();
            scene.end();
            found
        });
        let inside = run.lock();
        self.covered.sleeps += inside.sleeps;
        self.covered.wakes += inside.wakes;
        found
    }

    /// Gives turns until all threads are through, or a state is reached that was there before.
    fn order(&mut self, scene: &S, run: &Run) -> Result<(), String> {
        let mut trace = Vec::new();
        for turn in 0..TURNS_MAX {
            let places = run.places();
            let may_go = |place: &Place| match place {
                Place::At(_) => true,
                Place::Waits { is_worth_another, .. } => *is_worth_another,
                Place::Runs | Place::Asleep(_) | Place::Over => false,
            };
            let options: Vec<_> =
                (0..places.len()).filter(|index| may_go(&places[*index])).collect();
            if options.is_empty() {
                let are_all_over = places.iter().all(|place| *place == Place::Over);
                self.covered.ends += 1;
                let verdict = match are_all_over {
                    true => scene.check(),
                    false => Err(format!("sleeps with no wake due: {places:?}")),
                };
                return verdict
                    .map_err(|it| format!("{it}\n{}\n{}", scene.state(), trace.join("\n")));
            }
            if turn == self.choices.len() {
                if !self.seen.insert(format!("{places:?} {}", scene.state())) {
                    return Ok(());
                }
                self.choices.push(Choice { options, taken: 0 });
            }
            let Choice { options, taken } = &self.choices[turn];
            let next = options[*taken];
            trace.push(format!("{next} from {:?}", places[next]));
            run.give_turn(next);
        }
        Err(format!("no end in sight\n{}", trace.join("\n")))
    }
}
