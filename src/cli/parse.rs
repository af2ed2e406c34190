//! From typed words to a call: clap built from the command table, its complaints in the words of etcd's tools.

use std::{collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use clap::{
    Arg, ArgAction, ArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    value_parser,
};

use super::{
    Program,
    failure::{Exit, Failure},
    go_text, help,
    table::{Command, Flag, Kind},
};

/// A command with everything that was typed for it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// The program the words were typed to.
    pub(super) program: Program,
    /// The commands from the whole program down to the one called; never empty.
    pub(super) path: Vec<&'static Command>,
    /// The values of its flags.
    pub(super) flags: Flags,
    /// The words that are not flags.
    pub(super) arguments: Vec<OsString>,
    /// All words behind the program's name, as they were typed.
    pub(super) words: Vec<OsString>,
}

impl Call {
    /// The arguments as bytes, which is what keys and values are.
    pub(super) fn argument_bytes(&self) -> Vec<Vec<u8>> {
        self.arguments.iter().map(|argument| argument.clone().into_vec()).collect()
    }

    /// The arguments as text; what is not UTF-8 is shown as such and will not be understood.
    pub(super) fn argument_texts(&self) -> Vec<String> {
        self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect()
    }

    /// The flags this command takes from those above it.
    pub(super) fn inherited_flags(&self) -> impl Iterator<Item = &'static Flag> {
        let above = self.path.len().saturating_sub(1);
        self.path.clone().into_iter().take(above).flat_map(|command| command.inherited)
    }
}

/// The flags of one call: every flag the command knows has a value.
#[derive(Clone, Debug, Default)]
pub(super) struct Flags {
    values: BTreeMap<&'static str, Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    value: Value,
    typed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Switch(bool),
    Text(String),
    Integer(i64),
    Unsigned(u64),
    Duration(Duration),
    List(Vec<String>),
}

impl Flags {
    /// Whether a switch is on.
    pub(super) fn switch(&self, flag: &Flag) -> bool {
        matches!(self.value(flag), Some(Value::Switch(true)))
    }

    /// A text.
    pub(super) fn text(&self, flag: &Flag) -> &str {
        if let Some(Value::Text(text)) = self.value(flag) { text } else { "" }
    }

    /// A number.
    pub(super) fn integer(&self, flag: &Flag) -> i64 {
        if let Some(Value::Integer(number)) = self.value(flag) { *number } else { 0 }
    }

    /// A number that is not negative.
    pub(super) fn unsigned(&self, flag: &Flag) -> u64 {
        if let Some(Value::Unsigned(number)) = self.value(flag) { *number } else { 0 }
    }

    /// A duration.
    pub(super) fn duration(&self, flag: &Flag) -> Duration {
        if let Some(Value::Duration(duration)) = self.value(flag) { *duration } else { Duration::ZERO }
    }

    /// A list.
    pub(super) fn list(&self, flag: &Flag) -> &[String] {
        if let Some(Value::List(list)) = self.value(flag) { list } else { &[] }
    }

    /// Whether the flag was typed, or set from the environment.
    pub(super) fn is_set(&self, flag: &Flag) -> bool {
        self.values.get(flag.name).is_some_and(|setting| setting.typed)
    }

    /// The flags of `known`, each at its default.
    pub(super) fn defaults(known: &[&'static Flag]) -> Self {
        let settings = known.iter().filter_map(|flag| {
            let value = read(flag.kind, &[flag.default.to_owned()]).ok()?;
            Some((flag.name, Setting { value, typed: false }))
        });
        Self { values: settings.collect() }
    }

    /// These flags and `more`, which count if both know a flag.
    pub(super) fn with(mut self, mut more: Self) -> Self {
        self.values.append(&mut more.values);
        self
    }

    /// Gives a flag a value, or one more if it takes several.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn add(&mut self, flag: &Flag, text: &str) -> Result<(), String> {
        let before = if self.is_set(flag) { self.list(flag) } else { &[] };
        let texts = [before, &[text.to_owned()]].concat();
        let value = read(flag.kind, &texts)?;
        self.values.insert(flag.name, Setting { value, typed: true });
        Ok(())
    }

    /// Gives a flag a value from elsewhere than the command line.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub(super) fn set(&mut self, flag: &Flag, text: &str) -> Result<(), String> {
        let value = read(flag.kind, &[text.to_owned()])?;
        self.values.insert(flag.name, Setting { value, typed: true });
        Ok(())
    }

    /// The value of a flag as it is shown to people.
    pub(super) fn shown(&self, flag: &Flag) -> String {
        match self.value(flag) {
            Some(Value::Switch(on)) => on.to_string(),
            Some(Value::Text(text)) => text.clone(),
            Some(Value::Integer(number)) => number.to_string(),
            Some(Value::Unsigned(number)) => number.to_string(),
            Some(Value::Duration(duration)) => go_text::duration(*duration),
            Some(Value::List(list)) => format!("[{}]", list.join(",")),
            None => String::new(),
        }
    }

    fn value(&self, flag: &Flag) -> Option<&Value> {
        self.values.get(flag.name).map(|setting| &setting.value)
    }
}

