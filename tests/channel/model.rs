//! Whatever is done at both ends in whatever order, a channel does what two plain queues would, and has no
//! descriptor open that it should not.
//!
//! What runs here is a hundredth; `PROPTEST_CASES=10000` makes it whole.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use tombolo::handle::HandleDisposition;
use tombolo::object::{CallError, ChannelError, MessageBuf};
use tombolo::{Channel, Handle, MessagePacket, Rights};

use super::ends::{Failure, LONG, SOON, file, open_files, shown, status, with_id};
use super::support::Dir;

/// Cases of a test run.
const CASES: u32 = 100;
/// Calls of an end that wait at once.
const CALLS_MAX: usize = 4;
/// The first id that an end generates.
const FIRST: u32 = 1 << 31;

/// Something to do at one of the two ends.
#[derive(Clone, Debug)]
enum Step {
    Write {
        data: Data,
        handles: usize,
        mode: Mode,
        spoil: Spoil,
    },
    Read(Form),
    /// With an id of its own, or a generated one.
    Call {
        id: Option<u32>,
        handles: usize,
        wait: Wait,
    },
    Close {
        reason: Option<u32>,
    },
}

/// What a message begins with.
#[derive(Clone, Debug)]
enum Data {
    Short(usize),
    /// An id such as calls choose.
    Id(u32),
    /// That of a request which was read at this end: the first or a further reply, in time or late.
    ReplyTo(usize),
}

/// Both modes on failure, and both forms of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Consumes,
    /// With a list, of which every other handle is duplicated.
    ConsumesList,
    Keeps,
    KeepsWithDeadline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spoil {
    Nothing,
    TooLong,
    /// The last handle lacks the right to be sent.
    Weak,
}

#[derive(Clone, Copy, Debug)]
enum Form {
    Whole,
    Waiting,
    Buffer,
    Info,
    Parts { is_small: bool },
    OrDiscard { is_small: bool },
    Check { agrees: bool },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The deadline has passed: the request is sent, and its reply is a message.
    Not,
    ForReply,
}

/// A message in a plain queue.
#[derive(Clone, Debug)]
struct Sent {
    data: Vec<u8>,
    handles: Vec<String>,
    is_request: bool,
}

impl Sent {
    fn shown(&self) -> String {
        let data = self.data.escape_ascii().to_string();
        let handles = self.handles.join(" ");
        if handles.is_empty() { data } else { format!("{data} with {handles}") }
    }

    fn id(&self) -> Option<u32> {
        self.data.first_chunk().map(|id| u32::from_ne_bytes(*id))
    }
}

type Called = Result<MessagePacket, CallError>;

/// An end, and what is known of it.
struct Side {
    end: Arc<Channel>,
    is_open: bool,
    reason: Option<u32>,
    /// What is to be read here.
    queue: VecDeque<Sent>,
    calls: BTreeMap<u32, JoinHandle<Called>>,
    next_id: u32,
    /// Ids of requests that were read here.
    asked: Vec<u32>,
}

/// How often each thing came about.
type Counts = BTreeMap<&'static str, usize>;

struct Pair<'a> {
    dir: &'a Path,
    sides: [Side; 2],
    made: usize,
    counts: &'a mut Counts,
}

impl<'a> Pair<'a> {
    fn new(dir: &'a Path, counts: &'a mut Counts) -> Self {
        let ends: [Channel; 2] = Channel::create().unwrap().into();
        let sides = ends.map(|end| Side {
            end: Arc::new(end),
            is_open: true,
            reason: None,
            queue: VecDeque::new(),
            calls: BTreeMap::new(),
            next_id: FIRST,
            asked: Vec::new(),
        });
        Self { dir, sides, made: 0, counts }
    }

    fn step(&mut self, side: usize, step: &Step) {
        match step {
            Step::Write { data, handles, mode, spoil } => {
                let sent = self.sent(side, data, *handles);
                self.write(side, sent, *mode, *spoil);
            }
            Step::Read(form) => self.read(side, *form),
            Step::Call { id, handles, wait } => self.call(side, *id, *handles, *wait),
            Step::Close { reason } => self.close(side, *reason),
        }
        // A reply out of turn lets an end have the handles of unread messages before it.
        let unread = self.sides.iter().flat_map(|side| &side.queue).map(|sent| sent.handles.len());
        let (unread, start) = (unread.sum::<usize>(), Instant::now());
        while open_files(self.dir) > unread {
            // A caller's thread closes its copies behind the sending of its request.
            assert!(start.elapsed() < SOON, "{} descriptors are left open", open_files(self.dir));
            thread::yield_now();
        }
        for side in [0, 1] {
            self.expect_reason(side);
        }
    }

