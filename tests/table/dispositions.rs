//! Writing by number with a list that says what becomes of each handle.

use tombolo::handle::HandleError;
use tombolo::object::{HandleValue, TableDisposition};
use tombolo::{HandleType, Rights};

use super::case::{Case, Failure, all_are_closed, counted, duplicating, moving, status};

fn wants(rights: Rights, disposition: TableDisposition) -> TableDisposition {
    TableDisposition { rights, ..disposition }
}

fn expects(handle_type: HandleType, disposition: TableDisposition) -> TableDisposition {
    TableDisposition { handle_type: Some(handle_type), ..disposition }
}

fn write(case: &Case, list: &mut [TableDisposition]) -> String {
    status(case.table.channel_write_etc(case.ours, 0, b"list", list))
}

fn results(list: &[TableDisposition]) -> Vec<String> {
    list.iter()
        .map(|one| one.result.clone().map_or_else(|e| e.outcome(), |()| "OK".into()))
        .collect()
}

#[test]
fn what_is_moved_is_gone_and_what_is_duplicated_stays() {
    counted(|case| {
        let (moved, kept) = (case.file(), case.file());
        let id = case.table.info(kept).unwrap().id;
        assert_eq!(write(case, &mut [moving(moved), duplicating(kept), duplicating(kept)]), "OK");
        assert!(!case.table.contains(moved));
        assert_eq!(case.table.info(kept).unwrap().id, id);
        assert_eq!(case.read(case.theirs).1.len(), 3);
    });
}

#[test]
fn rights_are_the_exact_final_rights_may_be_none_and_may_lack_transfer() {
    counted(|case| {
        for rights in [Rights::empty(), Rights::READ, Rights::TRANSFER | Rights::WRITE] {
            let kept = case.file();
            let before = case.rights(kept);
            let mut list = [wants(rights, moving(case.file())), wants(rights, duplicating(kept))];
            assert_eq!(write(case, &mut list), "OK");
            let (_, arrived) = case.read(case.theirs);
            assert!(arrived.iter().all(|number| case.rights(*number) == rights));
            assert_eq!(case.rights(kept), before);
        }
        let narrow = Rights::TRANSFER | Rights::WRITE;
        assert_eq!(write(case, &mut [moving(case.with(narrow))]), "OK");
        assert_eq!(case.rights(case.read(case.theirs).1[0]), narrow, "SAME_RIGHTS");
    });
}

#[test]
fn all_are_attempted_the_first_failure_is_told_and_each_is_in_its_result() {
    counted(|case| {
        let ((first, before), (last, behind)) = (case.witness(), case.witness());
        let kept = case.with(Rights::TRANSFER);
        let mut list = [
            moving(first),
            expects(HandleType::Socket, moving(case.file())),
            moving(case.with(Rights::READ)),
            duplicating(kept),
            moving(0),
            moving(last),
        ];
        assert_eq!(write(case, &mut list), "WRONG_TYPE");
        assert_eq!(
            results(&list),
            ["OK", "WRONG_TYPE", "ACCESS_DENIED", "ACCESS_DENIED", "BAD_HANDLE", "OK"]
        );
        all_are_closed(&mut [before, behind]);
        assert!(case.table.contains(kept), "what was to be duplicated stays");
        assert_eq!(case.table.len(), 3);
        case.nothing_came();
    });
}

#[test]
fn results_are_written_by_a_failure_only() {
    counted(|case| {
        let earlier = HandleError::ThroughItself;
        let mut list = [moving(case.file())];
        list[0].result = Err(earlier.clone());
        assert_eq!(write(case, &mut list), "OK");
        assert_eq!(list[0].result, Err(earlier));
        case.read(case.theirs);
    });
}

