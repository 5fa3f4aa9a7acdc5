//! Prints the lines that `quickstart_send` sends from a second terminal, until it is gone and all
//! of them are printed. Either may start first.
//!
//! ```text
//! cargo run --release --example quickstart_recv [NAME]
//! ```

use std::error::Error;
use std::io::{self, Write};
use std::{env, process::ExitCode};

use tombolo::{EventsRegion, RecvError};

fn main() -> ExitCode {
    match run() {
        Ok(count) => {
            eprintln!("received {count} lines");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("quickstart_recv: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u64, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let name = arguments.next().unwrap_or("quickstart".into());
    if arguments.next().is_some() {
        return Err("usage: quickstart_recv [NAME]".into());
    }
    let mut region = EventsRegion::open(&name.to_string_lossy())?; // creates it or joins it
    let (_, mut rx) = region.split_spsc()?;
    let mut out = io::stdout().lock();

    let mut count = 0;
    loop {
        let record = match rx.recv_ref() {
            Ok(record) => record,
            Err(RecvError::Disconnected) => return Ok(count), // the sender is gone, the ring empty
            Err(error) => return Err(error.into()),
        };
        let mut line = record.to_vec()?;
        line.push(b'\n');
        if let Err(error) = out.write_all(&line) {
            record.keep(); // not printed, so not taken: the next receiver gets it
            return Err(error.into());
        }
        count += 1; // dropping the record takes it, and not before it was printed
    }
}
