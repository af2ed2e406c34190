//! From typed words to a call, by the rules of Go's `flag` package and of the library that etcdctl puts around it.
//!
//! - One dash is as good as two; the value of a switch follows an equals sign only.
//! - Flags of the program end at the first word that is none. Behind a command, flags that it knows are pulled to the
//!   front with the word that follows each, and everything else is an argument.

use std::{collections::BTreeSet, ffi::OsString};

use super::{
    super::{
        API_VERSION_2, Program, go_text,
        parse::{Call, Flags, HELP},
        table::{Command, Flag, Kind},
    },
    help,
};

/// The flag of the program itself.
pub(super) const VERSION: Flag = Flag::switch("version", "print the version").short('v');

/// What a command line comes to.
#[derive(Clone, Debug)]
pub(super) enum Understood {
    /// A command is to be run.
    Call(Call),
    /// Something is to be printed, and that is all.
    Page(String),
    /// Help was asked for something that does not exist, or a command was called that does not.
    NoPage(String),
    /// Flags that make no sense, and the page that shows how to use them.
    Misuse { complaint: String, page: String },
}

/// Understands `words` as a call of a command of `root`.
pub(super) fn understand(program: Program, root: &'static Command, words: Vec<OsString>) -> Understood {
    let known: Vec<&Flag> = root.inherited.iter().chain([&HELP]).chain(root.flags).collect();
    let page = || help::program_page(program, root);
    let parsed = match Parsed::of(&known, &words) {
        Ok(parsed) => parsed,
        Err(Complaint::TwoForms(complaint)) => {
            return Understood::Misuse { page: format!("{complaint}\n{}", page()), complaint };
        }
        Err(Complaint::Flag(complaint)) => {
            return Understood::Misuse { page: format!("Incorrect Usage. {complaint}\n\n{}", page()), complaint };
        }
    };
    if parsed.flags.switch(&HELP) {
        return Understood::Page(page());
    }
    if parsed.flags.switch(&VERSION) {
        let Program { name, version } = program;
        return Understood::Page(format!("{name} version: {version}\nAPI version: {API_VERSION_2}\n"));
    }
    let caller = Caller { program, flags: parsed.flags, words };
    caller.command(vec![root], &parsed.arguments)
}

/// What is known before the command is.
struct Caller {
    program: Program,
    flags: Flags,
    words: Vec<OsString>,
}

impl Caller {
    /// Understands `arguments` as a command below the last of `path` with its own words.
    fn command(self, path: Vec<&'static Command>, arguments: &[OsString]) -> Understood {
        let Some(parent) = path.last().copied() else { return Understood::NoPage(String::new()) };
        let Some((name, rest)) = arguments.split_first() else {
            return Understood::Page(help::page(self.program, &path));
        };
        let found = parent.commands.iter().find(|command| *name == *command.name);
        match found {
            Some(command) => {
                let path = [path, vec![command]].concat();
                if command.commands.is_empty() { self.leaf(path, rest) } else { self.group(path, rest) }
            }
            None if name == "help" || name == "h" => self.help(&path, rest),
            None => Understood::NoPage(name.to_string_lossy().into_owned()),
        }
    }

    fn group(self, path: Vec<&'static Command>, words: &[OsString]) -> Understood {
        let page = || help::page(self.program, &path);
        match Parsed::of(&[&HELP], words) {
            Err(Complaint::TwoForms(complaint) | Complaint::Flag(complaint)) => {
                Understood::Misuse { page: format!("Incorrect Usage. {complaint}\n\n{}", page()), complaint }
            }
            Ok(parsed) if parsed.flags.switch(&HELP) => Understood::Page(page()),
            Ok(parsed) => self.command(path, &parsed.arguments),
        }
    }

    fn leaf(self, path: Vec<&'static Command>, words: &[OsString]) -> Understood {
        let known: Vec<&Flag> = path.last().map_or(&[][..], |command| command.flags).iter().chain([&HELP]).collect();
        let page = || help::page(self.program, &path);
        match Parsed::of(&known, &reordered(&known, words)) {
            Err(Complaint::TwoForms(complaint) | Complaint::Flag(complaint)) => {
                Understood::Misuse { page: format!("Incorrect Usage: {complaint}\n\n{}", page()), complaint }
            }
            Ok(parsed) if parsed.flags.switch(&HELP) => Understood::Page(page()),
            Ok(parsed) => Understood::Call(Call {
                program: self.program,
                flags: self.flags.with(parsed.flags),
                arguments: parsed.arguments,
                words: self.words,
                path,
            }),
        }
    }

