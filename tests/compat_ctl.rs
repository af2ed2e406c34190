//! The client prints what etcdctl 3.7 prints.
//!
//! `tests/compat/ctl/*.txt` hold conversations: commands, what they are given, and what etcdctl printed when it had the
//! same conversation with etcd. The first test has them with our client; the second, which needs the originals, has them
//! with etcdctl and etcd again. With `QUORATE_RECORD=1` the second writes down what it hears.
//!
//! `SUBJECT_BIN` makes the first test talk to another server than our own, `QUORATE_CASE` makes both read one file alone.
//!
//! A file begins with `server FLAGS` if its server needs some. Then follow commands, each a line `$ etcdctl WORDS` with
//! lines about it before and what it printed after it:
//!
//! ```text
//! env NAME=VALUE      a variable of the command
//! < LINE              a line of its standard input
//! lines N             stop it once it printed N lines; its input stays open so long
//! differs             etcdctl says something else, for the reason told above
//! mask RULE           a rule of `Mask` for what changes from run to run
//! let NAME = A * B    call what stands between A and B in its output {NAME} from here on
//! $ etcdctl WORDS
//! | LINE              printed; a blank at its end is written ␠, a backslash ends an output that no newline ended
//! ! LINE              printed on standard error
//! = CODE              exit code, unless 0
//! ```

mod support;

