//! Reading by number: the order of the checks, and a message whole or as it was.

use tombolo::object::{READ_MAY_DISCARD, TableError};
use tombolo::{HandleType, Rights};

use super::case::{Case, SHORT, all_are_closed, counted, needed, status};
use super::support::witness::is_closed;

fn read(case: &Case, options: u32, len: usize, count: usize) -> Result<(usize, usize), TableError> {
    case.table.channel_read(case.theirs, options, &mut vec![9; len], &mut vec![0; count])
}

#[test]
fn bytes_and_numbers_go_to_the_buffers_and_the_rest_of_these_is_as_it_was() {
    counted(|case| {
        assert_eq!(case.write(b"12345", &[case.file(), case.file()]), "OK");
        let (mut bytes, mut handles) = ([9; 7], [1; 3]);
        let read = case.table.channel_read(case.theirs, 0, &mut bytes, &mut handles);
        assert_eq!(read.unwrap(), (5, 2));
        assert_eq!((&bytes, handles[2]), (b"12345\x09\x09", 1));
        assert!(handles[..2].iter().all(|number| case.table.contains(*number)));
        assert_ne!(handles[0], handles[1]);
        assert_eq!(case.table.len(), 4);
    });
}

/// Not as for a write: the number is checked before the options, and these are `NOT_SUPPORTED`. *Decision*: Zircon's
/// two names for it are kept; zCore takes any option.
#[test]
fn number_type_and_right_are_checked_then_the_options_then_what_there_is() {
    counted(|case| {
        let narrow = case.table.replace(case.ours, Rights::WRITE).unwrap();
        for (number, wanted) in
            [(case.closed(), "BAD_HANDLE"), (case.file(), "WRONG_TYPE"), (narrow, "ACCESS_DENIED")]
        {
            for options in [0, READ_MAY_DISCARD, 2] {
                let read = case.table.channel_read(number, options, &mut [], &mut []);
                assert_eq!(status(read), wanted);
                let read = case.table.channel_read_etc(number, options, &mut [], &mut []);
                assert_eq!(status(read), wanted);
            }
        }
        for is_there in [false, true] {
            for options in [2, 3, 1 << 31, u32::MAX] {
                assert_eq!(status(read(case, options, 9, 9)), "NOT_SUPPORTED", "{is_there}");
            }
            assert_eq!(status(case.table.channel_write(narrow, 0, b"here", &[])), "OK");
        }
        assert_eq!(case.read(case.theirs).0, b"here", "it is there still");
    });
}

#[test]
fn an_empty_channel_says_should_wait_and_peer_closed_once_all_is_read() {
    counted(|case| {
        assert_eq!(status(read(case, 0, 9, 9)), "SHOULD_WAIT");
        assert_eq!(status(read(case, READ_MAY_DISCARD, 0, 0)), "SHOULD_WAIT");
        assert_eq!(case.write(b"one", &[case.file()]), "OK");
        assert_eq!(case.write(b"two", &[]), "OK");
        case.table.close(case.ours).unwrap();
        let (bytes, handles) = case.read(case.theirs);
        assert_eq!((&bytes[..], handles.len()), (&b"one"[..], 1));
        assert_eq!(case.read(case.theirs).0, b"two");
        assert_eq!(status(read(case, 0, 9, 9)), "PEER_CLOSED");
        assert_eq!(status(read(case, READ_MAY_DISCARD, 0, 0)), "PEER_CLOSED");
    });
}

#[test]
fn buffers_that_are_too_small_keep_the_message_and_both_sizes_are_told() {
    counted(|case| {
        let (number, mut reader) = case.witness();
        assert_eq!(case.write(b"12345", &[number, case.file()]), "OK");
        for (len, count) in [(0, 0), (4, 2), (5, 1), (65536, 0), (0, 64)] {
            let (mut bytes, mut handles) = (vec![9; len], vec![1; count]);
            let refused = case.table.channel_read(case.theirs, 0, &mut bytes, &mut handles);
            let refused = refused.unwrap_err();
            assert_eq!(refused.status().to_string(), "BUFFER_TOO_SMALL");
            assert_eq!(needed(&refused), (5, 2, false));
            assert!(bytes.iter().all(|byte| *byte == 9) && handles.iter().all(|one| *one == 1));
        }
        assert_eq!(case.table.len(), 2, "no handle has come");
        assert!(!is_closed(&mut reader, SHORT));
        assert_eq!(read(case, 0, 5, 2).unwrap(), (5, 2));
    });
}

