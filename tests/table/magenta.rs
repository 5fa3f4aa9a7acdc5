//! Magenta's writing and calling, which keep the handles of a message that is not written.

use std::thread;
use std::time::Duration;

use tombolo::Rights;
use tombolo::object::{CallArgs, HandleValue, TableCallError};

use super::case::{Case, LONG, SHORT, all_are_closed, counted, status};
use super::support::witness::is_closed;

fn try_write(case: &Case, bytes: &[u8], handles: &[HandleValue]) -> String {
    status(case.table.channel_try_write(case.ours, 0, bytes, handles))
}

fn call(
    case: &Case,
    deadline: Duration,
    bytes: &[u8],
    handles: &[HandleValue],
) -> Result<(usize, usize), TableCallError> {
    let (reply_bytes, reply_handles) = (&mut [0; 64], &mut [0; 4]);
    let args = CallArgs { bytes: bytes.into(), handles, reply_bytes, reply_handles };
    case.table.channel_call_with_txid(case.ours, 0, deadline, args)
}

/// A channel, options and bytes, handles behind the others, and what is said of them.
type Row<'a> = (HandleValue, u32, &'a [u8], &'a [HandleValue], &'a str);

/// What is known of each number, and the id of its object.
fn known(case: &Case, numbers: &[HandleValue]) -> Vec<String> {
    numbers.iter().map(|number| format!("{:?}", case.table.info(*number).unwrap())).collect()
}

#[test]
fn all_handles_go_with_a_message_that_is_written() {
    counted(|case| {
        let (other, _peer) = case.table.channel_create().unwrap();
        let numbers = [case.file(), other, case.file()];
        assert_eq!(try_write(case, b"all", &numbers), "OK");
        assert!(numbers.iter().all(|number| !case.table.contains(*number)));
        assert_eq!(case.read(case.theirs).1.len(), 3);
    });
}

/// *Decision*: the order of the checks, and a repeated number, are Zircon's in this mode, too.
#[test]
fn on_any_failure_every_handle_is_in_the_table_under_its_number() {
    counted(|case| {
        let (other, _peer) = case.table.channel_create().unwrap();
        let (pipe, mut reader) = case.witness();
        let numbers = [pipe, other, case.with(Rights::TRANSFER | Rights::READ)];
        let before = known(case, &numbers);
        let (file, closed) = (case.file(), case.closed());
        let narrow = case.table.channel_create().unwrap().0;
        let narrow = case.table.replace(narrow, Rights::READ).unwrap();
        let weak = case.with(Rights::READ);
        let long = vec![0; 65537];
        let many = [&numbers[..], &[weak; 62][..]].concat();
        let rows: [Row<'_>; 9] = [
            (case.ours, 2, b"", &[], "INVALID_ARGS"),
            (closed, 0, b"", &[], "BAD_HANDLE"),
            (file, 0, b"", &[], "WRONG_TYPE"),
            (narrow, 0, b"", &[], "ACCESS_DENIED"),
            (case.ours, 0, &long, &[], "OUT_OF_RANGE"),
            (case.ours, 0, b"", &[closed], "BAD_HANDLE"),
            (case.ours, 0, b"", &[weak], "ACCESS_DENIED"),
            (case.ours, 0, b"", &[case.ours], "NOT_SUPPORTED"),
            (case.ours, 0, b"", &[other], "BAD_HANDLE"),
        ];
        for (number, options, bytes, spoiled, wanted) in rows {
            let list = [&numbers[..], spoiled].concat();
            let refused = case.table.channel_try_write(number, options, bytes, &list);
            assert_eq!(status(refused), wanted);
            assert_eq!(known(case, &numbers), before, "{wanted}");
        }
        assert_eq!(try_write(case, b"", &many), "OUT_OF_RANGE");
        case.table.close(case.theirs).unwrap();
        assert_eq!(try_write(case, b"", &numbers), "PEER_CLOSED");
        assert_eq!(known(case, &numbers), before);
        assert!(!is_closed(&mut reader, SHORT));
        assert_eq!(status(case.table.channel_write(case.ours, 0, b"", &numbers)), "PEER_CLOSED");
        all_are_closed(&mut [reader]);
    });
}