use std::{
    ffi::OsString,
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use support::{daemon::Daemon, program::Program};

#[test]
fn our_client_prints_what_etcdctl_printed() {
    replay(&conversations(|_| true), &Programs::ours());
}

#[test]
#[ignore = "needs the real etcd, which it builds with Go if it is not there"]
fn etcdctl_still_prints_what_is_recorded() {
    let programs = Programs { client: Program::etcdctl().path, server: Program::etcd(), ours: false };
    let conversations = conversations(|_| true);
    if std::env::var_os("QUORATE_RECORD").is_some() {
        for file in conversations {
            record(&file, &programs);
        }
    } else {
        replay(&conversations, &programs);
    }
}

fn replay(files: &[PathBuf], programs: &Programs) {
    let failures: Vec<_> = files.iter().flat_map(|file| differences(file, programs)).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

struct Programs {
    client: PathBuf,
    server: Program,
    /// Whether the client is ours; the originals need not say what is marked as ours.
    ours: bool,
}

impl Programs {
    fn ours() -> Self {
        Self { client: client_called_etcdctl(), server: Program::subject(), ours: true }
    }
}

/// Our client under the name that makes it print as etcdctl does.
fn client_called_etcdctl() -> PathBuf {
    let link = Path::new(env!("CARGO_TARGET_TMPDIR")).join("etcdctl");
    // Another run may have made it; what counts is that it is there.
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_quoratectl"), &link).unwrap_or_default();
    link
}

fn conversations(wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/compat/ctl");
    let mut files: Vec<_> =
        fs::read_dir(folder).expect("the conversations").filter_map(|entry| Some(entry.ok()?.path())).collect();
    let only = std::env::var_os("QUORATE_CASE");
    files.retain(|file| {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        file.extension().is_some_and(|extension| extension == "txt")
            && wanted(&name)
            && only.as_ref().is_none_or(|only| *only == *name)
    });
    files.sort();
    files
}

/// Has the conversation of a file and tells what was said otherwise than it is written.
fn differences(file: &Path, programs: &Programs) -> Vec<String> {
    let conversation = Conversation::read(file);
    let mut talk = Talk::begin(&conversation.server_flags, programs);
    let mut found = Vec::new();
    for case in &conversation.cases {
        let said = talk.have(case);
        if said != case.expected && (programs.ours || !case.differs) {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            let (expected, said) = (case.expected.join("\n"), said.join("\n"));
            found.push(format!("--- {name}: {}\n{expected}\n--- but heard\n{said}\n", case.command));
        }
    }
    found
}

/// Has the conversation of a file and writes it down anew.
fn record(file: &Path, programs: &Programs) {
    let conversation = Conversation::read(file);
    let mut talk = Talk::begin(&conversation.server_flags, programs);
    let mut text = conversation.head.join("\n");
    for case in &conversation.cases {
        let said = talk.have(case);
        let said = if case.differs { &case.expected } else { &said };
        let lines = case.before.iter().chain([&case.command]).chain(said);
        text.push_str(&lines.fold(String::new(), |text, line| text + "\n" + line));
    }
    fs::write(file, text.trim_start().to_owned() + "\n").expect("a conversation can be written down");
}

/// A file.
struct Conversation {
    head: Vec<String>,
    server_flags: Vec<String>,
    cases: Vec<Case>,
}

/// A command of a file.
#[derive(Default)]
struct Case {
    /// The lines before it, as they are written.
    before: Vec<String>,
    command: String,
    variables: Vec<(String, String)>,
    stdin: String,
    lines: Option<usize>,
    masks: Vec<Mask>,
    names: Vec<(String, String, String)>,
    /// Ours answers otherwise, and its answer is what is written; a comment says why.
    differs: bool,
    expected: Vec<String>,
}

impl Conversation {
    fn read(file: &Path) -> Self {
        let text = fs::read_to_string(file).expect("a conversation is text");
        let mut conversation = Self { head: Vec::new(), server_flags: Vec::new(), cases: Vec::new() };
        let mut next = Case::default();
        for line in text.lines() {
            match line.split_once(' ').unwrap_or((line, "")) {
                ("server", flags) => {
                    conversation.server_flags = flags.split(' ').map(str::to_owned).collect();
                    conversation.head.append(&mut next.before);
                    conversation.head.push(line.to_owned());
                }
                ("$", _) => {
                    line.clone_into(&mut next.command);
                    conversation.cases.push(std::mem::take(&mut next));
                }
                ("|" | "!" | "=", _) => {
                    conversation.cases.last_mut().expect("an answer follows a command").expected.push(line.to_owned());
                }
                (word, rest) => {
                    next.prepare(word, rest);
                    next.before.push(line.to_owned());
                }
            }
        }
        conversation
    }
}

impl Case {
    fn prepare(&mut self, word: &str, rest: &str) {
        match word {
            "env" => {
                let (name, value) = rest.split_once('=').expect("env NAME=VALUE");
                self.variables.push((name.to_owned(), value.to_owned()));
            }
            "<" => self.stdin.extend([rest, "\n"]),
            "lines" => self.lines = Some(rest.parse().expect("lines N")),
            "mask" => self.masks.push(Mask::named(rest)),
            "differs" => self.differs = true,
            "let" => {
                let (name, pattern) = rest.split_once(" = ").expect("let NAME = A * B");
                let (before, after) = pattern.split_once('*').expect("let NAME = A * B");
                self.names.push((name.to_owned(), before.to_owned(), after.to_owned()));
            }
            "" | "#" => {}
            other => panic!("no line begins with {other:?}"),
        }
    }
}

/// What may differ between two runs without being a difference.
#[derive(Clone, Copy)]
enum Mask {
    /// The text of a help page is ours; only that there is one counts.
    Help,
    /// Durations.
    Took,
    /// Numbers, and the blanks and lines a table pads them with.
    Numbers,
    /// The width of a table.
    Padding,
    /// The order of members, which have random identifiers.
    Order,
}

impl Mask {
    fn named(name: &str) -> Self {
        match name {
            "help" => Self::Help,
            "took" => Self::Took,
            "numbers" => Self::Numbers,
            "padding" => Self::Padding,
            "order" => Self::Order,
            other => panic!("no mask is called {other:?}"),
        }
    }

    fn apply(self, text: &str) -> String {
        match self {
            Self::Help => "<help>".to_owned(),
            Self::Took => durations_as_word(text),
            Self::Numbers => numbers_as_sign(text),
            Self::Padding => without_padding(text),
            Self::Order => parts_in_order(text),
        }
    }
}

fn durations_as_word(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'n' | 'µ' | 'm' | 's' | 'h');
    let is_duration = |word: &&str| word.ends_with('s') && word.starts_with(|c: char| c.is_ascii_digit());
    let words = text.split(|c: char| !is_part(c)).map(|word| word.trim_end_matches('.'));
    let words: Vec<&str> = words.filter(is_duration).collect();
    let masked = words.iter().fold(text.to_owned(), |text, word| text.replacen(word, "<took>", 1));
    without_padding(&masked)
}

fn numbers_as_sign(text: &str) -> String {
    let mut masked = String::new();
    for c in text.chars() {
        match c {
            '0'..='9' if masked.ends_with('#') => {}
            '0'..='9' => masked.push('#'),
            c => masked.push(c),
        }
    }
    // `16.4 kB` and `20 kB` are the same shape.
    without_padding(&masked.replace("#.# ", "# "))
}

fn parts_in_order(text: &str) -> String {
    let mut parts: Vec<_> = text.split(|c| "\n,[]{}\" ".contains(c)).filter(|part| !part.is_empty()).collect();
    parts.sort_unstable();
    parts.join("\n") + "\n"
}

fn without_padding(text: &str) -> String {
    let mut masked = String::new();
    text.chars().filter(|c| *c != '─').for_each(|c| {
        if c != ' ' || !masked.ends_with(' ') {
            masked.push(c);
        }
    });
    masked
}

/// A server and what is known of it.
struct Talk<'a> {
    programs: &'a Programs,
    _daemon: Daemon,
    /// Where it listens for clients.
    endpoint: String,
    names: Names,
}

