//! A ring whose receiver is in this process, or in one of its own: the same sentences are held
//! against both, as the receiver does what it is told and answers in text.

use std::os::fd::AsFd;
use std::path::Path;

use rustix::io::FdFlags;
use tombolo::ends::{Mpsc, Spsc, Topology};
use tombolo::handle::HandleDisposition;
use tombolo::{
    Error, EventsRegion, Handle, MessagePacket, Receiver, Rights, SendError, Sender, TryRecvError,
};

use super::support::parts::ReceiveParts;
use super::support::process::{Peer, hear, report, role};
use super::support::{Dir, small};

/// The two ends, seen from the sender.
pub(crate) struct Ends<K: Topology> {
    pub(crate) dir: Dir,
    pub(crate) tx: Sender<K>,
    far: Far<K>,
}

/// Where the receiver is.
enum Far<K: Topology> {
    Here(Box<Reader<K>>),
    There(Peer),
}

/// A receiver, and the handles that it keeps.
struct Reader<K: Topology> {
    rx: Option<Receiver<K>>,
    held: Vec<Handle>,
}

/// A kind of ring.
pub(crate) trait Kind: Topology + Sized {
    const NAME: &'static str;
    fn split(region: EventsRegion) -> (Sender<Self>, Receiver<Self>);
}

impl Kind for Spsc {
    const NAME: &'static str = "spsc";
    fn split(mut region: EventsRegion) -> (Sender<Self>, Receiver<Self>) {
        region.split_spsc().unwrap()
    }
}

impl Kind for Mpsc {
    const NAME: &'static str = "mpsc";
    fn split(mut region: EventsRegion) -> (Sender<Self>, Receiver<Self>) {
        region.split_mpsc().unwrap()
    }
}

fn open<K: Kind>(path: &Path) -> (Sender<K>, Receiver<K>) {
    K::split(EventsRegion::open_path_with(path, small().max_handles(64)).unwrap())
}

/// What the other process does; nothing in the test program itself.
#[test]
fn peer_process() {
    match role() {
        Some((kind, path)) if kind == Spsc::NAME => serve::<Spsc>(&path),
        Some((kind, path)) if kind == Mpsc::NAME => serve::<Mpsc>(&path),
        Some((kind, _)) => panic!("no such role: {kind}"),
        None => {}
    }
}

fn serve<K: Kind>(path: &Path) {
    let mut reader = Reader::<K>::new(path);
    report("ready");
    while let Some(wish) = hear() {
        report(&reader.answer(&wish));
    }
}

impl<K: Kind> Ends<K> {
    pub(crate) fn in_one_process() -> Self {
        Self::new(|path| Far::Here(Box::new(Reader::new(path))))
    }

    pub(crate) fn in_two_processes() -> Self {
        Self::new(|path| Far::There(Peer::start("ends::peer_process", K::NAME, path)))
    }

    fn new(far: impl FnOnce(&Path) -> Far<K>) -> Self {
        let dir = Dir::new();
        let far = far(&dir.file("region"));
        let (tx, _) = open(&dir.file("region"));
        Self { dir, tx, far }
    }

    /// Lets the receiver do something, and gives its answer.
    pub(crate) fn far(&mut self, wish: &str) -> String {
        match &mut self.far {
            Far::Here(reader) => reader.answer(wish),
            Far::There(peer) => {
                peer.tell(wish);
                peer.next_report()
            }
        }
    }

    /// A handle on a file of its own, that says its name.
    pub(crate) fn file(&self, name: &str) -> Handle {
        let path = self.dir.file(name);
        std::fs::write(&path, name).unwrap();
        Handle::new(std::fs::File::options().read(true).write(true).open(path).unwrap())
    }

    /// Sends `data` with these handles, as they are.
    #[expect(clippy::result_large_err, reason = "the error gives the message back")]
    pub(crate) fn send(
        &mut self,
        data: &str,
        handles: Vec<Handle>,
    ) -> Result<(), SendError<MessagePacket>> {
        let mut packet = MessagePacket::from(data.as_bytes());
        packet.handles = handles;
        self.tx.send_packet(packet)
    }

