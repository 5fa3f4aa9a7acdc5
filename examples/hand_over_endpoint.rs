//! The end of a conversation moves to another process in the middle of it.
//!
//! ```text
//! cargo run --release --example hand_over_endpoint
//! ```
//!
//! The program makes a channel, answers a first call itself, and then hands the answering end to a process that it
//! starts: itself once more, with the path of a channel to be handed ends over as its argument.

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use tombolo::object::ChannelError;
use tombolo::{Channel, MessagePacket};

/// For what should take no time at all.
const PATIENCE: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let outcome = match env::args_os().nth(1) {
        None => hand_over(),
        Some(path) => take_over(Path::new(&path)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hand_over_endpoint: {error}");
            ExitCode::FAILURE
        }
    }
}

fn hand_over() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?; // it goes with all that is in it
    let path = directory.path().join("to-worker.tombolo");
    let to_worker = Channel::open_path(&path)?;
    let mut worker = Command::new(env::current_exe()?).arg(&path).spawn()?;
    let outcome = converse(&to_worker);
    drop(to_worker); // the worker ends
    let status = worker.wait()?;
    outcome?;
    if status.success() { Ok(()) } else { Err("the worker failed".into()) }
}

fn converse(to_worker: &Channel) -> Result<(), Box<dyn Error>> {
    let (client, server) = Channel::create()?;
    thread::scope(|scope| -> Result<(), Box<dyn Error>> {
        let here = scope.spawn(|| answer_one(&server));
        ask(&client, "Who is there?")?;
        Ok(here.join().expect("the answering thread does not panic")?)
    })?;
    // A question that waits in the end that moves: it is answered by the end's next owner.
    client.write(b"\0\0\0\0Left in the queue")?;
    to_worker.write(MessagePacket::from(b"go on").handle(server.release()?))?;
    ask(&client, "And now?")?;
    println!("left in the queue: {}", text(&client.read_timeout(PATIENCE)?));
    Ok(())
}

fn ask(client: &Channel, question: &str) -> Result<(), Box<dyn Error>> {
    let mut request = vec![0; 4]; // for the transaction id
    request.extend(question.as_bytes());
    let reply = client.call(request, PATIENCE)?;
    println!("{question} {}", text(&reply));
    Ok(())
}

fn take_over(path: &Path) -> Result<(), Box<dyn Error>> {
    let from_parent = Channel::open_path(path)?;
    let mut message = from_parent.read_timeout(PATIENCE)?;
    let server = Channel::from_handle(message.handles.remove(0))?;
    loop {
        match answer_one(&server) {
            Err(ChannelError::PeerClosed) => return Ok(()),
            answered => answered?,
        }
    }
}

/// Answers with the id of the process that does.
fn answer_one(server: &Channel) -> Result<(), ChannelError> {
    let mut message = server.read_timeout(PATIENCE)?;
    message.data.truncate(4);
    message.data.extend(format!("Process {}.", std::process::id()).as_bytes());
    server.write(message)
}

fn text(message: &MessagePacket) -> String {
    String::from_utf8_lossy(&message.data[4..]).into_owned()
}
