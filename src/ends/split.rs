//! From a region to the ends of its rings.

use tombolo_abi::{LayoutError, RingEntry};

use super::{Mpsc, MpscConsumer, MpscProducer, Receiver, Sender, Spsc, Topology};
use super::{SpscReceiver, SpscSender};
use crate::ends::topology::sealed::Sealed;
use crate::error::Error;
use crate::region::EventsRegion;

impl EventsRegion {
    /// Returns both ends of the region's first SPSC ring: the one that it has by default, or the first one
    /// [listed](crate::OpenOptions::ring). [`Self::spsc_sender`] and [`Self::spsc_receiver`] give those of any.
    ///
    /// Validates the header once more. Each end attaches when it is first used, so two processes may each
    /// split and use one half; the half not used costs nothing. The ends keep the mapping alive.
    ///
    /// # Errors
    /// [`Error::Layout`] with [`LayoutError::OtherRing`] if the region has no SPSC ring; [`Error::Layout`],
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

    /// Returns a producer and the consumer of the region's first MPSC ring, or group of lanes, whichever comes
    /// first; otherwise as [`Self::split_spsc`]. The creator of the region decided which of the two there is, see
    /// [`MpscOrder`](crate::options::MpscOrder).
    ///
    /// # Errors
    /// As [`Self::split_spsc`]. If lanes don't lie in the order that this version needs, their ends fail
    /// with [`Error::Layout`] when they attach.
    #[doc(alias = "channel")]
    pub fn split_mpsc(&mut self) -> Result<(MpscProducer, MpscConsumer), Error> {
        self.split::<Mpsc>()
    }

    /// The sender of ring `ring`, counted from 0 in the order of [`Self::rings`]. It attaches when it is first
    /// used, and keeps the mapping alive.
    ///
    /// # Errors
    /// [`Error::Layout`] with [`LayoutError::OtherRing`] if that is no SPSC ring, or if there is no such ring;
    /// otherwise as [`Self::split_spsc`].
    ///
    /// # Examples
    /// ```
    /// use tombolo::options::RingOptions;
    /// use tombolo::{EventsRegion, OpenOptions};
    /// let small = RingOptions::spsc().capacity(4096);
    /// let region = EventsRegion::anonymous(OpenOptions::new().ring(RingOptions::mpsc()).ring(small))?;
    /// region.spsc_sender(1)?.send(b"one")?;
    /// assert_eq!(region.spsc_receiver(1)?.recv()?.data, b"one");
    /// let wrong = region.spsc_sender(0).unwrap_err();
    /// assert!(wrong.to_string().contains("kind of ring 0 is MPSC, wanted SPSC"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spsc_sender(&self, ring: u32) -> Result<SpscSender, Error> {
        Ok(Sender::new(self.shared().clone(), self.number_of::<Spsc>(ring)?))
    }

    /// The receiver of ring `ring`, as [`Self::spsc_sender`].
    ///
    /// # Errors
    /// As [`Self::spsc_sender`].
    pub fn spsc_receiver(&self, ring: u32) -> Result<SpscReceiver, Error> {
        Ok(Receiver::new(self.shared().clone(), self.number_of::<Spsc>(ring)?))
    }

    /// A producer of ring `ring`, an MPSC ring or lanes, as [`Self::spsc_sender`].
    ///
    /// # Errors
    /// As [`Self::spsc_sender`] and [`Self::split_mpsc`].
    pub fn mpsc_producer(&self, ring: u32) -> Result<MpscProducer, Error> {
        Ok(Sender::new(self.shared().clone(), self.number_of::<Mpsc>(ring)?))
    }

    /// The consumer of ring `ring`, an MPSC ring or lanes, as [`Self::spsc_sender`].
    ///
    /// # Errors
    /// As [`Self::spsc_sender`] and [`Self::split_mpsc`].
    pub fn mpsc_consumer(&self, ring: u32) -> Result<MpscConsumer, Error> {
        Ok(Receiver::new(self.shared().clone(), self.number_of::<Mpsc>(ring)?))
    }

    /// The number in the directory of ring `ring` of the list, or of its first lane.
    fn number_of<K: Topology>(&self, ring: u32) -> Result<u32, Error> {
        self.shared().revalidate()?;
        self.shared().listed_ring(ring, <K as Sealed>::KIND, <K as Sealed>::takes)
    }

    fn split<K: Topology>(&self) -> Result<(Sender<K>, Receiver<K>), Error> {
        let region = self.shared();
        region.revalidate()?;
        let is_meant = |entry: &RingEntry| entry.ring_kind().is_some_and(<K as Sealed>::takes);
        let index = region.entries().iter().position(is_meant).ok_or_else(|| {
            let (ring, found, wanted) = (None, None, <K as Sealed>::KIND);
            region.layout_error(LayoutError::OtherRing { ring, found, wanted })
        })? as u32;
        Ok((Sender::new(region.clone(), index), Receiver::new(region.clone(), index)))
    }
}
