//! A server is killed while a client has 1,000 calls outstanding, in threads, in tasks, or both: each of them ends with
//! *peer closed*, within two seconds.
//!
//! Before that, with those calls outstanding, other calls get their replies, in another order than they were made, and
//! the replies that come late, to calls that were given up, are read as messages. Afterwards the client has no more
//! descriptors, threads and mapped memory than before.

mod client;
mod control;
mod latencies;
mod message;
mod server;
mod tasks;

use std::time::Duration;

use self::client::{Client, Tally};
use self::latencies::Latencies;
use crate::possessions::Possessions;
use crate::{Failure, Report, Rng, Role, Run, Setting};

/// The run.
pub(crate) const RUN: Run = Run {
    name: "channel-calls",
    about: "a server killed 200 times with 1,000 calls outstanding: each ends at once; late replies are read",
    body,
    roles: &[Role { name: server::NAME, body: server::serve }],
};

const ROUNDS: u64 = 200;
/// Calls that are outstanding when the server is killed.
const OUTSTANDING: usize = 1000;
/// Calls with replies in a round, in no order.
const ANSWERED: usize = 64;
/// Calls of a round that are given up before they have replies.
const GIVEN_UP: usize = 12;
/// Bytes of the stack of a thread that waits.
const STACK_LEN: usize = 1 << 18;
/// The longest that a call may take to end after the server's death.
const LONGEST: Duration = Duration::from_secs(2);
/// So many times as long as it takes to wake as many threads without the library, if that is longer.
const LONGER_BY: u32 = 8;
/// As much if the machine has nothing else to do, but for one call of a hundred.
const LONGEST_OF_MOST: Duration = Duration::from_millis(50);

/// Who waits for the replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Callers {
    Threads,
    Tasks,
    Both,
}

impl Callers {
    const ALL: [Self; 3] = [Self::Threads, Self::Tasks, Self::Both];

    fn name(self) -> &'static str {
        match self {
            Self::Threads => "1,000 threads",
            Self::Tasks => "1,000 tasks",
            Self::Both => "500 threads and 500 tasks",
        }
    }

    /// Which of the calls are threads'.
    fn thread_count(self) -> usize {
        match self {
            Self::Threads => OUTSTANDING,
            Self::Tasks => 0,
            Self::Both => OUTSTANDING / 2,
        }
    }
}

fn body(setting: &Setting) -> Result<Report, Failure> {
    let mut rng = Rng::new(setting.seed);
    let mut report = Report::new();
    let mut tally = Tally::default();
    client::warm_up()?;
    let rounds = setting.count(ROUNDS, 6).div_ceil(Callers::ALL.len() as u64);
    let mut most = Vec::new();
    for callers in Callers::ALL {
        let mut latencies = Latencies::default();
        for round in 0..rounds {
            let before = Possessions::now()?;
            let played = Client::start(setting, &mut rng)
                .and_then(|(client, server)| {
                    client.play(server, callers, &mut rng, &mut latencies, &mut tally)
                })
                .and_then(|()| before.expect());
            played.map_err(|error| format!("{}, round {round}: {error}", callers.name()))?;
        }
        latencies.describe(&mut report, callers.name());
        most.push(latencies.quantile(99));
    }
    let control = control::wake_all()?;
    report
        .note("1,000 threads woken without the library, the last after", format!("{control:.2?}"));
    tally.tell(&mut report);
    if setting.holds_times && most.iter().any(|most| *most > LONGEST_OF_MOST) {
        return Err(format!("of 100 calls 99 end after {most:.1?}\n{report}").into());
    }
    Ok(report)
}

/// The longest that a call may take if the machine takes `control` to wake as many threads.
fn longest(control: Duration) -> Duration {
    LONGEST.max(LONGER_BY * control)
}
