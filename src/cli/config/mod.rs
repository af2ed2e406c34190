//! `config …`: the configuration, looked at without starting.
//!
//! Every command runs the daemon's own loading. `check` says what is wrong, with one member or with the files of a whole
//! cluster, `check --deep` also asks the host; `show` writes the effective configuration in any form; `convert` writes
//! what is set, and nothing else, in another form; `sample` writes every option with its default, commented out, which is
//! what packages install; `schema` describes the TOML file to editors. Nothing they do stays behind.

mod certificates;
mod check;
mod cluster;
mod convert;
mod finding;
mod holder;
mod probe;

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::{completion::FORMS, failure::Failure};
use crate::config::{
    self, ExtraFlag, Extras, Form, Own, Sources,
    show::{self, Format, Shown},
};
use convert::lines;

/// Exit code: what was asked for is so.
const VALID: u8 = 0;
/// Exit code: the configuration is wrong.
const INVALID: u8 = 1;
/// Exit code: the command line is wrong.
const USAGE: u8 = 2;

const FORMAT: ExtraFlag = ExtraFlag { name: "format", is_switch: false };
const FROM: ExtraFlag = ExtraFlag { name: "from", is_switch: false };
const TO: ExtraFlag = ExtraFlag { name: "to", is_switch: false };
const DEEP: ExtraFlag = ExtraFlag { name: "deep", is_switch: true };
const ORIGIN: ExtraFlag = ExtraFlag { name: "origin", is_switch: true };
const SET: ExtraFlag = ExtraFlag { name: "set", is_switch: true };

/// A command behind `config`.
pub(super) struct ConfigCommand {
    /// Its name.
    pub(super) name: &'static str,
    /// One line on what it does.
    pub(super) about: &'static str,
    /// Flags of its own.
    pub(super) flags: &'static [ExtraFlag],
    /// What its `--format` may be.
    pub(super) formats: &'static [&'static str],
    /// Whether files and the daemon's options may follow.
    pub(super) takes_options: bool,
}

/// Every command, which completions and manual pages read, too.
pub(super) const COMMANDS: &[ConfigCommand] = &[
    ConfigCommand {
        name: "check",
        about: "Names every mistake of a configuration, or of those of a cluster",
        flags: &[FORMAT, FROM, DEEP],
        formats: &["text", "json"],
        takes_options: true,
    },
    ConfigCommand {
        name: "show",
        about: "Prints the effective configuration",
        flags: &[FORMAT, FROM, ORIGIN, SET],
        formats: FORMS,
        takes_options: true,
    },
    ConfigCommand {
        name: "convert",
        about: "Prints what is set in another form",
        flags: &[FROM, TO, ORIGIN],
        formats: &[],
        takes_options: true,
    },
    ConfigCommand {
        name: "sample",
        about: "Prints a file that names every option with its default, commented out",
        flags: &[FORMAT],
        formats: &["toml", "env"],
        takes_options: false,
    },
    ConfigCommand {
        name: "schema",
        about: "Prints a JSON Schema of the TOML file",
        flags: &[],
        formats: &[],
        takes_options: false,
    },
];

const USAGE_TEXT: &str = "Usage:

  quorate config check [--deep] [--format text|json] [flags of the daemon]
    Reads the configuration as the daemon would and names every mistake.
    --deep also tries addresses, names, files, free space and the disk; nothing stays behind.
    Exit code 0: valid, 1: invalid, 2: the command line is wrong, 6: the answer could not be written.

  quorate config check [--from FORM] [--format text|json] FILE...
    The same for files of several members, and whether these members form one cluster. Every finding names both places.

  quorate config show [--origin] [--set] [--format toml|env|yaml|flags|json] [FILE] [flags of the daemon]
    Prints the effective configuration in a form that can be read back.
    --origin adds where each value stands, --set leaves out defaults.

  quorate config convert --to env|toml|yaml|json|flags [--from FORM] [FILE] [flags of the daemon]
    Prints what is set, and only that, in another form. Old names become today's; comments are not carried over.
    What the other form cannot hold is an error, and what says nothing is named on standard error.

  quorate config sample [--format toml|env]
    Prints a file that names every option with its default, all of them commented out.

  quorate config schema
    Prints a JSON Schema of the TOML file, for editors.

  A FILE stands in place of this process's environment; - is standard input. FORM is env, toml, yaml, json or flags (a
  command line, or the list of arguments in a manifest); where it is not given, the name of the file tells: .toml, .yml,
  .yaml, .json, .flags, .args, .sh, and env for any other.
";

