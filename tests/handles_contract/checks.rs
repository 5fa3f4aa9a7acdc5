//! The checks of each handle, their order, and what they say.

use std::fs::File;
use std::os::fd::AsFd;

use tombolo::handle::{DispositionError, HandleDisposition, HandleError, HandleOp};
use tombolo::{EventsRegion, Handle, HandleType, Rights};

use super::case::{bad, counted, duplicating, endpoint, expects, moving, refusal, wants};
use super::support::small;

#[test]
fn what_is_not_in_the_table_is_a_bad_handle() {
    counted(|case| {
        let closed = case.closed();
        for number in [0, closed, closed + 4, u64::MAX] {
            assert_eq!(refusal(case, moving(number)), bad(number));
            assert_eq!(refusal(case, duplicating(number)), bad(number));
        }
    });
}

#[test]
fn a_repeated_move_is_a_bad_handle() {
    counted(|case| {
        let number = case.number();
        let mut list = [moving(number), moving(number)];
        let error = case.resolve(&mut list).unwrap_err();
        assert_eq!(error, DispositionError::Handle { index: 1, source: bad(number) });
        assert_eq!(list.map(|one| one.result), [Ok(()), Err(bad(number))]);
        assert_eq!(case.open_count(), 0);
        let number = case.number();
        let mut list = [moving(number), duplicating(number)];
        case.resolve(&mut list).unwrap_err();
        assert_eq!(list[1].result, Err(bad(number)), "a duplicate behind it is one too");
        assert_eq!(case.open_count(), 0);
    });
    counted(|case| {
        let mut list = [HandleDisposition::moved(case.handle())];
        HandleDisposition::resolve_all(&mut list, &[]).unwrap();
        HandleDisposition::resolve_all(&mut list, &[]).unwrap_err();
        assert_eq!(list[0].result, Err(HandleError::AlreadyMoved), "the list used once more");
    });
}

#[test]
fn a_move_that_failed_is_a_move_too_for_what_stands_behind_it() {
    counted(|case| {
        let number = case.number();
        let mut list = [expects(HandleType::Socket, moving(number)), moving(number)];
        case.resolve(&mut list).unwrap_err();
        assert_eq!(list[1].result, Err(bad(number)));
    });
}

#[test]
fn a_repeated_duplicate_is_fine() {
    counted(|case| {
        let number = case.number();
        let mut list = [duplicating(number), duplicating(number), moving(number)];
        let handles = case.resolve(&mut list).unwrap();
        assert!(handles.iter().all(|handle| handle.id() == handles[0].id()));
        assert_eq!((handles.len(), case.open_count()), (3, 3));
        let kept = case.handle();
        let mut list = [HandleDisposition::duplicate(&kept), HandleDisposition::duplicate(&kept)];
        assert_eq!(HandleDisposition::resolve_all(&mut list, &[]).unwrap().len(), 2);
    });
}

#[test]
fn an_operation_that_is_neither_move_nor_duplicate_is_invalid_and_no_list_can_hold_one() {
    assert_eq!(HandleOp::try_from(0), Ok(HandleOp::Move));
    assert_eq!(HandleOp::try_from(1), Ok(HandleOp::Duplicate));
    for found in [2, 3, u32::MAX] {
        assert_eq!(HandleOp::try_from(found), Err(HandleError::InvalidOperation { found }));
    }
}

#[test]
fn a_handle_without_the_transfer_right_is_denied() {
    counted(|case| {
        let held = Rights::BASIC - Rights::TRANSFER;
        let denied = HandleError::AccessDenied { held, missing: Rights::TRANSFER };
        assert_eq!(refusal(case, moving(case.with(held))), denied);
        let number = case.with(held);
        assert_eq!(refusal(case, duplicating(number)), denied);
    });
}

#[test]
fn a_channel_may_not_be_written_into_itself_by_either_end() {
    counted(|case| {
        let path = case.dir.file("region");
        let region = EventsRegion::open_path_with(path, small()).unwrap();
        let other = EventsRegion::anonymous(small()).unwrap();
        let ours = endpoint(&region, 0);
        let through = [ours.as_fd()];
        for end in [endpoint(&region, 1), region.to_fd().unwrap(), ours.try_clone().unwrap()] {
            let mut list = [moving(case.table.insert(end))];
            case.table.resolve_all(&mut list, &through).unwrap_err();
            assert_eq!(list[0].result, Err(HandleError::ThroughItself));
            assert!(case.table.is_empty(), "consumed");
        }
        let mut list = [HandleDisposition::moved(endpoint(&region, 1))];
        HandleDisposition::resolve_all(&mut list, &through).unwrap_err();
        assert_eq!(list[0].result, Err(HandleError::ThroughItself));
        let mut list = [HandleDisposition::moved(endpoint(&other, 1))];
        let sent = HandleDisposition::resolve_all(&mut list, &through).unwrap();
        assert_eq!(sent[0].handle_type(), HandleType::Channel, "one end of another channel goes");
    });
}

