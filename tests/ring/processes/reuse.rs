//! A dead owner's slot is taken by an attacher while another producer judges the lock that the dead
//! one held: never do two hold the lock, and a byte that nobody owns is nobody's.

use super::actor::{Actor, Job, id};
use super::locked::{Locked, Stage};
use super::receiver::{Idles, Receiver};
use super::setup::{Mutant, Setup};
use super::{assert_caught, assert_order_is_sound, assert_sound};

const ONE: &[Job] = &[Job::Send(8)];

/// An owner of slot 0, its successor, `breakers` with slots of their own, and a consumer.
fn slot_taken_again(breakers: u16) -> Setup {
    let mut actors = vec![
        Actor::Locked(Locked::new(id(0, 1), ONE)),
        Actor::Locked(Locked { stage: Stage::Attach, ..Locked::new(id(0, 2), ONE) }),
    ];
    actors.extend((0..breakers).map(|it| Actor::Locked(Locked::new(id(it + 1, 1), ONE))));
    actors.push(Actor::Receiver(Receiver::new(Idles::Polls)));
    Setup { is_watched: false, ..Setup::new(128, actors) }.kill(1, &[0])
}

#[test]
fn one_holder_at_a_time_while_a_dead_holders_slot_is_taken() {
    let seen = assert_sound(&slot_taken_again(1));
    assert!(seen.kills > 0 && seen.transfers > 0);
}

#[test]
fn one_holder_at_a_time_when_the_attacher_is_killed_too() {
    let seen = assert_sound(&slot_taken_again(1).kill(2, &[0, 1]));
    assert!(seen.kills > 0 && seen.transfers > 0);
}

#[test]
fn recovery_in_the_dead_owners_name_lets_two_in() {
    assert_caught(&slot_taken_again(1).mutant(Mutant::RecoversInPlace), "hold the lock");
}

#[test]
fn a_new_name_before_its_incarnation_is_stored_lets_two_in() {
    assert_caught(&slot_taken_again(1).mutant(Mutant::NameBeforeIncarnation), "hold the lock");
}

#[test]
fn a_probe_that_takes_the_byte_makes_an_attacher_find_it_held() {
    assert_caught(&slot_taken_again(1).mutant(Mutant::ProbeTakesByte), "has no owner");
}

#[test]
fn a_probe_that_takes_the_byte_makes_a_dead_owner_look_alive() {
    let mut setup = slot_taken_again(2);
    setup.actors[1] = Actor::Done;
    assert_caught(&setup.mutant(Mutant::ProbeTakesByte), "has no owner");
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    assert_order_is_sound(&slot_taken_again(1));
}
