//! What is checked before it is sent: a handle, or an end of a channel that is open.

use std::os::fd::BorrowedFd;

use super::owned::{Handle, grants, refused, require};
use super::stat::Stat;
use crate::error::HandleError;
use crate::handle_type::HandleType;
use crate::rights::Rights;

/// Something that has a type and rights and may be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// A descriptor.
    Handle(&'a Handle),
    /// An end of a channel that is open in this process.
    End {
        /// A descriptor of the file that the channel consists of.
        file: BorrowedFd<'a>,
        /// What may be done with the end by its number.
        rights: Rights,
    },
}

impl Subject<'_> {
    /// Its type, for which a handle may have to be read.
    pub(crate) fn handle_type(self) -> HandleType {
        match self {
            Self::Handle(handle) => handle.handle_type(),
            Self::End { .. } => HandleType::Channel,
        }
    }

    pub(crate) fn rights(self) -> Rights {
        match self {
            Self::Handle(handle) => handle.rights(),
            Self::End { rights, .. } => rights,
        }
    }

    /// Refuses if one of `wanted` is missing.
    pub(crate) fn require(self, wanted: Rights) -> Result<(), HandleError> {
        match self {
            Self::Handle(handle) => handle.require(wanted),
            Self::End { rights, .. } => require(rights, wanted),
        }
    }

    /// Refuses another type than `wanted`.
    pub(crate) fn require_type(self, wanted: Option<HandleType>) -> Result<(), HandleError> {
        match wanted {
            Some(wanted) if wanted != self.handle_type() => {
                Err(HandleError::WrongType { found: self.handle_type(), wanted })
            }
            _ => Ok(()),
        }
    }

    /// Refuses if `wanted` are neither `SAME_RIGHTS` nor among its rights.
    pub(crate) fn grants(self, wanted: Rights) -> Result<(), HandleError> {
        match self {
            Self::Handle(handle) => handle.grants(wanted),
            Self::End { rights, .. } => grants(rights, wanted),
        }
    }

    /// The file that it leads to.
    pub(super) fn file(self) -> Result<Stat, HandleError> {
        let found = match self {
            Self::Handle(handle) => handle.file(),
            Self::End { file, .. } => Stat::of(file),
        };
        found.map_err(|error| refused("look at a descriptor", error))
    }

    /// A handle of its own on the same object. The caller has checked `wanted`.
    ///
    /// # Errors
    /// [`HandleError::AccessDenied`] for an end of a channel, of which there is one only.
    pub(super) fn copy(self, wanted: Rights) -> Result<Handle, HandleError> {
        match self {
            Self::Handle(handle) => handle.copy(wanted),
            Self::End { rights, .. } => {
                let missing = Rights::DUPLICATE;
                Err(HandleError::AccessDenied { held: rights, missing })
            }
        }
    }
}

impl<'a> From<&'a Handle> for Subject<'a> {
    fn from(handle: &'a Handle) -> Self {
        Self::Handle(handle)
    }
}

impl<'a> From<&'a &Handle> for Subject<'a> {
    fn from(handle: &'a &Handle) -> Self {
        Self::Handle(handle)
    }
}
