//! Until when to wait.

use std::time::{Duration, Instant};

/// A moment at which waiting ends.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use tombolo::Deadline;
/// assert!(Deadline::PAST.has_passed());
/// assert!(!Deadline::NEVER.has_passed());
/// assert!(!Deadline::from(Duration::from_secs(60)).has_passed());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadline(When);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Past,
    At(Instant),
    Never,
}

impl Deadline {
    /// Wait without end.
    pub const NEVER: Self = Self(When::Never);
    /// Don't wait at all.
    pub const PAST: Self = Self(When::Past);

    /// Whether it is too late to wait.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining() == Some(Duration::ZERO)
    }

    /// How much longer to wait; `None` if there is no end.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        match self.0 {
            When::Past => Some(Duration::ZERO),
            When::At(instant) => Some(instant.saturating_duration_since(Instant::now())),
            When::Never => None,
        }
    }
}

/// That long from now; [`Deadline::NEVER`] if the clock cannot represent that moment.
impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration).map_or(When::Never, When::At))
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self(When::At(instant))
    }
}
