//! A channel whose other end is in this process, or in one of its own: the same sentences are held
//! against both, as the other end does what it is told and answers in text.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tombolo::handle::HandleError;
use tombolo::object::{CallError, CallPhase, ChannelError, NotWritten};
use tombolo::{Channel, Error, Handle, MessagePacket};

use super::support::Dir;
use super::support::process::{Peer, hear, report, role};

/// So long nothing takes that comes to an end at all.
pub(crate) const LONG: Duration = Duration::from_secs(30);
/// What is said to happen has happened by then.
pub(crate) const SOON: Duration = Duration::from_secs(2);
/// What is said not to happen is looked at for so long.
pub(crate) const SHORT: Duration = Duration::from_millis(20);

/// Where the other end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Here,
    There,
}

/// How many sentences of a group were held.
pub(crate) struct Tally {
    group: &'static str,
    wanted: usize,
    held: AtomicUsize,
}

impl Tally {
    pub(crate) const fn new(group: &'static str, wanted: usize) -> Self {
        Self { group, wanted, held: AtomicUsize::new(0) }
    }

    /// Says how many there are. None is a failure.
    pub(crate) fn print(&self) {
        println!(
            "{}: {} sentences, each within one process and across two",
            self.group, self.wanted
        );
        assert_ne!(self.wanted, 0);
    }

    /// Holds `sentence`, and sees that it leaves no file open.
    pub(crate) fn hold(&self, place: Place, sentence: fn(Channel, &mut Far)) {
        let (near, mut far) = Far::open(place);
        sentence(near, &mut far);
        if far.is_there() {
            assert_eq!(far.ask("drop"), "0 files", "left open at the other end");
        }
        assert_eq!(far.open_files(), 0, "left open");
        let held = self.held.fetch_add(1, Relaxed) + 1;
        if held == 2 * self.wanted {
            println!("{}: {} sentences exercised, at both places", self.group, self.wanted);
        }
    }
}

/// The other end.
pub(crate) struct Far {
    dir: Dir,
    end: End,
}

enum End {
    Here { wishes: Sender<String>, answers: Receiver<String> },
    There(Peer),
    Gone,
}

/// What the other process does; nothing in the test program itself.
#[test]
fn peer_process() {
    let Some((_, path)) = role() else { return };
    let end = Channel::open_path(path.join("channel")).unwrap();
    let mut actor = Actor::new(end, &path);
    report("ready");
    while let Some(wish) = hear() {
        report(&actor.answer(&wish));
    }
}

impl Far {
    fn open(place: Place) -> (Channel, Self) {
        let dir = Dir::new();
        std::fs::create_dir(dir.file("files")).unwrap();
        match place {
            Place::Here => {
                let (near, other) = Channel::create().unwrap();
                let end = End::here(other, dir.path());
                (near, Self { dir, end })
            }
            Place::There => {
                let near = Channel::open_path(dir.file("channel")).unwrap();
                let end = End::There(Peer::start("ends::peer_process", "end", dir.path()));
                (near, Self { dir, end })
            }
        }
    }

    /// Lets the other end do something, and gives its answer.
    pub(crate) fn ask(&mut self, wish: &str) -> String {
        match &mut self.end {
            End::Here { wishes, answers } => {
                wishes.send(wish.to_owned()).unwrap();
                answers.recv_timeout(LONG + LONG).unwrap()
            }
            End::There(peer) => {
                peer.tell(wish);
                peer.next_report()
            }
            End::Gone => panic!("{wish}: it is gone"),
        }
    }

    /// Closes the other end: by SIGKILL if it is a process. What waits learns of that soon; a call that follows at
    /// once perhaps does not know yet.
    pub(crate) fn die(&mut self) {
        if let End::Here { .. } = self.end {
            self.ask("drop");
        }
        if let End::There(peer) = std::mem::replace(&mut self.end, End::Gone) {
            peer.kill();
        }
    }

    fn is_there(&self) -> bool {
        !matches!(self.end, End::Gone)
    }

    /// A handle on a file that says its name.
    pub(crate) fn file(&self, name: &str) -> Handle {
        file(self.dir.path(), name)
    }

    pub(crate) fn files<const N: usize>(&self, names: [&str; N]) -> Vec<Handle> {
        names.map(|name| self.file(name)).into()
    }

    /// How many descriptors of this process lead to such files.
    pub(crate) fn open_files(&self) -> usize {
        open_files(self.dir.path())
    }

