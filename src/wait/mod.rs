//! How anything sleeps: it spins for as long as that pays, arms, looks once more, and sleeps in the kernel.

pub(crate) mod any;
pub(crate) mod bell;
pub(crate) mod sleep;
pub(crate) mod spin;
