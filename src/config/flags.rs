//! The command line, read as Go's `flag` package reads it.
//!
//! - One or two dashes; the value behind `=` or in the next word; switches take no next word.
//! - Of two flags of one name the later counts. `--` or the first word without a dash ends the flags.
//! - The texts of mistakes are Go's; all of them are found, not only the first.

use std::{ffi::OsString, path::Path};

use super::{
    FILE_NODES_MAX, Origin, Problem, Sources, document, go,
    shell::{self, Word},
    suggest::closest,
    table::{self, OPTIONS, OptionSpec},
};

/// A flag as typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GivenFlag {
    pub(super) spec: &'static OptionSpec,
    /// Its value; `true` for a switch without one.
    pub(super) text: String,
    /// Where it stands.
    pub(super) origin: Origin,
}

/// A flag that only one command knows.
#[derive(Clone, Copy, Debug)]
pub struct ExtraFlag {
    /// Its name without dashes.
    pub name: &'static str,
    /// Whether it stands alone, without a value.
    pub is_switch: bool,
}

/// What a command takes beside the flags of the daemon.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'e> {
    /// Flags of its own.
    pub flags: &'e [ExtraFlag],
    /// Whether words without a dash are its own, wherever they stand. The daemon's flags end at the first.
    pub words: bool,
}

/// A command line taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CommandLine {
    /// Flags of the option table, in order.
    pub(super) given: Vec<GivenFlag>,
    /// Flags of the command, in order, with their values.
    pub(super) extras: Vec<(&'static str, String)>,
    /// Words of the command, in order.
    pub(super) words: Vec<String>,
    /// `-h`, `--help`.
    pub(super) help: bool,
    /// Mistakes of form.
    pub(super) problems: Vec<Problem>,
}

impl CommandLine {
    /// The last value typed for an option.
    pub(super) fn last(&self, name: &str) -> Option<&str> {
        self.given.iter().rev().find(|flag| flag.spec.name == name).map(|flag| flag.text.as_str())
    }

    /// What is wrong with a file is no misuse of the command line.
    fn mistake(&mut self, at: &Word, flag: &str, what: String, usage: bool) {
        let (origin, usage) = match &at.origin {
            Origin::File(..) => (at.origin.clone(), false),
            _ => (Origin::Flag(flag.to_owned()), usage),
        };
        let problem = Problem::in_file(origin, "", what);
        self.problems.push(Problem { option: flag.trim_start_matches('-').to_owned(), usage, ..problem });
    }
}

/// Takes the command line apart, the files of flags in front of it.
pub(super) fn read(sources: &Sources, extras: Extras<'_>) -> CommandLine {
    let mut line = CommandLine::default();
    let mut words = Vec::new();
    for path in &sources.flag_files {
        match file_words(path) {
            Ok(found) => words.extend(found),
            Err((at, why)) => line.problems.push(Problem::in_file(Origin::File(path.clone(), at), "", why)),
        }
    }
    scan_words(words.into_iter(), Extras::default(), &mut line);
    let typed = scan(&sources.args, extras);
    line.given.extend(typed.given);
    line.problems.extend(typed.problems);
    CommandLine { extras: typed.extras, words: typed.words, help: typed.help, ..line }
}

fn file_words(path: &Path) -> Result<Vec<Word>, document::Flaw> {
    let bytes = document::read(path)?;
    let words = shell::command_line(document::text(&bytes)?, path)?;
    match words.get(FILE_NODES_MAX) {
        Some(_) => Err((0, format!("more than {FILE_NODES_MAX} words"))),
        None => Ok(words),
    }
}

/// Takes `args` apart.
pub(super) fn scan(args: &[OsString], extras: Extras<'_>) -> CommandLine {
    let mut line = CommandLine::default();
    if let Some(bad) = args.iter().find(|word| word.to_str().is_none()) {
        let word = Word::typed(bad.to_string_lossy());
        line.mistake(&word, "", format!("the argument {} is not UTF-8 text", go::quote(&word.text)), true);
        return line;
    }
    scan_words(args.iter().map(|word| Word::typed(word.to_string_lossy())), extras, &mut line);
    line
}

fn scan_words(words: impl Iterator<Item = Word>, extras: Extras<'_>, line: &mut CommandLine) {
    let mut words = words.peekable();
    while let Some(word) = words.next() {
        let dashes = word.text.len() - word.text.trim_start_matches('-').len();
        if word.text == "--" {
            return stray(line, words.next());
        }
        if dashes == 0 || word.text == "-" {
            if extras.words {
                line.words.push(word.text);
                continue;
            }
            return stray(line, Some(word));
        }
        let (name, inline) = match word.text.get(dashes.min(2)..).unwrap_or_default().split_once('=') {
            Some((name, text)) => (name.to_owned(), Some(text.to_owned())),
            None => (word.text.get(dashes.min(2)..).unwrap_or_default().to_owned(), None),
        };
        if name.is_empty() || name.starts_with(['-', '=']) {
            line.mistake(&word, &word.text, format!("bad flag syntax: {}", word.text), true);
            continue;
        }
        let Some(flag) = Known::find(&name, extras.flags) else {
            if name == "h" || name == "help" {
                line.help = line.problems.is_empty();
                return;
            }
            undefined(line, &word, &name);
            // What follows is more likely the unknown flag's value than a word of its own.
            let _value = words.next_if(|next| inline.is_none() && !next.text.starts_with('-'));
            continue;
        };
        let text = match inline {
            Some(text) => Some(text),
            None if flag.is_switch() => Some("true".to_owned()),
            None => words.next().map(|word| word.text),
        };
        match text {
            Some(text) => flag.record(line, text, &word),
            None => line.mistake(&word, &word.text, format!("flag needs an argument: -{name}"), true),
        }
    }
}

