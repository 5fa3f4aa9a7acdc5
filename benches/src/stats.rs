//! Medians and quartiles.

/// What came out of the repetitions of one cell.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) count: usize,
}

impl Summary {
    /// Of at least one value.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let at = |share| quantile(&values, share);
        let (lower, median, upper) = (at(0.25), at(0.5), at(0.75));
        Some(Self { median, lower, upper, min, max, count: values.len() })
    }
}

/// The value below which that share of the sorted values lies, between two of them if need be.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share * (sorted.len() - 1) as f64;
    let (below, part) = (place as usize, place.fract());
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * part
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values_where_they_must() {
        let summary = Summary::of(vec![4.0, 1.0, 3.0, 2.0]).expect("values");
        assert_eq!((summary.min, summary.median, summary.max), (1.0, 2.5, 4.0));
        assert_eq!((summary.lower, summary.upper), (1.75, 3.25));
        assert_eq!(Summary::of(vec![]), None);
        let one = Summary::of(vec![7.0]).expect("a value");
        assert_eq!((one.lower, one.median, one.upper), (7.0, 7.0, 7.0));
    }
}
