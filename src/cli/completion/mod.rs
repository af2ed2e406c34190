//! What a shell offers while a command line is typed, read from the option table and the command tables.
//!
//! A script (`quoratectl completion bash`) holds no words: at every press of the key it asks the program by a hidden
//! word. Question and answer have the form that etcd's own tools use, so that a script written by etcdctl goes on
//! working when that name is ours.

mod daemon;
mod tool;

use std::{ffi::OsString, process::ExitCode};

use super::{
    failure::{Exit, Failure},
    go_text, help,
    parse::Call,
    speak::say,
    table::{Command, Flag, Group, Running, Values},
};
pub(super) use daemon::FORMS;
pub use daemon::answer_for_daemon;
pub(super) use tool::answer_for_tool;

/// The hidden word that asks for candidates with what each does, and the one that asks for candidates alone.
const QUESTIONS: [&str; 2] = ["__complete", "__completeNoDesc"];
/// What the shell is to do beside the candidates: names of files.
const WITH_FILES: &str = ":0";
/// Nothing.
const WITHOUT_FILES: &str = ":4";

/// The shells that have a script.
const SHELLS: [(&str, &str); 4] = [
    ("bash", include_str!("script.bash")),
    ("fish", include_str!("script.fish")),
    ("powershell", include_str!("script.powershell")),
    ("zsh", include_str!("script.zsh")),
];

const NO_DESCRIPTIONS: Flag = Flag::switch("no-descriptions", "offer words without what they do");

/// The command that every tool has.
pub(super) const COMPLETION: Command = Command {
    name: "completion",
    about: "Prints the script that completes command lines in a shell",
    group: Group::Utility,
    commands: &[
        of_shell("bash", "Prints the script for bash, to be sourced or put under bash-completion/completions"),
        of_shell("fish", "Prints the script for fish, to be sourced or put under fish/vendor_completions.d"),
        of_shell("powershell", "Prints the script for PowerShell, to be evaluated or put in its profile"),
        of_shell("zsh", "Prints the script for zsh, to be sourced or put in a directory of $fpath"),
    ],
    run: Some(refuse),
    ..Command::EMPTY
};

const fn of_shell(name: &'static str, about: &'static str) -> Command {
    Command { name, about, flags: &[NO_DESCRIPTIONS], run: Some(print), ..Command::EMPTY }
}

/// There is no script for what was typed, or nothing was typed.
fn refuse(call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_texts();
        let text = match words.as_slice() {
            [shell] => {
                let shell = go_text::quote(shell.as_bytes());
                format!("invalid argument {shell} for \"{} completion\"", call.program.name)
            }
            words => one_argument(words.len()),
        };
        Err(with_usage(&call, text))
    })
}

fn one_argument(count: usize) -> String {
    format!("accepts 1 arg(s), received {count}")
}

fn with_usage(call: &Call, text: String) -> Failure {
    Failure { usage: Some(help::usage(call.program, &call.path)), ..Failure::new(Exit::Error, text) }
}

fn print(call: Call) -> Running {
    Box::pin(async move {
        if !call.arguments.is_empty() {
            return Err(with_usage(&call, one_argument(1 + call.arguments.len())));
        }
        let shell = call.path.last().map_or("", |command| command.name);
        let script = script(shell, call.program.name, call.flags.switch(&NO_DESCRIPTIONS));
        let script = script.ok_or_else(|| Failure::new(Exit::Error, format!("no script for the shell {shell:?}")))?;
        Ok(say(format_args!("{script}"))?)
    })
}

/// The script for `shell` that completes the command `name`.
fn script(shell: &str, name: &str, is_brief: bool) -> Option<String> {
    let (_, text) = SHELLS.into_iter().find(|(own, _)| *own == shell)?;
    let [full, brief] = QUESTIONS;
    Some(text.replace("@NAME@", name).replace("@ASK@", if is_brief { brief } else { full }))
}

/// Whether a shell asks.
pub(super) fn is_question(words: &[OsString]) -> bool {
    words.first().is_some_and(|word| QUESTIONS.iter().any(|question| word == question))
}

