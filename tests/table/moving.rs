//! Ends of channels in messages, by number at both places.

use std::thread;

use tombolo::object::{TableDisposition, TableError};
use tombolo::{EventsRegion, HandleType, Rights};
use tombolo_abi::LOCK_SLOTS;

use super::case::{LONG, SHORT, all_are_closed, counted, moving, status};
use super::support::witness::is_closed;
use super::support::{Dir, lock_byte, small};

#[test]
fn an_end_that_was_read_is_used_by_its_number_with_its_unread_messages_in_order() {
    counted(|case| {
        let table = &case.table;
        let (one, other) = table.channel_create().unwrap();
        for message in [b"0", b"1", b"2"] {
            let (pipe, _) = case.witness();
            assert_eq!(status(table.channel_write(other, 0, message, &[pipe])), "OK");
        }
        let id = table.info(one).unwrap().id;
        assert_eq!(case.write(b"take it", &[one]), "OK");
        assert!(!table.contains(one));
        let arrived = case.read(case.theirs).1[0];
        for message in [b"0", b"1", b"2"] {
            let (bytes, handles) = case.read(arrived);
            assert_eq!((&bytes[..], handles.len()), (&message[..], 1));
        }
        assert_eq!(case.unread(arrived), "SHOULD_WAIT");
        assert_eq!(table.info(arrived).unwrap().id, id, "the same end");
        assert_eq!(status(table.channel_write(arrived, 0, b"back", &[])), "OK");
        assert_eq!(case.read(other).0, b"back");
        table.close(arrived).unwrap();
        assert_eq!(case.unread(other), "PEER_CLOSED");
    });
}

#[test]
fn it_is_opened_by_each_way_to_use_it_and_may_be_sent_on_before_and_behind_that() {
    counted(|case| {
        let table = &case.table;
        let (mut one, other) = table.channel_create().unwrap();
        for way in 0..5 {
            for is_used in [false, true] {
                assert_eq!(case.write(b"take it", &[one]), "OK");
                one = case.read(case.theirs).1[0];
                if !is_used {
                    continue;
                }
                let used = match way {
                    0 => status(table.channel_write(one, 0, b"", &[])),
                    1 => status(table.channel_try_write(one, 0, b"", &[])),
                    2 => status(table.channel_write_etc(one, 0, b"", &mut [])),
                    3 => status(table.channel_read(one, 0, &mut [], &mut [])),
                    _ => status(table.get_channel(one, Rights::IO)),
                };
                assert_eq!(used, if way == 3 { "SHOULD_WAIT" } else { "OK" });
            }
        }
        assert_eq!(case.read(other), (vec![], vec![]));
        table.close(one).unwrap();
    });
}

#[test]
fn a_handle_and_an_open_end_are_the_same_by_number() {
    counted(|case| {
        let table = &case.table;
        let (one, _other) = table.channel_create().unwrap();
        let narrow = Rights::TRANSFER | Rights::READ;
        let mut list = [TableDisposition { rights: narrow, ..moving(one) }];
        assert_eq!(status(table.channel_write_etc(case.ours, 0, b"", &mut list)), "OK");
        let arrived = case.read(case.theirs).1[0];
        let before = table.info(arrived).unwrap();
        assert_eq!((before.handle_type, before.rights), (HandleType::Channel, narrow));
        assert_eq!(status(table.duplicate(arrived, Rights::SAME_RIGHTS)), "ACCESS_DENIED");
        assert_eq!(status(table.channel_write(arrived, 0, b"", &[])), "ACCESS_DENIED");
        assert_eq!(case.unread(arrived), "SHOULD_WAIT");
        let after = table.info(arrived).unwrap();
        assert_eq!((after.handle_type, after.rights), (before.handle_type, narrow));
        assert_eq!(status(table.duplicate(arrived, Rights::SAME_RIGHTS)), "ACCESS_DENIED");
        let replaced = table.replace(arrived, Rights::READ).unwrap();
        assert_eq!(status(table.channel_write(case.ours, 0, b"", &[replaced])), "ACCESS_DENIED");
    });
}

