//! Unit tests of what finds the packet that belongs to a record.
#![cfg(test)]

use std::os::fd::{AsFd, AsRawFd};

use super::super::connection::tests::{Sender, given, greeted, kept, positions, region};
use super::*;
use crate::EventsRegion;
use crate::options::MpscOrder;
use crate::os::file::FileId;
use crate::os::staged::usurp;

const MAX: usize = 4;

/// What comes in at ring 1, or at the lanes from there on, over `connections`.
fn incoming(region: &EventsRegion, connections: impl Into<Vec<Connection>>) -> Incoming {
    let region = region.shared().clone();
    let rings = 1..region.entries().len() as u32;
    let (door, connections) = (Door::Rendezvous, connections.into());
    Incoming { region, rings, door, connections, connections_max: MAX, found: None }
}

/// A connection on each of three lanes, with the packet of the record at 64 in it.
fn three_lanes(region: &EventsRegion) -> ([Sender; 3], Incoming) {
    let (senders, connections): (Vec<_>, Vec<_>) =
        [1, 2, 3].map(|lane| greeted(region, lane, 0)).into_iter().unzip();
    senders.iter().for_each(|sender| sender.hand_over(64));
    let Ok(senders) = senders.try_into() else { unreachable!() };
    (senders, incoming(region, connections))
}

fn fetches_one(incoming: &mut Incoming, wanted: &Wanted) -> bool {
    incoming.fetch(wanted).is_ok_and(|handles| handles.len() == 1)
}

#[test]
fn what_was_looked_at_on_one_lane_stays_if_a_record_of_another_is_taken() {
    let region = region(MpscOrder::PerProducer);
    let (one, other) = (greeted(&region, 1, 0), greeted(&region, 2, 0));
    one.0.hand_over(64);
    other.0.hand_over(128);
    let mut incoming = incoming(&region, [one.1, other.1]);
    assert!(fetches_one(&mut incoming, &one.0.wanted(64)));
    incoming.take(&other.0.wanted(128));
    assert_eq!(positions(&incoming.connections[0]), [64]);
    assert_eq!(positions(&incoming.connections[1]), []);
}

/// Its sender died before it published a record there; the next owner of the end sends over the same socket.
#[test]
fn a_packet_without_a_record_keeps_none_behind_it_from_being_kept() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = greeted(&region, 1, 0);
    [64, 128, 192].into_iter().for_each(|position| sender.hand_over(position));
    let mut incoming = incoming(&region, [connection]);
    let (unread, reply) = (sender.wanted(128), sender.wanted(192));
    assert_eq!(incoming.fetch_out_of_turn(&reply, 128).unwrap().len(), 1);
    incoming.take(&reply);
    assert!(fetches_one(&mut incoming, &unread));
    incoming.take(&unread);
    assert_eq!(positions(&incoming.connections[0]), []);
    assert!(incoming.connections[0].kept.is_empty());
}

#[test]
fn of_two_packets_of_a_record_the_one_that_was_looked_at_is_taken() {
    let region = region(MpscOrder::Total);
    let (older, newer) = (greeted(&region, 1, 0), greeted(&region, 1, 0));
    older.0.hand_over(64);
    newer.0.hand_over(64);
    let mut incoming = incoming(&region, [older.1, newer.1]);
    assert!(fetches_one(&mut incoming, &newer.0.wanted(64)));
    incoming.take(&newer.0.wanted(64));
    assert_eq!(positions(&incoming.connections[0]), [64]);
    assert_eq!(positions(&incoming.connections[1]), []);
}

#[test]
fn a_packet_is_taken_that_came_with_its_hello_after_its_connection_was_let_in() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = Sender::connect(&region, 1, 0);
    let mut incoming = incoming(&region, [connection]);
    sender.greet(0);
    sender.hand_over(64);
    incoming.take(&sender.wanted(64));
    assert_eq!(positions(&incoming.connections[0]), []);
}

#[test]
fn forgetting_a_sender_ends_its_connection_and_leaves_those_of_others_as_they_are() {
    let region = region(MpscOrder::PerProducer);
    let (senders, mut incoming) = three_lanes(&region);
    assert!(fetches_one(&mut incoming, &senders[1].wanted(64)));
    incoming.forget(&[senders[0].identity()]);
    assert_eq!([0, 1, 2].map(|index| senders[index].is_ended()), [true, false, false]);
    incoming.take(&senders[1].wanted(64));
    assert_eq!(positions(&incoming.connections[0]), []);
    assert_eq!(positions(&incoming.connections[1]), [64]);
}

#[test]
fn closing_ends_connections_of_which_a_child_has_a_copy() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = greeted(&region, 1, 0);
    let copy = connection.socket.as_ref().map(|socket| socket.as_fd().try_clone_to_owned());
    sender.hand_over(64);
    incoming(&region, [connection]).close();
    assert!(sender.is_ended());
    let left = socket::peek_bytes(copy.unwrap().unwrap().as_fd(), &mut [0]);
    assert_eq!(left, Ok(0), "a packet was left in it");
}

