//! Help pages in the shape of etcdctl's v2 client, read from the command table.

use std::fmt::Write;

use super::{
    super::{
        Program, go_text,
        parse::HELP,
        table::{Command, Flag, Kind},
    },
    parse::VERSION,
};

/// The page of the whole program.
pub(super) fn program_page(program: Program, root: &'static Command) -> String {
    whole_page(program, &[root])
}

/// The page of the last command of `path`, as it is shown when it was called without a sense.
pub(super) fn page(program: Program, path: &[&'static Command]) -> String {
    match path.last() {
        Some(command) if command.commands.is_empty() => command_page(program, path),
        Some(_) if path.len() > 1 => group_page(program, path),
        _ => whole_page(program, path),
    }
}

/// The page of the program, and what `help` shows in a group of commands.
pub(super) fn whole_page(program: Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let name = full_name(program, path);
    let is_root = path.len() == 1;
    let mut page = heading(&name, command);
    push(&mut page, format_args!("   {name} [global options] command [command options] [arguments...]\n\n"));
    push(&mut page, format_args!("VERSION:\n   {}\n\nCOMMANDS:\n{}", program.version, commands(command, is_root)));
    let own = if is_root { &[VERSION][..] } else { &[] };
    let flags = command.inherited.iter().chain([&HELP_SHOWN]).chain(own);
    push(&mut page, format_args!("\nGLOBAL OPTIONS:\n{}", flag_lines(flags)));
    page
}

/// The page of one command.
pub(super) fn command_page(program: Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let mut page = heading(&full_name(program, path), command);
    let options = if command.flags.is_empty() { "" } else { " [command options]" };
    // A command without arguments says so with a blank.
    let arguments = match command.arguments {
        _ if !command.commands.is_empty() => "[arguments...]",
        "" => " ",
        arguments => arguments,
    };
    push(&mut page, format_args!("   {}{options} {arguments}\n", full_name(program, path)));
    if !command.details.is_empty() {
        push(&mut page, format_args!("\nDESCRIPTION:\n   {}\n", command.details));
    }
    push_options(&mut page, command.flags.iter());
    page
}

/// The page of a command that only holds others.
fn group_page(program: Program, path: &[&'static Command]) -> String {
    let Some(command) = path.last() else { return String::new() };
    let name = full_name(program, path);
    let mut page = heading(&name, command);
    push(&mut page, format_args!("   {name} command [command options] [arguments...]\n\n"));
    push(&mut page, format_args!("COMMANDS:\n{}", commands(command, false)));
    push_options(&mut page, std::iter::once(&HELP_SHOWN));
    page
}

fn heading(name: &str, command: &Command) -> String {
    format!("NAME:\n   {name} - {}\n\nUSAGE:\n", command.about)
}

fn full_name(program: Program, path: &[&'static Command]) -> String {
    let below = path.iter().skip(1).map(|command| command.name);
    std::iter::once(program.name).chain(below).collect::<Vec<_>>().join(" ")
}

fn commands(command: &Command, with_help: bool) -> String {
    let own = command.commands.iter().map(|command| (command.name.to_owned(), command.about.to_owned()));
    let help = with_help.then(|| ("help, h".to_owned(), "tells what there is, or how to use a command".to_owned()));
    aligned(&own.chain(help).collect::<Vec<_>>())
}

fn push_options<'a>(page: &mut String, flags: impl Iterator<Item = &'a Flag>) {
    let lines = flag_lines(flags);
    if !lines.is_empty() {
        push(page, format_args!("\nOPTIONS:\n{lines}   \n"));
    }
}

fn flag_lines<'a>(flags: impl Iterator<Item = &'a Flag>) -> String {
    aligned(&flags.map(|flag| (names(flag), text(flag))).collect::<Vec<_>>())
}

fn names(flag: &Flag) -> String {
    let value = if flag.kind == Kind::Switch { "" } else { " value" };
    let dashed = |name: String| format!("{}{name}{value}", if name.len() == 1 { "-" } else { "--" });
    flag.names().map(dashed).collect::<Vec<_>>().join(", ")
}

fn text(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (Kind::Switch, _) | (_, "") => flag.help.to_owned(),
        (Kind::Text, default) => format!("{} (default: {})", flag.help, go_text::quote(default.as_bytes())),
        (_, default) => format!("{} (default: {default})", flag.help),
    }
}

/// Two columns, two blanks apart.
fn aligned(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(left, _)| left.chars().count()).max().unwrap_or(0);
    let mut lines = String::new();
    for (left, right) in rows {
        push(&mut lines, format_args!("   {left:width$}  {right}\n"));
    }
    lines
}

fn push(text: &mut String, piece: std::fmt::Arguments) {
    // Writing to a string cannot fail.
    text.write_fmt(piece).unwrap_or_default();
}

/// The flag that every command has, with words for it.
const HELP_SHOWN: Flag = Flag { help: "show help", ..HELP };

#[cfg(test)]
mod tests {
    use super::*;

    static TOOL: Command = Command {
        name: "tool",
        about: "Does things.",
        inherited: &[Flag::text("output", "simple", "form").short('o')],
        commands: &[
            Command {
                name: "set",
                arguments: "<key>",
                about: "sets",
                details: "More.",
                flags: &[Flag::integer("ttl", "time")],
                ..Command::EMPTY
            },
            Command { name: "role", about: "roles", commands: &[LIST], ..Command::EMPTY },
        ],
        ..Command::EMPTY
    };
    const LIST: Command = Command { name: "list", about: "lists", ..Command::EMPTY };
    const PROGRAM: Program = Program { name: "tool", version: "1.0" };

    #[test]
    fn the_program_lists_commands_and_options() {
        let text = "NAME:\n   tool - Does things.\n\nUSAGE:\n   tool [global options] command [command options] [arguments...]\n\n\
                    VERSION:\n   1.0\n\nCOMMANDS:\n   set      sets\n   role     roles\n   help, h  tells what there is, or how to use a command\n\n\
                    GLOBAL OPTIONS:\n   --output value, -o value  form (default: \"simple\")\n   --help, -h                show help\n   \
                    --version, -v             print the version\n";
        assert_eq!(program_page(PROGRAM, &TOOL), text);
    }

    #[test]
    fn a_command_shows_arguments_and_options() {
        let [set, role] = [&TOOL.commands[0], &TOOL.commands[1]];
        let text = "NAME:\n   tool set - sets\n\nUSAGE:\n   tool set [command options] <key>\n\nDESCRIPTION:\n   More.\n\n\
                    OPTIONS:\n   --ttl value  time (default: 0)\n   \n";
        assert_eq!(page(PROGRAM, &[&TOOL, set]), text);
        let text = "NAME:\n   tool role - roles\n\nUSAGE:\n   tool role command [command options] [arguments...]\n\n\
                    COMMANDS:\n   list  lists\n\nOPTIONS:\n   --help, -h  show help\n   \n";
        assert_eq!(page(PROGRAM, &[&TOOL, role]), text);
        assert_eq!(
            page(PROGRAM, &[&TOOL, role, &LIST]),
            "NAME:\n   tool role list - lists\n\nUSAGE:\n   tool role list  \n"
        );
    }
}
