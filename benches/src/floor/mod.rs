//! What the machine asks for: the least that could be done, without checks, recovery or waiting for
//! anybody who has gone.

mod create;
mod descriptors;
mod eventfd;
mod futex;
mod join;
mod line;
mod lines;
mod rights;
pub(crate) mod shared;
mod stream;

pub use create::BareChannel;
pub use descriptors::PassDescriptors;
pub use eventfd::EventfdWake;
pub use futex::{FutexWaitvWake, FutexWake};
pub use join::OpenMmap;
pub use line::Line;
pub use lines::{FreshLine, FreshLineBare};
pub use rights::{Rights, RightsTold};
pub use stream::Stream;
