//! What the two sides do, generic over systems.

mod call;
mod clock;
mod hand_over;
mod one_way;
mod round_trip;
mod solo;
mod threads;

pub(crate) use call::{Answering, Asking};
pub(crate) use hand_over::{Giving, Taking};
pub(crate) use one_way::{Calls, Sink, Source};
pub(crate) use round_trip::{Ping, Pong, Style};
pub(crate) use solo::Solo;
pub(crate) use threads::{FanOfThreads, PairOfThreads};