    /// `help`, in the program or in a group of commands.
    fn help(self, path: &[&'static Command], words: &[OsString]) -> Understood {
        let Some(name) = words.first() else { return Understood::Page(help::whole_page(self.program, path)) };
        let found = path.last().and_then(|parent| parent.commands.iter().find(|command| *name == *command.name));
        match found {
            Some(command) => Understood::Page(help::command_page(self.program, &[path, &[command]].concat())),
            None => Understood::NoPage(name.to_string_lossy().into_owned()),
        }
    }
}

/// What is wrong with flags.
#[derive(Debug, PartialEq, Eq)]
enum Complaint {
    /// One of them makes no sense.
    Flag(String),
    /// One of them is there under two names.
    TwoForms(String),
}

/// Flags with their values, and the words behind them.
struct Parsed {
    flags: Flags,
    arguments: Vec<OsString>,
}

impl Parsed {
    fn of(known: &[&'static Flag], words: &[OsString]) -> Result<Self, Complaint> {
        let mut reader = Reader { known, words, flags: Flags::defaults(known), named: BTreeSet::new() };
        // A flag under two names is told before one that makes no sense.
        let outcome = reader.read();
        reader.check_names()?;
        outcome?;
        Ok(Self { flags: reader.flags, arguments: reader.words.to_vec() })
    }
}

struct Reader<'w> {
    known: &'w [&'static Flag],
    /// What is not read yet.
    words: &'w [OsString],
    flags: Flags,
    /// The names that were used.
    named: BTreeSet<String>,
}

impl Reader<'_> {
    fn read(&mut self) -> Result<(), Complaint> {
        while let Some((word, rest)) = self.words.split_first() {
            let word = word.to_string_lossy();
            if word.len() < 2 || !word.starts_with('-') {
                return Ok(());
            }
            self.words = rest;
            if word == "--" {
                return Ok(());
            }
            self.read_flag(&word).map_err(Complaint::Flag)?;
        }
        Ok(())
    }

    fn read_flag(&mut self, word: &str) -> Result<(), String> {
        let dashed = word.strip_prefix('-').unwrap_or(word);
        let text = dashed.strip_prefix('-').unwrap_or(dashed);
        if text.is_empty() || text.starts_with(['-', '=']) {
            return Err(format!("bad flag syntax: {word}"));
        }
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        let flag = self.known.iter().find(|flag| flag.names().any(|known| known == name));
        let flag = *flag.ok_or_else(|| format!("flag provided but not defined: -{name}"))?;
        let value = self.value(flag, name, value)?;
        let quoted = go_text::quote(value.as_bytes());
        self.flags.add(flag, &value).map_err(|why| {
            let why = if why.ends_with("value out of range") && flag.kind == Kind::Integer {
                "value out of range"
            } else {
                "parse error"
            };
            match flag.kind {
                Kind::Switch => format!("invalid boolean value {quoted} for -{name}: {why}"),
                _ => format!("invalid value {quoted} for flag -{name}: {why}"),
            }
        })?;
        self.named.insert(name.to_owned());
        Ok(())
    }

    /// What stands behind the equals sign, or the next word unless a switch needs none.
    fn value(&mut self, flag: &Flag, name: &str, typed: Option<String>) -> Result<String, String> {
        match (typed, flag.kind) {
            (Some(value), _) => Ok(value),
            (None, Kind::Switch) => Ok("true".to_owned()),
            (None, _) => {
                let (word, rest) = self.words.split_first().ok_or(format!("flag needs an argument: -{name}"))?;
                self.words = rest;
                Ok(word.to_string_lossy().into_owned())
            }
        }
    }

    fn check_names(&self) -> Result<(), Complaint> {
        for flag in self.known {
            let used: Vec<_> = flag.names().filter(|name| self.named.contains(name)).collect();
            if let [first, second, ..] = used.as_slice() {
                let text = format!("Cannot use two forms of the same flag: {second} {first}");
                return Err(Complaint::TwoForms(text));
            }
        }
        Ok(())
    }
}