impl<'a> Talk<'a> {
    fn begin(flags: &[String], programs: &'a Programs) -> Self {
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let daemon = start_on_wide_ports(&programs.server, &flags);
        let endpoint = daemon.client.to_string();
        let peer = daemon.peer.to_string();
        let mut talk = Self { programs, _daemon: daemon, endpoint, names: Names::default() };
        talk.names.text("endpoint", &talk.endpoint.clone());
        talk.names.text("peer", &peer);
        let members = talk.ask("member list -w json");
        let members: serde_json::Value = serde_json::from_slice(&members).expect("members as JSON");
        let id =
            |name: &str| members.pointer(&format!("/header/{name}")).and_then(serde_json::Value::as_u64).unwrap_or(0);
        talk.names.id("cluster", id("cluster_id"));
        talk.names.id("member", id("member_id"));
        talk
    }

    fn ask(&self, line: &str) -> Vec<u8> {
        let mut command = self.command(&words(line, &self.names), false);
        command.stdin(Stdio::null()).output().expect("the client starts").stdout
    }

    /// A command that ends by itself is killed when it takes too long; one that is stopped must be ours to kill.
    fn command(&self, words: &[OsString], is_stopped: bool) -> Command {
        let mut command = if is_stopped {
            Command::new(&self.programs.client)
        } else {
            let mut limited = Command::new("timeout");
            limited.arg(COMMAND_LIMIT_SECONDS).arg(&self.programs.client);
            limited
        };
        command.args(words).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if !words.iter().any(|word| word.to_string_lossy().starts_with("--endpoints")) {
            command.env("ETCDCTL_ENDPOINTS", &self.endpoint);
        }
        command
    }

    /// Runs one command and writes down what it says, as a file would.
    fn have(&mut self, case: &Case) -> Vec<String> {
        let line = case.command.trim_start_matches("$ etcdctl");
        let mut command = self.command(&words(line, &self.names), case.lines.is_some());
        for (name, value) in &case.variables {
            let value = words(value, &self.names).pop().unwrap_or_default();
            command.env(name, value);
        }
        let output = Output::of(&mut command, case);
        self.learn(case, &output.stdout);
        let mut said = self.lines("|", &output.stdout, case);
        said.extend(self.lines("!", &tidy_errors(&output.stderr), case));
        if output.exit != "0" {
            said.push(format!("= {}", output.exit));
        }
        said
    }

    /// Gives names to what the output brings. What is not there is not named; the answer shows that it is missing.
    fn learn(&mut self, case: &Case, stdout: &[u8]) {
        let text = String::from_utf8_lossy(stdout);
        for (name, before, after) in &case.names {
            let behind = text.split_once(before.as_str()).map(|(_, rest)| rest);
            let Some((value, _)) = behind.and_then(|rest| rest.split_once(after.as_str())) else { continue };
            match u64::from_str_radix(value.trim(), 16) {
                Ok(id) => self.names.id(name, id),
                Err(_) => self.names.text(name, value.trim()),
            }
        }
    }