#[test]
fn what_its_sender_has_never_connected_for_is_lost_whatever_others_have_said() {
    let region = region(MpscOrder::Total);
    let (_other, connection) = greeted(&region, 1, 0);
    let (unconnected, _) = Sender::connect(&region, 1, 1);
    let mut incoming = incoming(&region, [connection]);
    let verdict = incoming.fetch(&unconnected.wanted(64)).unwrap_err();
    assert!(matches!(verdict, NotFetched::Lost), "{verdict:?}");
}

#[test]
fn the_first_record_behind_a_hello_has_its_handles_there() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = Sender::connect(&region, 1, 0);
    sender.greet(64);
    let mut incoming = incoming(&region, [connection]);
    let verdict = incoming.fetch(&sender.wanted(56)).unwrap_err();
    assert!(matches!(verdict, NotFetched::Lost), "{verdict:?}");
    let verdict = incoming.fetch(&sender.wanted(64)).unwrap_err();
    assert!(matches!(verdict, NotFetched::Violation(_)), "{verdict:?}");
}

#[test]
fn a_connection_that_is_over_tells_where_its_sender_began_until_that_connects_again() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = greeted(&region, 1, 0);
    let wanted = sender.wanted(64);
    drop(sender);
    let mut incoming = incoming(&region, [connection]);
    incoming.accept_all().unwrap();
    assert_eq!(incoming.connections.len(), 1);
    assert!(matches!(incoming.fetch(&wanted), Err(NotFetched::Violation(_))));
    let (_again, newer) = greeted(&region, 1, 0);
    incoming.connections.push(newer);
    incoming.accept_all().unwrap();
    assert_eq!(incoming.connections.len(), 1);
    assert!(incoming.connections[0].socket.is_some(), "the newer one went");
}

#[test]
fn an_older_connection_that_is_not_over_stays_with_what_is_in_it() {
    let region = region(MpscOrder::Total);
    let (older, newer) = (greeted(&region, 1, 0), greeted(&region, 1, 0));
    older.0.hand_over(64);
    let mut incoming = incoming(&region, [older.1, newer.1]);
    incoming.accept_all().unwrap();
    assert!(fetches_one(&mut incoming, &older.0.wanted(64)));
}

#[test]
fn what_was_looked_at_is_taken_also_if_a_connection_before_it_has_gone_meanwhile() {
    let region = region(MpscOrder::PerProducer);
    let (senders, mut incoming) = three_lanes(&region);
    let (older, connection) = greeted(&region, 1, 0);
    incoming.connections.insert(0, connection);
    assert!(fetches_one(&mut incoming, &senders[1].wanted(64)));
    drop(older);
    incoming.accept_all().unwrap();
    assert_eq!(incoming.connections.len(), 3);
    incoming.take(&senders[1].wanted(64));
    assert_eq!(positions(&incoming.connections[1]), []);
    assert_eq!(positions(&incoming.connections[2]), [64]);
}

/// Lets one more sender in.
fn let_in(incoming: &mut Incoming) -> impl Drop + use<> {
    let socket = incoming.region.rendezvous(1).unwrap().enter().unwrap();
    assert!(incoming.accept().unwrap());
    socket
}

#[test]
fn one_that_has_said_nothing_goes_if_there_are_too_many_and_none_of_the_others() {
    let region = region(MpscOrder::PerProducer);
    let (senders, mut incoming) = three_lanes(&region);
    positions(&incoming.connections[0]); // nothing is left in the first
    let (silent, connection) = Sender::connect(&region, 1, 0);
    incoming.connections.insert(1, connection);
    assert!(fetches_one(&mut incoming, &senders[1].wanted(64)));
    let _newcomer = let_in(&mut incoming);
    assert_eq!(incoming.connections.len(), MAX);
    assert!(silent.is_ended());
    incoming.take(&senders[1].wanted(64));
    assert_eq!(positions(&incoming.connections[1]), []);
    assert_eq!(positions(&incoming.connections[2]), [64]);
}

#[test]
fn one_whose_sender_has_connected_again_goes_if_there_are_too_many_and_none_of_the_others() {
    let region = region(MpscOrder::PerProducer);
    let (senders, mut incoming) = three_lanes(&region);
    incoming.connections.iter().for_each(|one| drop(positions(one)));
    let (older, connection) = greeted(&region, 1, 0);
    older.hand_over(64); // it is the only one in which something is left
    incoming.connections.insert(0, connection);
    let _newcomer = let_in(&mut incoming);
    assert_eq!(incoming.connections.len(), MAX);
    assert!(older.is_ended());
    assert!(senders.iter().all(|sender| !sender.is_ended()));
}

#[test]
fn nothing_is_to_be_looked_after_of_a_region_without_a_name() {
    assert!(!incoming(&region(MpscOrder::Total), []).door.needs_care());
}

