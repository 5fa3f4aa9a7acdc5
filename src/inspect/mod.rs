//! Read-only decoding of any region, healthy or damaged.
//!
//! An [`Image`] is what one reading of a file found: its health, its header, its rings and its endpoints.
//! Reading disturbs no other process: the file is opened for reading only, read with `pread` and never mapped,
//! so that no stored number and no truncation can harm the reader, and no lock is taken. The kernel, which
//! knows the holder of each lock byte, tells whether an endpoint is alive.
//!
//! * Any bytes make an image. All stored numbers are input; every loop over them has a bound, whatever
//!   lengths the file states.
//! * A live region changes while it is read. What a concurrent writer could explain is never called damage:
//!   what seems wrong must seem wrong in the same way again after `head` was read anew ([`Records`]). If
//!   values moved meanwhile, [`Image::is_consistent`] is false.
//! * Nothing is repaired. A damaged file is decoded as far as possible.
//! * A healthy region may be stuck: [`Image::stuck`] names the endpoints that keep messages from getting
//!   through, because their processes are stopped, dead or missing.
//! * A region that is a channel has two ends: [`Image::channel`] tells who has them, and why one was closed.
//!
//! # Examples
//! ```no_run
//! use tombolo::inspect::{Health, Image};
//! let image = Image::open("/dev/shm/tombolo-1000/demo.tombolo".as_ref())?;
//! if image.health() == Health::Damaged {
//!     image.problems().iter().for_each(|problem| println!("{problem}"));
//! }
//! # Ok::<(), tombolo::Error>(())
//! ```

mod channel;
mod endpoint;
mod file;
mod group;
mod header;
mod image;
mod lock;
mod problem;
mod process;
mod records;
mod ring;
mod stuck;
mod walk;

pub use channel::{ChannelEnd, ChannelView, EndState, StoredReason};
pub use endpoint::{EndpointView, Liveness};
pub use file::Boot;
pub use image::{Health, Image};
pub use lock::LockView;
pub use problem::{Place, Problem};
pub use process::Process;
pub use records::{RecordView, Records, RecordsEnd};
pub use ring::{Depth, RingView};
pub use stuck::{Stuck, StuckReason};
// Stored types that are public fields here, or of errors.
pub use tombolo_abi::{
    Header, Record, RecordError, RecordKind, RingControl, RingEntry, RingKind, RingState, Role,
    Section, Slot, SlotState,
};
