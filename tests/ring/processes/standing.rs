//! An end waits at a descriptor or as a task, and a thread of its process sleeps in its place: no message
//! is left behind in a ring whose consumer waits, and no producer before an empty ring.

use super::super::super::Word;
use super::actor::{Actor, Job, WhenFull, id};
use super::bridge::{How, Reactor};
use super::locked::Locked;
use super::receiver::{Idles, Receiver};
use super::setup::{Mutant, Setup};
use super::single::Single;
use super::state::Seen;
use super::{assert_caught, assert_order_is_sound, assert_sound};

const ONE: &[Job] = &[Job::Send(8)];
const TWO: &[Job] = &[Job::Send(8), Job::Send(8)];
const ALL: [How; 3] = [How::Level, How::Edge, How::Task];

/// A producer, and a consumer that waits for it so.
fn pair(jobs: &'static [Job], how: How) -> Setup {
    let producer = Actor::Single(Single::new(jobs));
    let receiver = Actor::Receiver(Receiver::new(Idles::Stands(how)));
    Setup::new(128, vec![producer, receiver, Actor::Reactor(Reactor::new(Word::RxWake))])
}

/// Producers under a lock, and a consumer that waits for them so.
fn crew(jobs: &[&'static [Job]], how: How) -> Setup {
    let producer =
        |(slot, jobs): (u16, &&'static [Job])| Actor::Locked(Locked::new(id(slot, 1), jobs));
    let mut actors: Vec<_> = (0..).zip(jobs).map(producer).collect();
    actors.push(Actor::Receiver(Receiver::new(Idles::StandsLocked(how))));
    actors.push(Actor::Reactor(Reactor::new(Word::RxWake)));
    Setup::new(64, actors)
}

const LONG: &[Job] = &[Job::Send(24), Job::Send(24)];
const ONE_LONG: &[Job] = &[Job::Send(24)];

/// The producer of an SPSC ring, that waits so for space, and a consumer that polls.
fn for_space(how: How) -> Setup {
    let producer = Single { when_full: WhenFull::Stands(how), ..Single::new(LONG) };
    let receiver = Actor::Receiver(Receiver::new(Idles::PollsLocked)); // it has fences asked for
    let reactor = Actor::Reactor(Reactor::new(Word::TxWake));
    let actors = vec![Actor::Single(producer), receiver, reactor];
    Setup { is_watched: false, ..Setup::new(64, actors) }
}

/// The same, and another producer that arms the word, too.
fn beside_another(how: How) -> Setup {
    let mut setup = for_space(how);
    setup.actors.push(Actor::Armer);
    setup
}

/// Producers of an MPSC ring, of which one sleeps for space.
fn for_space_under_lock(how: How) -> Setup {
    let producer = |slot, jobs, when_full| {
        Actor::Locked(Locked { when_full, ..Locked::new(id(slot, 1), jobs) })
    };
    let actors = vec![
        producer(0, ONE_LONG, WhenFull::Stands(how)),
        producer(1, ONE_LONG, WhenFull::Sleeps),
        Actor::Receiver(Receiver::new(Idles::PollsLocked)),
        Actor::Reactor(Reactor::new(Word::TxWake)),
    ];
    Setup { is_watched: false, ..Setup::new(64, actors) }
}

fn assert_crossed(seen: &Seen) {
    assert!(seen.stood > 0 && seen.ended > 0 && seen.awaited > 0 && seen.sleeps > 0);
}

#[test]
fn no_message_is_left_behind_by_a_producer_that_barriers_reach() {
    for how in ALL {
        let seen = assert_sound(&pair(TWO, how));
        assert_crossed(&seen);
        assert!(seen.barriers > 0 && seen.relaxed > 0);
    }
}

#[test]
fn no_message_is_left_behind_by_a_producer_that_always_fences() {
    assert_crossed(&assert_sound(&Setup { unregistered: &[0], ..pair(TWO, How::Edge) }));
}

#[test]
fn no_message_is_left_behind_by_a_producer_killed_before_it_notifies() {
    let seen = assert_sound(&pair(TWO, How::Edge).kill(1, &[0]));
    assert_crossed(&seen);
    assert!(seen.kills > 0 && seen.death_wakes > 0);
}

#[test]
fn no_message_is_left_behind_by_a_producer_under_a_lock() {
    for how in ALL {
        assert_crossed(&assert_sound(&crew(&[TWO], how)));
    }
}

#[test]
fn no_message_is_left_behind_by_a_holder_that_is_killed() {
    let seen = assert_sound(&crew(&[TWO], How::Edge).kill(1, &[0]));
    assert_crossed(&seen);
    assert!(seen.kills > 0 && seen.death_wakes > 0);
}

#[test]
fn a_producer_is_told_of_space() {
    for how in ALL {
        let seen = assert_sound(&for_space(how));
        assert_crossed(&seen);
        assert!(seen.refused > 0);
    }
}

#[test]
fn a_producer_is_told_of_space_though_another_one_arms_the_same_word() {
    let seen = assert_sound(&beside_another(How::Edge));
    assert_crossed(&seen);
    assert!(seen.refused > 0);
}

#[test]
fn producers_under_a_lock_are_told_of_space() {
    let seen = assert_sound(&for_space_under_lock(How::Edge));
    assert_crossed(&seen);
    assert!(seen.refused > 0);
}

const LOST: &str = "none to wake its consumer";
const NO_SPACE: &str = "none to wake its producer";

#[test]
fn a_thread_that_goes_by_having_been_woken_leaves_a_message_behind() {
    assert_caught(&pair(TWO, How::Level).mutant(Mutant::BridgesWhenWoken), LOST);
}

#[test]
fn a_thread_that_loads_the_word_without_the_lock_leaves_a_message_behind() {
    assert_caught(&pair(TWO, How::Level).mutant(Mutant::LoadsWordLast), LOST);
}

#[test]
fn a_descriptor_that_is_cleared_after_the_arming_stands_leaves_a_message_behind() {
    for how in [How::Level, How::Edge] {
        assert_caught(&pair(TWO, how).mutant(Mutant::ClearsLast), LOST);
    }
}

#[test]
fn an_arming_that_stands_without_a_look_at_its_word_leaves_a_message_behind() {
    assert_caught(&pair(TWO, How::Task).mutant(Mutant::TrustsItsArming), LOST);
}

#[test]
fn a_look_before_the_arming_only_leaves_a_message_behind() {
    assert_caught(&pair(TWO, How::Edge).mutant(Mutant::LooksBeforeArmingOnly), LOST);
}

#[test]
fn a_consumer_that_does_not_fence_after_arming_leaves_a_message_behind() {
    assert_caught(&pair(TWO, How::Level).mutant(Mutant::NoArmingFence), LOST);
}

#[test]
fn a_producer_that_does_not_fence_when_asked_leaves_a_message_behind() {
    assert_caught(&pair(TWO, How::Level).mutant(Mutant::NoProducerFence), LOST);
}

#[test]
fn without_a_watcher_a_death_before_notifying_leaves_a_message_behind() {
    let setup = pair(TWO, How::Edge).kill(1, &[0]);
    assert_caught(&Setup { is_watched: false, ..setup }, LOST);
}

#[test]
fn a_consumer_that_does_not_fence_after_freeing_leaves_a_producer_waiting() {
    assert_caught(&for_space(How::Level).mutant(Mutant::NoFreeingFence), NO_SPACE);
}

/// Another producer's arming looks like one's own that was not notified.
#[test]
fn a_thread_that_goes_by_the_armed_bit_alone_leaves_a_producer_waiting() {
    assert_caught(&beside_another(How::Edge).mutant(Mutant::BridgesByBit), NO_SPACE);
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    assert_order_is_sound(&pair(ONE, How::Edge));
    assert_order_is_sound(&for_space(How::Level));
}

/// Prints what was gone through.
#[test]
#[ignore = "takes minutes: .ci/search runs it"]
fn no_message_is_left_behind_by_two_producers_of_whom_one_is_killed() {
    let seen = assert_sound(&crew(&[ONE, ONE], How::Edge).kill(1, &[0]));
    assert_crossed(&seen);
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.death_wakes > 0);
}