/// The flag every command has.
pub(super) const HELP: Flag = Flag::switch("help", "").short('h');

/// Understands `words` as a call of `root` or of a command below it.
///
/// # Errors
/// A [`Failure`] with the message and usage text that etcd's tools print for it.
pub(super) fn parse(program: Program, root: &'static Command, words: Vec<OsString>) -> Result<Call, Failure> {
    let typed = std::iter::once(OsString::from(program.name)).chain(words.iter().cloned());
    let matches = builder(root).arg(argument(&HELP, true)).try_get_matches_from(typed).map_err(|error| {
        let path = path_of(root, &words);
        with_usage(Failure::new(Exit::Error, complaint(&error, &words)), program, &path)
    })?;
    let (path, matches) = descend(root, &matches);
    let flags = known_flags(&path)
        .map(|flag| Ok((flag.name, setting(flag, matches)?)))
        .collect::<Result<_, String>>()
        .map_err(|message| with_usage(Failure::new(Exit::Error, message), program, &path))?;
    let arguments = matches.get_many(ARGUMENTS).map_or_else(Vec::new, |values| values.cloned().collect());
    Ok(Call { program, path, flags: Flags { values: flags }, arguments, words })
}

/// Understands one line of words as a call of `command` alone, without the flags of any other.
///
/// # Errors
/// What is wrong, without the usage text.
pub(super) fn parse_line(command: &'static Command, words: Vec<OsString>) -> Result<Call, String> {
    let program = Program { name: "", version: "" };
    parse(program, command, words).map_err(|failure| failure.message.unwrap_or_default())
}

fn with_usage(failure: Failure, program: Program, path: &[&'static Command]) -> Failure {
    Failure { usage: Some(help::usage(program, path)), ..failure }
}

fn builder(command: &'static Command) -> clap::Command {
    let mut built = clap::Command::new(command.name)
        .aliases(command.beginnings)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .disable_version_flag(true)
        .infer_subcommands(true)
        .args_override_self(true);
    built = built.args(command.flags.iter().map(|flag| argument(flag, false)));
    built = built.args(command.inherited.iter().map(|flag| argument(flag, true)));
    built
        .arg(Arg::new(ARGUMENTS).num_args(0..).value_parser(value_parser!(OsString)))
        .subcommands(command.commands.iter().map(builder))
}

fn argument(flag: &Flag, inherited: bool) -> Arg {
    let argument = Arg::new(flag.name).long(flag.name).global(inherited).value_parser(value_parser!(OsString));
    let argument = match flag.short {
        Some(short) => argument.short(short),
        None => argument,
    };
    let argument = if flag.also.is_empty() { argument } else { argument.alias(flag.also) };
    match flag.kind {
        Kind::Switch => argument.num_args(0..=1).require_equals(true).default_missing_value("true"),
        Kind::List | Kind::Texts => argument.action(ArgAction::Append).allow_hyphen_values(true),
        Kind::Text | Kind::Integer | Kind::Unsigned | Kind::Duration => argument.allow_hyphen_values(true),
    }
}

fn descend<'a>(root: &'static Command, matches: &'a ArgMatches) -> (Vec<&'static Command>, &'a ArgMatches) {
    let mut path = vec![root];
    let (mut command, mut matches) = (root, matches);
    while let Some((name, below)) = matches.subcommand()
        && let Some(child) = command.child(name)
    {
        path.push(child);
        (command, matches) = (child, below);
    }
    (path, matches)
}

