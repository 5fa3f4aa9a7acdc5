//! System calls: through `rustix` if it has them, in a few named files with unsafe if it
//! lacks them (`close`, `descriptor`, `descriptor_table`, `ofd`, `fork`, `signals`, `credentials`, `umask`;
//! `staged` for tests).

pub(crate) mod boot;
pub(crate) mod close;
pub(crate) mod credentials;
pub(crate) mod descriptor;
mod descriptor_table;
pub(crate) mod eventfd;
pub(crate) mod file;
pub(crate) mod file_system;
pub(crate) mod fork;
pub(crate) mod futex;
pub(crate) mod membarrier;
pub(crate) mod memory;
pub(crate) mod ofd;
pub(crate) mod per_process;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod signals;
pub(crate) mod socket;
pub(crate) mod staged;
pub(crate) mod umask;
