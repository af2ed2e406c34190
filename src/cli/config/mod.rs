//! `config check`, `config show` and `config sample`: the configuration, looked at without starting.
//!
//! The first two run the daemon's own loading. `check` says what is wrong, `check --deep` also asks the host; `show`
//! writes the effective configuration in any form; `sample` writes every option with its default, commented out, which
//! is what packages install. Nothing they do stays behind.

mod check;
mod probe;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use crate::config::{
    self, ConfigErrors, ExtraFlag, Form, Sources,
    show::{self, Format, Shown},
};

/// Exit code: what was asked for is so.
const VALID: u8 = 0;
/// Exit code: the configuration is wrong.
const INVALID: u8 = 1;
/// Exit code: the command line is wrong.
const USAGE: u8 = 2;

const FORMAT: ExtraFlag = ExtraFlag { name: "format", is_switch: false };
const DEEP: ExtraFlag = ExtraFlag { name: "deep", is_switch: true };
const ORIGIN: ExtraFlag = ExtraFlag { name: "origin", is_switch: true };
const SET: ExtraFlag = ExtraFlag { name: "set", is_switch: true };

const USAGE_TEXT: &str = "Usage:

  quorate config check [--deep] [--format text|json] [flags of the daemon]
    Reads the configuration as the daemon would and names every mistake.
    --deep also tries addresses, names, files, free space and the disk; nothing stays behind.
    Exit code 0: valid, 1: invalid, 2: the command line is wrong.

  quorate config show [--origin] [--set] [--format toml|env|yaml|flags|json] [flags of the daemon]
    Prints the effective configuration in a form that can be read back.
    --origin adds where each value stands, --set leaves out defaults.

  quorate config sample [--format toml|env]
    Prints a file that names every option with its default, all of them commented out.
";

/// Runs `config …`; `args` are the words behind it. The environment is that of `sources`.
pub fn run(sources: &Sources, args: &[OsString]) -> ExitCode {
    ExitCode::from(run_on(sources, args, &mut io::stdout(), &mut io::stderr()))
}

/// As [`run`], with its output where the caller wants it.
pub fn run_on(sources: &Sources, args: &[OsString], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.to_str().unwrap_or_default(), rest),
        None => ("", [].as_slice()),
    };
    let sources = Sources { args: rest.to_vec(), ..sources.clone() };
    let asks_for_help = |args: &[OsString]| args.iter().any(|word| word == "-h" || word == "--help");
    match command {
        _ if asks_for_help(args) => print(out, USAGE_TEXT, VALID),
        "check" => check(&sources, out, err),
        "show" => show(&sources, out, err),
        "sample" => sample(&sources, out, err),
        "" => print(err, USAGE_TEXT, USAGE),
        other => print(err, &format!("unknown command \"config {other}\"\n{USAGE_TEXT}"), USAGE),
    }
}

fn check(sources: &Sources, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let extras = Extras::read(sources, &[FORMAT, DEEP]);
    let as_json = match extras.get("format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return print(err, &format!("unknown format \"{other}\": text or json\n"), USAGE),
    };
    let loaded = config::load_with(sources, &[FORMAT, DEEP]);
    let report = check::Report::of(loaded, extras.has("deep"));
    let text = if as_json { report.to_json() } else { report.to_text() };
    print(out, &text, report.exit_code())
}

fn show(sources: &Sources, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let own = [FORMAT, ORIGIN, SET];
    let extras = Extras::read(sources, &own);
    let name = extras.get("format").unwrap_or("toml");
    let Some(format) = Format::find(name) else {
        return print(err, &format!("unknown format \"{name}\": toml, env, yaml, flags or json\n"), USAGE);
    };
    let shown = Shown { set_only: extras.has("set"), origin: extras.has("origin") };
    let loaded = match config::load_with(sources, &own) {
        Ok(loaded) => loaded,
        Err(errors) => return print(err, &mistakes(&errors), errors.exit_code()),
    };
    match show::render(&loaded.settings, format, shown) {
        Ok(text) => print(out, &text, VALID),
        Err(lost) => {
            let lost = lost.join(", ");
            print(
                err,
                &format!("an environment file cannot hold an empty value: {lost}; choose another format\n"),
                INVALID,
            )
        }
    }
}

