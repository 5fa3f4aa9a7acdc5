//! System calls: through `rustix` where it has them, in a few named files with unsafe where it
//! lacks them (`ofd`, `fork`, `signals`).

pub(crate) mod fork;
pub(crate) mod ofd;
pub(crate) mod signals;
