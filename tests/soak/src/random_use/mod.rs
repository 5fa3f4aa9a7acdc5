//! The whole API, used at random by one thread that has both ends, against a model that knows for each
//! call what may come of it.
//!
//! The run is made of *worlds*: a region each, with an SPSC ring and an MPSC ring or lanes, whose
//! positions start just before 2^64. What a step does is drawn from the seed, the world's number and
//! the step's, so that a failure comes again with the seed; a departure that is told a little later, and
//! which lane is next, is up to the clock.

mod context;
mod ends;
mod lends;
mod model;
mod play;
mod receives;
mod reserves;
mod sends;
mod tally;
mod world;

use self::tally::Tally;
use self::world::World;
use crate::{Failure, Report, Run, Setting};

/// The run.
pub(crate) const RUN: Run = Run {
    name: "random-use",
    about: "1,000,000 messages by random calls of the whole API: each does what a model says",
    body,
    roles: &[],
};

fn body(setting: &Setting) -> Result<Report, Failure> {
    let messages = setting.count(1_000_000, 20_000);
    let mut tally = Tally::default();
    let mut worlds = 0;
    while tally.sent < messages {
        worlds += 1;
        let mut world = World::new(setting.seed, worlds)?;
        world.run(&mut tally).map_err(|error| world.explain(&*error))?;
    }
    Ok(tally.report(worlds))
}