#[test]
fn empty_buffers_probe_and_take_an_empty_message() {
    counted(|case| {
        assert_eq!(case.write(b"1234", &[]), "OK");
        assert_eq!(needed(&read(case, 0, 0, 0).unwrap_err()), (4, 0, false));
        assert_eq!(case.read(case.theirs).0, b"1234");
        assert_eq!(case.write(b"", &[]), "OK");
        assert_eq!(read(case, 0, 0, 0).unwrap(), (0, 0));
        assert_eq!(case.unread(case.theirs), "SHOULD_WAIT");
    });
}

#[test]
fn a_message_that_may_be_discarded_is_destroyed_if_it_does_not_fit_and_its_sizes_are_told() {
    counted(|case| {
        for (len, count) in [(4, 2), (5, 0), (0, 0)] {
            let (number, reader) = case.witness();
            assert_eq!(case.write(b"12345", &[number]), "OK");
            assert_eq!(case.write(b"next", &[]), "OK");
            let refused = read(case, READ_MAY_DISCARD, len, count).unwrap_err();
            assert_eq!(refused.status().to_string(), "BUFFER_TOO_SMALL");
            assert_eq!(needed(&refused), (5, 1, true));
            all_are_closed(&mut [reader]);
            assert_eq!(case.read(case.theirs).0, b"next");
            assert_eq!(case.unread(case.theirs), "SHOULD_WAIT");
        }
        assert_eq!(case.table.len(), 2);
    });
}

#[test]
fn a_message_that_may_be_discarded_is_read_if_it_fits() {
    counted(|case| {
        assert_eq!(case.write(b"12345", &[case.file()]), "OK");
        assert_eq!(read(case, READ_MAY_DISCARD, 5, 1).unwrap(), (5, 1));
        assert_eq!(case.table.len(), 3);
    });
}

#[test]
fn number_type_and_rights_come_with_each_handle() {
    counted(|case| {
        let (pipe, _reader) = case.witness();
        let (end, _other) = case.table.channel_create().unwrap();
        let narrow = case.with(Rights::TRANSFER | Rights::READ);
        assert_eq!(case.write(b"all", &[pipe, end, narrow]), "OK");
        let mut infos = [None; 4];
        let read = case.table.channel_read_etc(case.theirs, 0, &mut [0; 3], &mut infos);
        assert_eq!((read.unwrap(), infos[3]), ((3, 3), None));
        let infos = [0, 1, 2].map(|at| infos[at].unwrap());
        let types = [HandleType::Pipe, HandleType::Channel, HandleType::File];
        assert_eq!(infos.map(|info| info.handle_type), types);
        assert_eq!(infos[1].rights, Rights::CHANNEL_DEFAULT);
        assert_eq!(infos[2].rights, Rights::TRANSFER | Rights::READ);
        for info in infos {
            assert_eq!(case.table.info(info.handle).unwrap(), info);
        }
    });
}

#[test]
fn read_etc_keeps_and_discards_as_read_does() {
    counted(|case| {
        let (number, mut reader) = case.witness();
        assert_eq!(case.write(b"12345", &[number]), "OK");
        let read = |options, infos: &mut [_]| {
            case.table.channel_read_etc(case.theirs, options, &mut [0; 4], infos)
        };
        let mut infos = [None; 1];
        assert_eq!(needed(&read(0, &mut infos).unwrap_err()), (5, 1, false));
        assert!(infos[0].is_none() && !is_closed(&mut reader, SHORT));
        assert_eq!(status(read(2, &mut infos)), "NOT_SUPPORTED");
        assert_eq!(needed(&read(READ_MAY_DISCARD, &mut infos).unwrap_err()), (5, 1, true));
        all_are_closed(&mut [reader]);
        assert_eq!(status(read(0, &mut infos)), "SHOULD_WAIT");
    });
}
