//! Calling by number: the order of the checks, the phases, what becomes of handles, and who ends a call.

use std::io::IoSlice;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::Duration;

use tombolo::object::{
    CallArgs, CallEtcArgs, CallPhase, HandleValue, MessageBytes, TableCallError, WRITE_USE_IOVEC,
};
use tombolo::{HandleType, Rights};

use super::case::{
    Case, LONG, SHORT, SOON, all_are_closed, counted, duplicating, moving, needed, status,
};
use super::support::witness::is_closed;

/// Bytes and handles of a reply.
type Reply = Result<(Vec<u8>, Vec<HandleValue>), TableCallError>;

/// A call with buffers for any reply.
fn call<'a>(
    case: &Case,
    number: HandleValue,
    options: u32,
    deadline: Duration,
    bytes: impl Into<MessageBytes<'a>>,
    handles: &[HandleValue],
) -> Reply {
    let (mut reply_bytes, mut reply_handles) = (vec![0; 1 << 16], vec![0; 64]);
    let (len, count) = {
        let (reply_bytes, reply_handles) = (&mut reply_bytes, &mut reply_handles);
        let args = CallArgs { bytes: bytes.into(), handles, reply_bytes, reply_handles };
        case.table.channel_call(number, options, deadline, args)?
    };
    reply_bytes.truncate(len);
    reply_handles.truncate(count);
    Ok((reply_bytes, reply_handles))
}

/// A call at our end, on a thread of its own.
fn calling<'s>(
    scope: &'s Scope<'s, '_>,
    case: &'s Case,
    handles: &[HandleValue],
) -> ScopedJoinHandle<'s, Reply> {
    let handles = handles.to_vec();
    scope.spawn(move || call(case, case.ours, 0, LONG, b"\0\0\0\0ping", &handles))
}

/// The next request at their end, by number.
fn await_request(case: &Case) -> (Vec<u8>, Vec<HandleValue>) {
    loop {
        let probe = case.table.channel_read(case.theirs, 0, &mut [], &mut []).unwrap_err();
        match probe.status().to_string().as_str() {
            "SHOULD_WAIT" => thread::sleep(Duration::from_micros(200)),
            _ => return case.read(case.theirs),
        }
    }
}

#[test]
fn a_request_has_an_id_with_bit_31_set_and_its_reply_comes_to_the_buffers_with_its_handles() {
    counted(|case| {
        thread::scope(|scope| {
            let call = calling(scope, case, &[case.file(), case.file()]);
            let (request, handles) = await_request(case);
            assert_eq!((&request[4..], handles.len()), (&b"ping"[..], 2));
            assert_ne!(u32::from_ne_bytes(request[..4].try_into().unwrap()) & 1 << 31, 0);
            let reply = [&request[..4], b"pong"].concat();
            let written = case.table.channel_write(case.theirs, 0, &reply, &handles[..1]);
            assert_eq!(status(written), "OK");
            let (bytes, handles) = call.join().unwrap().unwrap();
            assert_eq!(bytes, reply);
            assert_eq!(case.table.info(handles[0]).unwrap().handle_type, HandleType::File);
        });
        assert_eq!(case.unread(case.ours), "SHOULD_WAIT", "the reply never shows");
    });
}

#[test]
fn options_then_the_number_then_limits_then_four_bytes_then_handles_are_checked_and_consume() {
    counted(|case| {
        let table = &case.table;
        let (one, _two) = table.channel_create().unwrap();
        let reads = table.replace(one, Rights::READ | Rights::TRANSFER).unwrap();
        let (one, _two) = table.channel_create().unwrap();
        let writes = table.replace(one, Rights::WRITE).unwrap();
        let long = vec![0; 65537];
        let rows: [(HandleValue, u32, &[u8], usize, &str); 11] = [
            (case.closed(), 2, &long, 65, "INVALID_ARGS"),
            (case.closed(), WRITE_USE_IOVEC, &long, 65, "INVALID_ARGS"),
            (case.closed(), 0, &long, 65, "BAD_HANDLE"),
            (case.file(), 0, &long, 65, "WRONG_TYPE"),
            (reads, 0, &long, 65, "ACCESS_DENIED"),
            (writes, 0, &long, 65, "ACCESS_DENIED"),
            (case.ours, 0, &long, 1, "OUT_OF_RANGE"),
            (case.ours, 0, b"\0\0\0", 65, "OUT_OF_RANGE"),
            (case.ours, 0, b"\0\0\0", 1, "INVALID_ARGS"),
            (case.ours, 0, b"", 1, "INVALID_ARGS"),
            (case.ours, 0, b"\0\0\0\0", 1, "ACCESS_DENIED"),
        ];
        for (number, options, bytes, count, wanted) in rows {
            let (witness, reader) = case.witness();
            let mut handles: Vec<_> = (0..count).map(|_| case.with(Rights::READ)).collect();
            handles.push(witness);
            let refused = call(case, number, options, LONG, bytes, &handles);
            assert_eq!(status(refused), format!("{wanted} in the write phase"));
            all_are_closed(&mut [reader]);
            assert!(handles.iter().all(|number| !table.contains(*number)));
        }
        case.nothing_came();
    });
}