    fn count(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    /// A message that no other is like.
    fn sent(&mut self, side: usize, data: &Data, handles: usize) -> Sent {
        self.made += 1;
        let number = self.made;
        let asked = &self.sides[side].asked;
        let with_id = |id| with_id(id, &number.to_string());
        let data = match data {
            Data::Short(len) => vec![number as u8; *len],
            Data::Id(id) => with_id(*id),
            Data::ReplyTo(which) => {
                with_id(asked.get(which % (asked.len() + 1)).copied().unwrap_or(7))
            }
        };
        let handles = (0..handles).map(|index| format!("{number}-{index}")).collect();
        Sent { data, handles, is_request: false }
    }

    fn message(&self, sent: &Sent) -> MessagePacket {
        let mut message = MessagePacket::from(&sent.data[..]);
        message.handles = sent.handles.iter().map(|name| file(self.dir, name)).collect();
        message
    }

    fn write(&mut self, side: usize, mut sent: Sent, mode: Mode, spoil: Spoil) {
        if spoil == Spoil::TooLong {
            sent.data = vec![7; 65537];
        }
        let mut given = self.message(&sent);
        let weak = (spoil == Spoil::Weak).then(|| given.handles.pop()).flatten();
        let is_weak = weak.is_some();
        given.handles.extend(weak.map(|handle| handle.replace(Rights::READ).unwrap()));
        let (this, peer) = (&self.sides[side], &self.sides[1 - side]);
        let wanted = match () {
            () if !this.is_open => "BAD_HANDLE",
            () if spoil == Spoil::TooLong => "OUT_OF_RANGE",
            () if is_weak => "ACCESS_DENIED",
            () if !peer.is_open => "PEER_CLOSED",
            () => "OK",
        };
        let back = match mode {
            Mode::Consumes => {
                assert_eq!(status(this.end.write(given)), wanted);
                None
            }
            Mode::ConsumesList => {
                assert_eq!(write_list(&this.end, given), wanted);
                None
            }
            Mode::Keeps => this.end.try_write(given).err(),
            Mode::KeepsWithDeadline => this.end.write_timeout(given, LONG).err(),
        };
        if let Some(back) = back {
            assert_eq!(back.outcome(), wanted);
            assert_eq!(shown(&back.message), sent.shown(), "as it was given");
            self.count("messages given back");
        } else if wanted == "OK" {
            self.deliver(1 - side, sent);
        } else {
            self.count("messages consumed by a failure");
        }
    }

    /// Brings a message to `side`: to the call that it is the reply to, or to the queue.
    fn deliver(&mut self, side: usize, sent: Sent) {
        let this = &mut self.sides[side];
        let id = sent.id().filter(|_| !sent.is_request);
        match id.and_then(|id| this.calls.remove(&id)) {
            Some(call) => {
                let reply = call.join().unwrap().unwrap();
                assert_eq!(shown(&reply), sent.shown());
                let is_behind = !this.queue.is_empty();
                self.count("replies");
                if is_behind {
                    self.count("replies out of turn");
                }
            }
            None => this.queue.push_back(sent),
        }
    }

    fn read(&mut self, side: usize, form: Form) {
        let (this, peer) = (&self.sides[side], &self.sides[1 - side]);
        let end = this.end.clone();
        let nothing = match form {
            Form::Waiting if peer.is_open => "TIMED_OUT",
            _ if peer.is_open => "SHOULD_WAIT",
            _ => "PEER_CLOSED",
        };
        let nothing = if this.is_open { nothing } else { "BAD_HANDLE" };
        let Some(first) = this.queue.front().cloned() else {
            let told = read_as(&end, form, (0, 0)).map(|read| read.map(|message| shown(&message)));
            assert_eq!(told.unwrap_err().outcome(), nothing);
            self.count("reads of nothing");
            return;
        };
        let read = read_as(&end, form, (first.data.len(), first.handles.len()));
        match read {
            Ok(Some(message)) => assert_eq!(shown(&message), first.shown()),
            Ok(None) => {
                self.count("messages that a check left");
                return;
            }
            Err(ChannelError::BufferTooSmall { needed, needed_handles, is_discarded, .. }) => {
                assert_eq!((needed, needed_handles), (first.data.len(), first.handles.len()));
                if !is_discarded {
                    self.count("messages that did not fit");
                    return;
                }
                self.count("messages discarded");
            }
            Err(error) => panic!("{error}"),
        }
        self.take(side);
    }

    /// Takes the first message out of the plain queue.
    fn take(&mut self, side: usize) {
        let this = &mut self.sides[side];
        let taken = this.queue.pop_front().unwrap();
        this.asked.extend(taken.id().filter(|_| taken.is_request));
        self.count("messages read");
    }

    fn call(&mut self, side: usize, id: Option<u32>, handles: usize, wait: Wait) {
        let data = Data::Id(id.unwrap_or(0));
        let mut sent = self.sent(side, &data, handles);
        let given = self.message(&sent);
        let (is_open, has_peer) = (self.sides[side].is_open, self.sides[1 - side].is_open);
        let this = &mut self.sides[side];
        let is_taken = id.is_some_and(|id| this.calls.contains_key(&id));
        let wanted = match () {
            () if !is_open => "BAD_HANDLE",
            () if is_taken => "ALREADY_EXISTS",
            () if !has_peer => "PEER_CLOSED",
            () => "OK",
        };
        if wanted != "OK" {
            let failed = call_as(&this.end, id, given, LONG).unwrap_err();
            assert_eq!(failed.outcome(), format!("{wanted} in the write phase"));
            assert_eq!(shown(&failed.message.unwrap()), sent.shown(), "as it was given");
            self.count("calls that failed in the write phase");
            return;
        }
        let own = id.unwrap_or(this.next_id);
        this.next_id += u32::from(id.is_none());
        sent.data[..4].copy_from_slice(&own.to_ne_bytes());
        sent.is_request = true;
        if wait == Wait::Not || this.calls.len() == CALLS_MAX {
            let late = call_as(&this.end, id, given, Duration::ZERO).unwrap_err();
            assert_eq!(late.outcome(), "TIMED_OUT in the read phase");
            self.deliver(1 - side, sent);
            self.count("calls that timed out");
            return;
        }
        // Whether the request is under way is seen only once it can be read.
        while let Some(next) = self.sides[1 - side].queue.front().map(Sent::shown) {
            assert_eq!(shown(&self.sides[1 - side].end.read().unwrap()), next);
            self.take(1 - side);
        }
        let end = self.sides[side].end.clone();
        let call = thread::spawn(move || call_as(&end, id, given, LONG));
        let request = self.sides[1 - side].end.read_timeout(LONG).unwrap();
        assert_eq!(shown(&request), sent.shown());
        self.sides[1 - side].asked.push(own);
        self.sides[side].calls.insert(own, call);
    }

    fn close(&mut self, side: usize, reason: Option<u32>) {
        let this = &mut self.sides[side];
        match reason {
            Some(code) => this.end.close_with_reason(code, "as told"),
            None => this.end.close(),
        }
        if !std::mem::replace(&mut this.is_open, false) {
            return;
        }
        this.reason = reason;
        this.queue.clear();
        let canceled = std::mem::take(&mut this.calls);
        let ended = std::mem::take(&mut self.sides[1 - side].calls);
        for (calls, wanted) in [(canceled, "CANCELED"), (ended, "PEER_CLOSED")] {
            for call in calls.into_values() {
                let failed = call.join().unwrap().unwrap_err();
                assert_eq!(failed.outcome(), format!("{wanted} in the read phase"));
                self.count("calls that a close ended");
            }
        }
    }

    fn expect_reason(&self, side: usize) {
        let (this, peer) = (&self.sides[side], &self.sides[1 - side]);
        let told = this.end.close_reason().map(|reason| reason.map(|reason| reason.code));
        if !this.is_open {
            return assert_eq!(status(told), "BAD_HANDLE");
        }
        let wanted = peer.reason.filter(|_| this.queue.is_empty());
        assert_eq!(told.unwrap(), wanted);
    }
}

fn write_list(end: &Channel, mut given: MessagePacket) -> String {
    let handles = std::mem::take(&mut given.handles);
    let is_moved: BTreeSet<_> = (0..handles.len()).filter(|index| index % 2 == 0).collect();
    let mut moved: VecDeque<_> = VecDeque::new();
    let mut kept = Vec::new();
    for (index, handle) in handles.into_iter().enumerate() {
        let is_weak = !handle.rights().contains(Rights::DUPLICATE);
        if is_moved.contains(&index) || is_weak {
            moved.push_back((index, handle));
        } else {
            kept.push((index, handle));
        }
    }
    let mut list: Vec<_> = kept
        .iter()
        .map(|(index, handle)| (*index, HandleDisposition::duplicate(handle)))
        .chain(moved.into_iter().map(|(index, handle)| (index, HandleDisposition::moved(handle))))
        .collect();
    list.sort_by_key(|(index, _)| *index);
    let mut list: Vec<_> = list.into_iter().map(|(_, disposition)| disposition).collect();
    status(end.write_etc(&given.data, &mut list))
}

fn call_as(end: &Channel, id: Option<u32>, given: MessagePacket, wait: Duration) -> Called {
    if id.is_some() { end.call_with_txid(given, wait) } else { end.call(given, wait) }
}

/// Reads in one of the forms a message of so many bytes and handles; `None` if a check left it.
fn read_as(
    end: &Channel,
    form: Form,
    (len, handle_count): (usize, usize),
) -> Result<Option<MessagePacket>, ChannelError> {
    let parts = |is_small: bool, or_discard: bool| {
        let mut bytes = vec![0; len.saturating_sub(is_small.into())];
        let less = usize::from(is_small && len == 0);
        let count = handle_count.saturating_sub(less);
        let mut handles: Vec<Option<Handle>> = (0..count).map(|_| None).collect();
        let read = if or_discard {
            end.read_or_discard(&mut bytes, &mut handles)
        } else {
            end.read_parts(&mut bytes, &mut handles)
        };
        assert_eq!(read?, (len, handle_count));
        let mut message = MessagePacket::from(bytes);
        message.handles = handles.into_iter().flatten().collect();
        Ok(Some(message))
    };
    match form {
        Form::Whole => end.read().map(Some),
        Form::Waiting => end.read_timeout(Duration::ZERO).map(Some),
        Form::Buffer => {
            let mut buffer = MessageBuf::new();
            end.read_into(&mut buffer)?;
            let (bytes, handles) = buffer.into_parts();
            let mut message = MessagePacket::from(bytes);
            message.handles = handles;
            Ok(Some(message))
        }
        Form::Info => {
            let (bytes, infos) = end.read_etc()?;
            let mut message = MessagePacket::from(bytes);
            message.handles = infos.into_iter().map(|info| info.handle).collect();
            Ok(Some(message))
        }
        Form::Parts { is_small } => parts(is_small, false),
        Form::OrDiscard { is_small } => parts(is_small, true),
        Form::Check { agrees } => {
            let checked = end.check_and_read(|bytes, count| {
                assert_eq!((bytes.len(), count), (len, handle_count));
                if agrees { Ok(()) } else { Err(ChannelError::Canceled) }
            });
            match checked {
                Err(ChannelError::Canceled) => Ok(None),
                checked => checked.map(Some),
            }
        }
    }
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let data = prop_oneof![
        1 => (0..4_usize).prop_map(Data::Short),
        2 => (0..6_u32).prop_map(Data::Id),
        6 => (0..64_usize).prop_map(Data::ReplyTo),
    ];
    let mode = prop_oneof![
        Just(Mode::Consumes),
        Just(Mode::ConsumesList),
        Just(Mode::Keeps),
        Just(Mode::KeepsWithDeadline),
    ];
    let spoil =
        prop_oneof![8 => Just(Spoil::Nothing), 1 => Just(Spoil::TooLong), 1 => Just(Spoil::Weak)];
    let write = (data, 0..3_usize, mode, spoil)
        .prop_map(|(data, handles, mode, spoil)| Step::Write { data, handles, mode, spoil });
    let form = prop_oneof![
        3 => Just(Form::Whole),
        1 => Just(Form::Waiting),
        1 => Just(Form::Buffer),
        1 => Just(Form::Info),
        1 => any::<bool>().prop_map(|is_small| Form::Parts { is_small }),
        1 => any::<bool>().prop_map(|is_small| Form::OrDiscard { is_small }),
        1 => any::<bool>().prop_map(|agrees| Form::Check { agrees }),
    ];
    let wait = prop_oneof![1 => Just(Wait::Not), 4 => Just(Wait::ForReply)];
    let call = (proptest::option::of(0..6_u32), 0..3_usize, wait)
        .prop_map(|(id, handles, wait)| Step::Call { id, handles, wait });
    let reason = proptest::option::of(any::<u32>());
    let step = prop_oneof![
        40 => write,
        20 => form.prop_map(Step::Read),
        20 => call,
        1 => reason.prop_map(|reason| Step::Close { reason }),
    ];
    (0..2_usize, step)
}

#[test]
fn a_channel_does_what_two_plain_queues_would() {
    let cases = std::env::var("PROPTEST_CASES").map_or(CASES, |cases| cases.parse().unwrap());
    let config = ProptestConfig { cases, failure_persistence: None, ..Default::default() };
    let counts = std::cell::RefCell::new(Counts::new());
    let steps = proptest::collection::vec(step(), 1..80);
    let ran = TestRunner::new(config).run(&steps, |steps| {
        let (dir, mut counts) = (Dir::new(), counts.borrow_mut());
        std::fs::create_dir(dir.file("files")).unwrap();
        let mut pair = Pair::new(dir.path(), &mut counts);
        steps.iter().for_each(|(side, step)| pair.step(*side, step));
        pair.close(0, None);
        pair.close(1, None);
        assert_eq!(open_files(dir.path()), 0);
        Ok(())
    });
    ran.unwrap();
    let counts = counts.into_inner();
    println!("{cases} cases: {counts:#?}");
    assert!(counts.len() == 12 && counts.values().all(|count| *count > 0));
}