/// Runs `config …`; `args` are the words behind it. The environment is that of `sources`.
pub fn run(sources: &Sources, args: &[OsString]) -> ExitCode {
    ExitCode::from(run_on(sources, args, &mut io::stdout(), &mut io::stderr()))
}

/// As [`run`], with its output where the caller wants it. A good answer that could not be written is a failure, told as
/// `quoratectl` tells it: silently where the reader went away. A standard error that is closed changes nothing.
pub fn run_on(sources: &Sources, args: &[OsString], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let Answer { text, remarks, code } = answer(sources, args).unwrap_or_else(|misuse| Answer::refusal(misuse, USAGE));
    drop(err.write_all(remarks.as_bytes()));
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if code == VALID => unwritten(error, err),
        _ => code,
    }
}

/// The exit code where there is nowhere to write to.
fn unwritten(error: io::Error, err: &mut dyn Write) -> u8 {
    let Failure { exit, message, .. } = Failure::from(error);
    if let Some(message) = message {
        drop(writeln!(err, "error: writing the answer: {message}"));
    }
    exit.code()
}

/// What a command has to say.
struct Answer {
    /// What was asked for.
    text: String,
    /// What is to be known beside it, on standard error.
    remarks: String,
    code: u8,
}

impl Answer {
    fn new(text: impl Into<String>, code: u8) -> Self {
        Self { text: text.into(), remarks: String::new(), code }
    }

    fn refusal(remarks: impl Into<String>, code: u8) -> Self {
        Self { text: String::new(), remarks: remarks.into(), code }
    }
}

/// The answer to a command line, or how it should have been written.
fn answer(sources: &Sources, args: &[OsString]) -> Result<Answer, String> {
    if args.iter().any(|word| word == "-h" || word == "--help") {
        return Ok(Answer::new(USAGE_TEXT, VALID));
    }
    let (command, rest) = match args.split_first() {
        Some((command, rest)) => (command.to_str().unwrap_or_default(), rest),
        None => return Err(USAGE_TEXT.to_owned()),
    };
    let sources = Sources { args: rest.to_vec(), ..sources.clone() };
    let row = COMMANDS.iter().find(|row| row.name == command);
    let asked = || Asked::read(&sources, row.map_or(&[], |row| row.flags));
    match command {
        "check" => check(&sources, &asked()?),
        "show" => show(&asked()?.one(&sources)?),
        "convert" => convert(&asked()?.one(&sources)?),
        "sample" => sample(&asked()?),
        "schema" if rest.is_empty() => Ok(Answer::new(format!("{:#}\n", config::schema()), VALID)),
        "schema" => Err("config schema takes no arguments\n".to_owned()),
        other => Err(format!("unknown command \"config {other}\"\n{USAGE_TEXT}")),
    }
}

/// What belongs to the command on its command line.
struct Asked {
    own: Own,
    extras: Extras<'static>,
    files: Vec<(PathBuf, Format)>,
}

impl Asked {
    fn read(sources: &Sources, flags: &'static [ExtraFlag]) -> Result<Self, String> {
        let extras = Extras { flags, words: true };
        let own = config::own_words(&sources.args, extras);
        let from = own.flag("from").map(form).transpose()?;
        let file = |word: &String| {
            let path = PathBuf::from(if word == "-" { "/dev/stdin" } else { word });
            let form = from.unwrap_or_else(|| Format::of_file(&path));
            (path, form)
        };
        let files = own.words.iter().map(file).collect();
        Ok(Self { own, extras, files })
    }

    /// For a command that looks at one configuration.
    fn one(self, sources: &Sources) -> Result<One, String> {
        let sources = match self.files.as_slice() {
            [] => sources.clone(),
            [(path, form)] => sources.of_file(path, *form),
            more => return Err(format!("one file at a time, not {}\n", more.len())),
        };
        Ok(One { asked: self, sources })
    }
}

/// A command and the one configuration that it is about.
struct One {
    asked: Asked,
    sources: Sources,
}

/// The form called `name`.
fn form(name: &str) -> Result<Format, String> {
    let names = Format::ALL.map(|(name, _)| name).join(", ");
    Format::find(name).ok_or_else(|| format!("unknown form \"{name}\": one of {names}\n"))
}

fn check(sources: &Sources, asked: &Asked) -> Result<Answer, String> {
    let as_json = match asked.own.flag("format") {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(format!("unknown format \"{other}\": text or json\n")),
    };
    let deep = asked.own.has("deep");
    let report = match asked.files.as_slice() {
        [] => check::Report::of_one(sources, asked.extras, deep),
        [(path, form)] => check::Report::of_one(&sources.of_file(path, *form), asked.extras, deep),
        _ if deep => return Err("--deep asks this host, so it takes one configuration at a time\n".to_owned()),
        files => check::Report::of_cluster(sources, files, asked.extras),
    };
    let text = if as_json { report.to_json() } else { report.to_text() };
    Ok(Answer::new(text, report.exit_code()))
}

