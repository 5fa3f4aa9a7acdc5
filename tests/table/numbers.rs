//! Making channels, and what is done with their numbers as with those of any handle.

use tombolo::handle::HandleError;
use tombolo::{Channel, HandleType, Rights};

use super::case::{Failure, counted, status};
use super::support::witness::{is_closed, witness};

#[test]
fn create_gives_the_numbers_of_two_ends_with_the_rights_of_channels() {
    counted(|case| {
        let infos = [case.ours, case.theirs].map(|number| case.table.info(number).unwrap());
        assert!(infos.iter().all(|info| info.handle_type == HandleType::Channel));
        assert!(infos.iter().all(|info| info.rights.bits() == 0xf00e));
        assert_ne!(infos[0].id, infos[1].id);
        assert_eq!([infos[0].handle, infos[1].handle], [case.ours, case.theirs]);
        assert_eq!(case.table.len(), 2);
        assert_eq!([case.ours, case.theirs].map(|number| case.unread(number)), ["SHOULD_WAIT"; 2]);
    });
}

#[test]
fn a_channel_that_is_put_into_a_table_is_the_same_by_number() {
    counted(|case| {
        let (near, far) = Channel::create().unwrap();
        let id = near.id();
        let number = case.table.insert_channel(near);
        assert_eq!(case.table.info(number).unwrap().id, id);
        assert_eq!(status(case.table.channel_write(number, 0, b"hello", &[])), "OK");
        assert_eq!(far.read().unwrap().data, b"hello");
        case.table.close(number).unwrap();
        assert_eq!(status(far.read()), "PEER_CLOSED");
    });
}

#[test]
fn an_end_cannot_be_duplicated_as_it_lacks_the_right() {
    counted(|case| {
        let (held, missing) = (Rights::CHANNEL_DEFAULT, Rights::DUPLICATE);
        let denied = HandleError::AccessDenied { held, missing };
        for rights in [Rights::SAME_RIGHTS, Rights::READ, Rights::EXECUTE] {
            assert_eq!(case.table.duplicate(case.ours, rights), Err(denied.clone()));
        }
        case.nothing_came();
    });
}

/// The rights are the number's, not the end's.
#[test]
fn replace_gives_a_new_number_with_fewer_rights_which_are_checked_there() {
    counted(|case| {
        let narrow = Rights::TRANSFER | Rights::READ;
        let replaced = case.table.replace(case.ours, narrow).unwrap();
        assert_eq!(status(case.table.info(case.ours)), "BAD_HANDLE");
        assert_eq!(case.rights(replaced), narrow);
        assert_eq!(status(case.table.channel_write(replaced, 0, b"", &[])), "ACCESS_DENIED");
        assert_eq!(case.unread(replaced), "SHOULD_WAIT");
        let same = case.table.replace(replaced, Rights::SAME_RIGHTS).unwrap();
        assert_eq!(case.rights(same), narrow);
        assert_eq!(case.unread(case.theirs), "SHOULD_WAIT", "it is open");
    });
}

#[test]
fn replace_consumes_its_source_also_on_failure() {
    counted(|case| {
        let narrow = case.table.replace(case.ours, Rights::READ).unwrap();
        assert_eq!(status(case.table.replace(narrow, Rights::IO)), "INVALID_ARGS");
        assert_eq!(status(case.table.info(narrow)), "BAD_HANDLE");
        assert_eq!(case.unread(case.theirs), "PEER_CLOSED");
    });
}

#[test]
fn get_tells_bad_handle_then_wrong_type_then_access_denied_of_an_end_too() {
    counted(|case| {
        let narrow = case.table.replace(case.ours, Rights::READ).unwrap();
        let get = |number, wanted, rights| status(case.table.get(number, Some(wanted), rights));
        let (file, channel) = (HandleType::File, HandleType::Channel);
        assert_eq!(get(case.ours, file, Rights::WRITE), "BAD_HANDLE");
        assert_eq!(get(narrow, file, Rights::WRITE), "WRONG_TYPE");
        assert_eq!(get(narrow, channel, Rights::WRITE), "ACCESS_DENIED");
        let none = case.table.get(narrow, None, Rights::READ).unwrap_err();
        assert_eq!(none, HandleError::NoDescriptor, "an open end has none to give");
        let get = |number, rights| status(case.table.get_channel(number, rights));
        assert_eq!(get(case.closed(), Rights::WRITE), "BAD_HANDLE");
        assert_eq!(get(case.with(Rights::READ), Rights::WRITE), "WRONG_TYPE");
        assert_eq!(get(narrow, Rights::WRITE), "ACCESS_DENIED");
        assert_eq!(get(narrow, Rights::READ), "OK");
    });
}

