//! Writing a message with a disposition for each handle.

use tombolo::handle::{DispositionError, HandleDisposition, HandleError};
use tombolo::{HandleType, Rights};

use super::case::{bad, counted, duplicating, expects, moving, refusal, wants};

#[test]
fn move_is_replace_then_write_and_its_source_is_always_closed() {
    counted(|case| {
        let number = case.number();
        let handles = case.resolve(&mut [wants(Rights::READ, moving(number))]).unwrap();
        assert_eq!(handles[0].rights(), Rights::READ);
        assert!(!case.table.contains(number));
        assert_eq!(case.open_count(), 1);
        let number = case.with(Rights::TRANSFER);
        refusal(case, wants(Rights::READ, moving(number)));
        assert!(!case.table.contains(number), "also where it failed");
    });
}

#[test]
fn duplicate_is_duplicate_then_write_and_its_source_always_stays() {
    counted(|case| {
        let number = case.number();
        let before = case.table.get(number, None, Rights::empty()).unwrap().rights();
        let handles = case.resolve(&mut [wants(Rights::READ, duplicating(number))]).unwrap();
        assert_eq!(handles[0].rights(), Rights::READ);
        assert_eq!(case.open_count(), 2);
        let source = case.table.get(number, None, before).unwrap();
        assert_eq!((source.id(), source.rights()), (handles[0].id(), before));
        refusal(case, wants(Rights::EXECUTE, duplicating(number)));
        assert!(case.table.contains(number), "also where it failed");
    });
}

#[test]
fn rights_are_the_exact_final_rights_and_may_be_none_and_may_drop_transfer() {
    counted(|case| {
        for rights in [Rights::empty(), Rights::READ, Rights::IO, Rights::TRANSFER] {
            let number = case.number();
            let mut list = [wants(rights, duplicating(number)), wants(rights, moving(number))];
            let handles = case.resolve(&mut list).unwrap();
            assert_eq!([handles[0].rights(), handles[1].rights()], [rights, rights]);
        }
    });
}

#[test]
fn same_rights_leave_them_as_they_are() {
    counted(|case| {
        let rights = Rights::TRANSFER | Rights::DUPLICATE | Rights::READ;
        let number = case.with(rights);
        let handles = case.resolve(&mut [duplicating(number), moving(number)]).unwrap();
        assert_eq!([handles[0].rights(), handles[1].rights()], [rights, rights]);
    });
}

#[test]
fn no_type_checks_nothing() {
    counted(|case| {
        let pipe = case.table.insert(std::io::pipe().unwrap().0);
        let handles = case.resolve(&mut [moving(pipe), moving(case.number())]).unwrap();
        assert_eq!(
            [handles[0].handle_type(), handles[1].handle_type()],
            [HandleType::Pipe, HandleType::File]
        );
    });
}

#[test]
fn all_entries_are_attempted_even_after_one_failed_and_the_error_is_the_first_failure() {
    counted(|case| {
        let (closed, weak) = (case.closed(), case.with(Rights::READ));
        let mut list = [
            moving(case.number()),
            expects(HandleType::Socket, moving(case.number())),
            moving(closed),
            duplicating(case.number()),
            moving(weak),
        ];
        let error = case.resolve(&mut list).unwrap_err();
        let (found, wanted) = (HandleType::File, HandleType::Socket);
        let first = HandleError::WrongType { found, wanted };
        assert_eq!(error, DispositionError::Handle { index: 1, source: first.clone() });
        let (held, missing) = (Rights::READ, Rights::TRANSFER);
        let denied = Err(HandleError::AccessDenied { held, missing });
        let results = list.map(|one| one.result);
        assert_eq!(results, [Ok(()), Err(first), Err(bad(closed)), Ok(()), denied]);
        assert_eq!(case.open_count(), 1, "only that which was to be duplicated");
    });
}

#[test]
fn a_result_is_written_only_on_failure() {
    counted(|case| {
        let preset = Err(bad(42));
        let mut list = [moving(case.number()), duplicating(case.number())];
        list.iter_mut().for_each(|one| one.result = preset.clone());
        assert_eq!(case.resolve(&mut list).unwrap().len(), 2);
        assert!(list.iter().all(|one| one.result == preset), "the caller reads its own value back");

        let mut list = [moving(case.number()), moving(0)];
        list.iter_mut().for_each(|one| one.result = preset.clone());
        case.resolve(&mut list).unwrap_err();
        assert_eq!(list.map(|one| one.result), [preset, Err(bad(0))]);
    });
}

#[test]
fn on_any_failure_moved_sources_are_closed_and_duplicated_ones_stay() {
    counted(|case| {
        let (moved, kept) = (case.number(), case.number());
        case.resolve(&mut [duplicating(kept), moving(moved), moving(0)]).unwrap_err();
        assert!(case.table.contains(kept) && !case.table.contains(moved));
        assert_eq!(case.open_count(), 1);
    });
    counted(|case| {
        let kept = case.handle();
        let weak = case.handle().replace(Rights::empty()).unwrap();
        let mut list = [
            HandleDisposition::duplicate(&kept),
            HandleDisposition::moved(case.handle()),
            HandleDisposition::moved(weak),
        ];
        HandleDisposition::resolve_all(&mut list, &[]).unwrap_err();
        assert_eq!(case.open_count(), 1);
    });
}

#[test]
fn a_receiver_is_told_type_and_rights_of_each_handle() {
    counted(|case| {
        let rights = Rights::TRANSFER | Rights::WRITE;
        let handles = case.resolve(&mut [wants(rights, moving(case.number()))]).unwrap();
        assert_eq!((handles[0].handle_type(), handles[0].rights()), (HandleType::File, rights));
    });
}
