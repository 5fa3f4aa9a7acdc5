//! Writing by number: the order of the checks, and that every failure consumes all handles.

use std::io::IoSlice;

use tombolo::object::{ChannelError, HandleValue, TableError, WRITE_USE_IOVEC};
use tombolo::{HandleType, Rights};

use super::case::{Case, SHORT, all_are_closed, counted, status};
use super::support::witness::is_closed;

/// Writes the handles between two witnesses, and sees that all of these are closed.
#[track_caller]
fn consumes(
    case: &Case,
    handles: &[HandleValue],
    write: impl FnOnce(&[HandleValue]) -> Result<(), TableError>,
) -> String {
    let ((first, before), (last, behind)) = (case.witness(), case.witness());
    let list = [&[first], handles, &[last]].concat();
    let outcome = status(write(&list));
    all_are_closed(&mut [before, behind]);
    assert!(list.iter().all(|number| !case.table.contains(*number)));
    outcome
}

#[test]
fn every_handle_moves_out_of_the_table_and_arrives_under_a_number_of_its_own() {
    counted(|case| {
        let numbers = [case.file(), case.with(Rights::TRANSFER | Rights::READ), case.file()];
        let [first, second, third] = numbers;
        assert_eq!(case.write(b"all", &[third, first, second]), "OK");
        assert_eq!(case.table.len(), 2, "moved, not copied");
        let (bytes, arrived) = case.read(case.theirs);
        assert_eq!((&bytes[..], arrived.len()), (&b"all"[..], 3));
        assert!(arrived.iter().all(|number| !numbers.contains(number)));
        assert_eq!(case.rights(arrived[2]), Rights::TRANSFER | Rights::READ);
        assert_eq!(case.table.info(arrived[0]).unwrap().handle_type, HandleType::File);
    });
}

#[test]
fn a_message_without_bytes_and_handles_is_valid() {
    counted(|case| {
        assert_eq!(case.write(b"", &[]), "OK");
        assert_eq!(case.read(case.theirs), (vec![], vec![]));
    });
}

#[test]
fn up_to_65_536_bytes_and_64_handles_go_with_a_message() {
    counted(|case| {
        let handles: Vec<_> = (0..64).map(|_| case.file()).collect();
        assert_eq!(case.write(&[7; 65536], &handles), "OK");
        let (bytes, handles) = case.read(case.theirs);
        assert_eq!((bytes, handles.len()), (vec![7; 65536], 64));
    });
}

/// *Decision*: consumed, as in Zircon; zCore checks options and size before it takes the handles.
#[test]
fn options_that_there_are_not_are_an_invalid_argument_whatever_the_number_is_and_consume() {
    counted(|case| {
        for options in [2, 3, 1 << 31, u32::MAX] {
            for number in [case.ours, case.closed(), case.file()] {
                let write = |list: &[_]| case.table.channel_write(number, options, b"", list);
                assert_eq!(consumes(case, &[], write), "INVALID_ARGS");
                let write = |list: &[_]| {
                    let parts = [IoSlice::new(b"1")];
                    case.table.channel_write(number, options & !1 | 2, &parts, list)
                };
                assert_eq!(consumes(case, &[], write), "INVALID_ARGS");
            }
        }
        // Bytes in one piece are no parts.
        let write = |list: &[_]| case.table.channel_write(case.ours, WRITE_USE_IOVEC, b"", list);
        assert_eq!(consumes(case, &[], write), "INVALID_ARGS");
        case.nothing_came();
    });
}

#[test]
fn then_comes_the_number_then_its_type_then_the_right_to_write_and_each_consumes() {
    counted(|case| {
        let (file, closed) = (case.file(), case.closed());
        let narrow = case.table.replace(case.ours, Rights::READ).unwrap();
        let long = vec![0; 65537]; // what is checked behind these is wrong, too
        for (number, wanted) in [
            (0, "BAD_HANDLE"),
            (closed, "BAD_HANDLE"),
            (file, "WRONG_TYPE"),
            (narrow, "ACCESS_DENIED"),
        ] {
            let write = |list: &[_]| case.table.channel_write(number, 0, &long, list);
            assert_eq!(consumes(case, &[0], write), wanted);
        }
        assert!(case.table.contains(file) && case.table.contains(narrow), "what was written to");
        assert_eq!(case.unread(case.theirs), "SHOULD_WAIT");
    });
}

#[test]
fn then_come_the_limits_before_any_handle_and_consume_also_65_handles() {
    counted(|case| {
        let long = vec![0; 65537];
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, &long, list);
        assert_eq!(consumes(case, &[0], write), "OUT_OF_RANGE");
        for count in [63, 198] {
            let many: Vec<_> = (0..count).map(|_| case.file()).collect();
            let many = [&many[..], &[0][..]].concat();
            let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
            assert_eq!(consumes(case, &many[1..], write), "OUT_OF_RANGE", "{count}");
            case.table.close(many[0]).unwrap();
        }
        case.nothing_came();
    });
}

#[test]
fn then_each_handle_in_the_order_of_the_list_and_the_first_failure_is_told() {
    counted(|case| {
        let weak = || case.with(Rights::READ);
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(consumes(case, &[weak(), case.closed()], write), "ACCESS_DENIED");
        // *Decision*: the first, as in Zircon; in zCore a bad handle comes before earlier ones.
        assert_eq!(consumes(case, &[case.closed(), weak()], write), "BAD_HANDLE");
        assert_eq!(consumes(case, &[0], write), "BAD_HANDLE", "0 names nothing to send");
        case.nothing_came();
    });
}

