//! Many threads at one table: each operation is whole, and an end has one owner.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use tombolo::{Channel, Rights};

use super::case::{SHORT, all_are_closed, counted, status};

#[test]
fn of_threads_that_first_use_an_end_at_once_each_finds_it_open() {
    counted(|case| {
        let table = &case.table;
        let (mut one, other) = table.channel_create().unwrap();
        for _ in 0..50 {
            assert_eq!(case.write(b"", &[one]), "OK");
            one = case.read(case.theirs).1[0];
            let barrier = Barrier::new(4);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        barrier.wait();
                        assert_eq!(status(table.channel_write(one, 0, b"each", &[])), "OK");
                    });
                }
            });
            for _ in 0..4 {
                assert_eq!(case.read(other).0, b"each");
            }
            assert_eq!(case.unread(other), "SHOULD_WAIT");
        }
    });
}

#[test]
fn an_end_that_is_first_used_while_it_is_moved_or_closed_has_one_owner_or_none() {
    counted(|case| {
        let table = &case.table;
        let (mut used, mut refused) = (0, 0);
        for round in 0..100 {
            let (one, other) = table.channel_create().unwrap();
            assert_eq!(case.write(b"", &[one]), "OK");
            let one = case.read(case.theirs).1[0];
            let barrier = Barrier::new(2);
            let (outcome, taken) = thread::scope(|scope| {
                let using = scope.spawn(|| {
                    barrier.wait();
                    status(table.channel_write(one, 0, b"used", &[]))
                });
                barrier.wait();
                let taken = if round % 2 == 0 {
                    Some(table.remove(one).unwrap())
                } else {
                    table.close(one).unwrap();
                    None
                };
                (using.join().unwrap(), taken)
            });
            match outcome.as_str() {
                "OK" => {
                    used += 1;
                    assert_eq!(case.read(other).0, b"used");
                }
                "BAD_HANDLE" => refused += 1,
                outcome => panic!("{outcome}"),
            }
            match taken {
                Some(handle) => {
                    let end = Channel::from_handle(handle).unwrap();
                    assert_eq!(case.unread(other), "SHOULD_WAIT");
                    end.write(b"owned").unwrap();
                    assert_eq!(case.read(other).0, b"owned");
                }
                None => case.comes_to_peer_closed(other),
            }
            table.close(other).unwrap();
        }
        println!("used first {used} times, gone first {refused} times");
    });
}

#[test]
fn a_handle_that_two_threads_send_goes_with_one_message_and_the_others_are_whole_or_not_sent() {
    for keeps in [false, true] {
        counted(|case| {
            let (table, mut sent) = (&case.table, 0);
            for _ in 0..100 {
                let (shared, peer) = table.channel_create().unwrap();
                let lists = [[case.file(), shared], [shared, case.file()]];
                let barrier = Barrier::new(2);
                let outcomes = thread::scope(|scope| {
                    let threads = lists.each_ref().map(|list| {
                        let barrier = &barrier;
                        scope.spawn(move || {
                            barrier.wait();
                            status(if keeps {
                                table.channel_try_write(case.ours, 0, b"", list)
                            } else {
                                table.channel_write(case.ours, 0, b"", list)
                            })
                        })
                    });
                    threads.map(|thread| thread.join().unwrap())
                });
                let won = outcomes.iter().filter(|outcome| *outcome == "OK").count();
                assert!(won <= 1, "{outcomes:?}");
                assert!(
                    outcomes.iter().all(|one| one == "OK" || one == "BAD_HANDLE"),
                    "{outcomes:?}"
                );
                sent += won;
                for _ in 0..won {
                    let arrived = case.read(case.theirs).1;
                    assert_eq!(arrived.len(), 2);
                    table.close_many(&arrived).unwrap();
                }
                assert_eq!(case.unread(case.theirs), "SHOULD_WAIT");
                let left = lists.as_flattened().iter().collect::<BTreeSet<_>>();
                let left: Vec<_> =
                    left.into_iter().filter(|number| table.contains(**number)).copied().collect();
                assert_eq!(left.len(), if keeps { 3 - 2 * won } else { 0 }, "{outcomes:?}");
                table.close_many(&left).unwrap();
                table.close(peer).unwrap();
            }
            println!("sent {sent} of 100");
        });
    }
}

#[test]
fn a_write_that_waits_for_space_is_canceled_when_its_number_is_closed_and_the_table_is_free() {
    counted(|case| {
        case.fill();
        let (number, reader) = case.witness();
        thread::scope(|scope| {
            let write = scope.spawn(|| case.write(b"waits", &[number]));
            thread::sleep(SHORT);
            assert!(!write.is_finished());
            assert!(!case.table.contains(number), "it is on its way");
            let file = case.file(); // no lock is held meanwhile
            case.table.close(file).unwrap();
            case.table.close(case.ours).unwrap();
            assert_eq!(write.join().unwrap(), "CANCELED");
        });
        all_are_closed(&mut [reader]);
    });
}

#[test]
fn many_threads_write_read_and_close_and_nothing_is_lost_or_left() {
    counted(|case| {
        let table = &case.table;
        const MESSAGES: usize = 200;
        let arrived = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..MESSAGES {
                        let (one, other) = table.channel_create().unwrap();
                        table.channel_write(other, 0, b"inside", &[]).unwrap();
                        assert_eq!(case.write(b"take it", &[one, case.file()]), "OK");
                        table.close(other).unwrap();
                    }
                });
            }
            for _ in 0..3 {
                scope.spawn(|| {
                    while arrived.load(Relaxed) < 3 * MESSAGES {
                        let (mut bytes, mut handles) = ([0; 16], [0; 2]);
                        let read = table.channel_read(case.theirs, 0, &mut bytes, &mut handles);
                        if let Ok((7, 2)) = read {
                            arrived.fetch_add(1, Relaxed);
                            assert_eq!(case.read(handles[0]).0, b"inside");
                            table.close_many(&handles).unwrap();
                        } else {
                            assert_eq!(status(read), "SHOULD_WAIT");
                            let end = table.get_channel(case.theirs, Rights::READ).unwrap();
                            drop(end);
                            thread::yield_now();
                        }
                    }
                });
            }
        });
        assert_eq!(table.len(), 2);
    });
}
