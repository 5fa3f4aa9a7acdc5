//! Two terminals talk. Each program waits in one `epoll` for what is typed, for lines of the other side, and
//! for space if the other side is slow.
//!
//! ```text
//! cargo run --release --example epoll first [NAME]
//! cargo run --release --example epoll second [NAME]
//! ```
//!
//! Either may start first. Each ends once both sides have ended their input, with Ctrl-D.

use std::error::Error;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::{env, process::ExitCode};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use tombolo::ends::{Readiness, Topology};
use tombolo::{EventsRegion, Receiver, Sender, TryRecvError, TrySendError};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("epoll: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (side, name) = match &arguments[..] {
        [side] => (side, "talk"),
        [side, name] => (side, name.as_str()),
        _ => return Err("usage: epoll first|second [NAME]".into()),
    };
    let mut region = EventsRegion::open(name)?;
    // One ring for each direction.
    let (to_second, from_first) = region.split_spsc()?;
    let (to_first, from_second) = region.split_mpsc()?;
    match side.as_str() {
        "first" => Talk::new(to_second, from_second)?.run(),
        "second" => Talk::new(to_first, from_first)?.run(),
        other => Err(format!("{other:?} is no side: first or second").into()),
    }
}

const INPUT: u64 = 0;
const RECEIVER: u64 = 1;
const SENDER: u64 = 2;

struct Talk<S: Topology, R: Topology> {
    /// `None` once all is sent that ever will be.
    tx: Option<Sender<S>>,
    rx: Receiver<R>,
    epoll: OwnedFd,
    /// What was typed and not sent yet.
    typed: Vec<u8>,
    input: Input,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Open,
    /// A file, which no `epoll` takes and which is always ready.
    File,
    Ended,
}

impl<S: Topology, R: Topology> Talk<S, R> {
    fn new(mut tx: Sender<S>, mut rx: Receiver<R>) -> Result<Self, Box<dyn Error>> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        // Edges: each end is called until there is nothing to do before the next wait.
        for (ready, data) in
            [(Readiness::of(&mut rx)?, RECEIVER), (Readiness::of(&mut tx)?, SENDER)]
        {
            let flags = EventFlags::IN | EventFlags::ET; // also that of a sender is *readable*
            epoll::add(&epoll, &ready, EventData::new_u64(data), flags)?;
        }
        let input = match epoll::add(&epoll, io::stdin(), EventData::new_u64(INPUT), EventFlags::IN)
        {
            Ok(()) => Input::Open,
            Err(Errno::PERM) => Input::File,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { tx: Some(tx), rx, epoll, typed: Vec::new(), input })
    }

    fn run(mut self) -> Result<(), Box<dyn Error>> {
        loop {
            let is_peer_gone = self.receive_all()?;
            self.send_all()?;
            if self.tx.is_none() && is_peer_gone {
                return Ok(());
            }
            let is_typed = self.wait()?;
            if is_typed && !self.typed.contains(&b'\n') {
                self.read_input()?;
            }
        }
    }

    /// Prints every line that is there. Gives whether no more will come.
    fn receive_all(&mut self) -> Result<bool, Box<dyn Error>> {
        let mut out = io::stdout().lock();
        loop {
            match self.rx.try_recv() {
                Ok(line) => out.write_all(&[&line.data[..], b"\n"].concat())?,
                Err(TryRecvError::Empty) => return Ok(false),
                Err(TryRecvError::Disconnected) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends every whole line, as far as there is space.
    fn send_all(&mut self) -> Result<(), Box<dyn Error>> {
        let Some(tx) = &mut self.tx else { return Ok(()) };
        let mut sent = 0;
        let outcome = loop {
            let rest = &self.typed[sent..];
            let Some(len) = rest.iter().position(|byte| *byte == b'\n') else { break Ok(()) };
            match tx.try_send(&rest[..len]) {
                Ok(()) => sent += len + 1,
                Err(TrySendError::Full(()) | TrySendError::Contended { .. }) => break Ok(()),
                Err(error) => break Err(error.into()),
            }
        };
        self.typed.drain(..sent);
        if self.input == Input::Ended && self.typed.is_empty() {
            self.tx = None; // the other side learns of that
        }
        outcome
    }

    /// Waits for anything. Gives whether there is input to be read.
    fn wait(&mut self) -> Result<bool, Box<dyn Error>> {
        let has_line = self.typed.contains(&b'\n'); // and no space for it: what is typed can wait
        match self.input {
            Input::File if !has_line => return Ok(true),
            Input::Open => {
                let flags = if has_line { EventFlags::empty() } else { EventFlags::IN };
                epoll::modify(&self.epoll, io::stdin(), EventData::new_u64(INPUT), flags)?;
            }
            Input::File | Input::Ended => {}
        }
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 3];
        let count = match epoll::wait(&self.epoll, &mut events[..], None) {
            Err(Errno::INTR) => 0,
            waited => waited?,
        };
        Ok(events[..count].iter().any(|event| event.data.u64() == INPUT))
    }

    fn read_input(&mut self) -> Result<(), Box<dyn Error>> {
        let mut chunk = [0; 4096];
        let len = rustix::io::retry_on_intr(|| rustix::io::read(io::stdin(), &mut chunk))?;
        self.typed.extend(&chunk[..len]);
        if len == 0 {
            if self.input == Input::Open {
                epoll::delete(&self.epoll, io::stdin())?;
            }
            self.input = Input::Ended;
            if !self.typed.is_empty() {
                self.typed.push(b'\n'); // the last line had no end
            }
        }
        Ok(())
    }
}
