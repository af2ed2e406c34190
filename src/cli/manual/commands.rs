//! The pages of the tools, from their command tables.

use super::{prose, roff::Roff};
use crate::cli::{
    ctl, ctl2, discovery, gateway, grpc_proxy,
    table::{Command, Flag, Group, Kind},
    utl,
};

pub(super) fn client() -> Roff {
    let page = Roff::new("quoratectl", 1, "client for clusters of Quorate and of etcd")
        .heading("SYNOPSIS")
        .text("`quoratectl` [OPTIONS] COMMAND [ARGUMENTS]")
        .heading("DESCRIPTION")
        .paragraphs(&prose::CLIENT);
    let page = commands(page, &ctl::ROOT).heading("THE V2 API").paragraphs(&prose::CLIENT_V2);
    let page = flags(page.subheading("Options of the v2 API"), ctl2::ROOT.inherited);
    let page = entries(page.subheading("Commands of the v2 API"), ctl2::ROOT.commands.iter());
    page.heading("ENVIRONMENT")
        .items(&prose::CLIENT_ENVIRONMENT)
        .heading("EXIT STATUS")
        .items(&prose::CLIENT_EXIT)
        .items(&prose::CLIENT_V2_EXIT)
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
        .heading("MIGRATION")
        .paragraphs(&prose::MIGRATION)
        .heading("EXIT STATUS")
        .items(&prose::CLIENT_EXIT)
        .heading("EXAMPLES")
        .example(prose::OFFLINE_EXAMPLE)
        .heading("SEE ALSO")
        .text("`quorate`(8), `quoratectl`(1)")
}

/// The commands of the gateway and of the gRPC proxy, which are the daemon's.
pub(super) fn proxies(page: Roff) -> Roff {
    let page = gateway::ROOT.commands.iter().fold(page, |page, command| entry(page, "gateway ", command));
    grpc_proxy::ROOT.commands.iter().fold(page, |page, command| entry(page, "grpc-proxy ", command))
}

pub(super) fn discovery() -> Roff {
    let page = Roff::new("quorate-discovery", 8, "discovery service for members that do not know each other")
        .heading("SYNOPSIS")
        .text("`quorate discovery` [OPTIONS]")
        .heading("DESCRIPTION")
        .paragraphs(&prose::DISCOVERY)
        .heading("OPTIONS")
        .paragraphs(&prose::DISCOVERY_OPTIONS);
    flags(page, discovery::COMMAND.flags)
        .heading("ROUTES")
        .items(&prose::DISCOVERY_ROUTES)
        .heading("LIMITS")
        .paragraph(&prose::discovery_limits())
        .heading("SIGNALS")
        .items(&prose::DISCOVERY_SIGNALS)
        .heading("FILES")
        .items(&prose::DISCOVERY_FILES)
        .heading("EXAMPLES")
        .example(prose::DISCOVERY_EXAMPLE)
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
        entries(page, under.into_iter())
    })
}

fn entries<'a>(page: Roff, commands: impl Iterator<Item = &'a Command>) -> Roff {
    commands.fold(page, |page, command| entry(page, "", command))
}

/// A command, or those below it.
fn entry(page: Roff, above: &str, command: &Command) -> Roff {
    let name = format!("{above}{}", command.name);
    if !command.commands.is_empty() {
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
    let also = if flag.also.is_empty() { String::new() } else { format!("`--{}`, ", flag.also) };
    format!("{short}{also}`--{}` {}", flag.name, flag.kind.placeholder()).trim_end().to_owned()
}

fn flag_text(flag: &Flag) -> String {
    match (flag.kind, flag.default) {
        (Kind::Switch, "false") | (Kind::Integer | Kind::Unsigned, "0") | (_, "") => flag.help.to_owned(),
        (_, default) => format!("{} (default `{default}`)", flag.help),
    }
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let begun: String = letters.next().into_iter().flat_map(char::to_uppercase).chain(letters).collect();
    if begun.ends_with(['.', ':', '!']) { begun } else { format!("{begun}.") }
}