fn show(One { asked, sources }: &One) -> Result<Answer, String> {
    let format = form(asked.own.flag("format").unwrap_or("toml"))?;
    let shown = Shown { set_only: asked.own.has("set"), origin: asked.own.has("origin") };
    let loaded = match config::load_with(sources, asked.extras) {
        Ok(loaded) => loaded,
        Err(errors) => return Ok(Answer::refusal(lines("error", errors.problems()), errors.exit_code())),
    };
    Ok(match show::render(&loaded.settings, format, shown) {
        Ok(rendered) => Answer::new(rendered.text, VALID),
        Err(lost) => Answer::refusal(lines("error", &lost), INVALID),
    })
}

fn convert(One { asked, sources }: &One) -> Result<Answer, String> {
    let to = asked.own.flag("to").ok_or("--to says which form is wanted: env, toml, yaml, json or flags\n")?;
    let shown = Shown { set_only: true, origin: asked.own.has("origin") };
    Ok(convert::convert(sources, asked.extras, form(to)?, shown))
}

fn sample(asked: &Asked) -> Result<Answer, String> {
    let form = match asked.own.flag("format") {
        None | Some("toml") => Form::Toml,
        Some("env") => Form::Variable,
        Some(other) => return Err(format!("unknown format \"{other}\": toml or env\n")),
    };
    Ok(Answer::new(show::sample(form), VALID))
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
        let finding = &report["findings"][0];
        assert_eq!((&finding["severity"], &finding["option"]), (&"error".into(), &"election-timeout".into()));
        assert_eq!(finding["origin"]["text"], "--election-timeout");
        assert_eq!(finding["remedy"], "write --election-timeout=500");
        let warned =
            report["findings"].as_array().expect("a list").iter().filter(|finding| finding["severity"] == "warning");
        assert!(warned.clone().all(|finding| finding["remedy"].is_string()), "{out}");
    }

    #[test]
    fn a_proxy_among_the_files_is_no_member() {
        let place = tempfile::tempdir().expect("a directory");
        let write = |name: &str, more: &str| {
            let path = place.path().join(name).display().to_string();
            let text = format!("ETCD_NAME={name}\nETCD_INITIAL_CLUSTER=m1=http://10.0.0.1:2380\n{more}");
            std::fs::write(&path, text).expect("written");
            path
        };
        let member = write(
            "m1",
            "ETCD_LISTEN_PEER_URLS=http://10.0.0.1:2380\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.0.0.1:2380\n\
             ETCD_LISTEN_CLIENT_URLS=http://10.0.0.1:2379\nETCD_ADVERTISE_CLIENT_URLS=http://10.0.0.1:2379\n",
        );
        let proxy = write("p", "ETCD_PROXY=on\nETCD_LISTEN_CLIENT_URLS=http://10.0.0.2:2379\n");
        let (code, out, _) = run_words(&["check", &member, &proxy]);
        assert_eq!((code, out.contains("error: ")), (VALID, false), "{out}");
    }

    /// A full disk left half a file behind, and scripts took it for the whole.
    #[test]
    fn an_answer_that_cannot_be_written_is_no_success() {
        for words in [
            ["check", "--name=a"].as_slice(),
            &["show"],
            &["convert", "--to=toml", "--name=a"],
            &["sample"],
            &["schema"],
        ] {
            let args: Vec<OsString> = words.iter().map(OsString::from).collect();
            let mut full = std::fs::File::options().write(true).open("/dev/full").expect("a device of Linux");
            let mut err = Vec::new();
            assert_eq!(
                run_on(&Sources::default(), &args, &mut io::BufWriter::new(&mut full), &mut err),
                6,
                "{words:?}"
            );
            let said = String::from_utf8(err).expect("text");
            assert!(said.ends_with("error: writing the answer: No space left on device (os error 28)\n"), "{said}");
        }
    }

    #[test]
    fn a_reader_that_goes_away_is_no_news_and_a_mistake_stays_one() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        drop(reader);
        let args = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let mut err = Vec::new();
        assert_eq!(run_on(&Sources::default(), &args(&["sample"]), &mut writer, &mut err), 141);
        let wrong = args(&["check", "--name=a", "--heartbeat-interval=0"]);
        assert_eq!(run_on(&Sources::default(), &wrong, &mut writer, &mut err), INVALID);
        assert_eq!(String::from_utf8(err).expect("text"), "");
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