#[test]
fn a_reply_is_found_whose_sender_said_hello_after_its_connection_was_let_in() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = Sender::connect(&region, 1, 0);
    let mut incoming = incoming(&region, [connection]);
    sender.greet(0);
    sender.hand_over(64);
    sender.hand_over(128);
    let fetched = incoming.fetch_out_of_turn(&sender.wanted(128), 64);
    assert_eq!(fetched.unwrap().len(), 1);
    assert_eq!(kept(&incoming.connections[0]), [64]);
}

#[test]
fn what_is_fetched_out_of_turn_or_taken_leaves_what_other_senders_have_at_the_same_position() {
    let region = region(MpscOrder::PerProducer);
    let (senders, mut incoming) = three_lanes(&region);
    senders[1].hand_over(128);
    assert_eq!(incoming.fetch_out_of_turn(&senders[1].wanted(128), 64).unwrap().len(), 1);
    assert_eq!(kept(&incoming.connections[1]), [64]);
    incoming.take(&senders[0].wanted(64));
    assert_eq!(kept(&incoming.connections[1]), [64]);
    let left = [0, 1, 2].map(|index| positions(&incoming.connections[index]));
    assert_eq!(left, [vec![], vec![128], vec![64]]);
}

#[test]
fn what_was_kept_of_records_that_are_passed_is_closed() {
    let region = region(MpscOrder::Total);
    let (sender, mut connection) = given(&region);
    [64, 128, 192, 256].into_iter().for_each(|position| sender.hand_over(position));
    connection.keep_between(64, &sender.wanted(256)).unwrap();
    let mut incoming = incoming(&region, [connection]);
    assert!(incoming.close_kept_before(64));
    assert_eq!(kept(&incoming.connections[0]), [64, 128, 192]);
    assert!(fetches_one(&mut incoming, &sender.wanted(128)));
    assert_eq!(kept(&incoming.connections[0]), [128, 192]);
    assert_eq!(incoming.fetch_out_of_turn(&sender.wanted(256), 192).unwrap().len(), 1);
    assert_eq!(kept(&incoming.connections[0]), [192]);
    assert!(!incoming.close_kept_before(256));
    assert!(incoming.connections[0].kept.is_empty());
}

#[test]
fn a_record_whose_handles_are_not_in_what_came_with_the_end_had_none_sent() {
    let region = region(MpscOrder::Total);
    let (sender, connection) = given(&region);
    let verdict = incoming(&region, [connection]).fetch(&sender.wanted(64)).unwrap_err();
    assert!(matches!(verdict, NotFetched::Violation(_)), "{verdict:?}");
}

#[test]
fn what_waits_at_the_door_is_cleared_too() {
    let region = region(MpscOrder::Total);
    let socket = region.shared().rendezvous(1).unwrap().enter().unwrap();
    let sender = Sender::at(socket, &region, 1, 0);
    sender.greet(0);
    sender.hand_over(64);
    let mut incoming = incoming(&region, []);
    incoming.clear();
    assert_eq!(incoming.connections.len(), 1);
    assert_eq!(positions(&incoming.connections[0]), []);
}

/// Any process that may use the region can come to the door.
#[test]
fn a_socket_over_which_nothing_was_said_does_not_lead_to_the_other_end() {
    let region = region(MpscOrder::Total);
    let ((_peer, connection), (_silent, stranger)) =
        (given(&region), Sender::connect(&region, 1, 0));
    let id = connection.socket.as_ref().unwrap().id();
    let mut incoming = incoming(&region, [connection, stranger]);
    assert_eq!(incoming.peers_socket().unwrap().unwrap().id(), id);
    let passed_on = incoming.sockets_to_pass_on().unwrap();
    let ids = passed_on.iter().map(|one| FileId::of(&rustix::fs::fstat(one).unwrap()));
    assert_eq!(ids.collect::<Vec<_>>(), [id]);
}

#[test]
fn what_only_the_older_sockets_had_is_passed_on_in_one_before_the_newest() {
    let region = region(MpscOrder::Total);
    let ((one, oldest), (other, older), (peer, newest)) =
        (given(&region), given(&region), given(&region));
    one.hand_over(64);
    other.hand_over(128);
    peer.hand_over(192);
    let mut incoming = incoming(&region, [oldest, older, newest]);
    let passed_on = incoming.sockets_to_pass_on().unwrap().into_iter();
    let passed_on = passed_on.map(|one| Connection::new(Descriptor::shared(one).unwrap()));
    let found: Vec<_> = passed_on.map(|one| positions(&one)).collect();
    assert_eq!(found, [vec![64, 128], vec![192]]);
}

#[test]
fn what_another_has_under_a_sockets_number_is_not_passed_on() {
    let region = region(MpscOrder::Total);
    let (_peer, connection) = given(&region);
    let (theirs, _other) = socket::pair().unwrap();
    usurp(connection.socket.as_ref().unwrap().as_fd().as_raw_fd(), &theirs);
    let mut incoming = incoming(&region, [connection]);
    assert_eq!(incoming.sockets_to_pass_on().unwrap_err(), Errno::BADF);
    assert!(incoming.peers_socket().is_err());
}
