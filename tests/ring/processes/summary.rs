//! Two lanes, each with a producer, and a consumer that stops looking at a lane in which nothing comes:
//! no message is left behind, whether it polls, and so depends on the summary, or sleeps.

use super::super::super::doorbell::Fences;
use super::actor::{Actor, Job};
use super::lane::Lane;
use super::lanes::Lanes;
use super::receiver::Idles;
use super::setup::{Barriers, Mutant, Setup};
use super::state::Seen;
use super::{assert_caught, assert_order_is_sound, assert_sound};

const TWO: &[Job] = &[Job::Send(8), Job::Send(8)];
const ONE: &[Job] = &[Job::Send(8)];

/// The producers of lanes, and their consumer.
fn lanes(jobs: &[&'static [Job]], receiver: Lanes) -> Setup {
    let producers = (0..).zip(jobs).map(|(lane, jobs)| Actor::Lane(Lane::new(lane, jobs)));
    let actors = producers.chain([Actor::Lanes(Box::new(receiver))]).collect();
    Setup::new(64, actors)
}

fn polling(jobs: &[&'static [Job]]) -> Setup {
    lanes(jobs, Lanes::new(Idles::Polls))
}

fn sleeping(jobs: &[&'static [Job]]) -> Setup {
    lanes(jobs, Lanes::new(Idles::Sleeps))
}

/// Producers that fence for each message, and a consumer that knows.
fn fenced(jobs: &[&'static [Job]]) -> Setup {
    let receiver = Lanes::new(Idles::Polls).with(Fences::Always);
    Setup { unregistered: &[0, 1], ..lanes(jobs, receiver) }
}

fn with_successor(mut setup: Setup, idles: Idles, killable: &'static [usize]) -> Setup {
    setup.actors.push(Actor::Lanes(Box::new(Lanes::new(idles))));
    setup.kill(1, killable)
}

fn assert_forgets(setup: &Setup) -> Seen {
    let seen = assert_sound(setup);
    assert!(seen.told > 0 && seen.cleared > 0 && seen.forgotten > 0);
    seen
}

#[test]
fn a_consumer_that_polls_misses_no_message_of_a_lane_that_it_forgot() {
    let seen = assert_forgets(&polling(&[TWO, ONE]));
    assert!(seen.barriers > 0);
}

#[test]
fn a_consumer_that_polls_misses_no_message_of_producers_that_always_fence() {
    let seen = assert_forgets(&fenced(&[TWO, ONE]));
    assert_eq!(seen.barriers, 0);
}

#[test]
fn where_the_kernel_refuses_barriers_no_lane_is_forgotten() {
    let seen = assert_sound(&Setup { barriers: Barriers::Refused, ..polling(&[TWO, ONE]) });
    assert!(seen.barriers > 0 && seen.cleared > 0 && seen.forgotten == 0);
}

#[test]
fn a_consumer_that_polls_finds_what_a_producer_killed_before_its_bit_has_published() {
    let seen = assert_forgets(&polling(&[TWO]).kill(1, &[0]));
    assert!(seen.kills > 0);
}

#[test]
fn a_successor_that_polls_finds_what_was_published_while_its_predecessor_cleared_the_bit() {
    let seen = assert_forgets(&with_successor(polling(&[TWO]), Idles::Polls, &[1]));
    assert!(seen.kills > 0 && seen.redelivered > 0);
}

#[test]
fn a_consumer_that_sleeps_leaves_no_message_behind_in_any_lane() {
    let seen = assert_forgets(&sleeping(&[TWO]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.barriers > 0 && seen.relaxed > 0);
}

/// Prints what was gone through.
#[test]
#[ignore = "takes minutes: .ci/search runs it"]
fn a_consumer_that_sleeps_leaves_no_message_behind_in_either_of_two_lanes() {
    let seen = assert_forgets(&sleeping(&[ONE, ONE]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.barriers > 0 && seen.relaxed > 0);
}

#[test]
fn a_consumer_that_sleeps_leaves_no_message_behind_where_the_kernel_refuses_barriers() {
    let seen = assert_forgets(&Setup { barriers: Barriers::Refused, ..sleeping(&[TWO]) });
    assert!(seen.sleeps > 0 && seen.timed_out > 0);
}

#[test]
fn a_consumer_that_sleeps_finds_what_a_killed_producer_has_published() {
    let seen = assert_forgets(&sleeping(&[TWO]).kill(1, &[0]));
    assert!(seen.sleeps > 0 && seen.kills > 0 && seen.death_wakes > 0);
}

/// Prints what was gone through.
#[test]
#[ignore = "takes minutes: .ci/search runs it"]
fn nobody_leaves_a_message_behind_though_anybody_is_killed() {
    let seen = assert_forgets(&with_successor(polling(&[ONE, ONE]), Idles::Polls, &[0, 1, 2]));
    assert!(seen.kills > 0 && seen.redelivered > 0);
    let seen = assert_forgets(&with_successor(sleeping(&[ONE]), Idles::Sleeps, &[0, 1]));
    assert!(seen.kills > 0 && seen.sleeps > 0);
}

const MISSED: &str = "published and is not there";
const ASLEEP: &str = "none to wake its consumer";

#[test]
fn a_lane_forgotten_at_the_look_after_its_bit_was_cleared_leaves_a_message_behind() {
    assert_caught(&polling(&[TWO]).mutant(Mutant::ForgetsAtOnce), MISSED);
}

#[test]
fn a_barrier_that_reaches_nobody_leaves_a_message_behind_in_a_forgotten_lane() {
    assert_caught(&Setup { barriers: Barriers::Pretended, ..polling(&[TWO]) }, MISSED);
}

#[test]
fn a_producer_that_looks_at_its_bit_without_a_fence_leaves_a_message_behind() {
    assert_caught(&fenced(&[TWO]).mutant(Mutant::NoProducerFence), MISSED);
}

#[test]
fn a_sleep_that_depends_on_the_summary_leaves_a_message_behind() {
    assert_caught(&sleeping(&[TWO]).mutant(Mutant::NoScan), ASLEEP);
}

#[test]
fn a_death_after_which_nobody_looks_at_all_lanes_leaves_a_message_behind() {
    let setup = polling(&[TWO]).kill(1, &[0]);
    assert_caught(&setup.mutant(Mutant::NoScanAfterDeath), MISSED);
}

#[test]
fn a_successor_that_believes_the_summary_leaves_a_message_behind() {
    let setup = with_successor(polling(&[TWO]), Idles::Polls, &[1]);
    assert_caught(&setup.mutant(Mutant::BelievesSummary), MISSED);
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    assert_order_is_sound(&polling(&[ONE]));
    assert_order_is_sound(&polling(&[ONE]).kill(1, &[0]));
}
