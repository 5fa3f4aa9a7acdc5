//! Writing with a list that says what becomes of each handle.

use tombolo::handle::HandleDisposition;
use tombolo::{Handle, HandleType, Rights};

use super::ends::{Failure, Far, SOON, shown, status};
use super::support::witness::{is_closed, witness};

const ALL: Rights = Rights::BASIC.union(Rights::IO).union(Rights::MAP);

fn moved(handle: Handle) -> HandleDisposition<'static> {
    HandleDisposition::moved(handle)
}

fn with(far: &Far, rights: Rights) -> Handle {
    far.file("weak").replace(rights).unwrap()
}

sentences! { "dispositions":
    fn what_is_moved_is_gone_and_what_is_duplicated_stays(near, far) {
        let kept = far.file("kept");
        let mut list = [moved(far.file("moved")), HandleDisposition::duplicate(&kept)];
        near.write_etc(b"both", &mut list).unwrap();
        assert_eq!(far.open_files(), 1);
        assert_eq!(far.ask("hold"), "both with moved kept");
        drop(kept);
        assert_eq!(far.ask("release"), "2");
    }

    fn rights_are_the_exact_final_rights_and_may_be_none(near, far) {
        assert_eq!(far.ask("id"), far.ask("id"));
        for rights in [Rights::empty(), Rights::READ, ALL - Rights::TRANSFER, ALL] {
            let kept = far.file("kept");
            let mut list = [
                moved(far.file("moved")).rights(rights),
                HandleDisposition::duplicate(&kept).rights(rights),
            ];
            near.write_etc(b"exact", &mut list).unwrap();
            assert_eq!(kept.rights(), ALL, "its own are as before");
            assert_eq!(far.ask("rights"), format!("{rights}, {rights}"));
        }
    }

    fn same_rights_leave_them_as_they_are(near, far) {
        let narrow = Rights::TRANSFER | Rights::WRITE;
        near.write_etc(b"same", &mut [moved(with(far, narrow))]).unwrap();
        assert_eq!(far.ask("rights"), narrow.to_string());
    }

    fn a_type_is_checked_if_one_is_expected(near, far) {
        let (pipe, mut reader) = witness();
        let mut list = [moved(pipe).expect_type(HandleType::Pipe), moved(far.file("any"))];
        near.write_etc(b"typed", &mut list).unwrap();
        assert_eq!(far.ask("read"), "typed with  any");
        assert!(is_closed(&mut reader, SOON));
        let mut list = [moved(far.file("file")).expect_type(HandleType::Pipe)];
        assert_eq!(status(near.write_etc(b"typed", &mut list)), "WRONG_TYPE");
        far.nothing_came(&near);
    }

    fn all_are_checked_and_the_first_failure_is_returned_and_each_is_in_its_result(near, far) {
        let (first, mut before) = witness();
        let (last, mut behind) = witness();
        let kept = with(far, Rights::TRANSFER);
        let mut list = [
            moved(first),
            moved(far.file("file")).expect_type(HandleType::Socket),
            moved(with(far, Rights::READ)),
            HandleDisposition::duplicate(&kept),
            moved(last),
        ];
        // *Decision*: the first, as in Zircon; in zCore, a bad handle comes before earlier ones.
        assert_eq!(status(near.write_etc(b"list", &mut list)), "WRONG_TYPE");
        let results = list
            .each_ref()
            .map(|one| one.result.clone().map_or_else(|error| error.outcome(), |()| "OK".into()));
        assert_eq!(results, ["OK", "WRONG_TYPE", "ACCESS_DENIED", "ACCESS_DENIED", "OK"]);
        assert!(is_closed(&mut before, SOON) && is_closed(&mut behind, SOON));
        assert_eq!(far.open_files(), 1, "what was to be duplicated stays");
        far.nothing_came(&near);
    }

    fn a_success_leaves_results_as_they_were(near, far) {
        let mut list = [moved(far.file("file")).expect_type(HandleType::Socket)];
        let refused = HandleDisposition::try_resolve_all(&mut list, &[]);
        refused.unwrap_err();
        list[0].handle_type = None;
        near.write_etc(b"mended", &mut list).unwrap();
        assert_eq!(list[0].result.as_ref().unwrap_err().outcome(), "WRONG_TYPE");
        assert_eq!(far.ask("read"), "mended with file");
    }

    /// *Decision*: the order of Zircon's checks, not Magenta's.
    fn each_handle_is_checked_in_one_order(near, far) {
        let mut used = moved(far.file("used"));
        near.write_etc(b"used", std::slice::from_mut(&mut used)).unwrap();
        assert_eq!(far.ask("read"), "used with used");
        let none = with(far, Rights::empty());
        let narrow = with(far, Rights::TRANSFER);
        let rows = [
            (used.expect_type(HandleType::Pipe), "BAD_HANDLE"),
            (
                moved(with(far, Rights::READ)).expect_type(HandleType::Pipe).rights(ALL),
                "ACCESS_DENIED",
            ),
            (HandleDisposition::duplicate(&none).expect_type(HandleType::Pipe), "ACCESS_DENIED"),
            (
                moved(with(far, Rights::TRANSFER)).expect_type(HandleType::Pipe).rights(ALL),
                "WRONG_TYPE",
            ),
            (HandleDisposition::duplicate(&narrow).expect_type(HandleType::Pipe), "WRONG_TYPE"),
            (HandleDisposition::duplicate(&narrow).rights(ALL), "INVALID_ARGS"),
            (moved(with(far, Rights::TRANSFER)).rights(ALL), "INVALID_ARGS"),
            (HandleDisposition::duplicate(&narrow), "ACCESS_DENIED"),
        ];
        for (spoiled, wanted) in rows {
            assert_eq!(status(near.write_etc(b"row", &mut [spoiled])), wanted);
        }
        far.nothing_came(&near);
    }

    /// *Decision*: `BAD_HANDLE` as in Zircon, not Magenta's `INVALID_ARGS`.
    fn a_handle_is_moved_once_and_duplicated_as_often_as_one_likes(near, far) {
        let mut twice = [moved(far.file("once"))];
        near.write_etc(b"first", &mut twice).unwrap();
        assert_eq!(status(near.write_etc(b"second", &mut twice)), "BAD_HANDLE");
        let kept = far.file("kept");
        let mut list = [(); 3].map(|()| HandleDisposition::duplicate(&kept));
        near.write_etc(b"third", &mut list).unwrap();
        near.write_etc(b"fourth", &mut list).unwrap();
        assert_eq!(far.ask("read"), "first with once");
        assert_eq!(far.ask("read"), "third with kept kept kept");
        assert_eq!(far.ask("read"), "fourth with kept kept kept");
    }

    fn a_failure_of_the_whole_closes_what_was_to_be_moved_and_leaves_the_rest(near, far) {
        let kept = far.file("kept");
        let long = vec![0; 65537];
        for (bytes, wanted) in
            [(&long[..], "OUT_OF_RANGE"), (b"late", "PEER_CLOSED"), (b"later", "BAD_HANDLE")]
        {
            if wanted == "PEER_CLOSED" {
                assert_eq!(far.ask("close"), "OK");
            }
            if wanted == "BAD_HANDLE" {
                near.close();
            }
            let (handle, mut witness) = witness();
            let mut list = [moved(handle), HandleDisposition::duplicate(&kept)];
            assert_eq!(status(near.write_etc(bytes, &mut list)), wanted);
            assert!(is_closed(&mut witness, SOON), "{wanted}");
            assert_eq!(far.open_files(), 1, "{wanted}");
        }
    }

    fn more_than_64_are_out_of_range_and_none_is_checked(near, far) {
        let kept = with(far, Rights::READ);
        let mut list: Vec<_> = (0..64).map(|_| HandleDisposition::duplicate(&kept)).collect();
        let (handle, mut witness) = witness();
        list.push(moved(handle));
        assert_eq!(status(near.write_etc(b"many", &mut list)), "OUT_OF_RANGE");
        assert!(list.iter().all(|one| one.result.is_ok()));
        assert!(is_closed(&mut witness, SOON));
        far.nothing_came(&near);
    }

    fn an_empty_list_is_a_message_without_handles(near, far) {
        near.write_etc(b"bare", &mut []).unwrap();
        near.write_etc(b"", &mut []).unwrap();
        assert_eq!(far.ask("read"), "bare");
        assert_eq!(far.ask("read"), "");
        assert_eq!(far.ask("write back a"), "OK");
        assert_eq!(shown(&near.read().unwrap()), "back with a");
    }
}