/// What may stand at one place of a command line.
#[derive(Debug, Default)]
struct Place {
    flags: Vec<Known>,
    /// Words that are no flags, with what they do.
    words: Vec<(&'static str, &'static str)>,
    /// Whether a word that is no flag may be a file.
    files: bool,
    /// The flag whose value is typed.
    value_of: Option<Known>,
}

/// A flag as a shell is told of it.
#[derive(Clone, Debug)]
struct Known {
    name: &'static str,
    short: Option<char>,
    about: &'static str,
    /// Whether the word behind it is its value.
    takes_word: bool,
    values: Values,
}

impl Place {
    /// The flag that `word` names, its value aside.
    fn flag(&self, word: &str) -> Option<&Known> {
        let dashed = word.split_once('=').map_or(word, |(name, _)| name);
        let name = dashed.trim_start_matches('-');
        self.flags.iter().find(|flag| {
            flag.name == name || !dashed.starts_with("--") && flag.short.is_some_and(|short| name == short.to_string())
        })
    }

    /// The lines of the answer when the last word is `current` so far.
    fn answer(&self, current: &str, is_brief: bool) -> String {
        let (words, files, typed) = self.candidates(current);
        let chosen = words.into_iter().filter(|(word, _)| word.starts_with(typed));
        let mut lines: Vec<String> = chosen
            .map(|(word, about)| if is_brief || about.is_empty() { word } else { format!("{word}\t{about}") })
            .collect();
        lines.push(if files { WITH_FILES } else { WITHOUT_FILES }.to_owned());
        lines.join("\n") + "\n"
    }

    /// Every candidate, whether files are some, too, and the part of `current` that they begin with.
    fn candidates<'a>(&self, current: &'a str) -> (Vec<(String, &'static str)>, bool, &'a str) {
        let typed = current.split_once('=').filter(|_| current.starts_with('-'));
        let value_of = self.value_of.as_ref().map(|flag| (flag, current));
        let valued = value_of.or_else(|| typed.and_then(|(name, value)| Some((self.flag(name)?, value))));
        if let Some((flag, value)) = valued {
            let words = flag.values.words().iter().map(|word| ((*word).to_owned(), "")).collect();
            return (words, flag.values == Values::Files, value);
        }
        if current.starts_with('-') {
            let short = |flag: &Known| flag.short.map(|short| (format!("-{short}"), flag.about));
            let words =
                self.flags.iter().flat_map(|flag| [Some((format!("--{}", flag.name), flag.about)), short(flag)]);
            return (words.flatten().collect(), false, current);
        }
        (self.words.iter().map(|(word, about)| ((*word).to_owned(), *about)).collect(), self.files, current)
    }
}

/// Answers the question in `words`, which begin with it; `place` tells what may stand behind the finished ones.
fn answer(words: &[OsString], place: impl FnOnce(&[String]) -> Place) -> Result<(), Failure> {
    let is_brief = words.first().is_some_and(|word| word == QUESTIONS[1]);
    let words: Vec<String> = words.iter().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    let (current, finished) = words.split_last().map_or(("", &[][..]), |(last, rest)| (last.as_str(), rest));
    Ok(say(format_args!("{}", place(finished).answer(current, is_brief)))?)
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    result.map_or_else(|failure| super::report(&failure), |()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_name_the_program_and_how_to_ask() {
        for (shell, _) in SHELLS {
            let full = script(shell, "etcdctl", false).expect("a script");
            assert!(
                full.contains("etcdctl")
                    && full.contains(" __complete ")
                    && !full.contains('@'.to_string().repeat(2).as_str())
            );
            assert!(script(shell, "etcdctl", true).expect("a script").contains(" __completeNoDesc "));
            assert!(COMPLETION.commands.iter().any(|command| command.name == shell), "{shell}");
        }
        assert_eq!(script("tcsh", "etcdctl", false), None);
    }

    #[test]
    fn a_question_is_told_from_a_command() {
        assert!(is_question(&["__complete".into(), "".into()]) && is_question(&["__completeNoDesc".into()]));
        assert!(!is_question(&["get".into(), "__complete".into()]) && !is_question(&[]));
    }
}