    /// Sends `data` with what becomes of this list.
    pub(crate) fn send_list(&mut self, data: &str, list: &mut [HandleDisposition<'_>]) {
        let handles = HandleDisposition::resolve_all(list, &[]).unwrap();
        self.send(data, handles).unwrap();
    }

    /// Sees that nothing has come, and that what is sent next does.
    pub(crate) fn nothing_came(&mut self) {
        assert_eq!(self.far("read"), "empty");
        self.send("next", vec![self.file("next")]).unwrap();
        assert_eq!(self.far("read"), message("next", &["next"]));
    }
}

/// The answer to `read` where `data` came with such files, all of which may be read and written.
pub(crate) fn message(data: &str, files: &[&str]) -> String {
    let rights = Rights::BASIC | Rights::IO | Rights::MAP;
    let files: Vec<_> = files.iter().map(|name| one("file", rights, name)).collect();
    message_of(data, &files)
}

/// The same with handles of any kind.
pub(crate) fn message_of(data: &str, handles: &[String]) -> String {
    format!("{data:?} with [{}]", handles.join(", "))
}

/// A handle of such a type, with such rights, on a file that says its name.
pub(crate) fn one(kind: &str, rights: Rights, name: &str) -> String {
    format!("{kind} {name:?} {rights}")
}

impl<K: Kind> Reader<K> {
    fn new(path: &Path) -> Self {
        let (_, mut rx) = open(path);
        rx.attach().unwrap();
        Self { rx: Some(rx), held: Vec::new() }
    }

    /// Does what it is told: `read`, `hold`, `parts BYTES HANDLES`, `discard BYTES HANDLES`,
    /// `write TEXT` through what it holds, `close` that, `go`.
    fn answer(&mut self, wish: &str) -> String {
        let words: Vec<_> = wish.split(' ').collect();
        let room = |word: usize| words[word].parse().unwrap();
        match words[0] {
            "read" => self.read().map_or_else(told, |message| shown(&message)),
            "hold" => self.read().map_or_else(told, |message| {
                let text = shown(&message);
                self.held.extend(message.handles);
                text
            }),
            "parts" => self.parts(room(1), room(2), Receiver::try_recv_parts),
            "discard" => self.parts(room(1), room(2), Receiver::try_recv_parts_or_discard),
            "write" => {
                let written = rustix::io::write(&self.held[0], words[1].as_bytes());
                written.unwrap().to_string()
            }
            "close" => std::mem::take(&mut self.held).len().to_string(),
            "go" => self.rx.take().map_or_else(String::new, |_| "gone".into()),
            other => panic!("no such wish: {other}"),
        }
    }

    fn read(&mut self) -> Result<MessagePacket, TryRecvError> {
        self.rx.as_mut().unwrap().try_recv()
    }

    fn parts(&mut self, room: usize, available_handles: usize, read: ReadParts<K>) -> String {
        let mut bytes = vec![0; room];
        let mut handles: Vec<_> = (0..available_handles).map(|_| None).collect();
        let taken = read(self.rx.as_mut().unwrap(), &mut bytes, &mut handles);
        taken.map_or_else(told, |(len, count)| format!("{len} bytes, {count} handles"))
    }
}

type ReadParts<K> =
    fn(&mut Receiver<K>, &mut [u8], &mut [Option<Handle>]) -> Result<(usize, usize), TryRecvError>;

/// What came, with the name that each file says; all of it close-on-exec.
fn shown(message: &MessagePacket) -> String {
    let shown = message.handles.iter().map(|handle| {
        let flags = rustix::io::fcntl_getfd(handle.as_fd()).unwrap();
        assert!(flags.contains(FdFlags::CLOEXEC), "programs started here would inherit it");
        let mut name = [0; 32];
        let len = rustix::io::pread(handle, &mut name, 0).unwrap_or(0);
        let name = String::from_utf8_lossy(&name[..len]);
        one(&handle.handle_type().to_string(), handle.rights(), &name)
    });
    message_of(&String::from_utf8_lossy(&message.data), &Vec::from_iter(shown))
}

/// Why nothing came.
fn told(error: TryRecvError) -> String {
    match error {
        TryRecvError::Empty => "empty".into(),
        TryRecvError::Disconnected => "disconnected".into(),
        TryRecvError::Failed { source: Error::BuffersTooSmall { needed, needed_handles, .. } } => {
            format!("needs {needed} bytes, {needed_handles} handles")
        }
        error => error.to_string(),
    }
}
