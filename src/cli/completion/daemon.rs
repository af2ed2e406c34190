//! Candidates for the daemon, from the option table and the list of `config` commands.

use std::{ffi::OsString, process::ExitCode};

use super::{
    super::{
        config, discovery, gateway, grpc_proxy,
        speak::complain,
        table::{Command, Values},
    },
    Known, Place, SHELLS, answer, ended, is_question, say, script,
    tool::known_of,
};
use crate::config::{
    Sources,
    table::{Group, Kind, OPTIONS, OptionSpec},
};

/// Every form of a configuration.
pub(in crate::cli) const FORMS: &[&str] = &["env", "toml", "yaml", "json", "flags"];

const WORDS: &[(&str, &str)] = &[
    ("config", "Looks at the configuration without starting"),
    ("gateway", "Passes bytes between clients and members"),
    ("grpc-proxy", "Shares watches and renewals among v3 clients"),
    ("discovery", "Serves the discovery service"),
    ("completion", "Prints the script that completes command lines in a shell"),
];
/// Exit code: the command line is wrong.
const USAGE: u8 = 2;

/// Carries out `completion SHELL`, or answers a shell that asks; nothing if the command line is about anything else.
pub fn answer_for_daemon(sources: &Sources) -> Option<ExitCode> {
    if is_question(&sources.args) {
        return Some(ended(answer(&sources.args, place)));
    }
    let (first, rest) = sources.args.split_first()?;
    (first == "completion").then(|| print(sources, rest))
}

fn print(sources: &Sources, rest: &[OsString]) -> ExitCode {
    let name = if sources.called_as_etcd() { "etcd" } else { "quorate" };
    let words: Vec<_> = rest.iter().map(|word| word.to_string_lossy()).collect();
    let script = match words.as_slice() {
        [shell] => script(shell, name, false),
        [shell, flag] if flag == "--no-descriptions" => script(shell, name, true),
        _ => None,
    };
    if let Some(script) = script {
        return ended(say(format_args!("{script}")).map_err(Into::into));
    }
    let shells = SHELLS.map(|(shell, _)| shell).join("|");
    complain(format_args!(
        "Usage:\n\n  {name} completion {shells} [--no-descriptions]\n    Print the script that completes command lines in a shell."
    ));
    ExitCode::from(USAGE)
}

fn place(finished: &[String]) -> Place {
    let words: Vec<&str> = finished.iter().map(String::as_str).collect();
    let mut at = match words.as_slice() {
        [] => Place { words: WORDS.to_vec(), flags: options(), ..Place::default() },
        ["completion"] => Place { words: SHELLS.map(|(shell, _)| (shell, "")).to_vec(), ..Place::default() },
        ["completion", ..] => Place::default(),
        ["config"] => Place { words: config::COMMANDS.iter().map(|c| (c.name, c.about)).collect(), ..Place::default() },
        ["config", command, ..] => of_config(command),
        ["gateway"] => Place { words: commands_of(&gateway::ROOT), ..Place::default() },
        ["grpc-proxy"] => Place { words: commands_of(&grpc_proxy::ROOT), ..Place::default() },
        ["gateway", command, ..] => Place { flags: flags_of(&gateway::ROOT, command), ..Place::default() },
        ["grpc-proxy", command, ..] => Place { flags: flags_of(&grpc_proxy::ROOT, command), ..Place::default() },
        ["discovery", ..] => Place { flags: known_of(&discovery::COMMAND), ..Place::default() },
        _ => Place { flags: options(), ..Place::default() },
    };
    let flag = words.last().filter(|word| word.starts_with('-') && !word.contains('='));
    at.value_of = flag.and_then(|word| at.flag(word)).filter(|flag| flag.takes_word).cloned();
    at
}

fn of_config(name: &str) -> Place {
    let Some(command) = config::COMMANDS.iter().find(|command| command.name == name) else { return Place::default() };
    let own = command.flags.iter().map(|flag| Known {
        name: flag.name,
        short: None,
        about: "",
        takes_word: !flag.is_switch,
        values: match flag.name {
            "format" => Values::Words(command.formats),
            "from" | "to" => Values::Words(FORMS),
            _ => Values::Words(&["true", "false"]),
        },
    });
    let options = if command.takes_options { options() } else { Vec::new() };
    Place { flags: own.chain(options).collect(), files: command.takes_options, ..Place::default() }
}