/// *Decision*: as writes; zCore has no such check for calls.
#[test]
fn a_channel_is_not_called_through_itself() {
    counted(|case| {
        let refused = call(case, case.ours, 0, LONG, b"\0\0\0\0", &[case.theirs]);
        assert_eq!(status(refused), "NOT_SUPPORTED in the write phase");
        let refused = call(case, case.ours, 0, LONG, b"\0\0\0\0", &[case.file()]);
        assert_eq!(status(refused), "PEER_CLOSED in the write phase");
        assert_eq!(case.table.len(), 1, "consumed");
    });
}

#[test]
fn a_deadline_that_has_passed_still_sends_and_consumes_and_a_late_reply_is_a_message() {
    counted(|case| {
        let number = case.file();
        let late = call(case, case.ours, 0, Duration::ZERO, b"\0\0\0\0late", &[number]);
        assert_eq!(status(late), "TIMED_OUT in the read phase");
        assert!(!case.table.contains(number));
        let (request, handles) = case.read(case.theirs);
        assert_eq!((&request[4..], handles.len()), (&b"late"[..], 1));
        assert_eq!(status(case.table.channel_write(case.theirs, 0, &request, &handles)), "OK");
        assert_eq!(case.read(case.ours).0, request);
    });
}

#[test]
fn a_call_without_a_reply_times_out_and_its_handles_are_the_channels() {
    counted(|case| {
        let (number, mut reader) = case.witness();
        let late = call(case, case.ours, 0, SHORT, b"\0\0\0\0", &[number]);
        assert_eq!(status(late), "TIMED_OUT in the read phase");
        assert!(!is_closed(&mut reader, SHORT));
        case.table.close(case.theirs).unwrap();
        all_are_closed(&mut [reader]);
    });
}

#[test]
fn a_call_whose_number_is_closed_is_canceled() {
    counted(|case| {
        thread::scope(|scope| {
            let calls = [calling(scope, case, &[]), calling(scope, case, &[])];
            await_request(case);
            await_request(case);
            case.table.close(case.ours).unwrap();
            for call in calls {
                assert_eq!(status(call.join().unwrap()), "CANCELED in the read phase");
            }
        });
    });
}

#[test]
fn a_call_whose_number_is_moved_is_canceled() {
    counted(|case| {
        let (through, arrives) = case.table.channel_create().unwrap();
        thread::scope(|scope| {
            let call = calling(scope, case, &[]);
            let (request, _) = await_request(case);
            let sent = case.table.channel_write(through, 0, b"take it", &[case.ours]);
            assert_eq!(status(sent), "OK");
            assert_eq!(status(call.join().unwrap()), "CANCELED in the read phase");
            assert_eq!(status(case.table.channel_write(case.theirs, 0, &request, &[])), "OK");
            let moved = case.read(arrives).1[0];
            assert_eq!(case.read(moved).0, request, "a reply to no call is a message");
        });
    });
}

#[test]
fn a_call_whose_number_is_replaced_goes_on() {
    counted(|case| {
        thread::scope(|scope| {
            let call = calling(scope, case, &[]);
            let (request, _) = await_request(case);
            case.table.replace(case.ours, Rights::SAME_RIGHTS).unwrap();
            assert_eq!(status(case.table.channel_write(case.theirs, 0, &request, &[])), "OK");
            assert_eq!(call.join().unwrap().unwrap().0, request);
        });
    });
}

#[test]
fn a_call_whose_peer_is_closed_ends() {
    counted(|case| {
        thread::scope(|scope| {
            let call = calling(scope, case, &[case.file()]);
            await_request(case);
            case.table.close(case.theirs).unwrap();
            assert_eq!(status(call.join().unwrap()), "PEER_CLOSED in the read phase");
        });
    });
}

#[test]
fn a_call_that_waits_for_space_is_canceled_in_the_write_phase_and_consumes() {
    counted(|case| {
        case.fill();
        let (number, reader) = case.witness();
        thread::scope(|scope| {
            let call = calling(scope, case, &[number]);
            thread::sleep(SHORT);
            case.table.close(case.ours).unwrap();
            assert_eq!(status(call.join().unwrap()), "CANCELED in the write phase");
        });
        all_are_closed(&mut [reader]);
    });
}

