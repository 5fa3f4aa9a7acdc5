//! What all objects have in common.

use std::any::Any;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::Arc;

use super::object_error::{ObjectError, WaitError};
use super::signal::Signal;
use crate::deadline::Deadline;
use crate::handle::KoID;

/// What is called when signals change: with all signals that there are then. It is called no more once it has returned
/// `true`.
pub type SignalCallback = Box<dyn FnMut(Signal) -> bool + Send>;

/// What can be cast to the type that it is.
///
/// # Source
/// The trait of the crate `downcast-rs`, by which zCore's objects are cast.
pub trait Downcast: Any {
    /// As any value.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// As any value.
    fn into_any_rc(self: Rc<Self>) -> Rc<dyn Any>;
    /// As any value.
    fn as_any(&self) -> &dyn Any;
    /// As any value.
    fn as_any_mut(&mut self) -> &mut dyn Any;
    /// As any value that threads may share.
    fn into_any_arc(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>
    where
        Self: Send + Sync;
}

impl<T: Any> Downcast for T {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn into_any_rc(self: Rc<Self>) -> Rc<dyn Any> {
        self
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn into_any_arc(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>
    where
        Self: Send + Sync,
    {
        self
    }
}

/// An object: what has an id, a name, and signals to wait for.
///
/// # Source
/// zCore's trait of that name. What changes something can fail here; `signal_peer` and `wait_one` are `zx_object_signal_peer`
/// and `zx_object_wait_one`.
///
/// # Examples
/// ```
/// use std::sync::Arc;
/// use tombolo::{Channel, Deadline, Signal};
/// use tombolo::object::KernelObject;
/// let (ours, theirs) = Channel::create()?;
/// ours.set_name("the client's")?;
/// theirs.signal_peer(Signal::empty(), Signal::USER_0)?;
/// let seen = ours.wait_one(Signal::USER_0 | Signal::PEER_CLOSED, Deadline::NEVER)?;
/// assert_eq!(seen, Signal::USER_0 | Signal::WRITABLE);
/// assert_eq!(theirs.peer()?.name(), "the client's");
///
/// let object: Arc<dyn KernelObject> = Arc::new(ours);
/// assert_eq!(object.related_koid(), theirs.id());
/// let ours: Arc<Channel> = object.downcast_arc().unwrap();
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait KernelObject: Downcast + Send + Sync + Debug {
    /// Its id.
    fn id(&self) -> KoID;

    /// The id of the object that it is related to, such as the other end of a channel; 0 if there is none, or none any
    /// more.
    fn related_koid(&self) -> KoID {
        0
    }

    /// The name of its type.
    fn type_name(&self) -> &'static str;

    /// Its name; at first none.
    fn name(&self) -> String;

    /// Gives it as much of this name as fits: 31 bytes, no part of a character, nothing behind a zero.
    ///
    /// # Errors
    /// [`ObjectError::Closed`].
    fn set_name(&self, name: &str) -> Result<(), ObjectError>;

    /// The signals that programs may set and clear.
    fn allowed_signals(&self) -> Signal {
        Signal::USER_ALL
    }

    /// Its signals now.
    fn signal(&self) -> Signal;

    /// Sets these signals.
    ///
    /// # Errors
    /// As [`Self::signal_change`].
    fn signal_set(&self, signals: Signal) -> Result<(), ObjectError> {
        self.signal_change(Signal::empty(), signals)
    }

    /// Clears these signals.
    ///
    /// # Errors
    /// As [`Self::signal_change`].
    fn signal_clear(&self, signals: Signal) -> Result<(), ObjectError> {
        self.signal_change(signals, Signal::empty())
    }

    /// Clears some signals and then sets some, as one step.
    ///
    /// # Errors
    /// [`ObjectError::InvalidSignals`] for others than the [allowed](Self::allowed_signals) ones;
    /// [`ObjectError::AccessDenied`] without [`Rights::SIGNAL`](crate::Rights::SIGNAL); [`ObjectError::Closed`].
    fn signal_change(&self, clear: Signal, set: Signal) -> Result<(), ObjectError>;

    /// As [`Self::signal_change`], of the object's peer.
    ///
    /// # Errors
    /// As there, with [`Rights::SIGNAL_PEER`](crate::Rights::SIGNAL_PEER); [`ObjectError::PeerClosed`];
    /// [`ObjectError::NotSupported`] if such objects have none.
    fn signal_peer(&self, clear: Signal, set: Signal) -> Result<(), ObjectError> {
        let _ = (clear, set);
        Err(ObjectError::NotSupported { type_name: self.type_name(), what: "peer" })
    }

    /// Calls `callback` with the signals that there are, and again whenever they have changed, until it returns `true`.
    ///
    /// # Errors
    /// [`ObjectError::NotSupported`]; if the process can have no more descriptors or threads. It was not called then.
    fn add_signal_callback(&self, callback: SignalCallback) -> Result<(), ObjectError> {
        let _ = callback;
        Err(ObjectError::NotSupported { type_name: self.type_name(), what: "signal callbacks" })
    }

    /// Waits until any of `signals` is there, and gives all that are. Without any, and with a deadline that has
    /// passed, it tells what there is, in the error.
    ///
    /// # Errors
    /// [`WaitError`] with the signals that are there: [`ObjectError::TimedOut`]; [`ObjectError::Canceled`] if the
    /// object is closed or released meanwhile; [`ObjectError::Closed`]; [`ObjectError::AccessDenied`] without
    /// [`Rights::WAIT`](crate::Rights::WAIT); [`ObjectError::NotSupported`].
    fn wait_one(&self, signals: Signal, deadline: Deadline) -> Result<Signal, WaitError> {
        let _ = (signals, deadline);
        let error = ObjectError::NotSupported { type_name: self.type_name(), what: "waits" };
        Err(WaitError { error, observed: self.signal() })
    }

    /// Its peer, such as the other end of a channel. It does not keep that open.
    ///
    /// # Errors
    /// [`ObjectError::NotSupported`] if such objects have none, [`ObjectError::PeerClosed`] if this one has none any
    /// more.
    fn peer(&self) -> Result<Arc<dyn KernelObject>, ObjectError> {
        Err(ObjectError::NotSupported { type_name: self.type_name(), what: "peer" })
    }

    /// The object with this id, of those that it is the parent of.
    ///
    /// # Errors
    /// [`ObjectError::WrongType`] if such objects are no parents.
    fn get_child(&self, id: KoID) -> Result<Arc<dyn KernelObject>, ObjectError> {
        let _ = id;
        Err(ObjectError::WrongType { type_name: self.type_name() })
    }
}

impl dyn KernelObject {
    /// Whether it is a `T`.
    #[must_use]
    pub fn is<T: KernelObject>(&self) -> bool {
        self.as_any().is::<T>()
    }

