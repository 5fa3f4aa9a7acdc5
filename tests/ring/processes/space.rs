//! Producers sleep for space: none is left asleep before an empty ring.

use super::actor::{Actor, Job, WhenFull, id};
use super::locked::Locked;
use super::receiver::{Idles, Receiver};
use super::setup::{Mutant, Setup};
use super::single::Single;
use super::{assert_caught, assert_order_is_sound, assert_sound};

const TWO: &[Job] = &[Job::Send(24), Job::Send(24)];
const ONE: &[Job] = &[Job::Send(24)];

/// A producer of an SPSC ring that sleeps for space, and a consumer that polls.
fn single(jobs: &'static [Job]) -> Setup {
    let producer = Single { when_full: WhenFull::Sleeps, ..Single::new(jobs) };
    let receiver = Actor::Receiver(Receiver::new(Idles::Polls));
    Setup { is_watched: false, ..Setup::new(64, vec![Actor::Single(producer), receiver]) }
}

/// Producers of an MPSC ring that sleep for space, the last of which may give up; and a consumer.
fn crew(jobs: &[&'static [Job]]) -> Setup {
    let last = jobs.len() - 1;
    let producer = |(slot, jobs): (usize, &&'static [Job])| {
        let when_full = if slot == last { WhenFull::MayGiveUp } else { WhenFull::Sleeps };
        Actor::Locked(Locked { when_full, ..Locked::new(id(slot as u16, 1), jobs) })
    };
    let mut actors: Vec<_> = jobs.iter().enumerate().map(producer).collect();
    actors.push(Actor::Receiver(Receiver::new(Idles::Polls)));
    Setup { is_watched: false, ..Setup::new(64, actors) }
}

fn with_successor(mut setup: Setup, killable: &'static [usize]) -> Setup {
    setup.actors.push(Actor::Receiver(Receiver::new(Idles::Polls)));
    setup.kill(1, killable)
}

#[test]
fn a_producer_alone_is_woken_for_room() {
    let seen = assert_sound(&single(&[Job::Send(24), Job::Send(24), Job::Batch(8)]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.refused > 0);
}

#[test]
fn producers_are_woken_for_room_though_one_gives_up() {
    let seen = assert_sound(&crew(&[TWO, ONE]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.timed_out > 0);
}

#[test]
fn producers_are_woken_for_room_though_one_is_killed() {
    let seen = assert_sound(&crew(&[TWO, ONE]).kill(1, &[1]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.kills > 0);
}

#[test]
fn a_producer_is_woken_for_room_by_the_consumer_after_one_that_was_killed() {
    let seen = assert_sound(&with_successor(single(TWO), &[1]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.kills > 0);
}

/// A message of 8 bytes that crosses no eighth of the ring, and behind it one that needs its space.
fn freed_within_an_eighth() -> Setup {
    Setup { capacity: 128, ..single(&[Job::Send(0), Job::Send(112)]) }
}

#[test]
fn a_producer_is_woken_for_room_that_ends_within_an_eighth() {
    let seen = assert_sound(&freed_within_an_eighth());
    assert!(seen.sleeps > 0 && seen.wakes > 0);
}

#[test]
fn neither_is_left_asleep_where_both_sides_sleep() {
    let mut setup = single(&[Job::Send(24), Job::Send(24), Job::Send(8)]);
    setup.actors[1] = Actor::Receiver(Receiver::new(Idles::Sleeps));
    let seen = assert_sound(&setup);
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.refused > 0 && seen.barriers > 0);
}

/// Any of them, and the consumer too. Prints what was gone through.
#[test]
#[ignore = "takes minutes: .ci/search runs it"]
fn producers_are_woken_for_room_though_anybody_is_killed() {
    let seen = assert_sound(&with_successor(crew(&[TWO, ONE]), &[0, 1, 2]));
    assert!(seen.sleeps > 0 && seen.wakes > 0 && seen.kills > 0 && seen.transfers > 0);
}

const LOST: &str = "none to wake its producer";

#[test]
fn armings_that_are_not_counted_leave_a_producer_asleep() {
    assert_caught(&crew(&[TWO, ONE]).mutant(Mutant::NoArmCount), LOST);
}

#[test]
fn a_successor_with_nothing_to_tell_leaves_a_producer_asleep() {
    let setup = with_successor(single(TWO), &[1]);
    assert_caught(&setup.mutant(Mutant::SuccessorWithoutNews), LOST);
}

#[test]
fn a_consumer_that_does_not_fence_after_freeing_leaves_a_producer_asleep() {
    assert_caught(&single(TWO).mutant(Mutant::NoFreeingFence), LOST);
}

#[test]
fn a_look_that_overtakes_the_arming_leaves_a_producer_asleep() {
    assert_caught(&single(TWO).mutant(Mutant::LookBeforeArming), LOST);
}

#[test]
fn a_consumer_that_tells_nobody_of_an_empty_ring_leaves_a_producer_asleep() {
    assert_caught(&freed_within_an_eighth().mutant(Mutant::SilentWhenEmpty), LOST);
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    assert_order_is_sound(&with_successor(single(TWO), &[1]));
}
