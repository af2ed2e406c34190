//! Help pages, usage texts and suggestions, all read from the command table.

use std::fmt::Write;

use super::{
    Program, go_text,
    parse::HELP,
    table::{Command, Flag, Group, Kind},
};

/// The help page of the last command of `path`.
pub(super) fn page(program: Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let text = if command.details.is_empty() { command.about } else { command.details };
    let options = format!("\"{} options\" lists the options that every command takes.", program.name);
    format!("{text}\n\n{}{options}\n", usage(program, path))
}

/// How the last command of `path` is typed, as it follows a complaint.
pub(super) fn usage(program: Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let mut text = String::from("Usage:\n");
    let name = full_name(program, path);
    let line = if command.commands.is_empty() { usage_line(command) } else { "[command]".to_owned() };
    push(&mut text, format_args!("  {name} {line}\n"));
    if path.len() == 1 && !command.commands.is_empty() {
        push_groups(&mut text, command);
    } else {
        push_commands(&mut text, "Available Commands:", command.commands.iter());
        push_flags(&mut text, command);
    }
    if !command.commands.is_empty() {
        push(&mut text, format_args!("\n\"{name} [command] --help\" tells more about a command.\n"));
    }
    text
}

/// The flags that every command takes.
pub(super) fn options(root: &Command) -> String {
    format!("The following options can be passed to any command:\n\n{}\n", flag_lines(root.inherited.iter().copied()))
}

/// What to say when the program has no command called `word`.
pub(super) fn unknown_command(program: Program, root: &Command, word: &str) -> String {
    let mut text = format!("unknown command {} for \"{}\"", go_text::quote(word.as_bytes()), program.name);
    // Who is called by the name of etcd's tool suggests what that would.
    let may_be_meant = |command: &&Command| !command.is_own || program.name == root.name;
    let similar = root.commands.iter().filter(may_be_meant).filter(|command| is_similar(word, command.name));
    let similar: Vec<_> = similar.collect();
    if !similar.is_empty() {
        text.push_str("\n\nDid you mean this?\n");
        for command in similar {
            push(&mut text, format_args!("\t{}\n", command.name));
        }
    }
    push(&mut text, format_args!("\nRun '{} --help' for usage.", program.name));
    text
}

fn full_name(program: Program, path: &[&'static Command]) -> String {
    let below = path.iter().skip(1).map(|command| command.name);
    std::iter::once(program.name).chain(below).collect::<Vec<_>>().join(" ")
}

fn usage_line(command: &Command) -> String {
    format!("{} [flags]", command.arguments).trim_start().to_owned()
}

fn push_groups(text: &mut String, command: &Command) {
    for (group, heading) in Group::HEADINGS {
        push_commands(text, heading, command.commands.iter().filter(|command| command.group == group));
    }
}

fn push_commands<'a>(text: &mut String, heading: &str, commands: impl Iterator<Item = &'a Command>) {
    let mut commands: Vec<_> = commands.collect();
    commands.sort_by_key(|command| command.name);
    if commands.is_empty() {
        return;
    }
    push(text, format_args!("\n{heading}\n"));
    for command in commands {
        push(text, format_args!("  {:NAME_WIDTH$} {}\n", command.name, command.about));
    }
}

fn push_flags(text: &mut String, command: &Command) {
    let about_help = format!("help for {}", command.name);
    let mut flags: Vec<(Flag, &str)> =
        command.flags.iter().chain(command.inherited).map(|flag| (*flag, flag.help)).collect();
    flags.push((HELP, &about_help));
    push(text, format_args!("\nFlags:\n{}", aligned(flags)));
}

fn flag_lines(flags: impl Iterator<Item = Flag>) -> String {
    aligned(flags.map(|flag| (flag, flag.help)).collect())
}

fn aligned(mut flags: Vec<(Flag, &str)>) -> String {
    flags.sort_by_key(|(flag, _)| flag.name);
    let left = |flag: &Flag| {
        let short = flag.short.map_or_else(|| "    ".to_owned(), |short| format!("-{short}, "));
        format!("{short}--{} {}", flag.name, flag.kind.placeholder()).trim_end().to_owned()
    };
    let width = flags.iter().map(|(flag, _)| left(flag).len()).max().unwrap_or(0);
    let mut text = String::new();
    for (flag, about) in flags {
        let line = format!("  {:width$}   {about}{}", left(&flag), default_of(&flag));
        push(&mut text, format_args!("{}\n", line.trim_end()));
    }
    text
}

