//! Aeron's channel between processes, through its client and driver in C.
//!
//! A single producer has an exclusive publication, several have concurrent ones. The driver moves
//! the limit that they may publish up to, for which it needs a processor: a producer at the limit
//! yields. Nobody is woken in Aeron, so that sleeping is left out.
//!
//! A message goes in with a copy and is looked at in place, unless it is longer than what Aeron
//! keeps in one piece: then it is put together in a buffer, and cannot be built in place. The driver's directory is below the one
//! that the harness removes.

use std::ffi::{CStr, CString};
use std::time::Duration;

use rusteron_client::{
    Aeron, AeronClaim, AeronExclusivePublication, AeronFragmentClosureAssembler, AeronOfferError,
    AeronPublication, AeronSubscription, Handlers,
};
use tombolo_benches::Registry;
use tombolo_benches::system::{Failure, Look, Meeting, ProcessSystem, Receive, Transmit, Waiting};

use crate::{driver, wait};

/// How long the driver may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The most that Aeron keeps in one piece, its 32 bytes of header included.
const PIECE_LEN_MAX: usize = 65504;

/// Adds it.
pub(super) fn register(registry: Registry) -> Registry {
    registry
        .processes::<System<AeronExclusivePublication, true>>()
        .processes::<System<AeronExclusivePublication, false>>()
        .processes::<System<AeronPublication, true>>()
        .processes::<System<AeronPublication, false>>()
}

/// With a kind of publication, and messages that are kept `WHOLE` or not.
struct System<P, const WHOLE: bool>(P);

impl<P: Publish + 'static, const WHOLE: bool> ProcessSystem for System<P, WHOLE> {
    const NAME: &'static str = "aeron";
    const PRODUCERS_MAX: usize = 64;
    const BATCHES: bool = true;
    const LENDS: bool = WHOLE;
    type Sender = Sender<P>;
    type Receiver = Receiver;

    fn takes(meeting: &Meeting) -> bool {
        let is_whole = meeting.size + 32 <= PIECE_LEN_MAX;
        meeting.waiting == Waiting::Busy && is_whole == WHOLE && P::takes(meeting.producers)
    }

    fn prepare(meeting: &Meeting) -> Result<(), Failure> {
        driver::start(meeting.directory)
    }

    fn sender(meeting: &Meeting) -> Result<Sender<P>, Failure> {
        let client = client(meeting)?;
        let publication = P::add(&client, &channel()?, stream(meeting))?;
        wait::for_peer("the subscription", || publication.is_connected().then_some(()))?;
        Ok(Sender { publication, _client: client })
    }

    fn receiver(meeting: &Meeting) -> Result<Receiver, Failure> {
        let client = client(meeting)?;
        let subscription = client.add_subscription(
            &channel()?,
            stream(meeting),
            Handlers::NONE,
            Handlers::NONE,
            PATIENCE,
        )?;
        let assembler = if WHOLE { None } else { Some(AeronFragmentClosureAssembler::new()?) };
        Ok(Receiver { subscription, assembler, _client: client })
    }

    fn clean_up(meeting: &Meeting) {
        driver::stop(meeting.directory);
    }
}

fn client(meeting: &Meeting) -> Result<Aeron, Failure> {
    let directory = driver::directory(meeting.directory);
    Ok(Aeron::connect_dir(directory.to_str().ok_or("the directory's name is not text")?)?)
}

/// Longer terms than 16 MiB were slower at every size: a stream passes through three of them, and
/// they should stay in the caches.
fn channel() -> Result<CString, Failure> {
    Ok(CString::new(format!("aeron:ipc?term-length=16m|mtu={PIECE_LEN_MAX}"))?)
}

/// The directory is the cell's own, so that the directions need only differ.
fn stream(meeting: &Meeting) -> i32 {
    meeting.name.bytes().fold(0, |number, byte| number.wrapping_mul(31) ^ i32::from(byte))
}

/// What the two kinds of publication share.
trait Publish: Sized {
    fn takes(producers: usize) -> bool;
    fn add(client: &Aeron, channel: &CStr, stream: i32) -> Result<Self, Failure>;
    fn is_connected(&self) -> bool;
    fn offer(&self, payload: &[u8]) -> Result<i64, AeronOfferError>;
    fn claim(&self, len: usize) -> Result<AeronClaim, AeronOfferError>;
}

macro_rules! publish {
    ($publication:ty, $add:ident, $takes:expr) => {
        impl Publish for $publication {
            fn takes(producers: usize) -> bool {
                $takes(producers)
            }

            fn add(client: &Aeron, channel: &CStr, stream: i32) -> Result<Self, Failure> {
                Ok(client.$add(channel, stream, PATIENCE)?)
            }

            fn is_connected(&self) -> bool {
                self.is_connected()
            }

            #[inline]
            fn offer(&self, payload: &[u8]) -> Result<i64, AeronOfferError> {
                self.offer(payload)
            }

            #[inline]
            fn claim(&self, len: usize) -> Result<AeronClaim, AeronOfferError> {
                self.try_claim_owned(len)
            }
        }
    };
}

publish!(AeronExclusivePublication, add_exclusive_publication, |producers| producers == 1);
publish!(AeronPublication, add_publication, |producers| producers > 1);

struct Sender<P> {
    publication: P,
    _client: Aeron,
}

/// Tries until there is room.
#[inline]
fn until_done<T>(mut attempt: impl FnMut() -> Result<T, AeronOfferError>) -> Result<T, Failure> {
    wait::for_room(|| match attempt() {
        Err(error) if error.is_retryable() => None,
        result => Some(result.map_err(Failure::from)),
    })
}

impl<P: Publish> Transmit for Sender<P> {
    #[inline]
    fn send(&mut self, payload: &[u8]) -> Result<(), Failure> {
        until_done(|| self.publication.offer(payload))?;
        Ok(())
    }

    #[inline]
    fn lend(&mut self, size: usize, number: u64) -> Result<(), Failure> {
        let mut claim = until_done(|| self.publication.claim(size))?;
        claim.data()[..8].copy_from_slice(&number.to_ne_bytes());
        claim.commit()?;
        Ok(())
    }
}

struct Receiver {
    subscription: AeronSubscription,
    assembler: Option<AeronFragmentClosureAssembler>,
    _client: Aeron,
}

impl Receiver {
    /// Looks at what is there, up to a limit of pieces. Gives how many messages it was.
    #[inline]
    fn poll<L: Look>(&mut self, limit: usize, look: &mut L) -> Result<usize, Failure> {
        let Some(assembler) = &mut self.assembler else {
            let show = |message: &[u8], _| look.at_slice(message);
            return Ok(self.subscription.poll_fn(show, limit)? as usize);
        };
        let mut found = (0, look);
        let show = |found: &mut (usize, &mut L), message: &[u8], _| {
            found.1.at_slice(message);
            found.0 += 1;
        };
        assembler.poll(&self.subscription, &mut found, show, limit)?;
        Ok(found.0)
    }
}

impl Receive for Receiver {
    #[inline]
    fn receive(&mut self, look: &mut impl Look) -> Result<(), Failure> {
        self.receive_batch(1, look)?;
        Ok(())
    }

    #[inline]
    fn receive_batch(&mut self, limit: usize, look: &mut impl Look) -> Result<usize, Failure> {
        wait::for_message(|| match self.poll(limit, look) {
            Ok(0) => None,
            result => Some(result),
        })
    }
}