#[test]
fn a_handle_without_the_transfer_right_is_denied_also_the_channels_own() {
    counted(|case| {
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(
            consumes(case, &[case.with(Rights::BASIC - Rights::TRANSFER)], write),
            "ACCESS_DENIED"
        );
        let weak = case.table.replace(case.theirs, Rights::IO).unwrap();
        assert_eq!(consumes(case, &[weak], write), "ACCESS_DENIED", "before that it is its own");
    });
}

/// A repeated move finds that the first one has emptied its number. *Decision*: `BAD_HANDLE` as in Zircon, not
/// Magenta's `INVALID_ARGS`.
#[test]
fn a_number_that_is_in_the_list_twice_is_a_bad_handle() {
    counted(|case| {
        let number = case.file();
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(consumes(case, &[number, number], write), "BAD_HANDLE");
        case.nothing_came();
    });
}

#[test]
fn a_channel_is_not_written_through_itself_and_is_closed_as_all_handles_are() {
    counted(|case| {
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(consumes(case, &[case.ours], write), "NOT_SUPPORTED");
        assert_eq!(case.unread(case.theirs), "PEER_CLOSED");
        assert_eq!(case.table.len(), 1);
    });
}

/// *Decision*: nor through its peer. In Zircon it would sit in its own queue for ever.
#[test]
fn nor_through_its_peer_whether_that_is_open_or_a_handle() {
    counted(|case| {
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(consumes(case, &[case.theirs], write), "NOT_SUPPORTED");
        assert_eq!(case.write(b"", &[]), "PEER_CLOSED", "it was closed");
    });
    counted(|case| {
        let handle = case.table.insert(case.table.remove(case.theirs).unwrap());
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(consumes(case, &[handle], write), "NOT_SUPPORTED");
        case.comes_to_peer_closed(case.ours);
    });
}

#[test]
fn a_write_to_a_closed_peer_is_told_so_last_and_consumes() {
    counted(|case| {
        case.table.close(case.theirs).unwrap();
        let write = |list: &[_]| case.table.channel_write(case.ours, 0, b"", list);
        assert_eq!(consumes(case, &[case.with(Rights::READ)], write), "ACCESS_DENIED");
        assert_eq!(consumes(case, &[case.file()], write), "PEER_CLOSED");
    });
}

#[test]
fn a_failing_handle_does_not_spoil_the_removal_of_the_others() {
    counted(|case| {
        for place in 0..5 {
            let (mut list, mut witnesses): (Vec<_>, Vec<_>) =
                (0..5).map(|_| case.witness()).unzip();
            case.table.close(std::mem::replace(&mut list[place], 0)).unwrap();
            assert_eq!(case.write(b"", &list), "BAD_HANDLE");
            all_are_closed(&mut witnesses);
        }
        assert_eq!(case.table.len(), 2);
        case.nothing_came();
    });
}

#[test]
fn handles_of_a_message_that_was_written_are_open_until_it_is_gone() {
    counted(|case| {
        let (number, mut reader) = case.witness();
        assert_eq!(case.write(b"", &[number]), "OK");
        assert!(!is_closed(&mut reader, SHORT));
        case.table.close(case.theirs).unwrap();
        all_are_closed(&mut [reader]);
    });
}

#[test]
fn parts_are_gathered_in_their_order_and_none_are_an_empty_message() {
    counted(|case| {
        let parts = [&b"one, "[..], b"", b"two, ", b"three"].map(IoSlice::new);
        let write = |parts: &[IoSlice<'_>], options| {
            status(case.table.channel_write(case.ours, options, parts, &[case.file()]))
        };
        assert_eq!(write(&parts, WRITE_USE_IOVEC), "OK");
        assert_eq!(write(&parts, 0), "OK", "the type of the bytes says it");
        assert_eq!(write(&[], WRITE_USE_IOVEC), "OK");
        for wanted in [&b"one, two, three"[..], b"one, two, three", b""] {
            let (bytes, handles) = case.read(case.theirs);
            assert_eq!((&bytes[..], handles.len()), (wanted, 1));
        }
    });
}

#[test]
fn more_than_8_192_parts_and_parts_of_more_than_65_536_bytes_are_out_of_range() {
    counted(|case| {
        let parts = [IoSlice::new(b"12345678"); 8193];
        let write = |parts: &[IoSlice<'_>], number, list: &[_]| {
            case.table.channel_write(number, WRITE_USE_IOVEC, parts, list)
        };
        assert_eq!(status(write(&parts[..8192], case.ours, &[])), "OK");
        assert_eq!(case.read(case.theirs).0, b"12345678".repeat(8192));
        let short = [IoSlice::new(b""); 8193];
        assert_eq!(consumes(case, &[0], |list| write(&short, case.ours, list)), "OUT_OF_RANGE");
        assert_eq!(consumes(case, &[0], |list| write(&short, case.closed(), list)), "BAD_HANDLE");
        let long = vec![0; 1 << 16];
        let long = [IoSlice::new(&long), IoSlice::new(b"1")];
        assert_eq!(consumes(case, &[0], |list| write(&long, case.ours, list)), "OUT_OF_RANGE");
        case.nothing_came();
    });
}

#[test]
fn an_error_says_which_handle_it_was_and_what_the_channel_takes() {
    counted(|case| {
        let refused = case.table.channel_write(case.ours, 0, b"", &[case.file(), 0]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "handle 1 of the list: 0x0 names no handle of this table; it was closed, moved, or never used"
        );
        let refused = case.table.channel_write(case.ours, 0, &vec![0; 65537], &[]).unwrap_err();
        let TableError::Channel { source: ChannelError::TooLong { found, limit } } = refused else {
            panic!("{refused:?}")
        };
        assert_eq!((found, limit), (65537, 65536));
        let refused = case.table.channel_write(0, 0, b"", &[]).unwrap_err();
        assert!(refused.to_string().starts_with("the channel: 0x0 names no handle"), "{refused}");
    });
}
