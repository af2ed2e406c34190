//! The pages of the tools, from their command tables.

use super::{prose, roff::Roff};
use crate::cli::{
    ctl,
    table::{Command, Flag, Group, Kind},
    utl,
};

pub(super) fn client() -> Roff {
    let page = Roff::new("quoratectl", 1, "client for clusters of Quorate and of etcd")
        .heading("SYNOPSIS")
        .text("`quoratectl` [OPTIONS] COMMAND [ARGUMENTS]")
        .heading("DESCRIPTION")
        .paragraphs(&prose::CLIENT);
    commands(page, &ctl::ROOT)
        .heading("ENVIRONMENT")
        .items(&prose::CLIENT_ENVIRONMENT)
        .heading("EXIT STATUS")
        .items(&prose::CLIENT_EXIT)
        .heading("EXAMPLES")
        .example(prose::CLIENT_EXAMPLE)
        .heading("SEE ALSO")
        .text("`quorate`(8), `quorateutl`(1)")
}

pub(super) fn offline_tool() -> Roff {
    let page = Roff::new("quorateutl", 1, "offline tool for data directories and snapshots")
        .heading("SYNOPSIS")
        .text("`quorateutl` [OPTIONS] COMMAND [ARGUMENTS]")
        .heading("DESCRIPTION")
        .paragraphs(&prose::OFFLINE_TOOL);
    commands(page, &utl::ROOT)
        .heading("EXIT STATUS")
        .items(&prose::CLIENT_EXIT)
        .heading("SEE ALSO")
        .text("`quorate`(8), `quoratectl`(1)")
}

fn commands(page: Roff, root: &Command) -> Roff {
    let page = flags(page.heading("OPTIONS"), root.inherited).heading("COMMANDS");
    let headings = [(Group::None, "")].into_iter().chain(Group::HEADINGS);
    headings.fold(page, |page, (group, title)| {
        let mut under: Vec<_> = root.commands.iter().filter(|command| command.group == group).collect();
        under.sort_by_key(|command| command.name);
        let page = if under.is_empty() || title.is_empty() { page } else { page.subheading(title) };
        under.into_iter().fold(page, |page, command| entry(page, "", command))
    })
}

/// A command that can be called, or those below one that cannot.
fn entry(page: Roff, above: &str, command: &Command) -> Roff {
    let name = format!("{above}{}", command.name);
    if command.run.is_none() {
        let below = format!("{name} ");
        return command.commands.iter().fold(page, |page, command| entry(page, &below, command));
    }
    let tag = format!("`{name}` {}", command.arguments);
    let page = page.item(tag.trim_end(), &sentence(command.about));
    command.flags.iter().fold(page, |page, flag| {
        let text = format!("{}: {}", flag_tag(flag), sentence(&flag_text(flag)));
        page.nested(&text)
    })
}

fn flags(page: Roff, flags: &[Flag]) -> Roff {
    flags.iter().fold(page, |page, flag| page.item(&flag_tag(flag), &sentence(&flag_text(flag))))
}

fn flag_tag(flag: &Flag) -> String {
    let short = flag.short.map(|short| format!("`-{short}`, ")).unwrap_or_default();
    format!("{short}`--{}` {}", flag.name, flag.kind.placeholder()).trim_end().to_owned()
}

fn flag_text(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (Kind::Switch, "false") | (Kind::Integer, "0") | (_, "") => flag.help.to_owned(),
        (_, default) => format!("{} (default `{default}`)", flag.help),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let begun: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    if begun.ends_with(['.', ':', '!']) { begun } else { format!("{begun}.") }
}
