//! Candidates for the tools, from their command tables.

use std::{ffi::OsString, process::ExitCode};

use super::{
    super::{
        parse::{HELP, known_flags},
        table::{Command, Flag, Kind},
    },
    Known, Place, answer, ended,
};

/// Answers a shell that asks what may follow in a command line of the tool `root`.
pub(in crate::cli) fn answer_for_tool(root: &'static Command, words: &[OsString]) -> ExitCode {
    ended(answer(words, |finished| place(root, finished)))
}

/// What may stand behind `finished` words.
fn place(root: &'static Command, finished: &[String]) -> Place {
    let mut path = vec![root];
    let mut at = at(&path);
    for word in finished {
        if at.value_of.take().is_some() {
            continue;
        }
        if word == "--" {
            return Place::default();
        }
        if word.starts_with('-') {
            at.value_of = at.flag(word).filter(|flag| flag.takes_word && !word.contains('=')).cloned();
            continue;
        }
        match path.last().and_then(|command| command.child(word)) {
            // What may follow `help` is what may be typed without it.
            Some(child) if child.name == "help" => {}
            Some(child) => {
                path.push(child);
                at = self::at(&path);
            }
            // An argument of the command: nothing below it is a command any more.
            None => at.words = Vec::new(),
        }
    }
    at
}

fn at(path: &[&'static Command]) -> Place {
    let commands = path.last().map_or(&[][..], |command| command.commands);
    let words = commands.iter().map(|command| (command.name, command.about)).collect();
    Place { flags: known_flags(path).map(known).collect(), words, ..Place::default() }
}

/// The flags of a command that stands alone.
pub(super) fn known_of(command: &'static Command) -> Vec<Known> {
    known_flags(&[command]).map(known).collect()
}

fn known(flag: &'static Flag) -> Known {
    Known {
        name: flag.name,
        short: flag.short,
        about: if *flag == HELP { "help for the command" } else { flag.help },
        takes_word: flag.kind != Kind::Switch,
        values: if flag.kind == Kind::Switch { super::Values::Words(&["true", "false"]) } else { flag.values },
    }
}

#[cfg(test)]
mod tests {
    use super::{super::COMPLETION, *};
    use crate::cli::table::Values;

    static ROOT: Command = Command {
        name: "tool",
        inherited: &[
            Flag::text("write-out", "simple", "the form").short('w').values(Values::Words(&["json", "simple"])),
            Flag::text("cert", "", "the file").values(Values::Files),
            Flag::text("user", "", "the user"),
        ],
        commands: &[
            Command {
                name: "lease",
                about: "Leases",
                commands: &[Command { name: "grant", about: "Grants", ..Command::EMPTY }],
                ..Command::EMPTY
            },
            Command { name: "get", about: "Reads", flags: &[Flag::switch("prefix", "all")], ..Command::EMPTY },
            COMPLETION,
            Command { name: "help", about: "Helps", ..Command::EMPTY },
        ],
        ..Command::EMPTY
    };

    fn asked(words: &[&str]) -> String {
        let (current, finished) = words.split_last().expect("the word that is typed");
        let finished: Vec<String> = finished.iter().map(ToString::to_string).collect();
        place(&ROOT, &finished).answer(current, true)
    }

    #[test]
    fn commands_and_flags_are_offered_where_they_may_stand() {
        assert_eq!(asked(&[""]), "lease\nget\ncompletion\nhelp\n:4\n");
        assert_eq!(asked(&["le"]), "lease\n:4\n");
        assert_eq!(asked(&["lease", ""]), "grant\n:4\n");
        assert_eq!(asked(&["help", "lease", ""]), "grant\n:4\n");
        assert_eq!(asked(&["completion", ""]), "bash\nfish\npowershell\nzsh\n:4\n");
        assert_eq!(asked(&["get", "--p"]), "--prefix\n:4\n");
        assert_eq!(asked(&["--p"]), ":4\n");
        assert_eq!(asked(&["get", "-"]), "--prefix\n--write-out\n-w\n--cert\n--user\n--help\n-h\n:4\n");
        assert_eq!(asked(&["get", "lease", ""]), ":4\n");
        assert_eq!(asked(&["nothing", ""]), ":4\n");
        assert_eq!(asked(&["get", "--", "--p"]), ":4\n");
    }

    #[test]
    fn values_are_offered_behind_their_flag() {
        assert_eq!(asked(&["-w", ""]), "json\nsimple\n:4\n");
        assert_eq!(asked(&["get", "--write-out=j"]), "json\n:4\n");
        assert_eq!(asked(&["--cert", "/etc"]), ":0\n");
        assert_eq!(asked(&["--cert=/etc"]), ":0\n");
        assert_eq!(asked(&["--user", ""]), ":4\n");
        assert_eq!(asked(&["--user", "get", "get", "--prefix=f"]), "false\n:4\n");
        assert_eq!(asked(&["--user", "lease", "g"]), "get\n:4\n");
    }

    #[test]
    fn what_a_candidate_does_stands_behind_it() {
        assert_eq!(place(&ROOT, &[]).answer("l", false), "lease\tLeases\n:4\n");
    }
}
