//! Two processes and a channel between them: one keeps values by name, the other asks for them. Who asks for a
//! value that is not there yet is answered when it comes, so replies come in another order than requests.
//!
//! ```text
//! cargo run --release --example call_reply
//! ```
//!
//! The program starts itself as the keeper, with the channel's path as argument. Three threads ask for three
//! values; then these are stored, the last one first, and each thread gets its own reply.

use std::collections::HashMap;
use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, ExitCode};
use std::thread;
use std::time::Duration;

use tombolo::object::ChannelError;
use tombolo::{Channel, Deadline};

/// What a message begins with: which call it belongs to. The channel fills it in for who calls.
const TXID_LEN: usize = 4;

/// How long to wait for a reply.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() -> ExitCode {
    let done = match env::args_os().nth(1) {
        None => ask(),
        Some(path) => keep(Path::new(&path)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("call_reply: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The keeper, which ends when the other end of the channel is closed or its process was killed.
fn keep(path: &Path) -> Result<(), Box<dyn Error>> {
    let channel = Channel::open_path(path)?;
    let mut values: HashMap<String, String> = HashMap::new();
    let mut waiting: HashMap<String, Vec<[u8; TXID_LEN]>> = HashMap::new();
    loop {
        let request = match channel.read_timeout(Deadline::NEVER) {
            Ok(request) => request,
            Err(ChannelError::PeerClosed) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some((txid, text)) = request.data.split_first_chunk() else { continue };
        let text = String::from_utf8_lossy(text);
        match text.split_once('=') {
            // Those who have waited are answered first.
            Some((key, value)) => {
                values.insert(key.to_owned(), value.to_owned());
                for earlier in waiting.remove(key).unwrap_or_default() {
                    answer(&channel, earlier, value)?;
                }
                answer(&channel, *txid, "stored")?;
            }
            None => match values.get(&*text) {
                Some(value) => answer(&channel, *txid, value)?,
                None => waiting.entry(text.into_owned()).or_default().push(*txid),
            },
        }
    }
}

/// A reply is a message that begins as its request did.
fn answer(channel: &Channel, txid: [u8; TXID_LEN], text: &str) -> Result<(), ChannelError> {
    channel.write([&txid, text.as_bytes()].concat())
}

fn ask() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?; // it goes with all that is in it
    let path = directory.path().join("values.tombolo");
    let channel = Channel::open_path(&path)?;
    let _keeper = Keeper::start(&path)?;
    thread::scope(|scope| {
        // Any number of threads may call at once.
        let askers = ["first", "second", "third"].map(|key| {
            let asker = scope.spawn(|| call(&channel, key).map_err(|error| error.to_string()));
            (key, asker)
        });
        for (key, asker) in askers.into_iter().rev() {
            println!("{key}: {}", call(&channel, &format!("{key}=the {key} value"))?);
            println!("{key}: {}", asker.join().map_err(|_| "a thread panicked")??);
        }
        Ok(())
    })
}

/// Sends `text` as a request and waits for the reply.
fn call(channel: &Channel, text: &str) -> Result<String, Box<dyn Error>> {
    let request = [&[0; TXID_LEN], text.as_bytes()].concat();
    let reply = channel.call(request, PATIENCE)?;
    Ok(String::from_utf8_lossy(&reply.data[TXID_LEN..]).into_owned())
}

/// The keeper's process. It ends by itself once the channel is closed.
struct Keeper(Child);

impl Keeper {
    fn start(path: &Path) -> Result<Self, Box<dyn Error>> {
        Ok(Self(Command::new(env::current_exe()?).arg(path).spawn()?))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.0.kill(); // in case that something else has failed
        let _ = self.0.wait();
    }
}
