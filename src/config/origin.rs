//! Where a value was written, and how values are spelled there.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use figment::{Metadata, Source};

use super::{
    env_file,
    table::{Kind, OptionSpec},
};

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// Nowhere: the table's default, or what follows from other options.
    Default,
    /// A file, with its line from 1; 0 when the whole file is meant.
    File(PathBuf, usize),
    /// A variable of the process environment.
    Variable(String),
    /// A flag on the command line, with its dashes.
    Flag(String),
}

impl Origin {
    /// As a layer's metadata carries it.
    pub(super) fn to_metadata(&self) -> Metadata {
        match self {
            Self::Default => Metadata::named("default"),
            Self::File(..) => Metadata::from("file", self.to_string()),
            Self::Variable(name) => Metadata::from("variable", name.clone()),
            Self::Flag(flag) => Metadata::from("flag", flag.clone()),
        }
    }

    /// Back from a layer's metadata.
    pub(super) fn from_metadata(metadata: &Metadata) -> Self {
        let text = match &metadata.source {
            Some(Source::Custom(text)) => text.clone(),
            _ => String::new(),
        };
        match metadata.name.as_ref() {
            "file" => Self::from_file_line(&text),
            "variable" => Self::Variable(text),
            "flag" => Self::Flag(text),
            _ => Self::Default,
        }
    }

    fn from_file_line(text: &str) -> Self {
        let numbered = text.rsplit_once(':').and_then(|(path, line)| Some((path, line.parse().ok()?)));
        let (path, line) = numbered.unwrap_or((text, 0));
        Self::File(Path::new(path).to_owned(), line)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, 0) => write!(f, "{}", path.display()),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// How options are spelled in one kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `--name=value`.
    Flag,
    /// `ETCD_NAME=value`, in the environment or in an environment file.
    Variable,
    /// `name = value`.
    Toml,
    /// `name: value`.
    Yaml,
}

impl Form {
    /// Option and value as a reader of this form takes them.
    pub fn spell(self, spec: &OptionSpec, text: &str) -> String {
        match self {
            Self::Flag => format!("--{}={}", spec.name, shell_word(text)),
            Self::Variable => format!("{}={}", spec.variable(), env_file::quote(text)),
            Self::Toml => format!("{} = {}", spec.name, literal(spec.kind, text)),
            Self::Yaml => {
                let path = spec.yaml_path().unwrap_or(spec.name).replace('.', ": {");
                let close = "}".repeat(path.matches('{').count());
                format!("{path}: {}{close}", literal(spec.kind, text))
            }
        }
    }

    /// The option alone.
    pub(super) fn name(self, spec: &OptionSpec) -> String {
        match self {
            Self::Flag => format!("--{}", spec.name),
            Self::Variable => spec.variable(),
            Self::Toml => spec.name.to_owned(),
            Self::Yaml => spec.yaml_path().unwrap_or(spec.name).to_owned(),
        }
    }

    /// Option and value for a message: unquoted, as they were read.
    pub fn plain(self, spec: &OptionSpec, text: &str) -> String {
        let name = self.name(spec);
        match self {
            Self::Flag | Self::Variable => format!("{name}={text}"),
            Self::Toml => format!("{name} = {}", visible(text)),
            Self::Yaml => format!("{name}: {}", visible(text)),
        }
    }
}

/// A text that cannot be overlooked.
fn visible(text: &str) -> &str {
    if text.is_empty() { "\"\"" } else { text }
}

/// Numbers and truth values bare, everything else in double quotes that TOML, YAML and JSON read alike.
pub(super) fn literal(kind: Kind, text: &str) -> String {
    match kind {
        Kind::Switch | Kind::Uint | Kind::Uint32 | Kind::Int => text.to_owned(),
        _ => serde_json::Value::from(text).to_string(),
    }
}

/// One word of a POSIX shell.
pub(super) fn shell_word(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || "_-.,:/=+@%".contains(c);
    if text.chars().all(safe) { text.to_owned() } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::table;

    #[test]
    fn origins_survive_metadata() {
        for origin in [
            Origin::Default,
            Origin::File(PathBuf::from("/etc/a:b.conf"), 12),
            Origin::File(PathBuf::from("/etc/x"), 0),
            Origin::Variable("ETCD_NAME".to_owned()),
            Origin::Flag("--name".to_owned()),
        ] {
            assert_eq!(Origin::from_metadata(&origin.to_metadata()), origin);
        }
    }

    #[test]
    fn each_form_spells_options_its_own_way() {
        let cert = table::find("cert-file").expect("in the table");
        let all = [Form::Flag, Form::Variable, Form::Toml, Form::Yaml].map(|form| form.spell(cert, "/a b"));
        let expected = [
            "--cert-file='/a b'",
            "ETCD_CERT_FILE=\"/a b\"",
            "cert-file = \"/a b\"",
            "client-transport-security: {cert-file: \"/a b\"}",
        ];
        assert_eq!(all, expected);
    }
}
