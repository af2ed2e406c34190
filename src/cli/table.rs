//! The shape of a command table.
//!
//! Everything a user can type is a [`Command`] or a [`Flag`]; the parser, help pages, completions and
//! manual pages read nothing else. Invariants, checked by tests over each table: names are unique where they can meet, every
//! default is readable, every leaf runs.

use std::pin::Pin;

use super::{failure::Failure, parse::Call};

/// One word a user can type, with everything it accepts.
#[derive(Debug)]
pub(super) struct Command {
    /// The word itself.
    pub(super) name: &'static str,
    /// Beginnings of its name that mean it although another command's begins alike: etcd's tools do not have that one.
    pub(super) beginnings: &'static [&'static str],
    /// Whether etcd's tools do not have it.
    pub(super) is_own: bool,
    /// What its usage line shows behind the name.
    pub(super) arguments: &'static str,
    /// One line on what it does.
    pub(super) about: &'static str,
    /// What its help page says instead of [`Command::about`]; empty if that is all.
    pub(super) details: &'static str,
    /// Under which heading the help page of the parent lists it.
    pub(super) group: Group,
    /// Flags of this command.
    pub(super) flags: &'static [Flag],
    /// Flags of this command and of those below it.
    pub(super) inherited: &'static [Flag],
    /// Commands below this one, in the order suggestions come in.
    pub(super) commands: &'static [Command],
    /// What it does, or says of words that are none of its commands; `None` for one that then shows its help page.
    pub(super) run: Option<Run>,
}

impl Command {
    /// A command to fill in with `..Command::EMPTY`.
    pub(super) const EMPTY: Self = Self {
        name: "",
        beginnings: &[],
        is_own: false,
        arguments: "",
        about: "",
        details: "",
        group: Group::None,
        flags: &[],
        inherited: &[],
        commands: &[],
        run: None,
    };

    /// The command below this one that `word` names: exactly, by a beginning that is its own, or as the only one it begins.
    pub(super) fn child(&self, word: &str) -> Option<&'static Command> {
        let exact = self.commands.iter().find(|command| command.name == word || command.beginnings.contains(&word));
        exact.or_else(|| {
            let mut begun = self.commands.iter().filter(|command| command.name.starts_with(word));
            begun.next().filter(|_| begun.next().is_none() && !word.is_empty())
        })
    }
}

/// Does what a command is for.
pub(super) type Run = fn(Call) -> Running;
/// A command at work.
pub(super) type Running = Pin<Box<dyn Future<Output = Result<(), Failure>>>>;

/// Headings of the main help page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    None,
    KeyValue,
    Maintenance,
    Concurrency,
    Authentication,
    Utility,
}

impl Group {
    /// The headings in the order of the help page.
    pub(super) const HEADINGS: [(Group, &'static str); 5] = [
        (Group::KeyValue, "Key-value commands"),
        (Group::Maintenance, "Cluster maintenance commands"),
        (Group::Concurrency, "Concurrency commands"),
        (Group::Authentication, "Authentication commands"),
        (Group::Utility, "Utility commands"),
    ];
}

/// One flag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flag {
    /// The long name, without dashes.
    pub(super) name: &'static str,
    /// The short name.
    pub(super) short: Option<char>,
    /// Another long name, empty if there is none.
    pub(super) also: &'static str,
    /// What its values are.
    pub(super) kind: Kind,
    /// The value it has when nobody sets it, as it would be typed.
    pub(super) default: &'static str,
    /// One line on what it does.
    pub(super) help: &'static str,
    /// What a shell may offer as its value.
    pub(super) values: Values,
}

impl Flag {
    /// A flag that is off unless named.
    pub(super) const fn switch(name: &'static str, help: &'static str) -> Self {
        Self { name, short: None, also: "", kind: Kind::Switch, default: "false", help, values: Values::Any }
    }

    /// A flag with a free text.
    pub(super) const fn text(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { name, short: None, also: "", kind: Kind::Text, default, help, values: Values::Any }
    }

    /// A flag with a number, 0 unless set.
    pub(super) const fn integer(name: &'static str, help: &'static str) -> Self {
        Self { name, short: None, also: "", kind: Kind::Integer, default: "0", help, values: Values::Any }
    }

    /// A flag with a duration.
    pub(super) const fn duration(name: &'static str, default: &'static str, help: &'static str) -> Self {
        Self { name, short: None, also: "", kind: Kind::Duration, default, help, values: Values::Any }
    }

