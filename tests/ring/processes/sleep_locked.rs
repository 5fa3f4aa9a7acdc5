//! The consumer of an MPSC ring sleeps while holders of its lock come, go and die: no message is
//! left behind in a ring whose consumer sleeps.

use super::actor::{Actor, Job, id};
use super::locked::{AfterTransfer, Locked, Stage};
use super::receiver::{Idles, Receiver};
use super::setup::{Barriers, Killed, Mutant, Setup};
use super::{assert_caught, assert_order_is_sound, assert_sound};

const ONE: &[Job] = &[Job::Send(8)];
const TWO: &[Job] = &[Job::Send(8), Job::Send(8)];
const LONG: &[Job] = &[Job::Send(24)];

/// Producers, and a consumer that sleeps.
fn crew(jobs: &[&'static [Job]], then: AfterTransfer) -> Setup {
    let producer = |(slot, jobs): (u16, &&'static [Job])| {
        Actor::Locked(Locked { after_transfer: then, ..Locked::new(id(slot, 1), jobs) })
    };
    let mut actors: Vec<_> = (0..).zip(jobs).map(producer).collect();
    actors.push(Actor::Receiver(Receiver::new(Idles::SleepsLocked)));
    Setup::new(64, actors)
}

#[test]
fn no_message_is_left_behind_by_producers_under_a_lock() {
    let seen = assert_sound(&crew(&[TWO, ONE], AfterTransfer::Sends));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.barriers > 0);
}

#[test]
fn no_message_is_left_behind_where_the_kernel_refuses_barriers() {
    let setup = crew(&[TWO], AfterTransfer::Sends);
    let seen = assert_sound(&Setup { barriers: Barriers::Refused, ..setup });
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.timed_out > 0);
}

#[test]
fn no_message_is_left_behind_by_a_holder_that_is_killed() {
    let seen = assert_sound(&crew(&[ONE, ONE], AfterTransfer::Either).kill(1, &[0]));
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.death_wakes > 0 && seen.wakes > 0);
}

#[test]
fn no_message_is_left_behind_when_a_consumer_follows_one_killed_while_armed() {
    let mut setup = crew(&[TWO], AfterTransfer::Sends);
    setup.actors.push(Actor::Receiver(Receiver::new(Idles::SleepsLocked)));
    let seen = assert_sound(&setup.kill(1, &[1]));
    assert!(seen.kills > 0 && seen.wakes > 0 && seen.redelivered > 0);
}

/// Two producers and a consumer, any two of which are killed, and the consumer's successor. Prints
/// what was gone through.
#[test]
#[ignore = "takes minutes: .ci/search runs it"]
fn no_message_is_left_behind_by_any_two_kills() {
    let mut setup = crew(&[ONE, ONE], AfterTransfer::Sends);
    setup.actors.push(Actor::Receiver(Receiver::new(Idles::SleepsLocked)));
    let seen = assert_sound(&setup.kill(2, &[0, 1, 2]));
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.death_wakes > 0 && seen.wakes > 0);
}

const LOST: &str = "none to wake its consumer";

#[test]
fn a_look_at_the_header_before_the_lock_leaves_a_message_behind() {
    let setup = crew(&[ONE], AfterTransfer::Sends);
    assert_caught(&setup.mutant(Mutant::HeaderBeforeLock), LOST);
}

#[test]
fn without_a_watcher_a_death_before_notifying_leaves_a_message_behind() {
    let setup = crew(&[ONE], AfterTransfer::Sends).kill(1, &[0]);
    assert_caught(&Setup { is_watched: false, ..setup }, LOST);
}

#[test]
fn a_barrier_that_does_not_reach_the_holder_leaves_a_message_behind() {
    let setup = crew(&[ONE], AfterTransfer::Sends);
    assert_caught(&Setup { unregistered: &[0], ..setup }, LOST);
}

/// A holder is killed, and who gets its slot takes the lock over without space for a message of its
/// own. Nobody watches, or the watcher's wake would do.
fn taken_over_without_sending() -> Setup {
    let mut setup = crew(&[LONG], AfterTransfer::LetsGo).kill(1, &[0]);
    let after_transfer = AfterTransfer::LetsGo;
    let attacher = Locked { stage: Stage::Attach, after_transfer, ..Locked::new(id(0, 2), LONG) };
    setup.actors.push(Actor::Locked(attacher));
    Setup { is_watched: false, killed: Killed::UnderLock, ..setup }
}

#[test]
fn no_message_is_left_behind_by_a_transfer_that_sends_nothing() {
    let seen = assert_sound(&taken_over_without_sending());
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.wakes > 0);
}

#[test]
fn a_transfer_that_tells_nobody_leaves_a_message_behind() {
    assert_caught(&taken_over_without_sending().mutant(Mutant::SilentTransfer), LOST);
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    assert_order_is_sound(&crew(&[ONE], AfterTransfer::Sends).kill(1, &[0]));
    assert_order_is_sound(&taken_over_without_sending());
}