    /// An output as lines of a file.
    fn lines(&self, sign: &str, output: &[u8], case: &Case) -> Vec<String> {
        let text = match sign {
            "|" if case.command.ends_with("-w protobuf") => self.names.put_into(fields_of(output).as_bytes()),
            _ => self.names.put_into(output),
        };
        let text = String::from_utf8_lossy(&text);
        if text.is_empty() {
            return Vec::new();
        }
        let text = case.masks.iter().fold(without_terms(&text), |text, mask| mask.apply(&text));
        let unended = format!("{text}\\");
        let text = text.strip_suffix('\n').unwrap_or(&unended);
        text.split('\n').map(|line| visible_end(&format!("{sign} {line}"), sign)).collect()
    }
}

/// Names for what a run decides, with the bytes that stand for it.
///
/// An identifier reads differently in different places: `{name}` is in hexadecimal, `{name#}` in decimal.
#[derive(Default)]
struct Names {
    forms: Vec<(String, Vec<u8>)>,
}

impl Names {
    fn text(&mut self, name: &str, text: &str) {
        self.forms.push((format!("{{{name}}}"), text.into()));
    }

    fn id(&mut self, name: &str, id: u64) {
        self.forms.push((format!("{{{name}#}}"), id.to_string().into()));
        self.text(name, &format!("{id:016x}"));
        self.text(name, &format!("{id:x}"));
        // In these sentences it is padded with blanks.
        for word in ["Member", "cluster"] {
            self.forms.push((format!("{word} {{{name}}}"), format!("{word} {id:16x}").into()));
        }
    }

    /// Writes names in place of what they stand for, the longest first.
    fn put_into(&self, output: &[u8]) -> Vec<u8> {
        let mut forms: Vec<_> = self.forms.iter().collect();
        forms.sort_by_key(|(_, form)| std::cmp::Reverse(form.len()));
        forms.into_iter().fold(output.to_vec(), |output, (name, form)| replaced(&output, form, name.as_bytes()))
    }

    /// Writes what names stand for in place of them.
    fn resolve(&self, word: Vec<u8>) -> Vec<u8> {
        self.forms.iter().fold(word, |word, (name, form)| replaced(&word, name.as_bytes(), form))
    }
}

/// Ports with five digits give outputs the same width in every run.
fn start_on_wide_ports(server: &Program, flags: &[&str]) -> Daemon {
    loop {
        let daemon = Daemon::start(server, flags);
        if daemon.client.port() >= 10_000 && daemon.peer.port() >= 10_000 {
            return daemon;
        }
    }
}

fn replaced(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(from) {
            out.extend_from_slice(to);
            rest = behind;
        } else {
            out.push(*first);
            rest = behind;
        }
    }
    out
}

/// A message without its schema: the numbers of its fields and what they hold.
fn fields_of(message: &[u8]) -> String {
    match fields(message) {
        Some(fields) if !fields.is_empty() => fields + "\n",
        _ => String::from_utf8_lossy(message).into_owned(),
    }
}

fn fields(mut message: &[u8]) -> Option<String> {
    let mut shown = Vec::new();
    while !message.is_empty() {
        let tag = prost::encoding::decode_varint(&mut message).ok()?;
        let number = tag >> 3;
        let value = prost::encoding::decode_varint(&mut message).ok()?;
        match tag & 7 {
            0 => shown.push(format!("{number}:{value}")),
            2 if number > 0 => {
                let (bytes, rest) = message.split_at_checked(usize::try_from(value).ok()?)?;
                message = rest;
                shown.push(format!("{number}:{}", bytes_field(bytes)));
            }
            _ => return None,
        }
    }
    Some(shown.join(" "))
}

