//! What regions and their ends are opened with, beside [`OpenOptions`](crate::OpenOptions).

pub use crate::endpoint::Disconnect;
pub use crate::region::{
    CreatePolicy, FileSystemPolicy, MpscOrder, OwnerPolicy, Prefault, RingDescription, RingOptions,
};
pub use tombolo_abi::RingKind;
