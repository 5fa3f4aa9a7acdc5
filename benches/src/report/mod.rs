//! What is shown and written.

pub(crate) mod chart;
pub(crate) mod row;
pub(crate) mod table;
pub(crate) mod target;
