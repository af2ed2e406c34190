//! The command line, read as Go's `flag` package reads it.
//!
//! - One or two dashes; the value behind `=` or in the next word; switches take no next word.
//! - Of two flags of one name the later counts. `--` or the first word without a dash ends the flags.
//! - The texts of mistakes are Go's; all of them are found, not only the first.

use std::ffi::OsString;

use super::{
    Origin, Problem, go,
    suggest::closest,
    table::{self, OPTIONS, OptionSpec},
};

/// A flag as typed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GivenFlag {
    pub(super) spec: &'static OptionSpec,
    /// Its value; `true` for a switch without one.
    pub(super) text: String,
}

/// A flag that only one command knows.
#[derive(Clone, Copy, Debug)]
pub struct ExtraFlag {
    /// Its name without dashes.
    pub name: &'static str,
    /// Whether it stands alone, without a value.
    pub is_switch: bool,
}

/// A command line taken apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CommandLine {
    /// Flags of the option table, in order.
    pub(super) given: Vec<GivenFlag>,
    /// Flags of the command, in order, with their values.
    pub(super) extras: Vec<(&'static str, String)>,
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

    fn mistake(&mut self, flag: &str, what: String, usage: bool) {
        let problem = Problem::in_file(Origin::Flag(flag.to_owned()), "", what);
        self.problems.push(Problem { option: flag.trim_start_matches('-').to_owned(), usage, ..problem });
    }
}

/// Takes `args` apart; `extras` are flags beyond the option table.
pub(super) fn scan(args: &[OsString], extras: &[ExtraFlag]) -> CommandLine {
    let mut line = CommandLine::default();
    let mut words = args.iter().map(|word| word.to_string_lossy().into_owned()).peekable();
    if let Some(bad) = args.iter().find(|word| word.to_str().is_none()) {
        line.mistake("", format!("the argument {} is not UTF-8 text", go::quote(&bad.to_string_lossy())), true);
        return line;
    }
    while let Some(word) = words.next() {
        let dashes = word.len() - word.trim_start_matches('-').len();
        if word == "--" {
            stray(&mut line, words.next());
            return line;
        }
        if dashes == 0 || word == "-" {
            stray(&mut line, Some(word));
            return line;
        }
        let (name, inline) = match word.get(dashes.min(2)..).unwrap_or_default().split_once('=') {
            Some((name, text)) => (name.to_owned(), Some(text.to_owned())),
            None => (word.get(dashes.min(2)..).unwrap_or_default().to_owned(), None),
        };
        if name.is_empty() || name.starts_with(['-', '=']) {
            line.mistake(&word, format!("bad flag syntax: {word}"), true);
            continue;
        }
        let Some(flag) = Known::find(&name, extras) else {
            if name == "h" || name == "help" {
                line.help = line.problems.is_empty();
                return line;
            }
            undefined(&mut line, &word, &name);
            // What follows is more likely the unknown flag's value than a word of its own.
            let _value = words.next_if(|next| inline.is_none() && !next.starts_with('-'));
            continue;
        };
        let text = match inline {
            Some(text) => Some(text),
            None if flag.is_switch() => Some("true".to_owned()),
            None => words.next(),
        };
        match text {
            Some(text) => flag.record(&mut line, text),
            None => line.mistake(&word, format!("flag needs an argument: -{name}"), true),
        }
    }
    line
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

    fn record(self, line: &mut CommandLine, text: String) {
        match self {
            Self::Option(spec) => line.given.push(GivenFlag { spec, text }),
            Self::Extra(extra) => line.extras.push((extra.name, text)),
        }
    }
}

fn stray(line: &mut CommandLine, word: Option<String>) {
    if let Some(word) = word {
        line.mistake("", format!("{} is not a valid flag", go::quote(&word)), false);
    }
}

fn undefined(line: &mut CommandLine, word: &str, name: &str) {
    line.mistake(word, format!("flag provided but not defined: -{name}"), true);
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
        scan(&words.iter().map(OsString::from).collect::<Vec<_>>(), &[])
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
    fn help_counts_until_the_first_mistake() {
        assert!(scan_words(&["--name", "a", "-h", "--foo"]).help);
        assert!(!scan_words(&["--foo", "--help"]).help);
    }

    proptest! {
        #[test]
        fn any_words_become_flags_mistakes_or_help(words in proptest::collection::vec("[-=a-z]{0,8}|--name|é", 0..6)) {
            let line = scan(&words.iter().map(OsString::from).collect::<Vec<_>>(), &[]);
            let found = line.given.len() + line.problems.len() + usize::from(line.help);
            prop_assert!(found <= words.len() && (found > 0 || words.iter().all(|word| word == "--")));
        }
    }
}
