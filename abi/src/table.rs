//! The one table of fields behind each stored type.

/// One field of a stored type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// Bytes from the start of its type.
    pub offset: usize,
    /// Bytes that it takes.
    pub len: usize,
    /// Its type as written in Rust.
    pub ty: &'static str,
    /// What it means, who writes it, which values are legal.
    pub doc: &'static str,
}

impl Field {
    /// Whether the field is there only to keep its bytes zero.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.name.starts_with("reserved")
    }
}

/// All fields of one stored type, in order and without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// The type's name.
    pub name: &'static str,
    /// What it is, in a sentence.
    pub doc: &'static str,
    /// Bytes of one.
    pub len: usize,
    /// Its fields.
    pub fields: &'static [Field],
}

impl Table {
    /// The field called `name`.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

/// Declares a stored type from its table: the type, the table as data, and the asserts that the
/// compiler placed every field where the table says, with no byte left over.
macro_rules! stored {
    (
        $doc:literal
        pub struct $name:ident [$len:literal] {
            $( $offset:literal $vis:vis $field:ident : $ty:ty, $field_doc:literal; )*
        }
    ) => {
        #[doc = $doc]
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
        pub struct $name {
            $( #[doc = $field_doc] $vis $field: $ty, )*
        }

        impl $name {
            /// The type's fields, as data.
            pub const TABLE: $crate::table::Table = $crate::table::Table {
                name: stringify!($name),
                doc: $doc,
                len: $len,
                fields: &[ $( $crate::table::Field {
                    name: stringify!($field),
                    offset: $offset,
                    len: size_of::<$ty>(),
                    ty: stringify!($ty),
                    doc: $field_doc,
                }, )* ],
            };
        }

        const _: () = {
            $( assert!(core::mem::offset_of!($name, $field) == $offset); )*
            let ends = [0 $(, $offset + size_of::<$ty>())*];
            let starts = [$( $offset, )* $len];
            let mut i = 0;
            while i < starts.len() {
                assert!(starts[i] == ends[i], "a gap or an overlap before this field");
                i += 1;
            }
            assert!(size_of::<$name>() == $len);
            assert!(align_of::<$name>() <= 8);
        };
    };
}
pub(crate) use stored;