/// *Decision*: the queue is bounded; Magenta's grows.
#[test]
fn without_space_it_does_not_wait_and_all_are_back() {
    counted(|case| {
        case.fill();
        let (other, peer) = case.table.channel_create().unwrap();
        assert_eq!(status(case.table.channel_write(peer, 0, b"unread", &[])), "OK");
        let numbers = [case.file(), other];
        let before = known(case, &numbers);
        assert_eq!(try_write(case, b"", &numbers), "SHOULD_WAIT");
        assert_eq!(known(case, &numbers), before);
        assert_eq!(case.read(other).0, b"unread", "an end among them is used again");
        assert_eq!(status(case.table.channel_write(other, 0, b"and writes", &[])), "OK");
        assert_eq!(case.read(peer).0, b"and writes");
    });
}

#[test]
fn rights_of_what_is_put_back_are_as_before_and_still_bind() {
    counted(|case| {
        case.table.close(case.theirs).unwrap();
        let number = case.with(Rights::TRANSFER | Rights::READ);
        assert_eq!(try_write(case, b"", &[number]), "PEER_CLOSED");
        let narrow = case.table.replace(number, Rights::READ).unwrap();
        assert_eq!(try_write(case, b"", &[narrow]), "ACCESS_DENIED", "it may not be sent");
        assert!(case.table.contains(narrow));
    });
}

#[test]
fn calls_at_an_end_that_is_put_back_are_canceled() {
    counted(|case| {
        let (other, peer) = case.table.channel_create().unwrap();
        case.table.close(case.theirs).unwrap();
        thread::scope(|scope| {
            let waiting = case.table.get_channel(other, Rights::READ).unwrap();
            let call = scope.spawn(move || status(waiting.read_timeout(LONG)));
            thread::sleep(SHORT);
            assert_eq!(try_write(case, b"", &[other]), "PEER_CLOSED");
            assert_eq!(call.join().unwrap(), "CANCELED");
        });
        assert_eq!(case.unread(other), "SHOULD_WAIT");
        assert_eq!(case.unread(peer), "SHOULD_WAIT");
    });
}

#[test]
fn the_callers_id_is_sent_and_matched() {
    counted(|case| {
        thread::scope(|scope| {
            let call = scope.spawn(|| call(case, LONG, b"\x07\0\0\0ping", &[case.file()]));
            let theirs = case.table.get_channel(case.theirs, Rights::READ).unwrap();
            let request = theirs.read_timeout(LONG).unwrap();
            assert_eq!((&request.data[..], request.handles.len()), (&b"\x07\0\0\0ping"[..], 1));
            let written = case.table.channel_write(case.theirs, 0, b"\x07\0\0\0pong", &[]);
            assert_eq!(status(written), "OK");
            assert_eq!(call.join().unwrap().unwrap(), (8, 0));
        });
    });
}

#[test]
fn a_call_that_fails_in_the_write_phase_keeps_its_handles_and_one_in_the_read_phase_does_not() {
    counted(|case| {
        let numbers = [case.file(), case.file()];
        let weak = case.with(Rights::READ);
        for (bytes, spoiled, wanted) in [
            (&b"\0\0\0"[..], None, "INVALID_ARGS in the write phase"),
            (b"\0\0\0\0", Some(weak), "ACCESS_DENIED in the write phase"),
        ] {
            let list = [&numbers[..], spoiled.as_slice()].concat();
            assert_eq!(status(call(case, LONG, bytes, &list)), wanted);
            assert!(list.iter().all(|number| case.table.contains(*number)));
        }
        let late = call(case, Duration::ZERO, b"\x07\0\0\0", &numbers[..1]);
        assert_eq!(status(late), "TIMED_OUT in the read phase");
        assert!(!case.table.contains(numbers[0]));
        case.table.close(case.theirs).unwrap();
        let refused = call(case, LONG, b"\x07\0\0\0", &numbers[1..]);
        assert_eq!(status(refused), "PEER_CLOSED in the write phase");
        assert!(case.table.contains(numbers[1]));
    });
}

#[test]
fn an_id_that_a_call_waits_with_keeps_the_handles_of_another() {
    counted(|case| {
        thread::scope(|scope| {
            let first = scope.spawn(|| call(case, LONG, b"\x07\0\0\0", &[]));
            let theirs = case.table.get_channel(case.theirs, Rights::READ).unwrap();
            theirs.read_timeout(LONG).unwrap();
            let number = case.file();
            let refused = call(case, LONG, b"\x07\0\0\0", &[number]);
            assert_eq!(status(refused), "ALREADY_EXISTS in the write phase");
            assert!(case.table.contains(number));
            case.table.close(case.theirs).unwrap();
            assert_eq!(status(first.join().unwrap()), "PEER_CLOSED in the read phase");
        });
    });
}
