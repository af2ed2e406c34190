//! What is wrong with a configuration: every mistake at once, each with its place, its text and a correct example.

use std::fmt;

use super::{
    Loudness, Notice, go,
    origin::{Form, Origin},
    table::{Kind, OptionSpec},
};

/// Longest part of a value that a message repeats.
const SHOWN_CHARS_MAX: usize = 120;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The option, without dashes; empty when the mistake is about a whole file.
    pub option: String,
    /// The value as written, when there is one; never a secret.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: Origin,
    /// Option and value as they were spelled there: `ETCD_NAME=x`, `--name=x`, `name: x`.
    pub written: String,
    /// What is wrong, in etcd's words where etcd has words.
    pub what: String,
    /// How it would be right, spelled the same way.
    pub example: Option<String>,
    /// What to do about it, where an example would not tell.
    pub remedy: Option<String>,
    /// A mistake of the command line's form, which etcd answers with usage and exit code 2.
    pub usage: bool,
}

impl Problem {
    /// A mistake about `spec`, whose value `text` stands at `origin`.
    pub(super) fn of(spec: &OptionSpec, text: &str, origin: Origin, form: Form, what: String) -> Self {
        let shown = if spec.secret { "***".to_owned() } else { clip(text) };
        let example = (!spec.example.is_empty()).then(|| form.spell(spec, spec.example));
        Self {
            option: spec.name.to_owned(),
            written: form.plain(spec, &shown),
            value: Some(shown),
            origin,
            what,
            example,
            remedy: None,
            usage: false,
        }
    }

    /// A value that its option's kind does not allow, in the words etcd has for each front end.
    pub(super) fn refused(spec: &OptionSpec, text: &str, origin: Origin, form: Form, why: &str) -> Self {
        let shown = if spec.secret { "***".to_owned() } else { clip(text) };
        let quoted = go::quote(&shown);
        let name = spec.name;
        // etcd's own type for this one option repeats the value.
        let why = if name == "v2-deprecation" { format!("invalid value {quoted}") } else { why.to_owned() };
        let what = match form {
            Form::Flag if spec.kind == Kind::Switch => format!("invalid boolean value {quoted} for -{name}: {why}"),
            Form::Flag => format!("invalid value {quoted} for flag -{name}: {why}"),
            Form::Variable => format!("invalid value {quoted} for {}: {why}", spec.variable()),
            Form::Yaml if name == "initial-cluster-state" => format!("unexpected clusterState {quoted}"),
            Form::Yaml if spec.kind == Kind::Urls => format!("unexpected error setting up {}: {why}", url_key(name)),
            Form::Toml | Form::Yaml => format!("invalid value {quoted} for {name}: {why}"),
        };
        let usage = matches!(origin, Origin::Flag(_));
        Self { usage, ..Self::of(spec, text, origin, form, what) }
    }

    /// A mistake about a whole file, or a line of it that names no option.
    pub(super) fn in_file(origin: Origin, written: &str, what: String) -> Self {
        let written = clip(written);
        let option = String::new();
        Self { option, value: None, origin, written, what, example: None, remedy: None, usage: false }
    }

    /// Adds what would be right.
    pub(super) fn with_example(self, example: Option<String>) -> Self {
        Self { example, ..self }
    }

    /// Adds what to do, in place of an example.
    pub(super) fn with_remedy(self, remedy: String) -> Self {
        Self { example: None, remedy: Some(remedy), ..self }
    }
}

/// etcd's message about advertised client URLs in a file leaves a word out.
fn url_key(name: &str) -> &str {
    if name == "advertise-client-urls" { "advertise-peer-urls" } else { name }
}

/// The beginning of a long text.
fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Origin::File(..) = self.origin {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.written.is_empty() {
            write!(f, "{}: ", go::escape(&self.written))?;
        }
        f.write_str(&go::escape(&self.what))?;
        match (&self.example, &self.remedy) {
            (Some(example), _) => write!(f, "; correct: {example}"),
            (None, Some(remedy)) => write!(f, "; {}", go::escape(remedy)),
            (None, None) => Ok(()),
        }
    }
}

/// All mistakes of one configuration, in the order in which they were met. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors {
    problems: Vec<Problem>,
    notices: Vec<Notice>,
}

impl ConfigErrors {
    /// `Ok` when there is no mistake.
    pub(super) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems, notices: Vec::new() }) }
    }

    /// Mistakes, at least one.
    pub(super) fn of(problems: Vec<Problem>) -> Self {
        Self { problems, notices: Vec::new() }
    }

    /// The same, with the remarks that were made on the way: a warning can name the cause of a mistake.
    #[must_use]
    pub(super) fn with_notices(self, notices: Vec<Notice>) -> Self {
        Self { notices, ..self }
    }

    /// The mistakes.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The warnings beside them.
    pub fn warnings(&self) -> impl Iterator<Item = &Notice> {
        self.notices.iter().filter(|notice| notice.level == Loudness::Warn)
    }

    /// etcd's exit code: 2 when the command line has no valid form, else 1.
    pub fn exit_code(&self) -> u8 {
        if self.problems.iter().any(|problem| problem.usage) { 2 } else { 1 }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.problems.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
