//! What Zircon's and Magenta's pages say of handles in messages, sentence by sentence, as far as it
//! can be told before a message leaves its process. Each test counts the descriptors that are open
//! before, while and after. Rows X1, X9 and X10 of the fault table.

mod case;
mod checks;
mod dispositions;
mod magenta;
mod operations;
mod writing;

#[path = "../support/mod.rs"]
mod support;
