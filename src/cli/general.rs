//! `version`, `options` and `help`, which every tool has.

use super::{
    API_VERSION, help,
    parse::Call,
    speak::{complain, say},
    table::{Command, Group, Running},
};

pub(super) const VERSION: Command = Command {
    name: "version",
    about: "Shows the version of this program",
    group: Group::Utility,
    run: Some(version),
    ..Command::EMPTY
};

#[expect(clippy::needless_pass_by_value, reason = "the shape of every command")]
fn version(call: Call) -> Running {
    Box::pin(async move {
        let program = call.program;
        Ok(say(format_args!("{} version: {}\nAPI version: {API_VERSION}\n", program.name, program.version))?)
    })
}

pub(super) const OPTIONS: Command = Command {
    name: "options",
    about: "Lists the options that every command takes",
    group: Group::Utility,
    run: Some(options),
    ..Command::EMPTY
};

fn options(call: Call) -> Running {
    Box::pin(async move {
        let text = call.path.first().map(|root| help::options(root)).unwrap_or_default();
        Ok(say(format_args!("{text}"))?)
    })
}

pub(super) const HELP: Command = Command {
    name: "help",
    arguments: "[command]",
    about: "Tells how to use a command",
    group: Group::Utility,
    run: Some(help),
    ..Command::EMPTY
};

fn help(call: Call) -> Running {
    Box::pin(async move {
        let words = call.argument_texts();
        let path = described(&call.path, &words);
        if path.len() == 1 && !words.is_empty() {
            let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
            complain(format_args!("Unknown help topic [{}]", quoted.join(" ")));
            complain(help::usage(call.program, &path));
            return Ok(());
        }
        Ok(say(format_args!("{}", help::page(call.program, &path)))?)
    })
}

/// The command below the first of `path` that `words` name, as far as they name one.
fn described(path: &[&'static Command], words: &[String]) -> Vec<&'static Command> {
    let mut path: Vec<&'static Command> = path.iter().take(1).copied().collect();
    for word in words {
        match path.last().and_then(|command| command.child(word)) {
            Some(child) => path.push(child),
            None => break,
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    static TOOL: Command = Command {
        commands: &[Command {
            name: "lease",
            commands: &[Command { name: "grant", ..Command::EMPTY }],
            ..Command::EMPTY
        }],
        ..Command::EMPTY
    };

    #[test]
    fn help_is_given_for_the_longest_name_that_is_one() {
        let names = |words: &[&str]| -> Vec<_> {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            described(&[&TOOL], &words).iter().skip(1).map(|command| command.name).collect()
        };
        assert_eq!(names(&["lease", "gr"]), ["lease", "grant"]);
        assert_eq!(names(&["lease", "foo"]), ["lease"]);
        assert_eq!(names(&["foo"]), Vec::<&str>::new());
    }
}
