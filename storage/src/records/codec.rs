//! How a row is laid out as bytes: a version byte, then its fields in order, each in a fixed little-endian form.
//!
//! A shipped layout never changes; it gets a successor with the next version byte. The bytes of each row stand in a test
//! beside it.

use crate::error::BadRow;
use crate::ids::{ID_RANDOM_CHARS, IdText, WorkspaceNo};

/// Reads fields off the front of a row; refuses what does not fit instead of panicking.
pub struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Input<'a> {
        Input { rest: bytes }
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], BadRow> {
        if count > self.rest.len() {
            return Err(BadRow::Truncated);
        }
        let (head, tail) = self.rest.split_at(count);
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadRow> {
        Ok(self.take(N)?.try_into().expect("take returned as many bytes as asked"))
    }

    /// Refuses bytes after the last field: they would be a layout this build does not know.
    pub fn finish(self) -> Result<(), BadRow> {
        if self.rest.is_empty() { Ok(()) } else { Err(BadRow::TrailingBytes) }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }
}

/// A value with a fixed byte form.
pub trait Field: Sized {
    /// Appends the byte form.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads the byte form.
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow>;
}

macro_rules! integer_fields {
    ($($int:ty),*) => {$(
        impl Field for $int {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
                Ok(<$int>::from_le_bytes(input.array()?))
            }
        }
    )*};
}
integer_fields!(u8, u16, u32, u64);

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        match u8::get(input)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(BadRow::BadValue("a boolean that is neither 0 nor 1")),
        }
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        let length = u32::try_from(self.len()).expect("requests are bounded far below 4 GiB");
        length.put(out);
        out.extend_from_slice(self.as_bytes());
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        let length = u32::get(input)? as usize;
        let bytes = input.take(length)?;
        Ok(std::str::from_utf8(bytes).map_err(|_| BadRow::BadValue("text that is not UTF-8"))?.to_owned())
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        input.array()
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        match u8::get(input)? {
            0 => Ok(None),
            1 => T::get(input).map(Some),
            _ => Err(BadRow::BadValue("an option that is neither 0 nor 1")),
        }
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        u32::try_from(self.len()).expect("requests are bounded far below 4 Gi items").put(out);
        for item in self {
            item.put(out);
        }
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        let count = u32::get(input)? as usize;
        // Every item takes at least a byte: a count beyond what is left is damage, found before memory is taken for it.
        if count > input.remaining() {
            return Err(BadRow::Truncated);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push(T::get(input)?);
        }
        Ok(items)
    }
}

impl Field for IdText {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        IdText::from_bytes(input.array::<ID_RANDOM_CHARS>()?).ok_or(BadRow::BadValue("an id outside its alphabet"))
    }
}

macro_rules! id_fields {
    ($($id:ident),*) => {$(
        impl Field for crate::ids::$id {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
                IdText::get(input).map(crate::ids::$id)
            }
        }
    )*};
}
id_fields!(
    WorkspaceId,
    ApiId,
    KeyspaceId,
    KeyId,
    IdentityId,
    RoleId,
    PermissionId,
    RatelimitId,
    MigrationId,
    NamespaceId,
    OverrideId,
    DataKeyId,
    EventId,
    CorrelationId
);

impl Field for WorkspaceNo {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
    }
    fn get(input: &mut Input<'_>) -> Result<Self, BadRow> {
        u32::get(input).map(WorkspaceNo)
    }
}

/// A value of a table.
pub trait Row: Sized {
    /// The table it lives in.
    const TABLE: super::TableNo;
    /// Its bytes, version byte first.
    fn to_bytes(&self) -> Vec<u8>;
    /// Reads them back.
    fn from_bytes(bytes: &[u8]) -> Result<Self, BadRow>;
}

/// Declares a part of a row: a struct whose byte form is its fields in order.
macro_rules! part {
    ($(#[$doc:meta])* $vis:vis struct $name:ident { $($(#[$field_doc:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        $vis struct $name { $($(#[$field_doc])* pub $field: $ty,)* }

        impl $crate::records::codec::Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $($crate::records::codec::Field::put(&self.$field, out);)*
            }
            fn get(input: &mut $crate::records::codec::Input<'_>) -> Result<Self, $crate::error::BadRow> {
                Ok($name { $($field: $crate::records::codec::Field::get(input)?,)* })
            }
        }
    };
}

/// Declares a row: a part with a table and a version byte.
macro_rules! row {
    ($(#[$doc:meta])* $vis:vis struct $name:ident in $table:ident version $version:literal {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty,)*
    }) => {
        $crate::records::codec::part! {
            $(#[$doc])* $vis struct $name { $($(#[$field_doc])* $field: $ty,)* }
        }

        impl $crate::records::codec::Row for $name {
            const TABLE: $crate::records::TableNo = $crate::records::$table;
            fn to_bytes(&self) -> Vec<u8> {
                let mut out = Vec::with_capacity(128);
                out.push($version);
                $crate::records::codec::Field::put(self, &mut out);
                out
            }
            fn from_bytes(bytes: &[u8]) -> Result<Self, $crate::error::BadRow> {
                let mut input = $crate::records::codec::Input::new(bytes);
                match <u8 as $crate::records::codec::Field>::get(&mut input)? {
                    $version => {}
                    other => return Err($crate::error::BadRow::UnknownVersion(other)),
                }
                let row = $crate::records::codec::Field::get(&mut input)?;
                input.finish()?;
                Ok(row)
            }
        }
    };
}

pub(crate) use {part, row};