/// A flag that exists.
enum Known {
    Option(&'static OptionSpec),
    Extra(ExtraFlag),
}

impl Known {
    fn find(name: &str, extras: &[ExtraFlag]) -> Option<Self> {
        let extra = extras.iter().find(|extra| extra.name == name).map(|extra| Self::Extra(*extra));
        extra.or_else(|| table::find(name).map(Self::Option))
    }

    fn is_switch(&self) -> bool {
        match self {
            Self::Option(spec) => spec.kind.is_switch(),
            Self::Extra(extra) => extra.is_switch,
        }
    }

    fn record(self, line: &mut CommandLine, text: String, at: &Word) {
        match self {
            Self::Option(spec) => {
                let origin = match &at.origin {
                    Origin::File(..) => at.origin.clone(),
                    _ => Origin::Flag(format!("--{}", spec.name)),
                };
                line.given.push(GivenFlag { spec, text, origin });
            }
            Self::Extra(extra) => line.extras.push((extra.name, text)),
        }
    }
}

fn stray(line: &mut CommandLine, word: Option<Word>) {
    if let Some(word) = word {
        line.mistake(&word, "", format!("{} is not a valid flag", go::quote(&word.text)), false);
    }
}

fn undefined(line: &mut CommandLine, word: &Word, name: &str) {
    line.mistake(word, &word.text, format!("flag provided but not defined: -{name}"), true);
    let hint = closest(name, OPTIONS.iter().map(|spec| spec.name)).map(|name| format!("--{name}"));
    if let Some(problem) = line.problems.last_mut() {
        problem.example = hint;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan_words(words: &[&str]) -> CommandLine {
        scan(&words.iter().map(OsString::from).collect::<Vec<_>>(), Extras::default())
    }

    fn given(words: &[&str]) -> Vec<(&'static str, String)> {
        let line = scan_words(words);
        assert_eq!(line.problems, [], "{words:?}");
        line.given.into_iter().map(|flag| (flag.spec.name, flag.text)).collect()
    }

    fn mistakes(words: &[&str]) -> Vec<(String, bool)> {
        scan_words(words).problems.into_iter().map(|problem| (problem.what, problem.usage)).collect()
    }

    #[test]
    fn values_follow_an_equals_sign_or_in_the_next_word() {
        let words = ["--name=a", "-name", "b", "-name=c=d", "--cert-file=", "--data-dir", "", "--max-wals", "-1"];
        let pairs =
            [("name", "a"), ("name", "b"), ("name", "c=d"), ("cert-file", ""), ("data-dir", ""), ("max-wals", "-1")];
        assert_eq!(given(&words), pairs.map(|(name, text)| (name, text.to_owned())));
        assert_eq!(scan_words(&words).last("name"), Some("c=d"));
    }

    #[test]
    fn switches_take_no_next_word() {
        assert_eq!(given(&["--pre-vote", "--debug=false"]), [("pre-vote", "true".into()), ("debug", "false".into())]);
        assert_eq!(mistakes(&["--pre-vote", "false"]), [("\"false\" is not a valid flag".to_owned(), false)]);
    }

    #[test]
    fn mistakes_are_told_in_gos_words_all_at_once() {
        let words = ["--foo", "bar", "---x", "-=x", "--name"];
        let texts = [
            "flag provided but not defined: -foo",
            "bad flag syntax: ---x",
            "bad flag syntax: -=x",
            "flag needs an argument: -name",
        ];
        assert_eq!(mistakes(&words), texts.map(|text| (text.to_owned(), true)));
        assert_eq!(mistakes(&["--", "a"]), [("\"a\" is not a valid flag".to_owned(), false)]);
        assert_eq!(mistakes(&["--"]), []);
    }

    #[test]
    fn an_unknown_flag_brings_the_closest_name() {
        assert_eq!(scan_words(&["--eletion-timeout=5"]).problems[0].example.as_deref(), Some("--election-timeout"));
    }

    #[test]
    fn words_of_a_command_stand_anywhere() {
        let extras = Extras { flags: &[ExtraFlag { name: "to", is_switch: false }], words: true };
        let words = ["a.conf", "--to", "env", "-", "--name", "x", "b.conf", "--", "c"].map(OsString::from);
        let line = scan(&words, extras);
        assert_eq!(
            (line.words, line.extras),
            (vec!["a.conf".into(), "-".into(), "b.conf".into()], vec![("to", "env".into())])
        );
        assert_eq!((line.given.len(), line.problems.len()), (1, 1));
    }

    #[test]
    fn help_counts_until_the_first_mistake() {
        assert!(scan_words(&["--name", "a", "-h", "--foo"]).help);
        assert!(!scan_words(&["--foo", "--help"]).help);
    }

    proptest! {
        #[test]
        fn any_words_become_flags_mistakes_or_help(words in proptest::collection::vec("[-=a-z]{0,8}|--name|é", 0..6)) {
            let line = scan(&words.iter().map(OsString::from).collect::<Vec<_>>(), Extras::default());
            let found = line.given.len() + line.problems.len() + usize::from(line.help);
            prop_assert!(found <= words.len() && (found > 0 || words.iter().all(|word| word == "--")));
        }
    }
}