#[test]
fn each_handle_is_checked_in_one_order() {
    counted(|case| {
        let all = Rights::BASIC | Rights::IO;
        let none = || case.with(Rights::empty());
        let narrow = || case.with(Rights::TRANSFER);
        let weak_channel = {
            let (one, _) = case.table.channel_create().unwrap();
            case.table.replace(one, Rights::TRANSFER).unwrap()
        };
        let pipe = HandleType::Pipe;
        let rows = [
            (wants(all, expects(pipe, duplicating(case.closed()))), "BAD_HANDLE"),
            (wants(all, expects(pipe, moving(none()))), "ACCESS_DENIED"),
            (wants(all, expects(pipe, duplicating(none()))), "ACCESS_DENIED"),
            (wants(all, expects(pipe, duplicating(narrow()))), "WRONG_TYPE"),
            (wants(all, expects(pipe, moving(weak_channel))), "WRONG_TYPE"),
            (wants(all, duplicating(narrow())), "INVALID_ARGS"),
            (wants(all, moving(narrow())), "INVALID_ARGS"),
            (duplicating(narrow()), "ACCESS_DENIED"),
        ];
        for (disposition, wanted) in rows {
            assert_eq!(write(case, &mut [disposition.clone()]), wanted, "{disposition:?}");
        }
        // Its own end: behind the right to send it, before its type.
        assert_eq!(
            write(case, &mut [wants(all, expects(pipe, moving(case.theirs)))]),
            "NOT_SUPPORTED"
        );
        assert_eq!(write(case, &mut []), "PEER_CLOSED", "consumed");
    });
}

#[test]
fn an_end_of_a_channel_is_moved_with_fewer_rights_and_never_duplicated() {
    counted(|case| {
        let (one, other) = case.table.channel_create().unwrap();
        assert_eq!(write(case, &mut [duplicating(one)]), "ACCESS_DENIED");
        assert_eq!(case.unread(other), "SHOULD_WAIT", "it stays open");
        let mut list = [wants(Rights::READ, expects(HandleType::Channel, moving(one)))];
        assert_eq!(write(case, &mut list), "OK");
        let arrived = case.read(case.theirs).1[0];
        assert_eq!(case.rights(arrived), Rights::READ);
        assert_eq!(status(case.table.channel_write(arrived, 0, b"", &[])), "ACCESS_DENIED");
        assert_eq!(status(case.table.channel_write(other, 0, b"one way", &[])), "OK");
        assert_eq!(case.read(arrived).0, b"one way");
    });
}

#[test]
fn a_repeated_move_is_a_bad_handle_and_a_repeated_duplicate_is_fine() {
    counted(|case| {
        let (number, kept) = (case.file(), case.file());
        let mut list = [moving(number), duplicating(kept), duplicating(kept), moving(number)];
        assert_eq!(write(case, &mut list), "BAD_HANDLE");
        assert_eq!(results(&list), ["OK", "OK", "OK", "BAD_HANDLE"]);
        assert_eq!(write(case, &mut [duplicating(kept), moving(kept)]), "OK");
        assert_eq!(case.read(case.theirs).1.len(), 2);
    });
}

/// *Decision*: zCore goes through the list also if options or limits are wrong.
#[test]
fn if_something_is_wrong_that_comes_first_none_is_checked_and_moves_are_closed() {
    counted(|case| {
        let long = vec![0; 65537];
        let narrow = case.table.replace(case.theirs, Rights::READ).unwrap();
        let rows: [(HandleValue, u32, &[u8], usize, &str); 5] = [
            (case.ours, 2, b"", 1, "INVALID_ARGS"),
            (case.closed(), 0, b"", 1, "BAD_HANDLE"),
            (narrow, 0, b"", 1, "ACCESS_DENIED"),
            (case.ours, 0, &long, 1, "OUT_OF_RANGE"),
            (case.ours, 0, b"", 65, "OUT_OF_RANGE"),
        ];
        for (number, options, bytes, count, wanted) in rows {
            let ((first, reader), kept) = (case.witness(), case.with(Rights::READ));
            let mut list = vec![moving(first)];
            list.resize_with(count + 1, || duplicating(kept));
            assert_eq!(
                status(case.table.channel_write_etc(number, options, bytes, &mut list)),
                wanted
            );
            assert!(list.iter().all(|one| one.result.is_ok()), "{wanted}");
            all_are_closed(&mut [reader]);
            assert!(case.table.contains(kept));
        }
        assert_eq!(case.unread(narrow), "SHOULD_WAIT");
    });
}

#[test]
fn a_closed_peer_is_told_last_and_moves_are_closed() {
    counted(|case| {
        case.table.close(case.theirs).unwrap();
        let ((first, reader), kept) = (case.witness(), case.file());
        let mut list = [moving(first), duplicating(kept)];
        assert_eq!(write(case, &mut list), "PEER_CLOSED");
        all_are_closed(&mut [reader]);
        assert!(case.table.contains(kept));
        assert_eq!(results(&list), ["OK", "OK"]);
    });
}
