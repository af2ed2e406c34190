//! Changes that are committed together.

use bytes::Bytes;

use super::{KEY_BYTES_MAX, Row, StorageError, Table, VALUE_BYTES_MAX};

/// An ordered list of puts and deletes; of two changes of one key the later one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Writes {
    rows: Vec<(Bytes, Option<Bytes>)>,
}

impl Writes {
    /// Sets the full key `key` to `value`.
    pub fn put(&mut self, key: Bytes, value: Bytes) {
        self.rows.push((key, Some(value)));
    }

    /// Removes the full key `key`, if it is there.
    pub fn delete(&mut self, key: Bytes) {
        self.rows.push((key, None));
    }

    /// Sets the row `key` of `table`.
    pub fn put_row(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.put(table.key(key), value);
    }

    /// Removes the row `key` of `table`.
    pub fn delete_row(&mut self, table: Table, key: &[u8]) {
        self.delete(table.key(key));
    }

    /// Appends the changes of `later`.
    pub fn extend(&mut self, later: Self) {
        self.rows.extend(later.rows);
    }

    /// Number of changes.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Bytes of keys and values.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, Bytes::len)).sum()
    }

    /// Ready-made changes, in order; a missing value is a delete.
    pub fn from_rows(rows: Vec<(Bytes, Option<Bytes>)>) -> Self {
        Self { rows }
    }

    /// The changes in order; a missing value is a delete.
    pub fn iter(&self) -> impl Iterator<Item = (&Bytes, Option<&Bytes>)> {
        self.rows.iter().map(|(key, value)| (key, value.as_ref()))
    }

    /// Takes the changes out, in order.
    pub fn into_rows(self) -> Vec<(Bytes, Option<Bytes>)> {
        self.rows
    }

    /// Whether an engine can hold every row.
    pub(super) fn check_sizes(&self) -> Result<(), StorageError> {
        let nothing = Bytes::new();
        self.rows.iter().try_for_each(|(key, value)| check_sizes(key, value.as_ref().unwrap_or(&nothing)))
    }
}

/// Whether an engine can hold the row.
pub(super) fn check_sizes(key: &Bytes, value: &Bytes) -> Result<(), StorageError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX {
        return Err(StorageError::KeyTooLong { bytes: key.len(), table: key.first().copied().unwrap_or_default() });
    }
    if value.len() > VALUE_BYTES_MAX {
        return Err(StorageError::ValueTooLong { bytes: value.len() });
    }
    Ok(())
}

/// Whether an engine can hold the row, and whether its key is above `last`, which it becomes.
pub(super) fn check_next(row: &Row, last: &mut Bytes) -> Result<(), StorageError> {
    let (key, value) = row;
    check_sizes(key, value)?;
    if key <= last {
        return Err(StorageError::OutOfOrder { key: key.escape_ascii().to_string() });
    }
    last.clone_from(key);
    Ok(())
}