/// Pulls the flags in `known` to the front. The word behind one goes along, whether it is a value or not.
fn reordered(known: &[&'static Flag], words: &[OsString]) -> Vec<OsString> {
    let (mut front, mut back) = (Vec::new(), Vec::new());
    let mut takes_next = false;
    for (at, word) in words.iter().enumerate() {
        let text = word.to_string_lossy();
        if text == "--" {
            back.extend(words.iter().skip(at).cloned());
            break;
        }
        if takes_next && !text.starts_with('-') {
            takes_next = false;
            front.push(word.clone());
        } else if is_known(known, &text) {
            takes_next = !text.contains('=');
            front.push(word.clone());
        } else {
            back.push(word.clone());
        }
    }
    front.append(&mut back);
    front
}

fn is_known(known: &[&'static Flag], word: &str) -> bool {
    let Some(name) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else { return false };
    let name = name.split('=').next().unwrap_or_default();
    known.iter().any(|flag| flag.names().any(|known| known == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    static TOOL: Command = Command {
        name: "tool",
        about: "Does things.",
        flags: &[VERSION],
        inherited: &[Flag::text("output", "simple", "form").short('o'), Flag::duration("timeout", "2s", "time")],
        commands: &[
            Command {
                name: "ls",
                about: "lists",
                flags: &[Flag::switch("recursive", "all").short('r'), Flag::integer("ttl", "time")],
                ..Command::EMPTY
            },
            Command {
                name: "role",
                about: "roles",
                commands: &[Command {
                    name: "grant",
                    about: "grants",
                    flags: &[Flag::switch("readwrite", "both").also("rw"), Flag::texts("roles", "names")],
                    ..Command::EMPTY
                }],
                ..Command::EMPTY
            },
        ],
        ..Command::EMPTY
    };
    const PROGRAM: Program = Program { name: "tool", version: "1" };

    fn understood(line: &str) -> Understood {
        understand(PROGRAM, &TOOL, line.split(' ').filter(|word| !word.is_empty()).map(OsString::from).collect())
    }

    fn called(line: &str) -> Call {
        match understood(line) {
            Understood::Call(call) => call,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(line: &str) -> String {
        match understood(line) {
            Understood::Misuse { complaint, page } => {
                assert!(page.contains(&complaint) && page.contains("USAGE:"), "{page}");
                complaint
            }
            other => panic!("{line}: {other:?}"),
        }
    }

    fn flag(line: &str, name: &'static str) -> String {
        called(line).flags.shown(&Flag::text(name, "", ""))
    }

    #[test]
    fn one_dash_is_as_good_as_two() {
        for line in ["-output json ls", "--output=json ls", "-o=json ls", "--o json ls"] {
            assert_eq!(flag(line, "output"), "json", "{line}");
        }
        assert_eq!(flag("ls", "timeout"), "2s");
    }

    #[test]
    fn flags_of_a_command_may_stand_behind_its_arguments() {
        let call = called("ls /a -r /b --ttl 5 --unknown");
        assert_eq!(
            call.argument_texts(),
            ["/b", "--ttl", "5", "/a", "--unknown"],
            "a switch takes the next word along"
        );
        let call = called("ls /a --ttl 5 -r");
        assert_eq!(
            (call.argument_texts(), call.flags.shown(&Flag::integer("ttl", ""))),
            (vec!["/a".into()], "5".into())
        );
        assert_eq!(called("ls -- -r").argument_texts(), ["-r"]);
        assert_eq!(called("ls a -- -r").argument_texts(), ["a", "--", "-r"]);
    }

    #[test]
    fn flags_of_the_program_stand_in_front() {
        assert_eq!(called("ls x --timeout 1s").argument_texts(), ["x", "--timeout", "1s"]);
    }

    #[test]
    fn refusals_use_the_words_of_go() {
        assert_eq!(refused("-x ls"), "flag provided but not defined: -x");
        assert_eq!(refused("---x"), "bad flag syntax: ---x");
        assert_eq!(refused("--timeout"), "flag needs an argument: -timeout");
        assert_eq!(refused("--timeout x"), "invalid value \"x\" for flag -timeout: parse error");
        assert_eq!(refused("ls --ttl x"), "invalid value \"x\" for flag -ttl: parse error");
        assert_eq!(
            refused("ls --ttl 99999999999999999999"),
            "invalid value \"99999999999999999999\" for flag -ttl: value out of range"
        );
        assert_eq!(refused("ls -r=x"), "invalid boolean value \"x\" for -r: parse error");
        assert_eq!(refused("ls -r --recursive"), "Cannot use two forms of the same flag: r recursive");
        assert_eq!(refused("-o json --output json ls"), "Cannot use two forms of the same flag: o output");
        assert_eq!(refused("role -x"), "flag provided but not defined: -x");
    }

    #[test]
    fn a_flag_may_have_two_long_names_and_several_values() {
        let call = called("role grant --rw --roles a,b --roles c");
        assert_eq!(flag("role grant --rw", "readwrite"), "true");
        assert_eq!(call.flags.list(&Flag::texts("roles", "")), ["a,b", "c"]);
    }

    #[test]
    fn help_is_found_where_it_is_asked_for() {
        let page = |line: &str| match understood(line) {
            Understood::Page(page) => page.lines().nth(1).unwrap_or_default().trim().to_owned(),
            other => panic!("{line}: {other:?}"),
        };
        for line in ["", "-h", "help", "h", "--help ls"] {
            assert_eq!(page(line), "tool - Does things.", "{line}");
        }
        assert_eq!(page("ls --help"), "tool ls - lists");
        assert_eq!(page("help ls"), "tool ls - lists");
        assert_eq!(page("role"), "tool role - roles");
        assert_eq!(page("role help grant"), "tool role grant - grants");
        assert!(matches!(understood("nothing"), Understood::NoPage(name) if name == "nothing"));
        assert!(matches!(understood("role nothing"), Understood::NoPage(_)));
        assert!(matches!(understood("-v"), Understood::Page(text) if text == "tool version: 1\nAPI version: 2\n"));
    }
}