    /// The `T` that it is.
    #[must_use]
    pub fn downcast_ref<T: KernelObject>(&self) -> Option<&T> {
        self.as_any().downcast_ref()
    }

    /// The `T` that it is.
    #[must_use]
    pub fn downcast_mut<T: KernelObject>(&mut self) -> Option<&mut T> {
        self.as_any_mut().downcast_mut()
    }

    /// The `T` that it is.
    ///
    /// # Errors
    /// Itself if it is none.
    pub fn downcast<T: KernelObject>(self: Box<Self>) -> Result<Box<T>, Box<Self>> {
        if self.is::<T>() {
            self.into_any().downcast().map_err(|_| unreachable!("it is one"))
        } else {
            Err(self)
        }
    }

    /// The `T` that it is.
    ///
    /// # Errors
    /// Itself if it is none.
    pub fn downcast_rc<T: KernelObject>(self: Rc<Self>) -> Result<Rc<T>, Rc<Self>> {
        match self.clone().into_any_rc().downcast() {
            Ok(object) => Ok(object),
            Err(_) => Err(self),
        }
    }

    /// The `T` that it is.
    ///
    /// # Errors
    /// Itself if it is none.
    pub fn downcast_arc<T: KernelObject>(self: Arc<Self>) -> Result<Arc<T>, Arc<Self>> {
        match self.clone().into_any_arc().downcast() {
            Ok(object) => Ok(object),
            Err(_) => Err(self),
        }
    }
}
