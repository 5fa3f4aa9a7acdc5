//! The consumer of an SPSC ring sleeps, and its producer fences only while it is asked to: no
//! message is left behind in a ring whose consumer sleeps.

use super::actor::{Actor, Job};
use super::receiver::{Idles, Receiver};
use super::setup::{Barriers, Mutant, Setup};
use super::single::Single;
use super::{assert_caught, assert_order_is_sound, assert_sound};

const THREE: &[Job] = &[Job::Send(8), Job::Send(8), Job::Send(8)];
const TWO: &[Job] = &[Job::Send(8), Job::Send(8)];

/// A producer and a consumer that sleeps.
fn pair(jobs: &'static [Job]) -> Setup {
    let producer = Actor::Single(Single::new(jobs));
    let receiver = Actor::Receiver(Receiver::new(Idles::Sleeps));
    Setup::new(128, vec![producer, receiver])
}

/// A producer, a consumer that is killed, and the one after it.
fn with_successor(jobs: &'static [Job]) -> Setup {
    let mut setup = pair(jobs);
    setup.actors.push(Actor::Receiver(Receiver::new(Idles::Sleeps)));
    setup.kill(1, &[1])
}

#[test]
fn no_message_is_left_behind_by_a_producer_that_barriers_reach() {
    let seen = assert_sound(&pair(THREE));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.barriers > 0 && seen.relaxed > 0);
}

#[test]
fn no_message_is_left_behind_by_a_producer_that_always_fences() {
    let seen = assert_sound(&Setup { unregistered: &[0], ..pair(THREE) });
    assert!(seen.sleeps > 0 && seen.wakes > 0);
}

#[test]
fn no_message_is_left_behind_when_a_consumer_follows_one_killed_while_armed() {
    let seen = assert_sound(&with_successor(TWO));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.kills > 0 && seen.redelivered > 0);
}

#[test]
fn no_message_is_left_behind_by_a_producer_killed_before_it_notifies() {
    let seen = assert_sound(&pair(TWO).kill(1, &[0]));
    assert!(seen.kills > 0 && seen.death_wakes > 0);
}

#[test]
fn no_message_is_left_behind_where_the_kernel_refuses_barriers() {
    let seen = assert_sound(&Setup { barriers: Barriers::Refused, ..pair(THREE) });
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.timed_out > 0);
}

#[test]
fn no_message_is_left_behind_where_a_successor_is_refused_barriers() {
    let seen = assert_sound(&Setup { barriers: Barriers::Refused, ..with_successor(TWO) });
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.kills > 0 && seen.timed_out > 0);
}

const LOST: &str = "none to wake its consumer";

#[test]
fn a_producer_that_does_not_fence_when_asked_leaves_a_message_behind() {
    assert_caught(&pair(TWO).mutant(Mutant::NoProducerFence), LOST);
}

#[test]
fn a_consumer_that_does_not_fence_after_arming_leaves_a_message_behind() {
    assert_caught(&pair(TWO).mutant(Mutant::NoArmingFence), LOST);
}

#[test]
fn a_barrier_that_reaches_nobody_leaves_a_message_behind() {
    assert_caught(&Setup { barriers: Barriers::Pretended, ..pair(TWO) }, LOST);
}

#[test]
fn another_consumers_request_taken_for_ones_own_leaves_a_message_behind() {
    assert_caught(&with_successor(TWO).mutant(Mutant::BelievesRequest), LOST);
}

#[test]
fn without_a_watcher_a_death_before_notifying_leaves_a_message_behind() {
    let setup = pair(TWO).kill(1, &[0]);
    assert_caught(&Setup { is_watched: false, ..setup }, LOST);
}

/// The message found while arming was published before the request for fences, and so may be one
/// behind it that is not visible yet.
#[test]
fn trust_after_an_arming_that_found_something_leaves_a_message_behind() {
    let setup = Setup { barriers: Barriers::Refused, ..pair(THREE) };
    assert_caught(&setup.mutant(Mutant::TrustsAtOnce), LOST);
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    assert_order_is_sound(&with_successor(TWO));
    assert_order_is_sound(&Setup { barriers: Barriers::Refused, ..pair(TWO) });
    assert_order_is_sound(&pair(TWO).kill(1, &[0]));
}