#[test]
fn an_end_whose_message_is_never_read_is_closed_with_it() {
    counted(|case| {
        let (one, other) = case.table.channel_create().unwrap();
        assert_eq!(case.write(b"", &[one]), "OK");
        assert_eq!(case.unread(other), "SHOULD_WAIT");
        case.table.close(case.theirs).unwrap();
        case.comes_to_peer_closed(other);
    });
}

#[test]
fn a_nested_end_in_an_unread_message_of_a_moved_end_arrives_too() {
    counted(|case| {
        let table = &case.table;
        let (outer, outer_peer) = table.channel_create().unwrap();
        let (inner, inner_peer) = table.channel_create().unwrap();
        assert_eq!(status(table.channel_write(outer_peer, 0, b"inner", &[inner])), "OK");
        assert_eq!(case.write(b"outer", &[outer]), "OK");
        let outer = case.read(case.theirs).1[0];
        let inner = case.read(outer).1[0];
        assert_eq!(status(table.channel_write(inner, 0, b"from within", &[])), "OK");
        assert_eq!(case.read(inner_peer).0, b"from within");
    });
}

#[test]
fn two_hundred_channels_in_one_another_are_closed_with_the_outermost() {
    counted(|case| {
        let table = &case.table;
        let (pipe, mut reader) = case.witness();
        let mut innermost = pipe;
        for _ in 0..200 {
            let (one, other) = table.channel_create().unwrap();
            assert_eq!(status(table.channel_write(one, 0, b"", &[innermost])), "OK");
            table.close(one).unwrap();
            innermost = other;
        }
        assert!(!is_closed(&mut reader, SHORT));
        table.close(innermost).unwrap();
        all_are_closed(&mut [reader]);
    });
}

#[test]
fn what_cannot_be_opened_says_why_each_time_and_stays() {
    counted(|case| {
        let dir = Dir::new();
        let _region = EventsRegion::open_path_with(dir.file("region"), small()).unwrap();
        let lock = lock_byte(&dir.file("region"), LOCK_SLOTS);
        let number = case.table.insert(lock); // an end of a ring, and of no channel
        assert_eq!(case.table.info(number).unwrap().handle_type, HandleType::Channel);
        for _ in 0..2 {
            let refused = case.table.channel_write(number, 0, b"", &[]).unwrap_err();
            let TableError::NotOpened { number: named, .. } = refused else {
                panic!("{refused:?}")
            };
            assert_eq!(named, number);
            assert_eq!(status(case.table.channel_read(number, 0, &mut [], &mut [])), "WRONG_TYPE");
            assert!(case.table.contains(number));
        }
        assert_eq!(case.write(b"", &[number]), "OK", "it may be sent on");
    });
}

#[test]
fn a_write_that_waits_at_an_end_that_is_moved_is_canceled_and_what_is_used_later_is_bad() {
    counted(|case| {
        case.fill();
        let (through, arrives) = case.table.channel_create().unwrap();
        let (number, reader) = case.witness();
        let kept = case.table.get_channel(case.ours, Rights::WRITE).unwrap();
        thread::scope(|scope| {
            let write = scope.spawn(|| case.write(b"late", &[number]));
            thread::sleep(SHORT);
            assert!(!write.is_finished());
            let moved = case.table.channel_write(through, 0, b"", &[case.ours]);
            assert_eq!(status(moved), "OK");
            assert_eq!(write.join().unwrap(), "CANCELED");
        });
        all_are_closed(&mut [reader]);
        assert_eq!(status(kept.write(b"")), "BAD_HANDLE", "by a thread that had found it before");
        assert_eq!(case.write(b"", &[]), "BAD_HANDLE");
        assert_eq!(case.unread(case.read(arrives).1[0]), "SHOULD_WAIT");
        let theirs = case.table.get_channel(case.theirs, Rights::READ).unwrap();
        assert!(theirs.read_timeout(LONG).is_ok(), "what was written is there");
    });
}
