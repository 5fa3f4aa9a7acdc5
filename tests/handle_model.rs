//! Whatever is done with a table, in whatever order, it does what a plain map of numbers would, and
//! has exactly the descriptors open that it should.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs::File;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tombolo::handle::{HandleError, HandleOp};
use tombolo::object::{HandleTable, HandleValue, TableDisposition};
use tombolo::{Handle, HandleType, Rights};

mod support;
use support::*;

/// Something to do. Places choose among all numbers that were ever given, and one that was not.
#[derive(Clone, Debug)]
enum Step {
    Insert(Rights),
    Duplicate(usize, Rights),
    Replace(usize, Rights),
    Remove(usize),
    Close(Vec<usize>),
    /// By the form that keeps where it says so.
    Resolve(Vec<One>, Failure),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Consumes,
    Keeps,
}

/// A disposition: what, of which place, with which type expected, for which rights.
type One = (HandleOp, usize, Option<HandleType>, Rights);

/// What a handle is in the model: its id and its rights.
type Known = (u64, Rights);

#[derive(Debug, Default)]
struct Model {
    given: Vec<HandleValue>,
    known: BTreeMap<HandleValue, Known>,
}

impl Model {
    fn number(&self, place: usize) -> HandleValue {
        self.given.get(place % (self.given.len() + 1)).copied().unwrap_or(5)
    }

    fn find(&self, number: HandleValue) -> Result<Known, HandleError> {
        self.known.get(&number).copied().ok_or(HandleError::BadHandle { number })
    }

    fn add(&mut self, number: HandleValue, known: Known) {
        assert!(!self.given.contains(&number), "{number:#x} was given before");
        self.given.push(number);
        self.known.insert(number, known);
    }

    /// What a list gives, disposition for disposition, by the words of the pages.
    fn judge(&self, list: &[TableDisposition]) -> Vec<Result<Known, HandleError>> {
        let mut left = self.known.clone();
        let check_one = |one: &TableDisposition| {
            let found = match one.operation {
                HandleOp::Move => left.remove(&one.handle),
                HandleOp::Duplicate => left.get(&one.handle).copied(),
            };
            let (id, held) = found.ok_or(HandleError::BadHandle { number: one.handle })?;
            lacks(held, Rights::TRANSFER)?;
            let found = HandleType::File;
            if let Some(wanted) = one.handle_type.filter(|wanted| *wanted != found) {
                return Err(HandleError::WrongType { found, wanted });
            }
            let rights = granted(held, one.rights)?;
            if one.operation == HandleOp::Duplicate {
                lacks(held, Rights::DUPLICATE)?;
            }
            Ok((id, rights))
        };
        list.iter().map(check_one).collect()
    }
}

fn lacks(held: Rights, wanted: Rights) -> Result<(), HandleError> {
    let missing = wanted - held;
    if missing.is_empty() { Ok(()) } else { Err(HandleError::AccessDenied { held, missing }) }
}

fn granted(held: Rights, wanted: Rights) -> Result<Rights, HandleError> {
    match wanted {
        Rights::SAME_RIGHTS => Ok(held),
        wanted if held.contains(wanted) => Ok(wanted),
        wanted => Err(HandleError::InvalidRights { held, wanted }),
    }
}

/// The table beside its model.
struct Pair {
    table: HandleTable,
    model: Model,
    dir: Dir,
    /// Lists with handles in them that were resolved, and those that were not.
    sent_count: usize,
    refused_count: usize,
}

