//! The accesses of arming, notifying and taking a lock over, as `steps` compares them: as the protocol
//! is written down, as the real code makes them on memory, and as the searches step through them.

use super::steps::{Scenario, assert_steps};

/// The first arming asks for fences and executes a barrier of its own; then the armed word, a fence,
/// and only then the look.
#[test]
fn a_consumer_asks_for_fences_then_arms_then_fences_then_looks() {
    let protocol = "store ConsumerId Relaxed
        store RxWake Relaxed
        store RxWake Relaxed
        barrier
        store RxWake Relaxed
        fence SeqCst
        load data 0 Acquire";
    assert_steps(0, &[], Scenario::Arm, protocol);
}

#[test]
fn a_consumer_that_has_asked_for_fences_arms_without_a_barrier() {
    let protocol = "store ConsumerId Relaxed
        store RxWake Relaxed
        store RxWake Relaxed
        barrier
        store RxWake Relaxed
        fence SeqCst
        load data 0 Acquire
        store RxWake Relaxed
        fence SeqCst
        load data 0 Acquire";
    assert_steps(0, &[], Scenario::ArmTwice, protocol);
}

/// Released: whoever finds no request finds also what was cleared in the summary before.
#[test]
fn a_consumer_that_lets_producers_go_on_without_fences_releases_the_word() {
    let protocol = "store ConsumerId Relaxed
        store RxWake Relaxed
        store RxWake Release";
    assert_steps(0, &[], Scenario::Relax, protocol);
}

#[test]
fn the_consumer_of_a_locked_ring_looks_at_the_lock_before_the_header() {
    let protocol = "store ConsumerId Relaxed
        store RxWake Relaxed
        store RxWake Relaxed
        fence SeqCst
        load Lock Acquire
        load data 0 Acquire";
    assert_steps(0, &[], Scenario::ArmLocked, protocol);
}

/// The first message finds the consumer armed and notifies it; the second finds it awake, but still
/// asking for fences.
#[test]
fn a_producer_asked_for_fences_fences_behind_the_header_and_looks_again() {
    let protocol = "load Tail Acquire
        load data 0 Acquire
        load Head Acquire
        ask whether barriers reach this process
        store data 16 zero Relaxed
        store data 8 payload Relaxed
        store data 0 header Release
        load RxWake Acquire
        fence SeqCst
        ask whether barriers reach this process
        load RxWake Relaxed
        notify RxWake One
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed
        store data 32 zero Relaxed
        store data 24 payload Relaxed
        store data 16 header Release
        load RxWake Acquire
        fence SeqCst
        ask whether barriers reach this process
        load RxWake Relaxed
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed";
    assert_steps(0, &[Scenario::Arm], Scenario::SendTwo, protocol);
}

/// Behind the look after the consumer's sleep, which fences where it must. The bit is set once.
#[test]
fn the_producer_of_a_lane_looks_at_the_summary_last_and_sets_its_bit_where_it_is_clear() {
    let protocol = "load Tail Acquire
        load data 0 Acquire
        load Head Acquire
        ask whether barriers reach this process
        store data 16 zero Relaxed
        store data 8 payload Relaxed
        store data 0 header Release
        load RxWake Acquire
        fence SeqCst
        ask whether barriers reach this process
        load RxWake Relaxed
        notify RxWake One
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed
        load Summary(0) Relaxed
        set 0x20 in Summary(0)
        store data 32 zero Relaxed
        store data 24 payload Relaxed
        store data 16 header Release
        load RxWake Acquire
        fence SeqCst
        ask whether barriers reach this process
        load RxWake Relaxed
        store Tail Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed
        load Summary(0) Relaxed";
    assert_steps(0, &[Scenario::Arm], Scenario::SendTwoOnLane, protocol);
}

#[test]
fn the_consumer_of_lanes_fences_behind_clearing_a_bit() {
    let protocol = "load Summary(0) Relaxed
        keep 0xffffffffffffffdf of Summary(0)
        fence SeqCst
        load Summary(0) Relaxed";
    assert_steps(0, &[Scenario::SendTwoOnLane], Scenario::ClearLane, protocol);
}

#[test]
fn a_producer_notifies_after_it_gave_the_lock_back() {
    let protocol = "compare-exchange Lock SeqCst
        load Tail Relaxed
        load HeadCache Relaxed
        store data 16 zero Relaxed
        store data 8 payload Relaxed
        store data 0 header Release
        load SentMsgs Relaxed
        store SentMsgs Relaxed
        load SentBytes Relaxed
        store SentBytes Relaxed
        store Tail Release
        store HeadCache Relaxed
        store Lock Release
        load RxWake SeqCst
        notify RxWake One";
    assert_steps(0, &[Scenario::ArmLocked], Scenario::SendLocked, protocol);
}

/// From the dead holder's name to its own, past what the dead one published, whose end is stored
/// before anything else; and then the consumer is told of it, though nothing was sent.
#[test]
fn a_transfer_rolls_stores_the_tail_unlocks_and_notifies() {
    let protocol = "compare-exchange Lock SeqCst
        load Tail Acquire
        load data 0 Acquire
        load data 16 Acquire
        load Head Acquire
        store Tail Release
        load LockBreaks Relaxed
        store LockBreaks Relaxed
        store Tail Release
        store HeadCache Relaxed
        store Lock Release
        load RxWake SeqCst
        notify RxWake One";
    let before = [Scenario::ArmLocked, Scenario::DieLocked];
    assert_steps(0, &before, Scenario::Transfer, protocol);
}

#[test]
fn a_blocked_producer_counts_its_arming_fences_and_looks() {
    let protocol = "load TxWake Relaxed
        compare-exchange TxWake SeqCst
        fence SeqCst
        load Head Acquire";
    assert_steps(0, &[Scenario::SendUntilFull], Scenario::ArmForRoom, protocol);
}

/// Behind each eighth of the ring the consumer looks, behind a fence.
#[test]
fn freeing_across_an_eighth_fences_and_notifies_all_who_wait_for_room() {
    let protocol = "load Head Relaxed
        load Tail Relaxed
        load ReceivedMsgs Relaxed
        load ReceivedBytes Relaxed
        load Skipped Relaxed
        load data 0 Acquire
        load data 8 Relaxed
        load data 16 Relaxed
        load data 24 Relaxed
        load data 32 Relaxed
        load data 40 Relaxed
        load data 48 Relaxed
        store Head Release
        fence SeqCst
        load TxWake Relaxed
        notify TxWake All
        store ReceivedMsgs Relaxed
        store ReceivedBytes Relaxed";
    let before = [Scenario::SendUntilFull, Scenario::ArmForRoom];
    assert_steps(0, &before, Scenario::Receive, protocol);
}

/// Whoever freed last may not have come to telling.
#[test]
fn a_consumer_that_attaches_to_an_empty_ring_looks_after_blocked_producers() {
    let protocol = "load Head Relaxed
        load Tail Relaxed
        load ReceivedMsgs Relaxed
        load ReceivedBytes Relaxed
        load Skipped Relaxed
        load data 0 Acquire
        fence SeqCst
        load TxWake Relaxed";
    assert_steps(0, &[], Scenario::FindEmpty, protocol);
}
