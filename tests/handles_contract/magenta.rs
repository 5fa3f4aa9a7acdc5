//! Magenta's writing, which keeps the handles of a refused message.

use std::os::fd::AsRawFd;

use tombolo::handle::HandleDisposition;
use tombolo::object::TableDisposition;
use tombolo::{HandleType, Rights};

use super::case::{counted, moving};

#[test]
fn all_are_validated_and_then_all_removed() {
    counted(|case| {
        let numbers = [case.number(), case.number()];
        let handles = case.try_resolve(&mut numbers.map(moving)).unwrap();
        assert!(case.table.is_empty());
        assert_eq!((handles.len(), case.open_count()), (2, 2));
    });
}

#[test]
fn on_any_failure_every_handle_is_back_in_the_table() {
    for spoil in [
        |list: &mut [TableDisposition]| list[0].handle = 0,
        |list: &mut [TableDisposition]| list[1].handle_type = Some(HandleType::Socket),
        |list: &mut [TableDisposition]| list[2].rights = Rights::EXECUTE,
        |list: &mut [TableDisposition]| list[2].handle = list[0].handle,
    ] {
        counted(|case| {
            let numbers = [case.number(), case.number(), case.number()];
            let fd = |number| case.table.get(number, None, Rights::BASIC).unwrap().as_raw_fd();
            let before = numbers.map(fd);
            let mut list = numbers.map(moving);
            spoil(&mut list);
            case.try_resolve(&mut list).unwrap_err();
            assert_eq!(numbers.map(fd), before, "under its number, as it was");
            assert_eq!((case.table.len(), case.open_count()), (3, 3));
        });
    }
}

#[test]
fn a_refused_list_of_handles_still_holds_them_and_can_be_mended() {
    counted(|case| {
        let kept = case.handle();
        let mut list = [
            HandleDisposition::moved(case.handle()),
            HandleDisposition::duplicate(&kept),
            HandleDisposition::moved(case.handle()).expect_type(HandleType::Socket),
        ];
        HandleDisposition::try_resolve_all(&mut list, &[]).unwrap_err();
        assert_eq!(case.open_count(), 3);
        list[2].handle_type = Some(HandleType::File);
        let handles = HandleDisposition::try_resolve_all(&mut list, &[]).unwrap();
        assert_eq!((handles.len(), case.open_count()), (3, 4));
        assert!(list[2].result.is_err(), "of the first try: written only by a failure");
    });
}
