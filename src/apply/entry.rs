//! How an entry is read: told apart, decoded, and checked for fields this version does not know.

use thiserror::Error;

/// What an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestKind {}

/// An entry that cannot be executed exactly as every other member executes it.
#[derive(Debug, Error)]
pub enum EntryError {
    /// No known request.
    #[error("the entry does not decode")]
    Decode(#[from] prost::DecodeError),
}
