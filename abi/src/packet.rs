//! The packets that carry handles beside a ring, on a socket of type SEQPACKET.
//!
//! They don't lie in the file, but two processes must agree on them all the same.

use crate::record::RecordExt;
use crate::table::stored;

stored! {
    "A connection's first packet: which sender it belongs to, and from which record on."
    pub struct Hello [80] {
        0x00 pub kind: u32, "1";
        0x04 pub ring: u32, "index of the ring in the directory";
        0x08 pub region_uuid: [u8; 16], "the header's";
        0x18 pub generation: u64, "the header's";
        0x20 pub key: u64, "the header's";
        0x28 pub incarnation: u32, "the sender's";
        0x2C pub slot: u16, "the sender's";
        0x2E reserved_2e: u16, "zero";
        0x30 pub tail: u64, "the ring's tail: no record before it has its handles on this connection";
        0x38 pub device: u64, "device number of the region's file";
        0x40 pub inode: u64, "inode number of the region's file";
        0x48 reserved_48: [u8; 8], "zero";
    }
}

stored! {
    "The packet with the handles of one record. Behind it a `CarriedHandle` for each; the \
     descriptors themselves travel beside it as SCM_RIGHTS, in the same order."
    pub struct HandlePacket [32] {
        0x00 pub kind: u32, "2; readers skip packets of other kinds";
        0x04 pub ring: u32, "index of the ring in the directory";
        0x08 pub position: u64, "the record's";
        0x10 pub incarnation: u32, "the sender's";
        0x14 pub slot: u16, "the sender's";
        0x16 pub handle_count: u16, "handles, as in the record's header word";
        0x18 reserved_18: [u8; 8], "zero";
    }
}

stored! {
    "One handle of a packet."
    pub struct CarriedHandle [8] {
        0x00 pub rights: u32, "its rights; 0x80000000: those that any new handle of the descriptor has";
        0x04 pub kind: u16, "0: one descriptor; 1: an end of a channel";
        0x06 pub descriptor_count: u16, "1; of an end 2 or 3: the description that holds its lock bytes, its socket, and a socket with the packets of unread records if some were passed";
    }
}

/// Values of `Hello::kind` and `HandlePacket::kind`.
pub mod packet_kind {
    /// A [`Hello`](super::Hello).
    pub const HELLO: u32 = 1;
    /// A [`HandlePacket`](super::HandlePacket).
    pub const HANDLES: u32 = 2;
}

/// Values of `CarriedHandle::kind`.
pub mod carried {
    use core::ops::RangeInclusive;

    /// One descriptor.
    pub const DESCRIPTOR: u16 = 0;
    /// An end of a channel.
    pub const ENDPOINT: u16 = 1;
    /// The descriptors of an end.
    pub const ENDPOINT_DESCRIPTORS: RangeInclusive<u16> = 2..=3;
}

impl Hello {
    /// Whether a record with this extension word is of the sender that said hello.
    #[must_use]
    pub const fn is_of(&self, ext: RecordExt) -> bool {
        self.slot == ext.slot && self.incarnation as u16 == ext.incarnation_low
    }
}
