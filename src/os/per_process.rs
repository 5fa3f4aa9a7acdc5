//! What each process makes for itself, also one that was forked from another that had made its own.

use std::io;
use std::sync::OnceLock;

use super::fork::{self, Owner};

/// One value a process, made at first use. A child inherits its parent's, which is not its own.
#[derive(Debug)]
pub(crate) struct PerProcess<T>(OnceLock<Box<Made<T>>>);

#[derive(Debug)]
struct Made<T> {
    owner: Owner,
    value: T,
    /// What a forked child of the owner made.
    child: PerProcess<T>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// This process's, which is made if there is none: by one thread at a time, with forks held off and
    /// so with signals blocked, as they are in threads that `make` starts.
    ///
    /// # Errors
    /// Those of `make`.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
        if let Ok(value) = self.find() {
            return Ok(value);
        }
        let _no_forks = fork::hold_off()?;
        let place = match self.find() {
            Ok(value) => return Ok(value), // another thread was faster
            Err(place) => place,
        };
        let (owner, value) = (Owner::current()?, make()?);
        let made = Made { owner, value, child: Self::new() };
        Ok(&place.0.get_or_init(|| Box::new(made)).value)
    }

    /// This process's, or the place for it.
    fn find(&self) -> Result<&T, &Self> {
        let mut place = self;
        while let Some(made) = place.0.get() {
            if made.owner.is_here() {
                return Ok(&made.value);
            }
            place = &made.child;
        }
        Err(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::staged;

    #[test]
    fn each_process_makes_its_own_once() {
        static NUMBER: PerProcess<u32> = PerProcess::new();
        let made = |value| *NUMBER.get_or_make(|| Ok(value)).unwrap();
        assert!(NUMBER.get_or_make(|| Err(io::ErrorKind::Other.into())).is_err());
        assert_eq!([made(1), made(2)], [1, 1]);
        assert!(staged::in_child(|| {
            [made(3), made(4)] == [3, 3] && staged::in_child(|| made(5) == 5) && made(6) == 3
        }));
        assert_eq!(made(7), 1);
    }
}