fn sample(sources: &Sources, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let extras = Extras::read(sources, &[FORMAT]);
    match extras.get("format") {
        None | Some("toml") => print(out, &show::sample(Form::Toml), VALID),
        Some("env") => print(out, &show::sample(Form::Variable), VALID),
        Some(other) => print(err, &format!("unknown format \"{other}\": toml or env\n"), USAGE),
    }
}

fn mistakes(errors: &ConfigErrors) -> String {
    let lines: Vec<String> = errors.problems().iter().map(|problem| format!("error: {problem}\n")).collect();
    lines.concat()
}

/// A closed output changes nothing about the answer.
fn print(to: &mut dyn Write, text: &str, code: u8) -> u8 {
    drop(to.write_all(text.as_bytes()));
    code
}

/// The flags that only these commands know.
struct Extras(Vec<(&'static str, String)>);

impl Extras {
    fn read(sources: &Sources, own: &[ExtraFlag]) -> Self {
        Self(config::extra_flags(&sources.args, own))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str) -> bool {
        self.get(name).is_some_and(|value| value != "false")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_words(words: &[&str]) -> (u8, String, String) {
        let args: Vec<OsString> = words.iter().map(OsString::from).collect();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let code = run_on(&Sources::default(), &args, &mut out, &mut err);
        (code, String::from_utf8(out).expect("text"), String::from_utf8(err).expect("text"))
    }

    #[test]
    fn exit_codes_tell_valid_from_invalid_from_misused() {
        assert_eq!(run_words(&["check", "--name", "a"]).0, VALID);
        assert_eq!(run_words(&["check", "--heartbeat-interval", "0"]).0, INVALID);
        assert_eq!(run_words(&["check", "--heartbeat-interval", "x"]).0, USAGE);
        assert_eq!(run_words(&["check", "--format", "xml"]).0, USAGE);
        assert_eq!(run_words(&["chekc"]).0, USAGE);
        assert_eq!(run_words(&[]).0, USAGE);
        assert_eq!(run_words(&["check", "--help"]).0, VALID);
    }

    #[test]
    fn check_names_every_mistake_on_one_line_each() {
        let (_, out, _) = run_words(&["check", "--name", "a", "--heartbeat-interval=0", "--log-level=loud"]);
        let errors: Vec<_> = out.lines().filter(|line| line.starts_with("error: ")).collect();
        let expected = [
            "error: --log-level=loud: unrecognized level: \"loud\"; correct: --log-level=info",
            "error: --heartbeat-interval=0: --heartbeat-interval must be >0 (set to 0ms); correct: --heartbeat-interval=100",
        ];
        assert_eq!(errors, expected);
    }

    #[test]
    fn check_speaks_json() {
        let (code, out, _) = run_words(&["check", "--format=json", "--name=a", "--election-timeout=1"]);
        let report: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!((code, &report["valid"]), (INVALID, &serde_json::Value::Bool(false)));
        assert_eq!(report["errors"][0]["option"], "election-timeout");
        assert_eq!(report["errors"][0]["origin"], "--election-timeout");
    }

    #[test]
    fn a_sample_sets_nothing_and_names_every_section() {
        for (words, line) in [
            (["sample", "--format=toml"].as_slice(), "#heartbeat-interval = 100\n"),
            (&["sample", "--format", "env"], "#ETCD_HEARTBEAT_INTERVAL=100\n"),
            (&["sample"], "#heartbeat-interval = 100\n"),
        ] {
            let (code, out, _) = run_words(words);
            assert!(code == VALID && out.contains(line) && out.contains("# Clustering\n"), "{words:?}: {out}");
            assert!(out.lines().all(|line| line.is_empty() || line.starts_with('#')), "{words:?}: {out}");
        }
        assert_eq!(run_words(&["sample", "--format=yaml"]).0, USAGE);
    }

    #[test]
    fn show_prints_every_value_or_only_what_was_set_with_its_origin() {
        let (_, all, _) = run_words(&["show", "--origin", "--name=a"]);
        assert!(all.contains("# default\nelection-timeout = 1000\n# default\n"), "{all}");
        assert!(all.contains("# default\ndata-dir = \"a.etcd\"\n"), "{all}");
        let (code, out, _) =
            run_words(&["show", "--origin", "--set", "--name=a", "--max-wals", "0x10", "--format", "env"]);
        assert_eq!((code, out.as_str()), (VALID, "# --name\nETCD_NAME=a\n# --max-wals\nETCD_MAX_WALS=16\n"));
    }
}
