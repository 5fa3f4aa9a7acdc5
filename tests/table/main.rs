//! What the pages and sources of Zircon, zCore and Magenta say of channels by number, sentence by sentence: numbers,
//! rights, the order of the checks, and what becomes of handles.
//!
//! Each test counts the descriptors of its process before and after, so that one runs at a time. If this project
//! decided otherwise than a source, the sentence's comment begins with *Decision*. What is said of messages and calls
//! as such is held in `channel`, against ends here and in another process; what is said of handles and dispositions
//! as such in `handles_contract`.
//!
//! Not at all: bad pointers, and `reserved` of a part, which no call of this API takes; options of `channel_create`;
//! policies of a job.

mod calling;
mod case;
mod dispositions;
mod magenta;
mod moving;
mod numbers;
mod reading;
mod threads;
mod writing;

#[path = "../support/mod.rs"]
mod support;
