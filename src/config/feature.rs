//! How well options are honoured.

/// How well an option is honoured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Support {
    /// It does what etcd's does.
    Works,
    /// It is read and checked and means nothing here: the reason.
    NoEffect(&'static str),
}