fn default_of(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (Kind::Switch, "false") | (Kind::Integer | Kind::Unsigned, "0") | (_, "") => String::new(),
        (Kind::Text | Kind::Texts, default) => format!(" (default {})", go_text::quote(default.as_bytes())),
        (Kind::List, default) => format!(" (default [{default}])"),
        (Kind::Switch | Kind::Integer | Kind::Unsigned | Kind::Duration, default) => format!(" (default {default})"),
    }
}

/// Whether somebody who typed `word` may have meant `name`: at most two letters differ, or it is how the name begins.
fn is_similar(word: &str, name: &str) -> bool {
    let word = word.to_lowercase();
    name.starts_with(&word) || distance(&word, name) <= DISTANCE_MAX
}

/// Letters to insert, remove or replace to make one word the other (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, c) in from.chars().enumerate() {
        let mut next = vec![i + 1];
        for (window, d) in row.windows(2).zip(&to) {
            let (diagonal, above) = (window.first().copied().unwrap_or(0), window.last().copied().unwrap_or(0));
            let left = next.last().copied().unwrap_or(0);
            next.push((diagonal + usize::from(c != *d)).min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

fn push(text: &mut String, line: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    text.write_fmt(line).unwrap_or_default();
}

/// Room for a command's name in front of what it does.
const NAME_WIDTH: usize = 11;
/// Letters a word may differ in and still be suggested.
const DISTANCE_MAX: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    static TOOL: Command = Command {
        name: "tool",
        about: "Does things.",
        inherited: &[
            Flag::text("write-out", "simple", "the format").short('w'),
            Flag::duration("wait", "5s", "how long"),
        ],
        commands: &[
            Command { name: "put", about: "Stores", group: Group::KeyValue, ..Command::EMPTY },
            Command {
                name: "lease",
                about: "Leases",
                group: Group::KeyValue,
                commands: &[Command {
                    name: "grant",
                    arguments: "<ttl>",
                    about: "Grants",
                    flags: &[Flag::integer("count", "how many"), Flag::switch("once", "one time")],
                    ..Command::EMPTY
                }],
                ..Command::EMPTY
            },
            Command { name: "look", about: "Looks", is_own: true, ..Command::EMPTY },
        ],
        ..Command::EMPTY
    };
    const PROGRAM: Program = Program { name: "tool", version: "" };

    #[test]
    fn the_main_page_lists_commands_by_group_and_name() {
        assert_eq!(
            page(PROGRAM, &[&TOOL]),
            "Does things.\n\nUsage:\n  tool [command]\n\nKey-value commands\n  lease       Leases\n  put         Stores\n\n\
             \"tool [command] --help\" tells more about a command.\n\
             \"tool options\" lists the options that every command takes.\n"
        );
    }

    #[test]
    fn a_command_shows_its_flags_aligned() {
        let lease = &TOOL.commands[1];
        assert_eq!(
            usage(PROGRAM, &[&TOOL, lease, &lease.commands[0]]),
            "Usage:\n  tool lease grant <ttl> [flags]\n\nFlags:\n      --count int   how many\n  -h, --help        help for grant\n\
             \x20     --once        one time\n"
        );
    }

    #[test]
    fn options_show_their_defaults() {
        assert_eq!(
            options(&TOOL),
            "The following options can be passed to any command:\n\n\
             \x20     --wait duration      how long (default 5s)\n  -w, --write-out string   the format (default \"simple\")\n\n"
        );
    }

    #[test]
    fn suggestions_follow_the_order_of_the_table() {
        assert_eq!(
            unknown_command(PROGRAM, &TOOL, "pu"),
            "unknown command \"pu\" for \"tool\"\n\nDid you mean this?\n\tput\n\nRun 'tool --help' for usage."
        );
        assert_eq!(
            unknown_command(PROGRAM, &TOOL, "zzzzz"),
            "unknown command \"zzzzz\" for \"tool\"\nRun 'tool --help' for usage."
        );
        let theirs = Program { name: "theirs", version: "" };
        assert!(
            !unknown_command(theirs, &TOOL, "lok").contains("look")
                && unknown_command(PROGRAM, &TOOL, "lok").contains("look")
        );
        assert_eq!((distance("putt", "auth"), distance("l", "del"), distance("", "abc")), (2, 2, 3));
    }
}
