//! Objects in the manner of Zircon's.
//!
//! A [`Channel`] carries messages between its two ends. A [`HandleTable`] numbers [`Handle`](crate::Handle)s and
//! open ends of channels as a Zircon process does, for programs that are written with numbers: they write, read and call
//! by number. A [`TableDisposition`] says what becomes of a number that is sent. A [`Status`] is an error's number.
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
//! | `kernel_object` | what all objects have in common |
//! | `signal` | what an object shows of its state |
//! | `channel_object`, `end_object` | an end as an object: id, name, signals; `peer_end` what it sees of the other |
//! | `observing`, `wait_signal` | threads and tasks that wait for signals |
//! | `callbacks` | what is called when they change |
//! | `space` | whether writing makes sense, as both halves know it |
//! | `table` | what has which number; `entry`: what a number names, the one place for a new kind of object |
//! | `disposition` | what becomes of numbers that are sent |
//! | `opening` | an end by its number, opened when it is first used |
//! | `table_channel`, `table_call` | writing, reading and calling by number; `message_bytes`, `table_error` |

mod call;
mod callbacks;
mod channel;
mod channel_error;
mod channel_object;
mod close_reason;
mod disposition;
mod end_object;
mod entry;
mod inbox;
mod kernel_object;
mod looking;
mod message_buf;
mod message_bytes;
mod moving;
mod object_error;
mod observing;
mod opening;
mod outbox;
mod peer_end;
mod readable;
mod registered;
mod signal;
mod space;
mod table;
mod table_call;
mod table_channel;
mod table_error;
mod wait_signal;
mod waiters;

pub use self::call::Call;
pub use self::channel::{Channel, HandleInfo};
pub use self::channel_error::{CallError, CallPhase, ChannelError, NotAdopted, NotWritten};
pub use self::close_reason::CloseReason;
pub use self::disposition::TableDisposition;
pub use self::kernel_object::{Downcast, KernelObject, SignalCallback};
pub use self::message_buf::MessageBuf;
pub use self::message_bytes::MessageBytes;
pub use self::object_error::{ObjectError, WaitError};
pub use self::signal::Signal;
pub use self::table::{HandleTable, HandleValue, TableHandleInfo};
pub use self::table_call::{CallArgs, CallEtcArgs};
pub use self::table_channel::{READ_MAY_DISCARD, WRITE_USE_IOVEC};
pub use self::table_error::{TableCallError, TableError};
pub use self::wait_signal::WaitSignal;
pub use crate::handle::channel_end_koid;
pub use crate::status::Status;
