//! Making a channel, and opening one by its path.

use tombolo::options::RingOptions;
use tombolo::{Channel, Error, OpenOptions};

use super::ends::{LONG, id_of, message, request, shown, status};

sentences! { "creating":
    fn both_ends_may_be_written_to_at_once(near, far) {
        near.write("from near").unwrap();
        assert_eq!(far.ask("write from-far"), "OK");
        assert_eq!(shown(&near.read().unwrap()), "from-far");
        assert_eq!(far.ask("read"), "from near");
    }

    fn each_end_has_an_id_of_its_own(near, far) {
        let own = format!("{:?}", near.id());
        assert_eq!(format!("{:?}", near.id()), own);
        let other = far.ask("id");
        assert_ne!(own, other);
        assert_eq!(other, far.ask("id"));
    }

    fn each_end_counts_its_transaction_ids_from_two_to_the_31_on(near, far) {
        std::thread::scope(|scope| {
            let calls = scope.spawn(|| [(); 2].map(|()| near.call(request("ping"), LONG).unwrap()));
            assert_eq!(far.ask("reply pong"), "80000000 ping");
            assert_eq!(far.ask("reply pong"), "80000001 ping");
            assert_eq!(calls.join().unwrap().map(|reply| id_of(&reply)), [1 << 31, (1 << 31) + 1]);
        });
        far.ask("later call ping");
        let got = near.read_timeout(LONG).unwrap();
        assert_eq!(id_of(&got), 1 << 31);
        near.write(got).unwrap();
        assert_eq!(far.ask("result"), "80000000 ping");
    }

    /// *Decision*: there are no option bits; what a channel doesn't have is refused instead.
    fn options_that_it_does_not_have_are_refused(_near, far) {
        let path = far.path("named");
        for options in [
            OpenOptions::new().producers(2),
            OpenOptions::new().mpsc_capacity(4096),
            OpenOptions::new().ring(RingOptions::spsc()),
        ] {
            let created = Channel::create_with(options.clone());
            assert!(matches!(created, Err(Error::InvalidOption { .. })), "{created:?}");
            let opened = Channel::open_path_with(&path, options);
            assert!(matches!(opened, Err(Error::InvalidOption { .. })), "{opened:?}");
            assert!(!path.exists());
        }
    }

    fn its_capacity_and_longest_message_are_options(_near, far) {
        let small = || OpenOptions::new().spsc_capacity(4096).max_message(100).max_handles(1);
        let near = Channel::open_path_with(far.path("named"), small()).unwrap();
        assert_eq!(far.ask("open named"), "OK");
        assert_eq!(status(near.write(vec![0; 101])), "OUT_OF_RANGE");
        assert_eq!(status(near.write(message("", far.files(["a", "b"])))), "OUT_OF_RANGE");
        let full = far.ask("fill");
        let (count, refused) = full.split_once(' ').unwrap();
        assert!(refused == "SHOULD_WAIT" && count.parse::<usize>().unwrap() < 512, "{full}");
    }

    fn the_first_two_to_open_it_have_an_end_each_and_a_third_finds_it_busy(_near, far) {
        let path = far.path("named");
        let first = Channel::open_path(&path).unwrap();
        first.write("before").unwrap();
        assert_eq!(far.ask("open named"), "OK");
        let third = Channel::open_path(&path);
        assert!(matches!(third, Err(Error::Busy { .. })), "{third:?}");
        assert_eq!(far.ask("read"), "before");
        assert_eq!(far.ask("write after"), "OK");
        assert_eq!(shown(&first.read().unwrap()), "after");
        assert_eq!(far.ask("open named"), "BUSY");
    }

    fn when_an_end_is_closed_the_next_to_open_it_makes_a_new_one_and_the_other_keeps_what_it_has(near, far) {
        let path = far.path("named");
        let first = Channel::open_path(&path).unwrap();
        assert_eq!(far.ask("open named"), "OK");
        assert_eq!(status(near.read()), "PEER_CLOSED"); // the other end acts on the named channel now
        assert_eq!(far.ask("write left a"), "OK");
        assert_eq!(far.ask("drop"), "0 files");
        let newer = Channel::open_path(&path).unwrap();
        assert_eq!(far.ask("open named"), "OK");
        assert_eq!(far.ask("write newer"), "OK");
        assert_eq!(shown(&newer.read().unwrap()), "newer");
        assert_eq!(shown(&first.read().unwrap()), "left with a");
        assert_eq!(status(first.read()), "PEER_CLOSED");
    }

    fn when_an_owner_has_exited_the_next_to_open_it_makes_a_new_one(_near, far) {
        let path = far.path("named");
        let first = Channel::open_path(&path).unwrap();
        assert_eq!(far.ask("open named"), "OK");
        assert_eq!(far.ask("write left"), "OK");
        far.die();
        let newer = Channel::open_path(&path).unwrap();
        assert_eq!(status(newer.read()), "SHOULD_WAIT");
        let other = Channel::open_path(&path).unwrap();
        other.write("newer").unwrap();
        assert_eq!(shown(&newer.read().unwrap()), "newer");
        assert_eq!(shown(&first.read().unwrap()), "left");
        assert_eq!(status(first.read_timeout(LONG)), "PEER_CLOSED");
    }

    fn a_region_of_other_rings_is_refused_as_no_channel(_near, far) {
        let default = tombolo::EventsRegion::open_path(far.path("region")).unwrap();
        assert_eq!(default.rings().len(), 2);
        let two = OpenOptions::new().ring(RingOptions::spsc()).ring(RingOptions::spsc());
        tombolo::EventsRegion::open_path_with(far.path("two"), two).unwrap();
        for name in ["region", "two"] {
            let refused = Channel::open_path(far.path(name)).unwrap_err();
            let Error::Layout { reason, .. } = &refused else { panic!("{refused}") };
            assert_eq!(*reason, tombolo::LayoutError::NoChannel, "{refused}");
        }
    }

    fn an_end_is_used_from_many_threads_and_has_no_copies(near, far) {
        fn is_shared<T: Send + Sync + 'static>(_: &T) {}
        trait HasNoCopy<T> {
            fn probe() {}
        }
        struct Copied;
        impl<T> HasNoCopy<()> for T {}
        impl<T: Clone> HasNoCopy<Copied> for T {}
        let _ = <Channel as HasNoCopy<_>>::probe; // ambiguous, and so no program, if it were `Clone`
        is_shared(&near);
        assert_eq!(far.ask("write here"), "OK");
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(shown(&near.read().unwrap()), "here"));
        });
    }
}