    /// A flag with a number that is not negative, 0 unless set.
    pub(super) const fn unsigned(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Unsigned, ..Self::integer(name, help) }
    }

    /// The same flag with a short name.
    pub(super) const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    /// A flag that may be named again and again, with a free text each time.
    pub(super) const fn texts(name: &'static str, help: &'static str) -> Self {
        Self { kind: Kind::Texts, ..Self::text(name, "", help) }
    }

    /// The same flag with another long name.
    pub(super) const fn also(self, also: &'static str) -> Self {
        Self { also, ..self }
    }

    /// Every name, without dashes, the first one first.
    pub(super) fn names(&self) -> impl Iterator<Item = String> + use<> {
        let other = (!self.also.is_empty()).then(|| self.also.to_owned());
        std::iter::once(self.name.to_owned()).chain(self.short.map(String::from)).chain(other)
    }

    /// The same flag with another default.
    pub(super) const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    /// The same flag with something to offer as its value.
    pub(super) const fn values(self, values: Values) -> Self {
        Self { values, ..self }
    }
}

/// What the values of a flag are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// True or false; naming the flag means true.
    Switch,
    /// Anything.
    Text,
    /// A signed number.
    Integer,
    /// A number that is not negative.
    Unsigned,
    /// A duration in Go's form.
    Duration,
    /// Texts separated by commas; naming the flag again adds to them.
    List,
    /// Texts; naming the flag again adds one.
    Texts,
}

impl Kind {
    /// The word that stands for a value in help pages.
    pub(super) fn placeholder(self) -> &'static str {
        match self {
            Self::Switch => "",
            Self::Text | Self::Texts => "string",
            Self::Integer => "int",
            Self::Unsigned => "uint",
            Self::Duration => "duration",
            Self::List => "strings",
        }
    }
}

/// What a shell may offer as the value of a flag. What is allowed is for the command to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Nothing: it can be anything.
    Any,
    /// Names of files.
    Files,
    /// These words.
    Words(&'static [&'static str]),
}

impl Values {
    /// The forms of an answer.
    pub(super) const FORMS: Self = Self::Words(&["fields", "json", "protobuf", "simple", "table"]);

    /// The words, if there are some.
    pub(super) fn words(self) -> &'static [&'static str] {
        match self {
            Self::Words(words) => words,
            Self::Any | Self::Files => &[],
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::{collections::BTreeSet, ffi::OsString};

    use super::*;
    use crate::cli::{
        Program,
        parse::{HELP, known_flags, parse},
    };

    /// Every command with the commands above it.
    fn paths(path: &[&'static Command]) -> Vec<Vec<&'static Command>> {
        let below = path.last().unwrap().commands.iter().flat_map(|command| {
            let mut longer = path.to_vec();
            longer.push(command);
            paths(&longer)
        });
        std::iter::once(path.to_vec()).chain(below).collect()
    }

    /// Checks the invariants of a whole table.
    pub(in crate::cli) fn check(root: &'static Command) {
        for path in paths(&[root]) {
            names_are_unique(&path);
            leaf_runs_and_everything_is_explained(&path);
            parses_bare(root, &path);
        }
    }

    fn names_are_unique(path: &[&'static Command]) {
        let flags: Vec<&Flag> = known_flags(path).collect();
        let names: BTreeSet<_> = flags.iter().map(|flag| flag.name).collect();
        let shorts: Vec<_> = flags.iter().filter_map(|flag| flag.short).collect();
        let commands = path.last().unwrap().commands;
        assert_eq!(names.len(), flags.len(), "{path:?}");
        assert_eq!(shorts.iter().collect::<BTreeSet<_>>().len(), shorts.len(), "{path:?}");
        assert_eq!(commands.iter().map(|command| command.name).collect::<BTreeSet<_>>().len(), commands.len());
    }

    fn leaf_runs_and_everything_is_explained(path: &[&'static Command]) {
        let command = path.last().unwrap();
        assert!(command.run.is_some() || !command.commands.is_empty(), "{}", command.name);
        assert!(!command.about.is_empty(), "{}", command.name);
        assert!(known_flags(path).all(|flag| !flag.help.is_empty() || *flag == HELP), "{}", command.name);
    }

    fn parses_bare(root: &'static Command, path: &[&'static Command]) {
        let words = path.iter().skip(1).map(|command| OsString::from(command.name)).collect();
        let call = parse(Program { name: "tool", version: "" }, root, words).unwrap();
        assert_eq!(call.path.len(), path.len());
    }
}
