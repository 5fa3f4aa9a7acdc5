//! An open file, a socket and memory cross to a process that knows nothing but the region's name.
//!
//! ```text
//! cargo run --release --example pass_fds
//! ```
//!
//! The program starts itself once more, as the receiver, with the name as its argument.

use std::env;
use std::error::Error;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};
use std::time::Duration;

use rustix::fs::MemfdFlags;
use tombolo::{EventsRegion, Handle, HandleType, MessagePacket, OpenOptions};

fn main() -> ExitCode {
    let outcome = match env::args().nth(1) {
        None => send(),
        Some(name) => receive(&name),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pass_fds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn send() -> Result<(), Box<dyn Error>> {
    let name = format!("pass-fds-{}", std::process::id());
    let options = OpenOptions::new().max_handles(3);
    let mut region = EventsRegion::open_with(&name, options)?;
    let (mut tx, _) = region.split_spsc()?;
    let mut receiver = Command::new(env::current_exe()?).arg(&name).spawn()?;

    let passed = pass(&mut tx);
    let status = receiver.wait();
    if let Some(path) = region.path() {
        std::fs::remove_file(path)?; // the region is not needed any more
    }
    passed?;
    if status?.success() { Ok(()) } else { Err("the receiver failed".into()) }
}

fn pass(tx: &mut tombolo::SpscSender) -> Result<(), Box<dyn Error>> {
    // A file, this very program, behind its first byte.
    let mut file = File::open(env::current_exe()?)?;
    file.seek(SeekFrom::Start(1))?;
    // One end of a conversation.
    let (mut ours, theirs) = UnixStream::pair()?;
    // Memory.
    let mut memory: File = rustix::fs::memfd_create(c"pass-fds", MemfdFlags::CLOEXEC)?.into();
    memory.write_all(b"what is in memory")?;

    let packet = MessagePacket::from(b"file, socket, memory").handle(file).handle(theirs);
    let packet = packet.handle(memory);
    tx.send_packet_timeout(packet, Duration::from_secs(10))?; // waits for the receiver
    println!("sender    {} sent three descriptors", std::process::id());

    ours.write_all(b"a question")?;
    ours.shutdown(std::net::Shutdown::Write)?;
    let mut answer = String::new();
    ours.read_to_string(&mut answer)?;
    println!("sender    was answered {answer:?}");
    Ok(())
}

fn receive(name: &str) -> Result<(), Box<dyn Error>> {
    let mut region = EventsRegion::open(name)?;
    let (_, mut rx) = region.split_spsc()?;
    let message = rx.recv_timeout(Duration::from_secs(10))?;
    let kinds: Vec<HandleType> = message.handles.iter().map(Handle::handle_type).collect();
    println!(
        "receiver  {} got {kinds:?} with {:?}",
        std::process::id(),
        String::from_utf8_lossy(&message.data)
    );

    let mut handles = message.handles.into_iter().map(Handle::into_fd);
    let mut next = || handles.next().ok_or("a descriptor is missing");
    let (mut file, mut socket, mut memory) =
        (File::from(next()?), UnixStream::from(next()?), File::from(next()?));

    let mut next_bytes = [0; 3];
    file.read_exact(&mut next_bytes)?; // from where the sender was
    println!("receiver  read from the file: {:?}", String::from_utf8_lossy(&next_bytes));
    let mut question = String::new();
    socket.read_to_string(&mut question)?;
    memory.seek(SeekFrom::Start(0))?;
    let mut content = String::new();
    memory.read_to_string(&mut content)?;
    println!("receiver  was asked {question:?}, and found {content:?}");
    socket.write_all(b"an answer")?;
    Ok(())
}
