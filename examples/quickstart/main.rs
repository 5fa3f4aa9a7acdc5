//! Two processes talk through one file: real input goes out line by line, acknowledgements come
//! back, and what came out is compared with what went in.
//!
//! ```text
//! cargo run --release --example quickstart           # sends this repository's own sources
//! cargo run --release --example quickstart -- FILE   # sends FILE, whatever is in it
//! ```
//!
//! It starts the second process itself, as itself with hidden arguments. Lines go through the
//! region's SPSC ring, acknowledgements through its MPSC ring: a count and a digest of all lines so
//! far. While streaming, the receiver acknowledges each pass over the whole input; in the ping-pong
//! that follows, each line. `sender.rs` and `receiver.rs` are the two processes.

mod input;
mod receiver;
mod report;
mod sender;
mod tally;

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tombolo::inspect::Image;
use tombolo::options::CreatePolicy;
use tombolo::{EventsRegion, OpenOptions};

use input::Input;
use sender::Talk;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: quickstart [FILE]";
/// The hidden first argument of the receiver process.
const RECEIVE: &str = "--receive";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let outcome = match &arguments[..] {
        [] => Input::own_sources().and_then(|input| send(&input)),
        [help] if help == "--help" || help == "-h" => {
            println!("{USAGE}");
            Ok(())
        }
        [file] if !file.as_encoded_bytes().starts_with(b"-") => {
            Input::from_file(file.as_ref()).and_then(|input| send(&input))
        }
        [flag, path, ack_every, parent] if flag == RECEIVE => number(ack_every)
            .and_then(|every| Ok((every, number(parent)? as u32)))
            .and_then(|(every, parent)| receiver::run(path.as_ref(), every, parent)),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("quickstart: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The whole show, in a directory of its own that goes when this returns.
fn send(input: &Input) -> Result<(), Failure> {
    let parent = env::var_os("TOMBOLO_DIR").filter(|path| !path.is_empty());
    let parent = parent.unwrap_or("/dev/shm".into());
    let directory = tempfile::Builder::new()
        .prefix("tombolo-quickstart-")
        .tempdir_in(&parent)
        .map_err(|error| format!("no directory in {}: {error}", Path::new(&parent).display()))?;
    let path = directory.path().join("demo.tombolo");
    let mut region = EventsRegion::open_path_with(&path, options(input))?;
    let mut out = io::stdout().lock();
    report::introduce(&mut out, input, &path)?;

    let mut talk = Talk::begin(&mut region, input.line_count())?;
    let streamed = talk.stream(input).map_err(|failure| talk.explain(failure))?;
    report::streaming(&mut out, input, talk.receiver(), &streamed)?;
    talk.end()?;

    let mut talk = Talk::begin(&mut region, 1)?;
    let times = talk.ping_pong(input).map_err(|failure| talk.explain(failure))?;
    report::round_trips(&mut out, talk.receiver(), times)?;
    report::inspection(&mut out, &Image::open(&path)?)?; // while everybody is still there
    talk.end()?;

    drop(region);
    directory.close()?;
    Ok(())
}

/// A ring takes messages of up to a quarter of it: make it as large as the longest line needs.
fn options(input: &Input) -> OpenOptions {
    let longest = input.longest_line().max(1 << 16);
    let capacity = ((longest as u64 + 64) * 4).next_power_of_two().max(1 << 20);
    OpenOptions::new()
        .policy(CreatePolicy::CreateNew)
        .max_message(longest as u32)
        .spsc_capacity(capacity)
        .mpsc_capacity(capacity)
}

fn number(argument: &OsStr) -> Result<u64, Failure> {
    Ok(argument.to_str().ok_or(USAGE)?.parse()?)
}
