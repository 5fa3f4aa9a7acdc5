//! Ids, names, types, and the peer of an end.

use std::rc::Rc;
use std::sync::Arc;

use tombolo::object::{KernelObject, ObjectError, Status};
use tombolo::{Channel, Signal};

use super::ends::wait;

sentences! {
    fn both_ends_know_each_other_by_their_ids(near, far) {
        let (id, related) = (KernelObject::id(&near), near.related_koid());
        assert_eq!(far.ask("ids"), format!("{related:x} {id:x}"));
        assert_ne!(id, related);
        assert_eq!(near.peer().unwrap().id(), related);
        assert_eq!(near.peer().unwrap().related_koid(), id);
        assert_eq!((near.type_name(), near.peer().unwrap().type_name()), ("Channel", "Channel"));
    }

    fn an_end_without_peer_is_related_to_none(near, far) {
        far.die();
        wait(&near, Signal::PEER_CLOSED);
        assert_eq!(near.related_koid(), 0);
    }

    fn an_end_has_no_name_until_it_is_given_one(near, far) {
        assert_eq!((near.name(), far.ask("peers-name")), (String::new(), String::new()));
        near.set_name("an end").unwrap();
        assert_eq!((near.name(), far.ask("peers-name")), ("an end".into(), "an end".into()));
        assert_eq!(far.ask("set-name other"), "OK");
        assert_eq!((near.name(), near.peer().unwrap().name()), ("an end".into(), "other".into()));
        near.set_name("").unwrap();
        assert_eq!(near.name(), "");
    }

    fn a_name_is_cut_to_31_bytes_and_no_character_is_split(near, far) {
        near.set_name(&"n".repeat(40)).unwrap();
        assert_eq!(far.ask("peers-name"), "n".repeat(31));
        near.set_name(&"\u{20ac}".repeat(11)).unwrap();
        assert_eq!(far.ask("peers-name"), "\u{20ac}".repeat(10));
    }

    fn a_name_outlives_its_owner(near, far) {
        assert_eq!(far.ask("set-name late"), "OK");
        let view = near.peer().unwrap();
        far.die();
        wait(&near, Signal::PEER_CLOSED);
        assert_eq!((view.name(), view.signal()), ("late".into(), Signal::HANDLE_CLOSED));
        assert_eq!(view.related_koid(), 0);
        assert_eq!(view.signal_set(Signal::USER_0).unwrap_err().status(), Status::PEER_CLOSED);
    }

    fn the_peer_is_signaled_through_what_stands_for_it(near, far) {
        let view = near.peer().unwrap();
        view.signal_set(Signal::USER_0 | Signal::USER_1).unwrap();
        view.signal_clear(Signal::USER_1).unwrap();
        assert_eq!(far.ask("signals"), "Signal(WRITABLE | USER_0)");
        view.signal_peer(Signal::empty(), Signal::USER_2).unwrap();
        assert_eq!(near.signal(), Signal::WRITABLE | Signal::USER_2);
        near.write("to read").unwrap();
        assert!(view.signal().contains(Signal::READABLE | Signal::USER_0));
        assert_eq!(view.set_name("not ours").unwrap_err().status(), Status::NOT_SUPPORTED);
        let waited = view.wait_one(Signal::USER_0, tombolo::Deadline::PAST).unwrap_err();
        assert_eq!(waited.status(), Status::NOT_SUPPORTED);
    }

    fn it_keeps_no_end_open(near, far) {
        let view = near.peer().unwrap();
        drop(near);
        assert_eq!(far.ask("wait 4"), "Signal(PEER_CLOSED)");
        assert_eq!(view.signal(), Signal::HANDLE_CLOSED);
    }

    fn an_end_has_no_children(near, far) {
        let refused = near.get_child(near.id()).unwrap_err();
        assert!(matches!(refused, ObjectError::WrongType { .. }));
        assert_eq!(refused.status(), Status::WRONG_TYPE);
        assert_eq!(far.ask("signals"), "Signal(WRITABLE)");
    }
}

#[test]
fn an_object_is_cast_to_the_type_that_it_is_and_to_no_other() {
    #[derive(Debug)]
    struct Other;

    impl KernelObject for Other {
        fn id(&self) -> u64 {
            1
        }

        fn type_name(&self) -> &'static str {
            "Other"
        }

        fn name(&self) -> String {
            String::new()
        }

        fn set_name(&self, _: &str) -> Result<(), ObjectError> {
            Ok(())
        }

        fn signal(&self) -> Signal {
            Signal::empty()
        }

        fn signal_change(&self, _: Signal, _: Signal) -> Result<(), ObjectError> {
            Ok(())
        }
    }

    let (ours, theirs) = Channel::create().unwrap();
    let mut boxed: Box<dyn KernelObject> = Box::new(ours);
    assert!(boxed.is::<Channel>() && !boxed.is::<Other>());
    assert!(boxed.downcast_ref::<Other>().is_none());
    assert!(boxed.downcast_mut::<Channel>().is_some());
    let boxed = boxed.downcast::<Other>().unwrap_err();
    let ours: Box<Channel> = boxed.downcast().unwrap();
    let shared: Arc<dyn KernelObject> = Arc::<Channel>::from(ours);
    let shared = shared.downcast_arc::<Other>().unwrap_err();
    let ours: Arc<Channel> = shared.downcast_arc().unwrap();
    assert_eq!(ours.related_koid(), theirs.id());
    let counted: Rc<dyn KernelObject> = Rc::new(Other);
    let counted = counted.downcast_rc::<Channel>().unwrap_err();
    let other: Rc<Other> = counted.downcast_rc().unwrap();
    assert_eq!(
        other.signal_peer(Signal::empty(), Signal::empty()).unwrap_err().status(),
        Status::NOT_SUPPORTED
    );
    assert_eq!(other.peer().unwrap_err().status(), Status::NOT_SUPPORTED);
    assert_eq!(other.related_koid(), 0);
    let refused = other.add_signal_callback(Box::new(|_| true)).unwrap_err();
    assert_eq!(refused.status(), Status::NOT_SUPPORTED);
}
