//! Writing a message: its handles go with it, or are consumed.

use tombolo::handle::{DispositionError, HandleDisposition, HandleSource};
use tombolo::{Handle, Rights};

use super::case::{counted, moving};

#[test]
fn a_message_without_handles_is_valid() {
    counted(|case| {
        assert!(case.resolve(&mut []).unwrap().is_empty());
        assert!(case.try_resolve(&mut []).unwrap().is_empty());
        assert!(HandleDisposition::resolve_all(&mut [], &[]).unwrap().is_empty());
    });
}

#[test]
fn every_handle_moves_out_of_the_callers_table_in_the_order_of_the_list() {
    counted(|case| {
        let numbers = [case.number(), case.number(), case.number()];
        let ids = numbers.map(|number| case.table.get(number, None, Rights::READ).unwrap().id());
        let handles = case.resolve(&mut [2, 0, 1].map(|place| moving(numbers[place]))).unwrap();
        assert!(case.table.is_empty());
        assert_eq!(handles.iter().map(Handle::id).collect::<Vec<_>>(), [ids[2], ids[0], ids[1]]);
        assert_eq!(case.open_count(), 3, "moved, not copied");
    });
}

#[test]
fn up_to_sixty_four_handles_make_a_message() {
    for count in [0, 1, 63, 64] {
        counted(|case| {
            let mut list: Vec<_> = (0..count).map(|_| moving(case.number())).collect();
            assert_eq!(case.resolve(&mut list).unwrap().len(), count);
            let mut list: Vec<_> =
                (0..count).map(|_| HandleDisposition::moved(case.handle())).collect();
            assert_eq!(HandleDisposition::resolve_all(&mut list, &[]).unwrap().len(), count);
        });
    }
}

#[test]
fn more_than_sixty_four_are_out_of_range_before_anything_is_looked_at_and_are_consumed() {
    for found in [65, 253, 254] {
        counted(|case| {
            let error = DispositionError::TooManyHandles { found, limit: 64 };
            let mut list: Vec<_> = (0..found).map(|_| moving(case.number())).collect();
            list[0].handle = 0;
            assert_eq!(case.try_resolve(&mut list).unwrap_err(), error);
            assert_eq!(case.open_count(), found, "kept by the form that keeps");
            assert_eq!(case.resolve(&mut list).unwrap_err(), error);
            assert_eq!(case.open_count(), 1, "the first is not in the list any more");
            assert!(list.iter().all(|one| one.result.is_ok()), "none was looked at");
        });
        counted(|case| {
            let error = DispositionError::TooManyHandles { found, limit: 64 };
            let mut list: Vec<_> =
                (0..found).map(|_| HandleDisposition::moved(case.handle())).collect();
            let refused = HandleDisposition::try_resolve_all(&mut list, &[]).unwrap_err();
            assert_eq!((refused, case.open_count()), (error.clone(), found));
            let refused = HandleDisposition::resolve_all(&mut list, &[]).unwrap_err();
            assert_eq!((refused, case.open_count()), (error, 0));
        });
    }
}

#[test]
fn every_failure_consumes_all_handles() {
    counted(|case| {
        let weak = case.with(Rights::READ);
        let mut list = [moving(case.number()), moving(weak), moving(case.number())];
        assert_eq!(case.open_count(), 3);
        case.resolve(&mut list).unwrap_err();
        assert_eq!((case.table.len(), case.open_count()), (0, 0));
    });
    counted(|case| {
        let weak = case.handle().replace(Rights::READ).unwrap();
        let mut list = [case.handle(), weak, case.handle()].map(HandleDisposition::moved);
        assert_eq!(case.open_count(), 3);
        HandleDisposition::resolve_all(&mut list, &[]).unwrap_err();
        assert_eq!(case.open_count(), 0);
        assert!(list.iter().all(|one| matches!(one.source, HandleSource::Moved)));
    });
}

#[test]
fn a_failing_handle_does_not_spoil_the_removal_of_the_others() {
    for place in 0..3 {
        counted(|case| {
            let mut numbers = [case.number(), case.number(), case.number()];
            case.table.close(std::mem::replace(&mut numbers[place], 0)).unwrap();
            assert_eq!(case.open_count(), 2);
            case.resolve(&mut numbers.map(moving)).unwrap_err();
            assert_eq!((case.table.len(), case.open_count()), (0, 0), "failing at {place}");
        });
    }
}