/// The flags of the last command of `path`, its own and those of the commands above it.
pub(super) fn known_flags(path: &[&'static Command]) -> impl Iterator<Item = &'static Flag> {
    let own = path.last().map_or(&[][..], |command| command.flags);
    let inherited: Vec<_> = path.iter().flat_map(|command| command.inherited).collect();
    own.iter().chain(inherited).chain(std::iter::once(&HELP))
}

fn setting(flag: &Flag, matches: &ArgMatches) -> Result<Setting, String> {
    let texts: Option<Vec<String>> = matches
        .get_many::<OsString>(flag.name)
        .map(|values| values.map(|value| value.to_string_lossy().into_owned()).collect());
    let typed = texts.is_some();
    let texts = texts.unwrap_or_else(|| vec![flag.default.to_owned()]);
    let value = read(flag.kind, &texts).map_err(|why| {
        let text = texts.last().map_or("", String::as_str);
        let name = flag.short.map_or_else(String::new, |short| format!("-{short}, "));
        format!("invalid argument {} for \"{name}--{}\" flag: {why}", go_text::quote(text.as_bytes()), flag.name)
    })?;
    Ok(Setting { value, typed })
}

fn read(kind: Kind, texts: &[String]) -> Result<Value, String> {
    let text = texts.last().map_or("", String::as_str);
    Ok(match kind {
        Kind::Switch => Value::Switch(go_text::parse_bool(text)?),
        Kind::Text => Value::Text(text.to_owned()),
        Kind::Integer => Value::Integer(go_text::parse_int(text, 0)?),
        Kind::Unsigned => Value::Unsigned(go_text::parse_unsigned(text)?),
        Kind::Duration => Value::Duration(go_text::parse_duration(text)?),
        Kind::List => Value::List(texts.iter().flat_map(|text| list(text)).collect()),
        Kind::Texts => Value::List(texts.iter().filter(|text| !text.is_empty()).cloned().collect()),
    })
}

fn list(text: &str) -> Vec<String> {
    if text.is_empty() { Vec::new() } else { text.split(',').map(str::to_owned).collect() }
}

/// What clap found wrong, said as etcd's tools say it.
fn complaint(error: &clap::Error, words: &[OsString]) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let flag = context(ContextKind::InvalidArg);
    match error.kind() {
        ErrorKind::UnknownArgument => unknown_flag(flag, words),
        ErrorKind::InvalidValue if context(ContextKind::InvalidValue).is_empty() => {
            let last = words.last().map(|word| word.to_string_lossy()).unwrap_or_default();
            match last.strip_prefix('-') {
                Some(letters) if !letters.starts_with('-') => {
                    let letter = letters.chars().last().unwrap_or('-');
                    format!("flag needs an argument: '{letter}' in {last}")
                }
                _ => format!("flag needs an argument: {last}"),
            }
        }
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

fn unknown_flag(flag: &str, words: &[OsString]) -> String {
    let Some(letter) = flag.strip_prefix('-').filter(|rest| !rest.starts_with('-')) else {
        return format!("unknown flag: {flag}");
    };
    let word = words.iter().map(|word| word.to_string_lossy()).find(|word| is_cluster_with(word, letter));
    format!("unknown shorthand flag: '{letter}' in {}", word.as_deref().unwrap_or(flag))
}

/// Whether `word` is a cluster of short flags, `letter` among them.
fn is_cluster_with(word: &str, letter: &str) -> bool {
    word.starts_with('-') && !word.starts_with("--") && word.contains(letter)
}

/// The command that `words` name, found without understanding the flags among them.
fn path_of(root: &'static Command, words: &[OsString]) -> Vec<&'static Command> {
    let mut path = vec![root];
    let mut skip = false;
    for word in words.iter().map(|word| word.to_string_lossy()) {
        let Some(command) = path.last() else { break };
        if std::mem::take(&mut skip) {
            continue;
        }
        if word.starts_with('-') {
            skip = takes_next_word(&path, &word);
            continue;
        }
        let Some(child) = command.child(&word) else { break };
        path.push(child);
    }
    path
}

fn takes_next_word(path: &[&'static Command], word: &str) -> bool {
    let is_named = |flag: &&Flag| match word.strip_prefix("--") {
        Some(name) => flag.name == name,
        None => flag.short.is_some_and(|short| word.strip_prefix('-') == Some(short.encode_utf8(&mut [0; 4]))),
    };
    known_flags(path).find(is_named).is_some_and(|flag| flag.kind != Kind::Switch)
}

/// The name clap knows the words by that are not flags.
const ARGUMENTS: &str = "ARGUMENTS";

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Flag = Flag::integer("limit", "");
    const PREFIX: Flag = Flag::switch("prefix", "");
    const FORMAT: Flag = Flag::text("write-out", "simple", "").short('w');
    const WAIT: Flag = Flag::duration("wait", "5s", "");
    const HOSTS: Flag = Flag { kind: Kind::List, ..Flag::text("hosts", "a,b", "") };
    const CLUSTER: Flag = Flag::switch("cluster", "");

    static GET: Command = Command { name: "get", flags: &[LIMIT, PREFIX], ..Command::EMPTY };
    static ROOT: Command = Command {
        name: "tool",
        inherited: &[FORMAT, WAIT, HOSTS],
        commands: &[
            Command { name: "get", flags: &[LIMIT, PREFIX], ..Command::EMPTY },
            Command { name: "put", beginnings: &["p"], ..Command::EMPTY },
            Command { name: "past", ..Command::EMPTY },
            Command {
                name: "endpoint",
                inherited: &[CLUSTER],
                commands: &[Command { name: "health", ..Command::EMPTY }, Command { name: "hashkv", ..Command::EMPTY }],
                ..Command::EMPTY
            },
        ],
        ..Command::EMPTY
    };

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect()
    }

    fn called(line: &str) -> Call {
        parse(Program { name: "tool", version: "" }, &ROOT, words(line)).unwrap()
    }

    fn refused(line: &str) -> String {
        let failure = parse(Program { name: "tool", version: "" }, &ROOT, words(line)).unwrap_err();
        assert_eq!(failure.exit, Exit::Error);
        assert!(failure.usage.unwrap().starts_with("Usage:"), "a refusal shows how to do it");
        failure.message.unwrap()
    }

    fn names(call: &Call) -> Vec<&'static str> {
        call.path.iter().map(|command| command.name).collect()
    }

    #[test]
    fn flags_stand_anywhere_and_the_last_value_counts() {
        let call = called("-w json get a --limit 3 --prefix b -w=fields --limit=0x5");
        assert_eq!(names(&call), ["tool", "get"]);
        assert_eq!(call.argument_texts(), ["a", "b"]);
        assert_eq!((call.flags.integer(&LIMIT), call.flags.text(&FORMAT)), (5, "fields"));
        assert!(call.flags.switch(&PREFIX) && !called("get --prefix=F").flags.switch(&PREFIX));
    }

    #[test]
    fn defaults_hold_and_lists_add_up() {
        let call = called("get");
        assert_eq!(call.flags.duration(&WAIT), Duration::from_secs(5));
        assert_eq!(call.flags.list(&HOSTS), ["a", "b"]);
        assert!(!call.flags.is_set(&HOSTS));
        let call = called("get --hosts c,d --hosts e");
        assert_eq!(call.flags.list(&HOSTS), ["c", "d", "e"]);
        assert!(call.flags.is_set(&HOSTS));
        assert!(called("get --hosts=").flags.list(&HOSTS).is_empty());
    }

    #[test]
    fn commands_may_be_cut_short_while_unique() {
        assert_eq!(names(&called("ge x")), ["tool", "get"]);
        assert_eq!(names(&called("e --cluster hea")), ["tool", "endpoint", "health"]);
        assert_eq!(names(&called("p x")), ["tool", "put"], "a beginning that is its own");
        assert_eq!(called("endpoint h").argument_texts(), ["h"], "an ambiguous word stays a word");
        assert!(called("endpoint hashkv --cluster").flags.switch(&CLUSTER));
    }

    #[test]
    fn two_dashes_end_the_flags() {
        assert_eq!(called("put a -- -x --prefix").argument_texts(), ["a", "-x", "--prefix"]);
        assert_eq!(called("put -- a -- b").argument_texts(), ["a", "--", "b"]);
        assert_eq!(called("put a -").argument_texts(), ["a", "-"]);
    }

    #[test]
    fn values_may_begin_with_a_dash() {
        assert_eq!(called("get --limit -5").flags.integer(&LIMIT), -5);
        assert_eq!(called("get -w -x").flags.text(&FORMAT), "-x");
    }

    #[test]
    fn refusals_use_the_words_of_etcd() {
        assert_eq!(refused("get --bad"), "unknown flag: --bad");
        assert_eq!(refused("get --bad=1"), "unknown flag: --bad");
        assert_eq!(refused("get a -xyz"), "unknown shorthand flag: 'x' in -xyz");
        assert_eq!(refused("put k -1"), "unknown shorthand flag: '1' in -1");
        assert_eq!(refused("get --limit"), "flag needs an argument: --limit");
        assert_eq!(refused("get -w"), "flag needs an argument: 'w' in -w");
        assert_eq!(
            refused("get --limit x"),
            r#"invalid argument "x" for "--limit" flag: strconv.ParseInt: parsing "x": invalid syntax"#
        );
        assert_eq!(
            refused("get --prefix=maybe"),
            r#"invalid argument "maybe" for "--prefix" flag: strconv.ParseBool: parsing "maybe": invalid syntax"#
        );
        assert_eq!(
            refused("--wait 5 get"),
            r#"invalid argument "5" for "--wait" flag: time: missing unit in duration "5""#
        );
    }

    #[test]
    fn one_line_is_read_without_the_flags_of_the_program() {
        assert_eq!(parse_line(&GET, words("a --limit 2")).unwrap().flags.integer(&LIMIT), 2);
        assert_eq!(parse_line(&GET, words("a -w json")).unwrap_err(), "unknown shorthand flag: 'w' in -w");
    }
}
