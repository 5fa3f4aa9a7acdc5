//! A channel whose other end is in this process, or in one of its own.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use tombolo::object::{KernelObject, ObjectError};
use tombolo::{Channel, Deadline, Handle, Rights, Signal};

use super::support::Dir;
use super::support::process::{Peer, hear, report, role};

/// So long nothing takes that comes to an end at all.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// What is said not to happen is looked at for so long.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

/// Where the other end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    There,
}

/// The other end.
pub(crate) enum Far {
    Here { wishes: Sender<String>, answers: Receiver<String> },
    There { peer: Peer, _dir: Dir },
    Gone,
}

pub(crate) fn hold(place: Place, sentence: fn(Channel, &mut Far)) {
    let dir = Dir::new();
    let (near, mut far) = match place {
        Place::Here => {
            let (near, other) = Channel::create().unwrap();
            let ((wishes, heard), (told, answers)) = (channel::<String>(), channel());
            thread::spawn(move || {
                let mut end = Some(other);
                heard.into_iter().try_for_each(|wish| told.send(act(&mut end, &wish)))
            });
            (near, Far::Here { wishes, answers })
        }
        Place::There => {
            let near = Channel::open_path(dir.file("channel")).unwrap();
            let peer = Peer::start("ends::peer_process", "end", dir.path());
            (near, Far::There { peer, _dir: dir })
        }
    };
    sentence(near, &mut far);
}

/// What the other process does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    let mut end = Some(Channel::open_path(path.join("channel")).unwrap());
    report("ready");
    while let Some(wish) = hear() {
        report(&act(&mut end, &wish));
    }
}

impl Far {
    /// Lets the other end do something, and gives its answer.
    pub(crate) fn ask(&mut self, wish: &str) -> String {
        match self {
            Self::Here { wishes, answers } => {
                wishes.send(wish.to_owned()).unwrap();
                answers.recv_timeout(LONG + LONG).unwrap()
            }
            Self::There { peer, .. } => {
                peer.tell(wish);
                peer.next_report()
            }
            Self::Gone => panic!("{wish}: it is gone"),
        }
    }

    /// Closes the other end: by SIGKILL if it is a process.
    pub(crate) fn die(&mut self) {
        if let Self::Here { .. } = self {
            self.ask("close");
        }
        if let Self::There { peer, .. } = std::mem::replace(self, Self::Gone) {
            peer.kill();
        }
    }

    /// Sets signals of the near end.
    pub(crate) fn set(&mut self, signals: Signal) {
        assert_eq!(self.ask(&format!("signal-peer 0 {:x}", signals.bits())), "OK");
    }
}

fn outcome(done: Result<(), ObjectError>) -> String {
    done.map_or_else(|error| error.status().to_string(), |()| "OK".into())
}

/// What an end can be told to do. Signals are hexadecimal.
fn act(end: &mut Option<Channel>, wish: &str) -> String {
    let words: Vec<_> = wish.split(' ').collect();
    if words[0] == "close" {
        *end = None;
        return "OK".into();
    }
    let end = end.as_ref().unwrap();
    let signals =
        |index: usize| Signal::from_bits(u32::from_str_radix(words[index], 16).unwrap()).unwrap();
    match words[0] {
        "signal-peer" => outcome(end.signal_peer(signals(1), signals(2))),
        "signal-change" => outcome(end.signal_change(signals(1), signals(2))),
        "pulse" => {
            for _ in 0..words[1].parse().unwrap() {
                end.signal_peer(Signal::empty(), Signal::USER_7).unwrap();
                end.signal_peer(Signal::USER_7, Signal::empty()).unwrap();
            }
            "OK".into()
        }
        "signals" => format!("{:?}", end.signal()),
        "wait" => match end.wait_one(signals(1), LONG.into()) {
            Ok(seen) => format!("{seen:?}"),
            Err(error) => error.status().to_string(),
        },
        "name" => end.name(),
        "set-name" => outcome(end.set_name(words[1])),
        "peers-name" => end.peer().unwrap().name(),
        "ids" => format!("{:x} {:x}", KernelObject::id(end), end.related_koid()),
        "write" => end.write(words[1]).map_or_else(|it| it.status().to_string(), |()| "OK".into()),
        "answer" => {
            end.write(end.read_timeout(LONG).unwrap()).unwrap();
            "OK".into()
        }
        "read" => match end.read() {
            Ok(message) => String::from_utf8(message.data).unwrap(),
            Err(error) => error.status().to_string(),
        },
        "take" => {
            let count: usize = words[1].parse().unwrap();
            (0..count).for_each(|_| drop(end.read_timeout(LONG).unwrap()));
            "OK".into()
        }
        other => panic!("no such wish: {other}"),
    }
}

/// Waits until the end shows just these signals.
pub(crate) fn comes_to(end: &dyn KernelObject, expected: Signal) {
    let start = Instant::now();
    while end.signal() != expected {
        assert!(start.elapsed() < LONG, "{:?} is not {expected:?}", end.signal());
        thread::yield_now();
    }
}

/// Waits for these signals, and gives all that there are then.
pub(crate) fn wait(end: &Channel, signals: Signal) -> Signal {
    end.wait_one(signals, LONG.into()).unwrap()
}

/// What there is now.
pub(crate) fn peek(end: &Channel) -> Signal {
    let told = end.wait_one(Signal::empty(), Deadline::PAST).unwrap_err();
    assert!(matches!(told.error, ObjectError::TimedOut), "{told}");
    told.observed
}

/// The end with these rights only.
pub(crate) fn with_rights(end: Channel, rights: Rights) -> Channel {
    let handle: Handle = end.release().unwrap().replace(rights).unwrap();
    Channel::from_handle(handle).unwrap()
}

/// Writes as long as there is space, and gives how many messages that were.
pub(crate) fn fill(end: &Channel) -> usize {
    (0..).find(|_| end.try_write(vec![7; 4000]).is_err()).unwrap()
}
