//! Sends the lines of its standard input. With `quickstart_recv` in a second terminal; either may
//! start first.
//!
//! ```text
//! cargo run --release --example quickstart_send [NAME]
//! ```

use std::error::Error;
use std::io::{self, BufRead};
use std::{env, process::ExitCode};

use tombolo::{Deadline, EventsRegion, SendError};

fn main() -> ExitCode {
    match run() {
        Ok(count) => {
            eprintln!("sent {count} lines");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("quickstart_send: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<u64, Box<dyn Error>> {
    let mut arguments = env::args_os().skip(1);
    let name = arguments.next().unwrap_or("quickstart".into());
    if arguments.next().is_some() {
        return Err("usage: quickstart_send [NAME]".into());
    }
    let mut region = EventsRegion::open(&name.to_string_lossy())?; // creates it or joins it
    let (mut tx, _) = region.split_spsc()?;
    tx.attach()?; // tells now, and not with the first line, that another process is sending

    let mut count = 0;
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        while let Err(error) = tx.send(&line) {
            match error {
                SendError::Disconnected(()) => {
                    eprintln!("the ring is full and its receiver is gone; waiting for the next");
                    tx.wait_for_peer(Deadline::NEVER)?;
                }
                other => return Err(other.into()),
            }
        }
        count += 1; // in the region: it will be received, whatever happens to this process
    }
    Ok(count)
}