#[test]
fn things_without_a_file_are_not_taken_for_the_channels_own() {
    use rustix::event::{EventfdFlags, eventfd};
    let [bell, other] = [(); 2].map(|()| eventfd(0, EventfdFlags::CLOEXEC).unwrap());
    let mut list = [HandleDisposition::moved(other)];
    let sent = HandleDisposition::resolve_all(&mut list, &[bell.as_fd()]).unwrap();
    assert_eq!(sent[0].handle_type(), HandleType::EventFd, "though all of them have one inode");
}

#[test]
fn another_type_than_expected_is_wrong() {
    counted(|case| {
        let (found, wanted) = (HandleType::File, HandleType::Pipe);
        let wrong = HandleError::WrongType { found, wanted };
        assert_eq!(refusal(case, expects(wanted, moving(case.number()))), wrong);
        let list = &mut [expects(found, moving(case.number()))];
        assert_eq!(case.resolve(list).unwrap().len(), 1);
    });
}

#[test]
fn rights_that_are_neither_the_same_nor_a_subset_are_invalid() {
    counted(|case| {
        let held = Rights::TRANSFER | Rights::DUPLICATE | Rights::READ;
        for wanted in [Rights::WRITE, held | Rights::WRITE, Rights::SAME_RIGHTS | Rights::READ] {
            let invalid = HandleError::InvalidRights { held, wanted };
            assert_eq!(refusal(case, wants(wanted, moving(case.with(held)))), invalid);
            let number = case.with(held);
            assert_eq!(refusal(case, wants(wanted, duplicating(number))), invalid);
        }
    });
}

#[test]
fn a_duplicate_without_the_duplicate_right_is_denied() {
    counted(|case| {
        let held = Rights::TRANSFER | Rights::READ;
        let number = case.with(held);
        let denied = HandleError::AccessDenied { held, missing: Rights::DUPLICATE };
        assert_eq!(refusal(case, duplicating(number)), denied);
        assert_eq!(case.resolve(&mut [moving(number)]).unwrap().len(), 1, "it may be moved");
    });
}

#[test]
fn of_several_refusals_the_earlier_step_is_told() {
    counted(|case| {
        let file = File::open(case.dir.path()).unwrap();
        let through = [file.as_fd()];
        let directory = |rights| {
            let handle = Handle::new(file.try_clone().unwrap());
            case.table.insert(handle.replace(rights).unwrap())
        };
        // Each is wrong in all the steps from its own on: no right to send or to duplicate, the
        // channel's own file, of another type, rights that it lacks.
        let numbers = [
            case.closed(),
            directory(Rights::READ),
            directory(Rights::TRANSFER),
            case.with(Rights::TRANSFER),
            case.with(Rights::TRANSFER),
            case.with(Rights::TRANSFER),
        ];
        let mut list = numbers
            .map(|number| wants(Rights::WRITE, expects(HandleType::Socket, duplicating(number))));
        list[4].handle_type = None;
        list[5].handle_type = None;
        list[5].rights = Rights::TRANSFER;
        case.table.resolve_all(&mut list, &through).unwrap_err();
        let (found, wanted) = (HandleType::File, HandleType::Socket);
        let held = Rights::TRANSFER;
        let told = [
            bad(numbers[0]),
            HandleError::AccessDenied { held: Rights::READ, missing: Rights::TRANSFER },
            HandleError::ThroughItself,
            HandleError::WrongType { found, wanted },
            HandleError::InvalidRights { held, wanted: Rights::WRITE },
            HandleError::AccessDenied { held, missing: Rights::DUPLICATE },
        ];
        assert_eq!(list.map(|one| one.result.unwrap_err()), told);
    });
}

#[test]
fn every_refusal_says_what_was_found_and_what_to_do() {
    counted(|case| {
        let wrong = refusal(case, expects(HandleType::Socket, moving(case.number())));
        assert_eq!(wrong.to_string(), "the handle is of type file, wanted socket");
        let denied = refusal(case, moving(case.with(Rights::READ))).to_string();
        assert!(denied.contains("rights READ") && denied.contains("lacks TRANSFER"), "{denied}");
        let invalid = refusal(case, wants(Rights::EXECUTE, moving(case.number()))).to_string();
        assert!(invalid.contains("rights EXECUTE") && invalid.contains("SAME_RIGHTS"), "{invalid}");
        let mut list: Vec<_> = (0..65).map(|_| moving(0)).collect();
        let many = case.resolve(&mut list).unwrap_err().to_string();
        assert!(many.contains("65 handles") && many.contains("at most 64"), "{many}");
        let list = &mut [duplicating(case.number()), moving(0)];
        let placed = case.resolve(list).unwrap_err().to_string();
        assert!(placed.starts_with("handle 1 of the list: 0x0 names no handle"), "{placed}");
    });
}
