//! What the pages and sources of Zircon and zCore say of objects, sentence by sentence, for the ends of channels.
//!
//! Each sentence is held against an end in the same process and against one in another.
//!
//! | file | |
//! |---|---|
//! | `ends` | the other end, which does what it is told, here or in a process of its own |
//! | `signals`, `names`, `waiting`, `futures`, `callbacks` | sentences |
//! | `hostile` | a peer that writes what it likes into the slots |

/// Holds each sentence against both places of the other end.
macro_rules! sentences {
    ($($(#[$note:meta])* fn $name:ident($near:ident, $far:ident) $body:block)*) => {
        $(mod $name {
            use super::*;

            $(#[$note])*
            fn holds($near: tombolo::Channel, $far: &mut $crate::ends::Far) $body

            #[test]
            fn within_one_process() {
                $crate::ends::hold($crate::ends::Place::Here, holds);
            }

            #[test]
            fn across_two_processes() {
                $crate::ends::hold($crate::ends::Place::There, holds);
            }
        })*
    };
}

mod callbacks;
mod ends;
mod futures;
mod hostile;
mod names;
mod signals;
mod waiting;

#[path = "../support/mod.rs"]
mod support;
