//! A table gives every handle a number that is never given again, whatever threads do with it at the
//! same time.

use std::collections::HashSet;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Barrier};
use std::thread;

use tombolo::handle::{HandleError, HandleOp};
use tombolo::object::{HandleTable, TableDisposition};
use tombolo::{Handle, HandleType, Rights};

mod support;
use support::*;

fn file(dir: &Dir, name: &str) -> Handle {
    Handle::new(File::options().create(true).append(true).read(true).open(dir.file(name)).unwrap())
}

#[test]
fn a_number_is_never_given_twice_and_never_zero() {
    let dir = Dir::new();
    let table = HandleTable::new();
    let mut given = HashSet::new();
    for round in 0..100 {
        let number = table.insert(file(&dir, "a"));
        assert!(number != 0 && number & 3 == 3, "{number:#x}");
        assert!(given.insert(number), "{number:#x} in round {round}");
        assert!(given.insert(table.duplicate(number, Rights::SAME_RIGHTS).unwrap()));
        let replaced = table.replace(number, Rights::READ).unwrap();
        assert!(given.insert(replaced));
        table.close(replaced).unwrap();
    }
    assert_eq!(table.len(), 100);
    drop(table);
    assert_eq!(dir.open_fds(), 0);
}

#[test]
fn get_tells_bad_handle_then_wrong_type_then_access_denied() {
    let dir = Dir::new();
    let table = HandleTable::new();
    let number = table.insert(file(&dir, "a").replace(Rights::READ).unwrap());
    let get = |number, kind, rights| table.get(number, Some(kind), rights).map(|_| ());
    let (wrong, denied) = (HandleType::Socket, Rights::WRITE);
    let bad = Err(HandleError::BadHandle { number: number + 4 });
    assert_eq!(get(number + 4, wrong, denied), bad);
    let found = HandleType::File;
    assert_eq!(get(number, wrong, denied), Err(HandleError::WrongType { found, wanted: wrong }));
    let (held, missing) = (Rights::READ, Rights::WRITE);
    let lacking = Err(HandleError::AccessDenied { held, missing });
    assert_eq!(get(number, found, denied | Rights::READ), lacking);
    assert_eq!(get(number, found, Rights::READ), Ok(()));
    assert!(table.get(number, None, Rights::empty()).is_ok());
}

#[test]
fn numbers_that_name_nothing_are_refused_by_every_operation() {
    let table = HandleTable::new();
    for number in [0, 1, 3, 7, u64::MAX] {
        let bad = HandleError::BadHandle { number };
        assert_eq!(table.get(number, None, Rights::empty()).unwrap_err(), bad);
        assert_eq!(table.remove(number).unwrap_err(), bad);
        assert_eq!(table.duplicate(number, Rights::SAME_RIGHTS).unwrap_err(), bad);
        assert_eq!(table.replace(number, Rights::SAME_RIGHTS).unwrap_err(), bad);
        assert!(!table.contains(number));
    }
    assert!(table.is_empty());
}

#[test]
fn a_handle_in_use_stays_open_while_its_number_is_closed() {
    let dir = Dir::new();
    let table = HandleTable::new();
    let number = table.insert(file(&dir, "a"));
    let used = table.get(number, None, Rights::empty()).unwrap();
    table.close(number).unwrap();
    assert_eq!((table.len(), dir.open_fds()), (0, 1));
    drop(used);
    assert_eq!(dir.open_fds(), 0);
}

#[test]
fn a_handle_in_use_leaves_the_table_with_a_descriptor_of_its_own() {
    let dir = Dir::new();
    let table = HandleTable::new();
    let number = table.insert(file(&dir, "a").replace(Rights::TRANSFER).unwrap());
    let used = table.get(number, None, Rights::empty()).unwrap();
    let taken = table.remove(number).unwrap();
    assert_eq!((taken.id(), taken.rights()), (used.id(), Rights::TRANSFER));
    assert_ne!(taken.as_raw_fd(), used.as_raw_fd());
    assert_eq!(dir.open_fds(), 2);
    drop((used, taken));
    assert_eq!(dir.open_fds(), 0);

    let number = table.insert(file(&dir, "a"));
    let fd = table.get(number, None, Rights::empty()).unwrap().as_raw_fd();
    assert_eq!(table.remove(number).unwrap().as_raw_fd(), fd, "nobody uses it: it leaves as it is");
}

#[test]
fn close_many_closes_all_that_it_can_and_tells_the_first_that_it_cannot() {
    let dir = Dir::new();
    let table = HandleTable::new();
    let numbers: Vec<_> = (0..10).map(|_| table.insert(file(&dir, "a"))).collect();
    let mut list = numbers.clone();
    list.splice(3..3, [0, 12, 16]);
    assert_eq!(table.close_many(&list), Err(HandleError::BadHandle { number: 12 }));
    assert_eq!((table.len(), dir.open_fds()), (0, 0));
    assert_eq!(table.close_many(&[]), Ok(()));
    assert_eq!(table.close_many(&[0, 0]), Ok(()));
}

#[test]
fn of_threads_that_take_the_same_number_one_gets_it() {
    let dir = Dir::new();
    let table = Arc::new(HandleTable::new());
    let barrier = Arc::new(Barrier::new(4));
    for _ in 0..200 {
        let number = table.insert(file(&dir, "a"));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (table, barrier) = (Arc::clone(&table), Arc::clone(&barrier));
                thread::spawn(move || {
                    barrier.wait();
                    table.remove(number).is_ok()
                })
            })
            .collect();
        let winners = threads.into_iter().map(|thread| thread.join().unwrap());
        assert_eq!(winners.filter(|won| *won).count(), 1);
    }
    assert_eq!((table.len(), dir.open_fds()), (0, 0));
}

#[test]
fn lists_of_two_threads_that_share_a_handle_are_resolved_whole_or_not_at_all() {
    let dir = Dir::new();
    let table = HandleTable::new();
    let mut both_sides_won = [0; 2];
    for _ in 0..300 {
        let [a, shared, b] = [(); 3].map(|()| table.insert(file(&dir, "a")));
        let barrier = Barrier::new(2);
        let resolve = |numbers: [u64; 2]| {
            let mut list = numbers.map(|number| TableDisposition::new(HandleOp::Move, number));
            barrier.wait();
            table.try_resolve_all(&mut list, &[]).map(|handles| handles.len())
        };
        let (first, second) = thread::scope(|scope| {
            let first = scope.spawn(|| resolve([a, shared]));
            (resolve([shared, b]), first.join().unwrap())
        });
        assert_eq!(
            [&first, &second].map(|result| result.is_ok() as usize).iter().sum::<usize>(),
            1
        );
        let (winner, left) = if second.is_ok() { (0, b) } else { (1, a) };
        both_sides_won[winner] += 1;
        assert_eq!(table.len(), 1, "{first:?} {second:?}");
        table.close(left).unwrap();
    }
    println!("won by either side: {both_sides_won:?}");
    assert_eq!((table.len(), dir.open_fds()), (0, 0));
}

#[test]
fn a_table_may_be_shared_and_shown() {
    fn is_send_and_sync<T: Send + Sync>() {}
    is_send_and_sync::<HandleTable>();
    let table = HandleTable::new();
    table.insert(File::open("/").unwrap());
    assert!(format!("{table:?}").starts_with("{7: Handle"), "{table:?}");
}
