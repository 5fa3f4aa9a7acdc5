//! From a region to the ends of its rings.

use super::discipline::sealed::Sealed;
use super::{Discipline, Mpsc, MpscConsumer, MpscProducer, Receiver, Sender, Spsc};
use super::{SpscReceiver, SpscSender};
use crate::{Error, EventsRegion};

impl EventsRegion {
    /// Gives both ends of the region's first SPSC ring.
    ///
    /// Validates the header once more. Neither end is claimed before it is used, so two processes
    /// may each split and use one half; the half not used costs nothing. The ends keep the mapping
    /// alive by themselves.
    ///
    /// # Errors
    /// [`Error::NoSuchRing`] where the region has no SPSC ring; [`Error::Layout`],
    /// [`Error::Replaced`] and [`Error::RegionPoisoned`] where the header is no longer what it was.
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
    pub fn split_spsc(&mut self) -> Result<(SpscSender, SpscReceiver), Error> {
        self.split::<Spsc>()
    }

    /// Gives a producer and the consumer of the region's first MPSC ring; otherwise as
    /// [`Self::split_spsc`].
    ///
    /// # Errors
    /// As [`Self::split_spsc`].
    pub fn split_mpsc(&mut self) -> Result<(MpscProducer, MpscConsumer), Error> {
        self.split::<Mpsc>()
    }

    fn split<K: Discipline>(&self) -> Result<(Sender<K>, Receiver<K>), Error> {
        let region = self.shared();
        region.revalidate()?;
        let kind = <K as Sealed>::KIND;
        let index = region.entries().iter().position(|entry| entry.ring_kind() == Some(kind));
        let index = index.ok_or(Error::NoSuchRing { kind: kind.name() })? as u32;
        Ok((Sender::new(region.clone(), index), Receiver::new(region.clone(), index)))
    }
}