fn commands_of(root: &Command) -> Vec<(&'static str, &'static str)> {
    root.commands.iter().map(|command| (command.name, command.about)).collect()
}

fn flags_of(root: &'static Command, name: &str) -> Vec<Known> {
    root.commands.iter().find(|command| command.name == name).map_or_else(Vec::new, known_of)
}

/// The options that somebody may want to type today.
fn options() -> Vec<Known> {
    OPTIONS.iter().filter(|spec| spec.group != Group::Old).map(known).collect()
}

fn known(spec: &OptionSpec) -> Known {
    let values = match spec.kind {
        _ if !spec.choices().is_empty() => Values::Words(spec.choices()),
        Kind::Switch => Values::Words(&["true", "false"]),
        Kind::Path => Values::Files,
        _ => Values::Any,
    };
    Known { name: spec.name, short: None, about: spec.help, takes_word: !spec.kind.is_switch(), values }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::show::Format;

    fn asked(words: &[&str]) -> String {
        let (current, finished) = words.split_last().expect("the word that is typed");
        let finished: Vec<String> = finished.iter().map(ToString::to_string).collect();
        place(&finished).answer(current, true)
    }

    #[test]
    fn options_and_their_values_are_offered() {
        assert_eq!(asked(&["--compat"]), "--compat-version\n:4\n");
        assert_eq!(asked(&["--compat-version", ""]), "3.5\n3.6\n3.7\n:4\n");
        assert_eq!(asked(&["--name", "a", "--log-format=j"]), "json\n:4\n");
        assert_eq!(asked(&["--data-dir", ""]), ":0\n");
        assert_eq!(asked(&["--name", ""]), ":4\n");
        assert_eq!(asked(&["--force-new-cluster", "--max-wal"]), "--max-wals\n:4\n");
        assert_eq!(asked(&["--experimental"]), ":4\n");
    }

    #[test]
    fn commands_are_offered_first_and_have_flags_of_their_own() {
        assert_eq!(asked(&["co"]), "config\ncompletion\n:4\n");
        assert_eq!(asked(&["config", "c"]), "check\nconvert\n:4\n");
        assert_eq!(asked(&["config", "check", "--format", ""]), "text\njson\n:4\n");
        assert_eq!(asked(&["config", "convert", "--to="]), "env\ntoml\nyaml\njson\nflags\n:4\n");
        assert_eq!(asked(&["config", "check", "--dee"]), "--deep\n:4\n");
        assert_eq!(asked(&["config", "check", "member"]), ":0\n");
        assert_eq!(asked(&["config", "schema", "-"]), ":4\n");
        assert_eq!(asked(&["gateway", ""]), "start\n:4\n");
        assert_eq!(asked(&["gateway", "start", "--endpoints"]), "--endpoints\n--endpoints-file\n:4\n");
        assert_eq!(asked(&["gateway", "start", "--endpoints-file", ""]), ":0\n");
        assert_eq!(asked(&["grpc-proxy", "start", "--namesp"]), "--namespace\n:4\n");
        assert_eq!(asked(&["completion", ""]), "bash\nfish\npowershell\nzsh\n:4\n");
        assert_eq!(asked(&["disc"]), "discovery\n:4\n");
        assert_eq!(asked(&["discovery", "--min-age=1h", "--log-f"]), "--log-format\n:4\n");
        assert_eq!(asked(&["discovery", "--log-format", ""]), "json\nconsole\n:4\n");
    }

    #[test]
    fn every_form_is_known() {
        let known: Vec<_> = Format::ALL.iter().map(|(name, _)| *name).collect();
        let (mut offered, mut expected) = (FORMS.to_vec(), known);
        offered.sort_unstable();
        expected.sort_unstable();
        assert_eq!(offered, expected);
    }
}
