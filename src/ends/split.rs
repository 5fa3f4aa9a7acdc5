//! From a region to the ends of its rings.

use tombolo_abi::RingEntry;

use super::{Mpsc, MpscConsumer, MpscProducer, Receiver, Sender, Spsc, Topology};
use super::{SpscReceiver, SpscSender};
use crate::ends::topology::sealed::Sealed;
use crate::error::Error;
use crate::region::EventsRegion;

impl EventsRegion {
    /// Returns both ends of the region's first SPSC ring.
    ///
    /// Validates the header once more. Each end attaches when it is first used, so two processes may each
    /// split and use one half; the half not used costs nothing. The ends keep the mapping alive.
    ///
    /// # Errors
    /// [`Error::NoSuchRing`] if the region has no SPSC ring; [`Error::Layout`],
    /// [`Error::Replaced`] and [`Error::RegionPoisoned`] if the header is no longer what it was.
    ///
    /// # Source
    /// The name and the signature are those of the original `EventsRegion`.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("demo.tombolo");
    /// let mut region = tombolo::EventsRegion::open_path(path)?;
    /// let (mut tx, mut rx) = region.split_spsc()?;
    /// tx.send(b"hello")?;
    /// assert_eq!(rx.recv()?.data, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[doc(alias = "channel")]
    pub fn split_spsc(&mut self) -> Result<(SpscSender, SpscReceiver), Error> {
        self.split::<Spsc>()
    }

    /// Returns a producer and the consumer of the region's first MPSC ring, or group of lanes; otherwise
    /// as [`Self::split_spsc`]. The creator of the region decided which of the two there is, see
    /// [`MpscOrder`](crate::options::MpscOrder).
    ///
    /// # Errors
    /// As [`Self::split_spsc`]. If lanes don't lie in the order that this version needs, their ends fail
    /// with [`Error::Layout`] when they attach.
    #[doc(alias = "channel")]
    pub fn split_mpsc(&mut self) -> Result<(MpscProducer, MpscConsumer), Error> {
        self.split::<Mpsc>()
    }

    fn split<K: Topology>(&self) -> Result<(Sender<K>, Receiver<K>), Error> {
        let region = self.shared();
        region.revalidate()?;
        let is_meant = |entry: &RingEntry| entry.ring_kind().is_some_and(<K as Sealed>::takes);
        let index = region.entries().iter().position(is_meant);
        let index = index.ok_or(Error::NoSuchRing { kind: <K as Sealed>::KIND.name() })? as u32;
        Ok((Sender::new(region.clone(), index), Receiver::new(region.clone(), index)))
    }
}