impl Pair {
    fn new() -> Self {
        let (table, model, dir) = (HandleTable::new(), Model::default(), Dir::new());
        Self { table, model, dir, sent_count: 0, refused_count: 0 }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Insert(rights) => self.insert(*rights),
            Step::Duplicate(place, rights) => self.duplicate(self.model.number(*place), *rights),
            Step::Replace(place, rights) => self.replace(self.model.number(*place), *rights),
            Step::Remove(place) => self.remove(self.model.number(*place)),
            Step::Close(places) => self.close(places),
            Step::Resolve(list, failure) => self.resolve(list, *failure),
        }
        assert_eq!(self.table.len(), self.model.known.len());
        assert_eq!(self.dir.open_fds(), self.model.known.len(), "descriptors");
        for (number, (id, rights)) in &self.model.known {
            let handle = self.table.get(*number, Some(HandleType::File), Rights::empty()).unwrap();
            assert_eq!((handle.id(), handle.rights()), (*id, *rights));
        }
    }

    fn insert(&mut self, rights: Rights) {
        let options = File::options().append(true).read(true).create(true).to_owned();
        let handle = Handle::new(options.open(self.dir.file("a")).unwrap());
        let known = (handle.id(), granted(handle.rights(), rights).unwrap());
        let number = self.table.insert(handle.replace(rights).unwrap());
        self.model.add(number, known);
    }

    fn duplicate(&mut self, number: HandleValue, rights: Rights) {
        let expected = self.model.find(number).and_then(|(id, held)| {
            lacks(held, Rights::DUPLICATE)?;
            Ok((id, granted(held, rights)?))
        });
        self.expect(expected, self.table.duplicate(number, rights));
    }

    fn replace(&mut self, number: HandleValue, rights: Rights) {
        let source = self.model.find(number);
        let expected = source.and_then(|(id, held)| Ok((id, granted(held, rights)?)));
        self.model.known.remove(&number);
        self.expect(expected, self.table.replace(number, rights));
    }

    fn expect(
        &mut self,
        expected: Result<Known, HandleError>,
        found: Result<HandleValue, HandleError>,
    ) {
        match (expected, found) {
            (Ok(known), Ok(number)) => self.model.add(number, known),
            (expected, found) => assert_eq!(expected.err(), found.err()),
        }
    }

    fn remove(&mut self, number: HandleValue) {
        let expected = self.model.find(number);
        self.model.known.remove(&number);
        let found = self.table.remove(number).map(|handle| (handle.id(), handle.rights()));
        assert_eq!(found, expected);
    }

    fn close(&mut self, places: &[usize]) {
        let numbers: Vec<_> = places.iter().map(|place| self.model.number(*place)).collect();
        let unknown: Vec<_> = numbers
            .iter()
            .filter(|number| self.model.known.remove(number).is_none())
            .map(|number| HandleError::BadHandle { number: *number })
            .collect();
        assert_eq!(self.table.close_many(&numbers).err(), unknown.first().cloned());
    }

    fn resolve(&mut self, list: &[One], failure: Failure) {
        let mut list: Vec<_> = list
            .iter()
            .map(|(operation, place, handle_type, rights)| TableDisposition {
                handle_type: *handle_type,
                rights: *rights,
                ..TableDisposition::new(*operation, self.model.number(*place))
            })
            .collect();
        let expected = self.model.judge(&list);
        let found = match failure {
            Failure::Consumes => self.table.resolve_all(&mut list, &[]),
            Failure::Keeps => self.table.try_resolve_all(&mut list, &[]),
        };
        let is_expected_good = expected.iter().all(Result::is_ok);
        assert_eq!(found.is_ok(), is_expected_good, "{found:?}");
        self.sent_count += usize::from(is_expected_good && !list.is_empty());
        self.refused_count += usize::from(!is_expected_good);
        if is_expected_good || failure == Failure::Consumes {
            let moved = list.iter().filter(|one| one.operation == HandleOp::Move);
            self.model.known.retain(|number, _| !moved.clone().any(|one| one.handle == *number));
        }
        let refusals = expected.iter().map(|one| one.as_ref().err());
        assert!(refusals.eq(list.iter().map(|one| one.result.as_ref().err())), "{list:?}");
        if let Ok(handles) = found {
            let found: Vec<_> = handles.iter().map(|one| Ok((one.id(), one.rights()))).collect();
            assert_eq!(found, expected);
        }
    }
}

fn rights() -> impl Strategy<Value = Rights> {
    prop_oneof![
        4 => Just(Rights::SAME_RIGHTS),
        1 => Just(Rights::TRANSFER | Rights::DUPLICATE),
        1 => Just(Rights::TRANSFER | Rights::READ),
        1 => Just(Rights::DUPLICATE),
        1 => Just(Rights::READ),
        1 => Just(Rights::empty()),
    ]
}

fn one() -> impl Strategy<Value = One> {
    let operation = prop_oneof![Just(HandleOp::Move), Just(HandleOp::Duplicate)];
    let handle_type = prop_oneof![
        5 => Just(None),
        3 => Just(Some(HandleType::File)),
        1 => Just(Some(HandleType::Pipe)),
    ];
    (operation, 0..64_usize, handle_type, rights())
}

fn step() -> impl Strategy<Value = Step> {
    let failure = prop_oneof![Just(Failure::Consumes), Just(Failure::Keeps)];
    let list = proptest::collection::vec(one(), 0..4);
    prop_oneof![
        6 => rights().prop_map(Step::Insert),
        3 => (0..64_usize, rights()).prop_map(|(place, rights)| Step::Duplicate(place, rights)),
        2 => (0..64_usize, rights()).prop_map(|(place, rights)| Step::Replace(place, rights)),
        1 => (0..64_usize).prop_map(Step::Remove),
        1 => proptest::collection::vec(0..64_usize, 0..4).prop_map(Step::Close),
        4 => (list, failure).prop_map(|(list, failure)| Step::Resolve(list, failure)),
    ]
}

#[test]
fn a_table_does_what_a_plain_map_would() {
    let config = ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() };
    let (sent, refused) = (Cell::new(0), Cell::new(0));
    let steps = proptest::collection::vec(step(), 1..60);
    let ran = TestRunner::new(config).run(&steps, |steps| {
        let mut pair = Pair::new();
        steps.iter().for_each(|step| pair.step(step));
        sent.set(sent.get() + pair.sent_count);
        refused.set(refused.get() + pair.refused_count);
        drop(pair.table);
        assert_eq!(pair.dir.open_fds(), 0);
        Ok(())
    });
    ran.unwrap();
    println!("{} lists with handles were sent, {} refused", sent.get(), refused.get());
    assert!(sent.get() > 100 && refused.get() > 100);
}
