//! Closing, duplicating and replacing handles.

use tombolo::handle::HandleError;
use tombolo::{EventsRegion, Rights};

use super::case::{bad, counted, duplicating, endpoint, moving, refusal};
use super::support::small;

#[test]
fn closing_handle_zero_is_ok_and_closing_another_unknown_one_is_not() {
    counted(|case| {
        assert_eq!(case.table.close(0), Ok(()));
        let closed = case.closed();
        assert_eq!(case.table.close(closed), Err(bad(closed)));
    });
}

#[test]
fn duplicate_needs_the_duplicate_right_and_so_refuses_channels() {
    counted(|case| {
        let held = Rights::BASIC - Rights::DUPLICATE;
        let denied = HandleError::AccessDenied { held, missing: Rights::DUPLICATE };
        assert_eq!(case.table.duplicate(case.with(held), Rights::SAME_RIGHTS), Err(denied));
        let region = EventsRegion::open_path_with(case.dir.file("region"), small()).unwrap();
        let channel = case.table.insert(endpoint(&region, 0));
        let before = case.open_count();
        let (held, missing) = (Rights::CHANNEL_DEFAULT, Rights::DUPLICATE);
        let denied = HandleError::AccessDenied { held, missing };
        assert_eq!(case.table.duplicate(channel, Rights::SAME_RIGHTS), Err(denied.clone()));
        assert_eq!(case.open_count(), before);
        assert_eq!(refusal(case, duplicating(channel)), denied);
        assert_eq!(case.resolve(&mut [moving(channel)]).unwrap().len(), 1, "it may be moved");
    });
}

#[test]
fn duplicate_gives_a_subset_or_the_same_rights_and_else_the_argument_is_invalid() {
    counted(|case| {
        let held = Rights::DUPLICATE | Rights::READ;
        let number = case.with(held);
        let rights = |number| case.table.get(number, None, Rights::empty()).unwrap().rights();
        let same = case.table.duplicate(number, Rights::SAME_RIGHTS).unwrap();
        let subset = case.table.duplicate(number, Rights::READ).unwrap();
        let none = case.table.duplicate(number, Rights::empty()).unwrap();
        assert_eq!([same, subset, none].map(rights), [held, Rights::READ, Rights::empty()]);
        let wanted = Rights::WRITE;
        let invalid = HandleError::InvalidRights { held, wanted };
        assert_eq!(case.table.duplicate(number, wanted), Err(invalid));
        assert_eq!((case.table.len(), case.open_count()), (4, 4));
    });
}

#[test]
fn replace_consumes_the_source_also_on_failure() {
    counted(|case| {
        let number = case.with(Rights::IO);
        let replaced = case.table.replace(number, Rights::READ).unwrap();
        assert_eq!(case.table.close(number), Err(bad(number)));
        assert_eq!(case.open_count(), 1);
        let (held, wanted) = (Rights::READ, Rights::WRITE);
        let invalid = HandleError::InvalidRights { held, wanted };
        assert_eq!(case.table.replace(replaced, wanted), Err(invalid.clone()));
        assert_eq!((case.table.len(), case.open_count()), (0, 0));
        let handle = case.handle().replace(held).unwrap();
        assert_eq!(handle.replace(wanted).unwrap_err(), invalid);
        assert_eq!(case.open_count(), 0);
    });
}
