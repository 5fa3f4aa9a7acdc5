//! What the pages and sources of Zircon, zCore and Magenta say of channels, sentence by sentence.
//!
//! Each sentence is held against an end in the same process and against one in another. If this
//! project decided otherwise than a source, the sentence's comment begins with *Decision*.
//!
//! Not here: signals, waits, names and handles in tables, which are objects of their own; ends in
//! messages; calls that are futures. Not at all: option bits and bad pointers, which no call of this
//! API takes; resuming a call of a suspended thread; a queue without bound.
//!
//! | file | |
//! |---|---|
//! | `ends` | the other end, which does what it is told, here or in a process of its own |
//! | `creating`, `writing`, `dispositions`, `reading`, `calling`, `replies`, `closing`, `magenta` | sentences |
//! | `threads` | many at once, and a peer that is killed |
//! | `hostile` | a peer that writes what it likes into the region |
//! | `model` | whatever is done in whatever order, against two plain queues |

/// Holds each sentence against both places of the other end, and counts.
macro_rules! sentences {
    ($group:literal: $($(#[$note:meta])* fn $name:ident($near:ident, $far:ident) $body:block)*) => {
        static TALLY: $crate::ends::Tally =
            $crate::ends::Tally::new($group, [$(stringify!($name)),*].len());

        #[test]
        fn there_are_sentences() {
            TALLY.print();
        }

        $(mod $name {
            use super::*;

            $(#[$note])*
            fn holds($near: tombolo::Channel, $far: &mut $crate::ends::Far) $body

            #[test]
            fn within_one_process() {
                TALLY.hold($crate::ends::Place::Here, holds);
            }

            #[test]
            fn across_two_processes() {
                TALLY.hold($crate::ends::Place::There, holds);
            }
        })*
    };
}

mod alone;
mod calling;
mod closing;
mod creating;
mod dispositions;
mod ends;
mod hostile;
mod magenta;
mod model;
mod reading;
mod replies;
mod threads;
mod writing;

#[path = "../support/mod.rs"]
mod support;
