//! Options: one table, five layers, one typed result.
//!
//! `defaults < --config FILE.toml < --env-file FILE… < ETCD_* environment < flags typed`; `--config-file FILE.yml` is
//! etcd's own file and stands alone. [`load`] reads the layers, reports *every* mistake with its place, and hands out a
//! [`Config`] in which impossible states do not exist. Left to others: acting on the result (`daemon`), probing the
//! host (`cli`).
//!
//! Invariants:
//! - The option table is the only list of options; flags, variables, file keys, help and reload follow from it.
//! - No option is ignored silently: what has no effect here warns, what would open a door refuses.
//! - Loading changes nothing on the host.

mod document;
pub mod env_file;
mod error;
pub mod feature;
pub mod gates;
mod go;
mod model;
mod origin;
mod sources;
pub mod table;
mod url;
mod value;

use std::{ffi::OsString, path::PathBuf};

pub use error::{ConfigErrors, Problem};
pub use model::*;
pub use origin::Origin;
pub use sources::Sources;
pub use url::{ListenUrl, Scheme, Url};
pub use value::Value;

/// What the command line asks the daemon's binary to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve: go on with [`load`].
    Serve,
    /// `--version`: print [`version_text`], exit 0.
    Version(Compat),
    /// `--help`: print [`usage_text`] to stderr and [`help_text`] to stdout, exit 0.
    Help,
    /// `config check`, `config show`: hand the rest to `cli::config::run`.
    Config(Vec<OsString>),
    /// `gateway …`.
    Gateway(Vec<OsString>),
    /// `grpc-proxy …`.
    GrpcProxy(Vec<OsString>),
    /// `discovery …`.
    Discovery(Vec<OsString>),
}

/// A configuration and how it came about.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is true.
    pub config: Config,
    /// What an operator should hear once logging works, in order.
    pub notices: Vec<Notice>,
    /// The files it was read from; watch them to reload.
    pub files: Vec<PathBuf>,
}

/// How loud a [`Notice`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "levels of log records")]
pub enum Loudness {
    Info,
    Warn,
}

/// A remark on the configuration: a log record's message and fields, in etcd's words where etcd has words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Its level.
    pub level: Loudness,
    /// The record's `msg`.
    pub message: String,
    /// Its fields, in order.
    pub fields: Vec<(&'static str, String)>,
}

/// What the command line asks for.
///
/// # Errors
/// A command line without valid form (exit code 2).
pub fn command(sources: &Sources) -> Result<Command, ConfigErrors> {
    todo!("{sources:?}")
}

/// Reads all layers and checks them.
///
/// # Errors
/// Every mistake in them.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    todo!("{sources:?}")
}

/// What `--version` prints: etcd's four lines under etcd's name, a line of our own before them otherwise.
pub fn version_text(compat: Compat, called_as_etcd: bool) -> String {
    todo!("{compat:?} {called_as_etcd}")
}

/// The short usage.
pub fn usage_text(program: &str) -> String {
    todo!("{program}")
}

/// The long list of flags.
pub fn help_text() -> String {
    todo!()
}
