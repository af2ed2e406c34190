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
mod files;
mod flags;
pub mod gates;
pub(crate) mod go;
mod help;
mod judge;
mod layers;
mod listen;
mod live;
mod model;
mod origin;
mod raw;
mod reread;
mod resolve;
mod rotation;
mod schema;
mod settings;
mod shell;
pub mod show;
mod sources;
mod suggest;
pub mod table;
mod url;
mod value;

use std::{ffi::OsString, net::IpAddr, path::PathBuf};

pub use document::{FILE_BYTES_MAX, FILE_DEPTH_MAX, FILE_NODES_MAX};
pub use error::{ConfigErrors, Problem};
pub use flags::{ExtraFlag, Extras};
pub(crate) use help::described;
pub use help::{help_text, usage_text, version_text};
pub use listen::first_bound;
pub use live::{Change, Changes};
pub use model::*;
pub use origin::{Form, Origin};
pub use reread::{Reread, Rereader};
pub use resolve::{Lookup, OwnEntryError, check_entry, check_founder, check_own_entry, same_hosts};
pub use schema::schema;
pub use settings::{Setting, Settings};
pub use sources::Sources;
pub use url::{ListenUrl, Scheme, Url, UrlParts};
pub use value::Value;

use layers::{Gathered, Layers};
use raw::RawConfig;

/// What the command line asks the daemon's binary to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Serve: go on with [`load`].
    Serve,
    /// `--version`: print [`version_text`], exit 0.
    Version(Compat),
    /// `--help`: print [`usage_text`] to stderr and [`help_text`] to stdout, exit 0.
    Help,
    /// `config …`: hand the rest to `cli::config::run`.
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
    /// Every option's effective value and where it stands.
    pub settings: Settings,
    /// What an operator should hear once logging works, in order.
    pub notices: Vec<Notice>,
    /// The files it was read from, and those it would have been if they were there; watch them to reload.
    pub files: Vec<PathBuf>,
    /// Assignments that change nothing, and where they stand: options without meaning, empty lists.
    pub idle: Vec<(&'static str, Origin)>,
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
    /// The option it is about; none where what stands at `origin` is no option and has no effect.
    pub option: Option<&'static str>,
    /// Where what it is about was written.
    pub origin: Option<Origin>,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// The one name that needs no asking.
pub fn localhost_alone(host: &str) -> Option<Vec<IpAddr>> {
    (host == "localhost").then(|| vec![IpAddr::from([127, 0, 0, 1])])
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fields: Vec<String> = self.fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let text =
            if fields.is_empty() { self.message.clone() } else { format!("{} ({})", self.message, fields.join(", ")) };
        f.write_str(&go::escape(&text))
    }
}

/// What the command line asks for. Looks at no file, so that `--version` is fast and safe everywhere.
///
/// # Errors
/// A command line without valid form (exit code 2), with every mistake.
pub fn command(sources: &Sources) -> Result<Command, ConfigErrors> {
    let rest = || sources.args.iter().skip(1).cloned().collect();
    match sources.args.first().and_then(|word| word.to_str()) {
        Some("config") => return Ok(Command::Config(rest())),
        Some("gateway") => return Ok(Command::Gateway(rest())),
        Some("grpc-proxy") => return Ok(Command::GrpcProxy(rest())),
        Some("discovery") => return Ok(Command::Discovery(rest())),
        _ => {}
    }
    let line = flags::scan(&sources.args, Extras::default());
    if line.help {
        return Ok(Command::Help);
    }
    let version = line.last("version").is_some_and(|text| go::parse_bool(text) == Some(true));
    if version && line.problems.is_empty() {
        return Ok(Command::Version(asked_compat(&line, sources)));
    }
    ConfigErrors::check(line.problems).map(|()| Command::Serve)
}

/// The version to report before any file was read: the flag's, else the variable's.
fn asked_compat(line: &flags::CommandLine, sources: &Sources) -> Compat {
    let variable = sources.env.iter().find(|(name, _)| name == "ETCD_COMPAT_VERSION");
    let text = line.last("compat-version").or_else(|| variable.and_then(|(_, value)| value.to_str()));
    text.and_then(Compat::from_minor).unwrap_or_default()
}

/// Reads all layers and checks them.
///
/// # Errors
/// Every mistake in them.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    load_with(sources, Extras::default())
}

/// What a command found of its own on the command line; flags of the daemon are passed over.
#[derive(Clone, Debug, Default)]
pub struct Own {
    /// Its flags with their values, in order.
    pub flags: Vec<(&'static str, String)>,
    /// Its words, in order.
    pub words: Vec<String>,
}

impl Own {
    /// The last value of a flag.
    pub fn flag(&self, name: &str) -> Option<&str> {
        self.flags.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    /// Whether a switch is on.
    pub fn has(&self, name: &str) -> bool {
        self.flag(name).is_some_and(|value| value != "false")
    }
}

/// Takes from `args` what belongs to the command that `extras` describes.
pub fn own_words(args: &[OsString], extras: Extras<'_>) -> Own {
    let line = flags::scan(args, extras);
    Own { flags: line.extras, words: line.words }
}

/// As [`load`], for a command that takes words of its own.
///
/// # Errors
/// As [`load`].
pub fn load_with(sources: &Sources, extras: Extras<'_>) -> Result<Loaded, ConfigErrors> {
    let gathered = Gathered::read(&flags::read(sources, extras), sources);
    let layers = Layers::merge(&gathered);
    let raw: RawConfig = layers.figment.extract().map_err(|error| {
        let what = format!("the option table contradicts itself: {error}");
        ConfigErrors::of(vec![Problem::in_file(Origin::Default, "", what)])
    })?;
    let (config, related, more) = resolve::resolve(&raw, &layers, gathered.threads.as_deref(), sources.default_host);
    let is_initialized = config.member.is_initialized();
    let (judged, remarks) = judge::judge(&gathered, &layers);
    let idle = gathered.idle();
    // Where a whole file could not be read, what follows from its absence is not worth telling.
    let is_whole = !gathered.problems.iter().any(|problem| problem.option.is_empty());
    let mut problems = gathered.problems;
    problems.extend(judged);
    // A rule about an option that could not be read would blame a value nobody wrote.
    let unread: Vec<String> = problems.iter().map(|problem| problem.option.clone()).collect();
    problems.extend(related.into_iter().filter(|problem| is_whole && !unread.contains(&problem.option)));
    if problems.is_empty() && !is_initialized {
        let own = check_own_entry(&config, &localhost_alone);
        problems.extend(own.err().map(|own| layers.problem(own.option, own.what).with_remedy(own.remedy)));
    }
    let mut notices = gathered.notices;
    notices.extend(remarks);
    if !problems.is_empty() {
        // Remarks on the result are left out: there is none.
        return Err(ConfigErrors::of(problems).with_notices(notices));
    }
    notices.extend(more);
    let settings = Settings::of(&layers, &config);
    Ok(Loaded { config, settings, notices, files: gathered.files, idle })
}

#[cfg(test)]
mod tests;