/// A message if it can be one, else a text.
fn bytes_field(bytes: &[u8]) -> String {
    match fields(bytes) {
        Some(fields) if !fields.is_empty() => format!("{{{fields}}}"),
        _ => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A blank at the end of a line would not survive every editor.
fn visible_end(line: &str, sign: &str) -> String {
    match line.strip_suffix(' ') {
        Some(rest) if rest == sign => sign.to_owned(),
        Some(rest) => format!("{rest}␠"),
        None => line.to_owned(),
    }
}

/// The raft term depends on how the election went.
fn without_terms(text: &str) -> String {
    ["\"raft_term\":", "\"RaftTerm\" : "].iter().fold(text.to_owned(), |text, name| {
        let mut parts = text.split(name);
        let first = parts.next().unwrap_or_default().to_owned();
        parts.fold(first, |text, part| text + name + "<term>" + part.trim_start_matches(|c: char| c.is_ascii_digit()))
    })
}

/// Log lines keep what they say and lose who says it when; usage texts are ours.
fn tidy_errors(stderr: &[u8]) -> Vec<u8> {
    let mut tidy = String::new();
    let mut in_usage = false;
    for line in String::from_utf8_lossy(stderr).lines() {
        in_usage = (in_usage && !line.starts_with("Error:")) || line == "Usage:";
        if in_usage {
            continue;
        }
        tidy += &serde_json::from_str(line).map_or_else(|_| line.to_owned(), |fields| log_line(&fields));
        tidy.push('\n');
    }
    tidy.into_bytes()
}

fn log_line(fields: &serde_json::Value) -> String {
    let kept = ["level", "msg", "method", "attempt", "error", "environment-variable"];
    let kept: serde_json::Map<_, _> =
        kept.iter().filter_map(|name| Some((name.to_string(), fields.get(name)?.clone()))).collect();
    serde_json::Value::Object(kept).to_string().replace(CANCELLED, "context deadline exceeded")
}

/// At a deadline etcd ends the stream. Its client says so in a log line if it hears of it before its own clock rings.
const CANCELLED: &str = "stream terminated by RST_STREAM with error code: CANCEL";

/// Splits at blanks; quotes hold together, names in braces are replaced by the text they stand for.
fn words(line: &str, names: &Names) -> Vec<OsString> {
    let mut words: Vec<Vec<u8>> = Vec::new();
    let mut quote = None;
    let mut word: Option<Vec<u8>> = None;
    for byte in line.bytes() {
        match (quote, byte) {
            (None, b' ') => words.extend(word.take()),
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                word.get_or_insert_default();
            }
            (Some(open), close) if open == close => quote = None,
            (_, byte) => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words.into_iter().map(|word| OsString::from_vec(names.resolve(word))).collect()
}

/// How a command ended.
struct Output {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    exit: String,
}

impl Output {
    fn of(command: &mut Command, case: &Case) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the client starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        // A command that does not read its input may be gone already.
        stdin.write_all(case.stdin.as_bytes()).unwrap_or_default();
        match case.lines {
            None => {
                drop(stdin);
                Self::finished(child)
            }
            Some(lines) => {
                let output = Self::stopped(child, lines);
                drop(stdin);
                output
            }
        }
    }

    fn finished(child: Child) -> Self {
        let output = child.wait_with_output().expect("the client ends");
        let exit = output.status.code().map_or_else(|| "killed".to_owned(), |code| code.to_string());
        Self { stdout: output.stdout, stderr: output.stderr, exit }
    }

    /// Waits for lines on standard output, then stops the command.
    fn stopped(mut child: Child, lines: usize) -> Self {
        let mut reader = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, receiver) = mpsc::sync_channel(lines);
        std::thread::spawn(move || {
            let mut line = Vec::new();
            while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        let heard = (0..lines).map_while(|_| receiver.recv_timeout(LINE_LIMIT).ok());
        let stdout: Vec<u8> = heard.flatten().collect();
        child.kill().expect("the client runs");
        let mut stderr = Vec::new();
        child.stderr.take().expect("a pipe").read_to_end(&mut stderr).expect("a pipe");
        child.wait().expect("the client ends");
        Self { stdout, stderr, exit: "stopped".to_owned() }
    }
}

/// Longest time of a command that ends by itself.
const COMMAND_LIMIT_SECONDS: &str = "30";
/// Longest wait for one line of a command that is stopped after some.
const LINE_LIMIT: Duration = Duration::from_secs(10);