/// *Decision*: Zircon and zCore drop the reply, and zCore wants buffers of 4 bytes before it calls.
#[test]
fn a_reply_that_does_not_fit_tells_what_it_needs_and_comes_with_the_error() {
    for (len, count) in [(7, 2), (8, 1), (0, 0), (65536, 0)] {
        counted(|case| {
            thread::scope(|scope| {
                let call = scope.spawn(move || {
                    let args = CallArgs {
                        bytes: b"\0\0\0\0ping".into(),
                        handles: &[],
                        reply_bytes: &mut vec![9; len],
                        reply_handles: &mut vec![1; count],
                    };
                    case.table.channel_call(case.ours, 0, LONG, args)
                });
                let (request, _) = await_request(case);
                let (number, mut reader) = case.witness();
                let handles = [number, case.file()];
                let written = case.table.channel_write(case.theirs, 0, &request, &handles);
                assert_eq!(status(written), "OK");
                let refused = call.join().unwrap().unwrap_err();
                assert_eq!(refused.phase, CallPhase::Read);
                assert_eq!(refused.status().to_string(), "BUFFER_TOO_SMALL");
                assert_eq!(needed(&refused.error), (8, 2, false));
                assert!(!is_closed(&mut reader, SHORT));
                let mut reply = refused.reply.unwrap();
                assert_eq!((&reply.data, reply.handles.len()), (&request, 2));
                let kept = case.table.insert(reply.handles.remove(1));
                assert_eq!(case.table.info(kept).unwrap().handle_type, HandleType::File);
                drop(reply);
                assert!(is_closed(&mut reader, SOON), "dropping it discards it");
            });
            assert_eq!(case.unread(case.ours), "SHOULD_WAIT");
        });
    }
}

#[test]
fn a_list_goes_with_a_request_and_number_type_and_rights_come_with_the_reply() {
    counted(|case| {
        let (moved, kept) = (case.file(), case.file());
        thread::scope(|scope| {
            let call = scope.spawn(move || {
                let (mut bytes, mut infos) = ([0; 64], [None; 2]);
                let args = CallEtcArgs {
                    bytes: b"\0\0\0\0ping".into(),
                    handles: &mut [moving(moved), duplicating(kept)],
                    reply_bytes: &mut bytes,
                    reply_handles: &mut infos,
                };
                let (len, count) = case.table.channel_call_etc(case.ours, 0, LONG, args).unwrap();
                assert_eq!((len, count), (8, 2));
                infos.map(Option::unwrap)
            });
            let (request, handles) = await_request(case);
            assert_eq!(status(case.table.channel_write(case.theirs, 0, &request, &handles)), "OK");
            for info in call.join().unwrap() {
                assert_eq!(case.table.info(info.handle).unwrap(), info);
                assert_eq!(info.handle_type, HandleType::File);
            }
            assert!(case.table.contains(kept) && !case.table.contains(moved));
        });
    });
}

#[test]
fn a_list_that_is_refused_writes_results_and_closes_what_it_moves() {
    counted(|case| {
        let ((number, reader), kept) = (case.witness(), case.with(Rights::READ));
        let mut list = [moving(number), duplicating(kept)];
        let args = CallEtcArgs {
            bytes: b"\0\0\0\0".into(),
            handles: &mut list,
            reply_bytes: &mut [],
            reply_handles: &mut [],
        };
        let refused = case.table.channel_call_etc(case.ours, 0, LONG, args);
        assert_eq!(status(refused), "ACCESS_DENIED in the write phase");
        assert!(list[0].result.is_ok() && list[1].result.is_err());
        all_are_closed(&mut [reader]);
        assert!(case.table.contains(kept));
        case.nothing_came();
    });
}

#[test]
fn parts_of_a_request_have_four_bytes_together() {
    counted(|case| {
        let parts = [&b"\0\0"[..], b"", b"\0"].map(IoSlice::new);
        let refused = call(case, case.ours, WRITE_USE_IOVEC, LONG, &parts, &[]);
        assert_eq!(status(refused), "INVALID_ARGS in the write phase");
        let parts = [&b"\0\0"[..], b"", b"\0\0"].map(IoSlice::new);
        let late = call(case, case.ours, WRITE_USE_IOVEC, Duration::ZERO, &parts, &[]);
        assert_eq!(status(late), "TIMED_OUT in the read phase");
        assert_eq!(case.read(case.theirs).0.len(), 4);
    });
}