#[test]
fn an_end_is_taken_out_as_a_handle_with_the_rights_of_its_number() {
    counted(|case| {
        assert_eq!(case.write(b"unread", &[]), "OK");
        let narrow = case.table.replace(case.theirs, Rights::READ).unwrap();
        let handle = case.table.remove(narrow).unwrap(); // also without the right to send it
        assert_eq!((handle.handle_type(), handle.rights()), (HandleType::Channel, Rights::READ));
        assert!(!case.table.contains(narrow));
        let end = Channel::from_handle(handle).unwrap();
        assert_eq!(end.read().unwrap().data, b"unread");
        assert_eq!(status(end.write(b"")), "ACCESS_DENIED");
        assert_eq!(case.unread(case.ours), "SHOULD_WAIT");
    });
}

#[test]
fn an_end_is_closed_with_its_number() {
    counted(|case| {
        let end = case.table.get_channel(case.ours, Rights::READ).unwrap();
        case.table.close(case.ours).unwrap();
        assert_eq!(case.unread(case.theirs), "PEER_CLOSED", "though a thread has it still");
        assert_eq!(status(end.read()), "BAD_HANDLE");
        assert_eq!(status(case.table.close(case.ours)), "BAD_HANDLE");
        assert_eq!(status(case.table.close(0)), "OK");
    });
}

#[test]
fn close_many_closes_ends_and_handles_and_tells_the_first_number_that_names_nothing() {
    counted(|case| {
        let (pipe, mut reader) = case.witness();
        let list = [case.ours, 0, case.closed(), pipe, case.ours];
        let refused = case.table.close_many(&list).unwrap_err();
        assert_eq!(refused, HandleError::BadHandle { number: list[2] });
        assert!(is_closed(&mut reader, super::case::SOON));
        assert_eq!(case.unread(case.theirs), "PEER_CLOSED");
        assert_eq!(case.table.len(), 1);
    });
}

#[test]
fn messages_to_a_closed_end_are_gone_with_their_handles_and_those_from_it_stay() {
    counted(|case| {
        let (lost, mut lost_reader) = case.witness();
        assert_eq!(case.write(b"lost", &[lost]), "OK");
        let (kept, mut kept_reader) = case.witness();
        let table = &case.table;
        assert_eq!(status(table.channel_write(case.theirs, 0, b"kept", &[kept])), "OK");
        table.close(case.theirs).unwrap();
        assert!(is_closed(&mut lost_reader, super::case::SOON));
        assert_eq!(case.write(b"", &[]), "PEER_CLOSED");
        let (bytes, handles) = case.read(case.ours);
        assert_eq!((&bytes[..], handles.len()), (&b"kept"[..], 1));
        assert!(!is_closed(&mut kept_reader, super::case::SHORT));
        assert_eq!(case.unread(case.ours), "PEER_CLOSED");
    });
}

#[test]
fn all_ends_are_closed_with_their_table() {
    counted(|case| {
        let (near, far) = Channel::create().unwrap();
        let table = tombolo::object::HandleTable::new();
        let number = table.insert_channel(near);
        let used = table.get_channel(number, Rights::READ).unwrap();
        let (handle, mut reader) = witness();
        table.insert(handle);
        drop(table);
        assert_eq!(status(far.read()), "PEER_CLOSED");
        assert_eq!(status(used.read()), "BAD_HANDLE");
        assert!(is_closed(&mut reader, super::case::SOON));
        case.nothing_came();
    });
}

#[test]
fn numbers_that_name_no_channel_are_refused_by_every_operation() {
    counted(|case| {
        let (table, file) = (&case.table, case.file());
        for (number, wanted) in [
            (0, "BAD_HANDLE"),
            (u64::MAX, "BAD_HANDLE"),
            (case.closed(), "BAD_HANDLE"),
            (file, "WRONG_TYPE"),
        ] {
            assert_eq!(status(table.channel_write(number, 0, b"", &[])), wanted);
            assert_eq!(status(table.channel_try_write(number, 0, b"", &[])), wanted);
            assert_eq!(status(table.channel_write_etc(number, 0, b"", &mut [])), wanted);
            assert_eq!(status(table.channel_read(number, 0, &mut [], &mut [])), wanted);
            assert_eq!(status(table.channel_read_etc(number, 0, &mut [], &mut [])), wanted);
            let refused = table.get_channel(number, Rights::empty()).unwrap_err();
            assert_eq!(refused.outcome(), wanted);
        }
        assert!(table.contains(file));
    });
}
