//! The pages of the daemon and of the files it reads, from the option table.

use super::{commands, prose, roff::Roff};
use crate::config::{
    described,
    feature::Support,
    table::{Group, Kind, OPTIONS, OptionSpec, Reload, YamlKey},
};

pub(super) fn daemon() -> Roff {
    let page = Roff::new("quorate", 8, "consensus key-value daemon that takes etcd's place")
        .heading("SYNOPSIS")
        .items(&prose::DAEMON_SYNOPSIS)
        .heading("DESCRIPTION")
        .paragraphs(&prose::DAEMON)
        .heading("CONFIGURATION")
        .paragraphs(&prose::LAYERS)
        .heading("COMMANDS")
        .items(&prose::CONFIG_COMMANDS);
    let page = commands::proxies(page)
        .heading("STANDING IN FOR A CLUSTER")
        .paragraphs(&prose::STANDING_IN)
        .heading("OPTIONS")
        .paragraphs(&prose::OPTIONS);
    let page = sections(page, |_| true, |spec| format!("`--{}` {}", spec.name, value_of(spec)));
    page.heading("SIGNALS")
        .items(&prose::SIGNALS)
        .heading("RELOAD")
        .paragraphs(&prose::RELOAD)
        .heading("MAINTENANCE")
        .paragraphs(&prose::MAINTENANCE)
        .heading("AUDIT LOG")
        .paragraphs(&prose::AUDIT)
        .items(&prose::AUDIT_FIELDS)
        .heading("EXIT STATUS")
        .items(&prose::DAEMON_EXIT)
        .heading("ENVIRONMENT")
        .items(&prose::DAEMON_ENVIRONMENT)
        .heading("FILES")
        .items(&prose::DAEMON_FILES)
        .heading("EXAMPLES")
        .paragraph("A member of its own on this machine, and a look at it:")
        .example(prose::DAEMON_EXAMPLE)
        .paragraph("A dry run of what a unit would start:")
        .example(prose::CHECK_EXAMPLE)
        .heading("SEE ALSO")
        .text("`quorate-discovery`(8), `quorate-metrics`(8), `quorate.toml`(5), `quorate.env`(5), `quoratectl`(1), `quorateutl`(1), `systemd.exec`(5)")
}

pub(super) fn toml_file() -> Roff {
    let page = Roff::new("quorate.toml", 5, "configuration file of quorate")
        .heading("SYNOPSIS")
        .text("`/etc/quorate/quorate.toml`, or the file given with `--config`")
        .heading("DESCRIPTION")
        .paragraphs(&prose::TOML)
        .heading("EXAMPLE")
        .example(prose::TOML_EXAMPLE)
        .heading("KEYS");
    let in_file = |spec: &OptionSpec| spec.group != Group::Sources && spec.yaml != YamlKey::None && spec.is_current();
    sections(page, in_file, |spec| format!("`{}` = {}", spec.name, toml_value(spec)))
        .heading("SEE ALSO")
        .text("`quorate`(8), `quorate.env`(5)")
}

pub(super) fn env_file() -> Roff {
    let page = Roff::new("quorate.env", 5, "environment file of quorate")
        .heading("SYNOPSIS")
        .text("`/etc/default/quorate`, `/etc/quorate/quorate.conf`, or the file given with `--env-file`")
        .heading("DESCRIPTION")
        .paragraphs(&prose::ENV)
        .heading("EXAMPLE")
        .example(prose::ENV_EXAMPLE)
        .heading("VARIABLES");
    sections(page, |_| true, |spec| format!("`{}=`{}", spec.variable(), value_of(spec)))
        .heading("SEE ALSO")
        .text("`quorate`(8), `quorate.toml`(5), `systemd.exec`(5)")
}

/// Every section with the options that `is_in`, each under what `tag` makes of it.
fn sections(page: Roff, is_in: impl Fn(&OptionSpec) -> bool, tag: impl Fn(&OptionSpec) -> String) -> Roff {
    Group::ALL.into_iter().fold(page, |page, group| {
        let specs: Vec<_> = OPTIONS.iter().filter(|spec| spec.group == group && is_in(spec)).collect();
        if specs.is_empty() {
            return page;
        }
        specs.into_iter().fold(page.subheading(group.title()), |page, spec| page.item(&tag(spec), &told(spec)))
    })
}

/// What is to be said of an option.
fn told(spec: &OptionSpec) -> String {
    let default = (!spec.default.is_empty() && spec.is_current()).then(|| format!("Default: `{}`.", spec.default));
    let reload = (spec.reload == Reload::Live).then(|| "Taken over on reload.".to_owned());
    let support = match spec.support {
        Support::NoEffect(why) => Some(format!("Without effect: {why}.")),
        Support::Works => None,
    };
    let origin = (spec.versions.since == 0).then(|| "Etcd has no such option.".to_owned());
    let told = [Some(described(spec)), default, reload, support, origin];
    told.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

/// What stands for the value of a flag or variable.
fn value_of(spec: &OptionSpec) -> String {
    match spec.kind {
        Kind::Switch => "true|false".to_owned(),
        Kind::Uint | Kind::Uint32 | Kind::Int => "NUMBER".to_owned(),
        Kind::Duration => "DURATION".to_owned(),
        Kind::Text | Kind::Ignored => "TEXT".to_owned(),
        Kind::Path => "PATH".to_owned(),
        Kind::Select(words) => words.join("|"),
        Kind::Urls | Kind::Origins => "URL,...".to_owned(),
        Kind::Words | Kind::WordSet => "WORD,...".to_owned(),
        Kind::Gates => "GATE=true|false,...".to_owned(),
    }
}

/// What stands for the value of a key.
fn toml_value(spec: &OptionSpec) -> String {
    match spec.kind {
        Kind::Switch => "true | false".to_owned(),
        Kind::Uint | Kind::Uint32 | Kind::Int => "NUMBER".to_owned(),
        Kind::Select(words) => words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(" | "),
        Kind::Urls | Kind::Origins => "[\"URL\", ...]".to_owned(),
        Kind::Words | Kind::WordSet => "[\"WORD\", ...]".to_owned(),
        _ => format!("\"{}\"", value_of(spec)),
    }
}
