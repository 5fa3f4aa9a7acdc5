//! Sets of bits with names, in the manner of Zircon's.

/// Defines the single bits of the set, the table of their names, and what every such set can do.
macro_rules! bit_set {
    ($set:ident { $($(#[$doc:meta])* $name:ident = $bit:literal;)* }) => {
        impl $set {
            $($(#[$doc])* pub const $name: Self = Self(1 << $bit);)*

            const NAMES: &[(&str, Self)] = &[$((stringify!($name), Self::$name)),*];

            /// All that have names here.
            const NAMED: Self = Self(0 $(| 1 << $bit)*);

            /// The empty set.
            #[must_use]
            pub const fn empty() -> Self {
                Self(0)
            }

            /// The set as Zircon's bits.
            #[must_use]
            pub const fn bits(self) -> u32 {
                self.0
            }

            /// The set of these bits; `None` if one of them has no name here.
            #[must_use]
            pub const fn from_bits(bits: u32) -> Option<Self> {
                if bits & !Self::NAMED.0 == 0 { Some(Self(bits)) } else { None }
            }

            /// Whether there is none in it.
            #[must_use]
            pub const fn is_empty(self) -> bool {
                self.0 == 0
            }

            /// Whether all of `others` are among these.
            #[must_use]
            pub const fn contains(self, others: Self) -> bool {
                others.0 & !self.0 == 0
            }

            /// These and `others`.
            #[must_use]
            pub const fn union(self, others: Self) -> Self {
                Self(self.0 | others.0)
            }
        }

        impl std::ops::BitOr for $set {
            type Output = Self;

            fn bitor(self, others: Self) -> Self {
                self.union(others)
            }
        }

        impl std::ops::BitOrAssign for $set {
            fn bitor_assign(&mut self, others: Self) {
                *self = *self | others;
            }
        }

        impl std::ops::BitAnd for $set {
            type Output = Self;

            fn bitand(self, others: Self) -> Self {
                Self(self.0 & others.0)
            }
        }

        /// These without `others`.
        impl std::ops::Sub for $set {
            type Output = Self;

            fn sub(self, others: Self) -> Self {
                Self(self.0 & !others.0)
            }
        }

        impl std::fmt::Display for $set {
            /// The names of what is in it, or `none`.
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let held = Self::NAMES.iter().filter(|(_, one)| self.contains(*one));
                let names = held.map(|(name, _)| *name).collect::<Vec<_>>().join(" | ");
                f.write_str(if names.is_empty() { "none" } else { &names })
            }
        }

        impl std::fmt::Debug for $set {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($set), "({})"), self)
            }
        }
    };
}

pub(crate) use bit_set;
