//! Objects in the manner of Zircon's.
//!
//! A [`Channel`] carries messages between its two ends. A [`HandleTable`] numbers [`Handle`](crate::Handle)s as a
//! Zircon process does, for programs that are written with numbers; a [`TableDisposition`] says what becomes of one
//! that is sent. A [`Status`] is an error's number.
//!
//! | file | |
//! |---|---|
//! | `channel` | what a program uses |
//! | `outbox` | the sending half: all threads share one sender |
//! | `inbox` | the receiving half: reading, waiting, and who sleeps for all |
//! | `readable` | who waits there beside its threads: tasks, pollers, `wait_any` |
//! | `registered` | a call that waits there for its reply |
//! | `looking` | which record goes to which call, and what stays for readers |
//! | `waiters` | the threads and tasks that wait there |
//! | `call` | calls, of threads that wait and as futures |
//! | `moving` | an end as a handle |

mod call;
mod channel;
mod channel_error;
mod close_reason;
mod disposition;
mod inbox;
mod looking;
mod message_buf;
mod moving;
mod outbox;
mod readable;
mod registered;
mod table;
mod waiters;

pub use self::call::Call;
pub use self::channel::{Channel, HandleInfo};
pub use self::channel_error::{CallError, CallPhase, ChannelError, NotAdopted, NotWritten};
pub use self::close_reason::CloseReason;
pub use self::disposition::TableDisposition;
pub use self::message_buf::MessageBuf;
pub use self::table::{HandleTable, HandleValue};
pub use crate::handle::channel_end_koid;
pub use crate::status::Status;
