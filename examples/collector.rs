//! Many writers send lines to one collector, which appends them to a file, each once. Every process may
//! be killed and started again at any time, and Ctrl-C ends each of them cleanly.
//!
//! ```text
//! cargo run --release --example collector -- collect FILE WRITERS [NAME]
//! cargo run --release --example collector -- write LABEL [NAME]
//! ```
//!
//! A writer reads lines from its standard input until that ends, and prints those that it has sent. LABEL
//! goes in front of each in the file. The
//! collector ends when WRITERS writers have come and all are gone; one that is started again counts
//! again. What it has not taken then stays for the next collector.

use std::collections::HashMap;
use std::env::args;
use std::error::Error;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use tombolo::options::Disconnect;
use tombolo::{
    Deadline, EventsRegion, Interrupter, MpscConsumer, RecvTimeoutError, SendError,
    SendTimeoutError, TryRecvError,
};

/// How long to wait before looking whether all is over.
const LOOK_EVERY: Duration = Duration::from_millis(100);

const USAGE: &str = "usage: collector collect FILE WRITERS [NAME] | collector write LABEL [NAME]";

fn main() -> ExitCode {
    let arguments: Vec<_> = args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["collect", file, writers] => collect("collector", file, writers),
        ["collect", file, writers, name] => collect(name, file, writers),
        ["write", label] => write("collector", label),
        ["write", label, name] => write(name, label),
        _ => Err(USAGE.into()),
    };
    match done {
        Ok(count) => {
            eprintln!("collector: {count} lines");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("collector: {error}");
            ExitCode::FAILURE
        }
    }
}

/// How often Ctrl-C was pressed. Each time, the interrupter ends the call that blocks, or the next one.
fn count_ctrl_c(interrupter: Interrupter) -> Result<Arc<AtomicU32>, ctrlc::Error> {
    let count = Arc::new(AtomicU32::new(0));
    let counted = count.clone();
    ctrlc::set_handler(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        interrupter.interrupt();
    })?;
    Ok(count)
}

fn collect(name: &str, file: &str, writers: &str) -> Result<u64, Box<dyn Error>> {
    let writers: u64 = writers.parse().map_err(|_| USAGE)?;
    let mut region = EventsRegion::open(name)?;
    let mut log = Log::open(file, region.uuid())?;
    let (_, mut rx) = region.split_mpsc()?;
    rx.set_disconnect(Disconnect::Never); // writers come and go; `is_over` says when all are done
    let ctrl_c = count_ctrl_c(rx.interrupter())?;
    let mut count = 0;
    loop {
        match rx.recv_ref_timeout(LOOK_EVERY) {
            Ok(record) => {
                // Killed before the record is dropped, the next collector gets it again, and knows it.
                let at = (record.ring(), record.position());
                count += u64::from(log.append(at, &record.to_vec()?)?);
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Interrupted) => {
                eprintln!("collector: taking what the writers leave; Ctrl-C again to leave it");
            }
            Err(error) => return Err(error.into()),
        }
        let pressed = ctrl_c.load(Ordering::SeqCst);
        let writers = if pressed > 0 { 0 } else { writers };
        if pressed > 1 || is_over(&mut rx, writers)? {
            return Ok(count);
        }
    }
}

/// Whether so many writers have come, all are gone, and all that they sent was taken.
fn is_over(rx: &mut MpscConsumer, writers: u64) -> Result<bool, Box<dyn Error>> {
    let peers = rx.peers()?;
    if peers.alive > 0 || peers.ever < writers {
        return Ok(false);
    }
    match rx.try_recv_ref() {
        Ok(record) => {
            record.keep(); // sent at the last moment
            Ok(false)
        }
        Err(TryRecvError::Empty) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// The file, in which each line follows the region's id, and the ring and the position of its message. The
/// position alone would do for `MpscOrder::Total`, which has one ring; those of lanes repeat between them.
struct Log {
    file: File,
    region: String,
    /// The position of the last message in it, of each ring of this region.
    last: HashMap<u32, u64>,
}

impl Log {
    /// Opens the file, and removes half a line that a killed collector may have left.
    fn open(path: &str, uuid: [u8; 16]) -> io::Result<Self> {
        let region = format!("{:032x}", u128::from_be_bytes(uuid));
        let file = File::options().create(true).read(true).append(true).open(path)?;
        let (mut reader, mut line) = (BufReader::new(&file), vec![]);
        let (mut last, mut len) = (HashMap::new(), 0);
        while reader.read_until(b'\n', &mut line)? > 0 && line.ends_with(b"\n") {
            let mut words = line.split(|byte| *byte == b' ').map(str::from_utf8);
            let mut word = || words.next().and_then(Result::ok);
            let (Some(of), Some(ring), Some(position)) = (word(), word(), word()) else {
                return Err(io::Error::other("not a collector's file"));
            };
            if of == region {
                let ring = ring.parse().map_err(io::Error::other)?;
                last.insert(ring, position.parse().map_err(io::Error::other)?);
            }
            len += line.len() as u64;
            line.clear();
        }
        file.set_len(len)?;
        Ok(Self { file, region, last })
    }

    /// Appends a line unless the file has it, and gives whether it had not. The positions of a ring only grow.
    fn append(&mut self, (ring, position): (u32, u64), line: &[u8]) -> io::Result<bool> {
        let is_known = |last: &u64| position.wrapping_sub(*last) as i64 <= 0;
        if self.last.get(&ring).is_some_and(is_known) {
            return Ok(false);
        }
        let mut bytes = format!("{} {ring} {position} ", self.region).into_bytes();
        bytes.extend_from_slice(line);
        bytes.push(b'\n');
        self.file.write_all(&bytes)?;
        self.last.insert(ring, position);
        Ok(true)
    }
}

fn write(name: &str, label: &str) -> Result<u64, Box<dyn Error>> {
    let (mut tx, _) = EventsRegion::open(name)?.split_mpsc()?;
    let ctrl_c = count_ctrl_c(tx.interrupter())?;
    tx.attach()?;
    let lines = lines_of_stdin();
    let mut count = 0;
    while ctrl_c.load(Ordering::SeqCst) == 0 {
        let line = match lines.recv_timeout(LOOK_EVERY) {
            Ok(line) => line?,
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => break, // the input has ended
        };
        let message = format!("{label} {line}");
        loop {
            match tx.send(message.as_bytes()) {
                Ok(()) => {
                    // It will be collected, whatever happens to this process.
                    writeln!(io::stdout(), "{line}")?;
                    count += 1;
                    break;
                }
                Err(SendError::Interrupted(())) => return Ok(count), // this line was not sent
                Err(SendError::Disconnected(())) => {
                    eprintln!("collector: the ring is full and the collector gone; start it again");
                    match tx.wait_for_peer(Deadline::NEVER) {
                        Err(SendTimeoutError::Interrupted(())) => return Ok(count),
                        waited => waited?,
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(count)
}

/// Lines of the standard input, read by a thread of their own: nothing ends a read that blocks.
fn lines_of_stdin() -> mpsc::Receiver<io::Result<String>> {
    let (lines, received) = mpsc::sync_channel(64);
    thread::spawn(move || io::stdin().lines().try_for_each(|line| lines.send(line)));
    received
}
