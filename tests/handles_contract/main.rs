//! What Zircon's and Magenta's pages say of handles in messages, sentence by sentence.
//!
//! `messages` has what is said of whole messages, and holds it against a receiver in this process and
//! against one in another. The rest can be told before a message leaves its process: there each test
//! counts the descriptors that are open before, while and after. Rows X1, X9 and X10 of the fault
//! table.

mod case;
mod checks;
mod dispositions;
mod ends;
mod magenta;
mod messages;
mod operations;
mod writing;

#[path = "../support/mod.rs"]
mod support;