    /// Where the two may open another channel.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.file(name)
    }

    /// Sees that nothing has come to the other end, and that what is written next does.
    pub(crate) fn nothing_came(&mut self, near: &Channel) {
        assert_eq!(self.ask("read"), "SHOULD_WAIT");
        near.write("next").unwrap();
        assert_eq!(self.ask("read"), "next");
    }
}

impl End {
    fn here(end: Channel, dir: &Path) -> Self {
        let mut actor = Actor::new(end, dir);
        let ((wishes, heard), (told, answers)) = (channel(), channel());
        thread::spawn(move || {
            heard.into_iter().try_for_each(|wish: String| told.send(actor.answer(&wish)))
        });
        Self::Here { wishes, answers }
    }
}

/// What acts at the other end.
struct Actor {
    end: Option<Arc<Channel>>,
    dir: PathBuf,
    held: Vec<Handle>,
    /// What it does beside.
    later: VecDeque<JoinHandle<String>>,
}

impl Actor {
    fn new(end: Channel, dir: &Path) -> Self {
        let (end, held, later) = (Some(Arc::new(end)), Vec::new(), VecDeque::new());
        Self { end, dir: dir.to_owned(), held, later }
    }

    /// Does what it is told: `later WISH`, whose `result` comes in turn; `hold` what it reads, and
    /// `release` it; `open NAME`; `drop` all; else see [`act`].
    fn answer(&mut self, wish: &str) -> String {
        let (verb, rest) = wish.split_once(' ').unwrap_or((wish, ""));
        match verb {
            "later" => {
                let (end, dir, rest) = (self.end.clone(), self.dir.clone(), rest.to_owned());
                self.later.push_back(thread::spawn(move || act(&end.unwrap(), &dir, &rest)));
                "begun".into()
            }
            "result" => self.later.pop_front().unwrap().join().unwrap(),
            "hold" => match self.end.as_ref().unwrap().read() {
                Ok(message) => {
                    let text = shown(&message);
                    self.held.extend(message.handles);
                    text
                }
                Err(error) => error.outcome(),
            },
            "release" => std::mem::take(&mut self.held).len().to_string(),
            "open" => match Channel::open_path(self.dir.join(rest)) {
                Ok(end) => {
                    self.end = Some(Arc::new(end));
                    "OK".into()
                }
                Err(Error::Busy { .. }) => "BUSY".into(),
                Err(error) => error.to_string(),
            },
            "drop" => {
                if let (Some(end), false) = (self.end.take(), self.later.is_empty()) {
                    end.close(); // others have it still
                }
                self.held.clear();
                format!("{} files", open_files(&self.dir))
            }
            _ => act(self.end.as_ref().unwrap(), &self.dir, wish),
        }
    }
}

/// What an end can be told to do. Data and names have no spaces, `-` is no data, ids are hexadecimal.
fn act(end: &Channel, dir: &Path, wish: &str) -> String {
    let words: Vec<_> = wish.split(' ').collect();
    let id = |index: usize| u32::from_str_radix(words[index], 16).unwrap();
    let number = |index: usize| words[index].parse::<usize>().unwrap();
    let message = |data: Vec<u8>, from: usize| {
        let mut message = MessagePacket::from(data);
        message.handles = words[from..].iter().map(|name| file(dir, name)).collect();
        message
    };
    let data = |index: usize| if words[index] == "-" { "" } else { words[index] };
    match words[0] {
        "id" => format!("{:?}", end.id()),
        "write" => status(end.write(message(data(1).into(), 2))),
        "write-as" => status(end.write(message(with_id(id(1), data(2)), 3))),
        "write-many" => {
            let mut many = MessagePacket::from(vec![7; number(1)]);
            many.handles = (0..number(2)).map(|_| file(dir, "same")).collect();
            status(end.write(many))
        }
        "fill" => {
            let (count, refused) = fill(end);
            format!("{count} {}", refused.outcome())
        }
        "drain" => {
            for index in 0..number(1) as u32 {
                assert_eq!(end.read_timeout(LONG).unwrap().data, index.to_ne_bytes());
            }
            "OK".into()
        }
        "rights" => {
            let handles = end.read().unwrap().handles;
            let rights = handles.iter().map(|handle| handle.rights().to_string());
            rights.collect::<Vec<_>>().join(", ")
        }
        "read" => end.read().map_or_else(|error| error.outcome(), |message| shown(&message)),
        "await" => told(end.read_timeout(LONG)),
        "await-call" => {
            end.read_timeout(LONG).map_or_else(|error| error.outcome(), |call| shown_call(&call))
        }
        // Takes the next request, and answers it.
        "reply" => {
            let request = end.read_timeout(LONG).unwrap();
            end.write(message(with_id(id_of(&request), data(1)), 2)).unwrap();
            shown_call(&request)
        }
        "take" => {
            (0..number(1)).for_each(|_| drop(end.read_timeout(LONG).unwrap()));
            "OK".into()
        }
        "serve" => {
            (0..number(1)).for_each(|_| end.write(end.read_timeout(LONG).unwrap()).unwrap());
            "OK".into()
        }
        "call" => told_call(end.call(message(with_id(0, data(1)), 2), LONG)),
        "call-as" => told_call(end.call_with_txid(message(with_id(id(1), data(2)), 3), LONG)),
        "close" => {
            end.close();
            "OK".into()
        }
        "close-with" => {
            end.close_with_reason(number(1) as u32, data(2));
            "OK".into()
        }
        "reason" => format!("{:?}", end.close_reason().unwrap()),
        other => panic!("no such wish: {other}"),
    }
}

