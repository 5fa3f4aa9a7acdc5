//! Sends and receives messages of 64 bytes in one thread, for counting what instructions that takes:
//! `instructions KIND COUNT`. See `.ci/instructions`.

use std::env;
use std::hint::black_box;

use tombolo::ends::Spsc;
use tombolo::{EventsRegion, OpenOptions, Receiver, Sender};

type Failure = Box<dyn std::error::Error>;

const LEN: usize = 64;
const BATCH: usize = 50;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [kind, count] = &arguments[..] else { return Err("KIND and COUNT are missing".into()) };
    let count = count.parse()?;
    let mut region = EventsRegion::anonymous(OpenOptions::new())?;
    match kind.as_str() {
        "spsc" => copied(region.split_spsc()?, count),
        "mpsc" => copied(region.split_mpsc()?, count),
        "in-place" => in_place(region.split_spsc()?, count),
        "batch" => batched(region.split_spsc()?, count / BATCH),
        _ => Err("KIND is spsc, mpsc, in-place or batch".into()),
    }
}

fn copied<K: tombolo::ends::Topology>(
    (mut tx, mut rx): (Sender<K>, Receiver<K>),
    count: usize,
) -> Result<(), Failure> {
    let (message, mut room) = ([1; LEN], [0; LEN]);
    for _ in 0..count {
        tx.try_send(black_box(&message))?;
        rx.try_recv_into(&mut room)?;
    }
    Ok(())
}

fn in_place((mut tx, mut rx): (Sender<Spsc>, Receiver<Spsc>), count: usize) -> Result<(), Failure> {
    for _ in 0..count {
        let mut claim = tx.try_reserve(LEN)?;
        claim.write_at(0, &[1; 8])?;
        claim.commit()?;
        black_box(rx.try_recv_ref()?.read_at(0, &mut [0; 8])?);
    }
    Ok(())
}

fn batched((mut tx, mut rx): (Sender<Spsc>, Receiver<Spsc>), count: usize) -> Result<(), Failure> {
    let message = [1; LEN];
    let batch = [&message[..]; BATCH];
    for _ in 0..count {
        tx.send_batch(black_box(&batch))?;
        rx.drain(BATCH, |record| _ = black_box(record.len()))?;
    }
    Ok(())
}
