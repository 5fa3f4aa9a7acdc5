//! What the kernel offers to everybody.

mod pipe;
pub(crate) mod socket;

pub use pipe::Pipe;
pub use socket::Seqpacket;