/// A handle on a file of `dir` that says its name.
pub(crate) fn file(dir: &Path, name: &str) -> Handle {
    let path = dir.join("files").join(name);
    if !path.exists() {
        std::fs::write(&path, name).unwrap();
    }
    Handle::new(File::options().read(true).write(true).open(path).unwrap())
}

/// How many descriptors of this process lead to such files.
pub(crate) fn open_files(dir: &Path) -> usize {
    let dir = dir.join("files");
    let fds = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets = fds.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    targets.filter(|target| target.starts_with(&dir)).count()
}

/// Writes numbers as long as there is space: how many, and why no more.
pub(crate) fn fill(end: &Channel) -> (u32, NotWritten) {
    let numbered = |number: u32| end.try_write(number.to_ne_bytes().to_vec()).err();
    (0..).find_map(|number| Some((number, numbered(number)?))).unwrap()
}

/// What came, with the name that each of its files says.
pub(crate) fn shown(message: &MessagePacket) -> String {
    let mut text = message.data.escape_ascii().to_string();
    for (index, name) in names(&message.handles).iter().enumerate() {
        text += if index == 0 { " with " } else { " " };
        text += name;
    }
    text
}

pub(crate) fn names(handles: &[Handle]) -> Vec<String> {
    let name_of = |handle: &Handle| {
        let mut name = [0; 32];
        let len = rustix::io::pread(handle, &mut name, 0).unwrap_or(0);
        String::from_utf8_lossy(&name[..len]).into_owned()
    };
    handles.iter().map(name_of).collect()
}

/// As [`shown`], of a request or a reply.
pub(crate) fn shown_call(message: &MessagePacket) -> String {
    let mut rest = MessagePacket::from(&message.data[4..]);
    rest.handles = message
        .handles
        .iter()
        .map(|handle| handle.duplicate(tombolo::Rights::SAME_RIGHTS).unwrap())
        .collect();
    format!("{:08x} {}", id_of(message), shown(&rest))
}

fn told(read: Result<MessagePacket, ChannelError>) -> String {
    read.map_or_else(|error| error.outcome(), |message| shown(&message))
}

fn told_call(reply: Result<MessagePacket, CallError>) -> String {
    reply.map_or_else(|error| error.outcome(), |reply| shown_call(&reply))
}

pub(crate) fn id_of(message: &MessagePacket) -> u32 {
    u32::from_ne_bytes(*message.data.first_chunk().unwrap())
}

pub(crate) fn with_id(id: u32, rest: &str) -> Vec<u8> {
    [&id.to_ne_bytes(), rest.as_bytes()].concat()
}

/// A request, with space for its id.
pub(crate) fn request(rest: &str) -> MessagePacket {
    with_id(0, rest).into()
}

pub(crate) fn message(data: &str, handles: Vec<Handle>) -> MessagePacket {
    let mut message = MessagePacket::from(data);
    message.handles = handles;
    message
}

/// Zircon's name for what came of an operation.
#[track_caller]
pub(crate) fn status<T: Debug>(result: Result<T, impl Failure>) -> String {
    result.err().map_or_else(|| "OK".into(), |error| error.outcome())
}

/// An error with a name in Zircon.
pub(crate) trait Failure {
    fn outcome(&self) -> String;
}

impl Failure for ChannelError {
    fn outcome(&self) -> String {
        self.status().to_string()
    }
}

impl Failure for HandleError {
    fn outcome(&self) -> String {
        self.status().to_string()
    }
}

impl Failure for NotWritten {
    fn outcome(&self) -> String {
        self.error.outcome()
    }
}

impl Failure for CallError {
    fn outcome(&self) -> String {
        let phase = if self.phase == CallPhase::Write { "write" } else { "read" };
        format!("{} in the {phase} phase", self.error.outcome())
    }
}
