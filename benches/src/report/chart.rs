//! A chart of rates and round trips by size.
use super::row::Row;
use crate::system::Failure;
use std::path::Path;
pub(crate) fn draw(_path: &Path, _rows: &[Row], _others: &[Row]) -> Result<(), Failure> {
    Ok(())
}
