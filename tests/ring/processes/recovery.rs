//! Producers of an MPSC ring are killed before any step, recovery's own included: nothing that they
//! published is lost, torn, repeated or out of order, and nobody waits for them.

use super::actor::{Actor, Job, id};
use super::locked::{AfterTransfer, Locked};
use super::receiver::{Idles, Receiver};
use super::setup::{Mutant, Setup};
use super::{assert_caught, assert_order_is_sound, assert_sound};

/// Producers with these jobs in a ring of 64 bytes, which they lap, and its consumer.
fn crew(jobs: &[&'static [Job]], then: AfterTransfer) -> Setup {
    let producer = |(slot, jobs): (u16, &&'static [Job])| {
        Actor::Locked(Locked { after_transfer: then, ..Locked::new(id(slot, 1), jobs) })
    };
    let mut actors: Vec<_> = (0..).zip(jobs).map(producer).collect();
    actors.push(Actor::Receiver(Receiver::new(Idles::Polls)));
    Setup { is_watched: false, ..Setup::new(64, actors) }
}

#[test]
fn nothing_published_is_lost_when_a_holder_is_killed_anywhere() {
    let jobs: [&[_]; 2] = [&[Job::Send(16), Job::Send(8)], &[Job::Send(8), Job::Batch(8)]];
    let seen = assert_sound(&crew(&jobs, AfterTransfer::Either).kill(1, &[0, 1]));
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.refused > 0 && seen.paddings > 0);
}

#[test]
fn nothing_published_is_lost_when_who_takes_over_is_killed_too() {
    let jobs: [&[_]; 3] = [&[Job::Send(16)], &[Job::Send(8)], &[Job::Send(8)]];
    let seen = assert_sound(&crew(&jobs, AfterTransfer::Sends).kill(2, &[0, 1]));
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.transfers_again > 0);
}

#[test]
fn a_send_that_unwinds_leaves_nothing_behind() {
    let jobs: [&[_]; 2] = [&[Job::Abort(24), Job::Send(8)], &[Job::Send(8)]];
    let seen = assert_sound(&crew(&jobs, AfterTransfer::Sends).kill(1, &[0]));
    assert!(seen.unwound > 0 && seen.transfers > 0);
}

/// The three above at once, in full size. Prints what was gone through.
#[test]
#[ignore = "takes minutes: .ci/search runs it"]
fn nothing_published_is_lost_by_three_producers_and_two_kills() {
    let jobs: [&[_]; 3] =
        [&[Job::Send(16), Job::Send(8)], &[Job::Abort(24), Job::Batch(8)], &[Job::Send(24)]];
    let seen = assert_sound(&crew(&jobs, AfterTransfer::Either).kill(2, &[0, 1]));
    assert!(seen.kills > 0 && seen.transfers > 0 && seen.refused > 0 && seen.unwound > 0);
}

#[test]
fn without_the_roll_the_search_finds_records_ahead_of_the_tail() {
    let jobs: [&[_]; 2] = [&[Job::Send(16)], &[Job::Send(8)]];
    let setup = crew(&jobs, AfterTransfer::Sends).kill(1, &[0]);
    assert_caught(&setup.mutant(Mutant::NoRoll), "while tail is");
}

#[test]
fn without_the_zero_behind_a_record_the_search_finds_stale_bytes_taken_for_a_header() {
    let jobs: [&[_]; 2] = [&[Job::Send(16), Job::Send(8), Job::Send(8)], &[Job::Send(8)]];
    let setup = crew(&jobs, AfterTransfer::Sends);
    assert_caught(&setup.mutant(Mutant::NoZeroing), "record tag");
}

#[test]
fn without_the_release_the_search_finds_a_lock_that_is_free_too_early() {
    let jobs: [&[_]; 2] = [&[Job::Send(8)], &[Job::Send(8)]];
    let setup = crew(&jobs, AfterTransfer::Sends);
    assert_caught(&setup.mutant(Mutant::PlainUnlock), "published and is not there");
}

#[test]
fn the_order_of_unseen_steps_changes_no_end() {
    let jobs: [&[_]; 2] = [&[Job::Send(8)], &[Job::Send(8)]];
    assert_order_is_sound(&crew(&jobs, AfterTransfer::Sends).kill(1, &[0]));
}
