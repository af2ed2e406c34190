//! The client of the v2 API prints what etcdctl printed as long as it had one: etcdctl 3.5.1 and 3.4 have the same
//! conversation with an etcd 3.5.1 as our client has with another one, and both meet the same endpoints that misbehave.
//! Standard output, standard error and exit codes must be equal.

mod support;

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::symlink,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{
    certificates::Authority,
    daemon::{Daemon, READY_LIMIT, free_ports},
    mask::{self, Mask},
    program::{self, Program},
    wait_for,
};

/// Longest run of one command, in seconds.
const COMMAND_SECONDS: &str = "30";
/// Longest wait for the lines of a watch.
const WATCH_LIMIT: Duration = Duration::from_secs(20);

/// One command line. `MEMBER` stands for the id of the member, `EP` for its address, `DEAD` for one where nobody
/// listens; `␠` in a word is a blank.
#[derive(Clone, Copy)]
enum Step {
    /// With the address of the member.
    Run(&'static str),
    /// With standard input.
    Feed(&'static str, &'static str),
    /// Interrupted after so many lines of output.
    Watch(&'static str, usize),
    /// Without the address of the member, with a variable.
    Bare(&'static str, &'static str),
}
use Step::{Bare, Feed, Run, Watch};

const KEYS: &[Step] = &[
    Run("set /greeting hello"),
    Run("set greeting again"),
    Run("get /greeting"),
    Run("get greeting --quorum"),
    Run("-o extended get /greeting"),
    Run("-o json get /greeting"),
    Run("--output=extended set /greeting third"),
    Run("-output json set /greeting <fourth>"),
    Run("-o nothing get /greeting"),
    Run("get /nothing"),
    Run("-o json get /nothing"),
    Run("set --swap-with-value wrong /greeting fifth"),
    Run("set --swap-with-value <fourth> /greeting fifth"),
    Run("set /greeting sixth --swap-with-index 1"),
    Run("set /greeting sixth --swap-with-index 8"),
    Run("set -- /dash -value"),
    Run("set /dash -value"),
    Run("set /blanks a␠b␠␠c%&+=;\u{e9}"),
    Run("set /odd␠key?%41/../odd␠key?%41 x"),
    Run("get /odd␠key?%41"),
    Run("set //a///b/ x"),
    Run("get a/b"),
    Run("set /empty"),
    Feed("set /piped", "from standard input\n"),
    Run("get /piped"),
    Feed("update /piped", "again"),
    Run("set"),
    Run("set /short y --ttl 1000"),
    Run("-o extended set /short y --ttl 1000"),
    Run("-o json set /short y --ttl=1000"),
    Run("mk /made value"),
    Run("mk /made value"),
    Run("mk"),
    Run("mk /x"),
    Run("mk --in-order /queue one"),
    Run("-o extended mk --in-order --ttl 100 /queue two"),
    Run("-o json mk --in-order /queue three"),
    Run("mkdir /dir"),
    Run("mkdir /dir"),
    Run("mkdir"),
    Run("-o json mkdir /dir/below"),
    Run("-o extended mkdir --ttl 500 /dir/passing"),
    Run("setdir /dir/set"),
    Run("setdir /dir/set"),
    Run("setdir --ttl 500 /made"),
    Run("updatedir --ttl 500 /dir/set"),
    Run("updatedir /nothing"),
    Run("-o extended updatedir /dir/set"),
    Run("set /dir value"),
    Run("get /dir"),
    Run("set /made/below x"),
    Run("update /greeting seventh"),
    Run("update /nothing x"),
    Run("update"),
    Run("-o extended update /greeting eighth"),
    Run("ls --sort"),
    Run("ls --sort -p /"),
    Run("ls -r --sort"),
    Run("ls --recursive -p --sort --quorum /dir"),
    Run("ls /greeting"),
    Run("ls -p /greeting"),
    Run("ls /nothing"),
    Run("-o json ls --sort -r /dir"),
    Run("-o extended ls /dir"),
    Run("-o json ls --sort /queue"),
    Run("rm /dir"),
    Run("rm --dir /dir"),
    Run("rmdir /dir/below"),
    Run("rmdir /greeting"),
    Run("rm /greeting"),
    Run("rm --with-value x /piped"),
    Run("rm --with-value again /piped"),
    Run("rm --with-index 1 /empty"),
    Run("-o extended rm -r /dir"),
    Run("-o json rm /made"),
    Run("rm"),
    Run("rmdir"),
    Run("rm -r /"),
    Run("--debug set /debugged a␠b"),
    Run("--debug --no-sync get /debugged"),
    Run("--debug ls -r --sort"),
    Run("--debug --no-sync mkdir /debugged/below"),
    Run("--debug --no-sync mkdir --ttl 5000 /debugged-dir"),
    Run("--debug --no-sync rm --with-index 5 /debugged"),
];

const WATCHES: &[Step] = &[
    Run("set /watched one"),
    Run("set /watched two"),
    Run("set /watched/below three"),
    Run("rm /watched"),
    Run("mkdir /watched"),
    Run("set /watched/below three"),
    Run("set /watched/deep/er four"),
    Run("rm -r /watched"),
    Run("set /once five"),
    Run("watch /watched --after-index 3"),
    Run("-o json watch --after-index 3 /watched"),
    Run("-o extended watch --after-index 3 --recursive /watched"),
    Watch("watch --after-index 3 --forever --recursive /watched", 9),
    Watch("-o json watch -f --after-index 3 /watched", 3),
    Watch("exec-watch --after-index 3 /once -- printenv ETCD_WATCH_KEY ETCD_WATCH_ACTION ETCD_WATCH_VALUE", 3),
    Watch("exec-watch --after-index 4 -r printenv ETCD_WATCH_MODIFIED_INDEX /once", 1),
    Run("exec-watch --after-index 3 /once -- /does/not/exist"),
    Run("exec-watch --after-index 3 /once -- does-not-exist"),
    Run("watch"),
    Run("exec-watch"),
    Run("exec-watch /watched"),
    Run("--debug watch /watched --after-index 3"),
];

const MEMBERS: &[Step] = &[
    Run("cluster-health"),
    Run("--debug cluster-health"),
    Run("member list"),
    Run("--debug member list"),
    Run("member list x"),
    Run("member add m2"),
    Run("member add m2 nonsense"),
    Run("member add m2 http://127.0.0.1"),
    Run("member add m2 http://PEER"),
    Run("member remove"),
    Run("member remove 4242"),
    Run("member remove m1"),
    Run("member update"),
    Run("member update 4242 http://127.0.0.1:1"),
    Run("member update xyz http://127.0.0.1:1"),
    Run("member update MEMBER nonsense"),
    Run("--debug member update MEMBER http://127.0.0.1:12345,http://127.0.0.1:12346"),
    Run("member list"),
    Run("--debug --no-sync member add m2 http://127.0.0.1:12347"),
];

const AUTH: &[Step] = &[
    Run("user list"),
    Run("user list x"),
    Run("role list"),
    Run("role list x"),
    Run("auth enable"),
    Run("auth enable x"),
    Run("auth disable"),
    Run("role get root"),
    Run("role get nobody"),
    Run("role get"),
    Run("role add reader"),
    Run("role add reader"),
    Run("role add"),
    Run("role grant reader --path /app/* --read"),
    Run("role grant reader --path /app/* --read"),
    Run("role grant --readwrite --path /both reader"),
    Run("role grant --rw --path /both2 reader"),
    Run("role grant --write --path /write reader"),
    Run("role grant reader"),
    Run("role grant reader --path app"),
    Run("role grant reader --path /app"),
    Run("role grant reader --path /app --read --write"),
    Run("role grant --path /app --read nobody"),
    Run("role get reader"),
    Run("role revoke reader --path /both --rw"),
    Run("role revoke reader --path /both --rw"),
    Run("role get reader"),
    Run("user add guest:secret"),
    Run("user add guest:secret"),
    Run("user add"),
    Feed("user add asked", "secret\n"),
    Feed("user add empty", ""),
    Run("user get guest"),
    Run("user get nobody"),
    Run("user grant guest"),
    Run("user grant guest --roles reader"),
    Run("user grant guest --roles reader"),
    Run("user grant guest --roles root,reader"),
    Run("user grant guest --roles root --roles nobody"),
    Run("user grant guest --roles root"),
    Run("user get guest"),
    Run("user revoke guest --roles root"),
    Run("user revoke guest --roles root"),
    Run("user revoke guest"),
    Run("user get guest"),
    Feed("user passwd guest", "other\n"),
    Feed("user passwd nobody", "other\n"),
    Run("user list"),
    Run("user remove asked"),
    Run("user remove asked"),
    Run("user add root:rootpw"),
    Run("--debug user list"),
    Run("--debug --no-sync user grant guest --roles root"),
    Run("--debug --no-sync role grant reader --path /x --read"),
    Run("--debug --no-sync role add other"),
    Run("auth enable"),
    Run("user list"),
    Run("-u root:wrong user list"),
    Run("-u root:rootpw user list"),
    Feed("-u root user list", "rootpw\n"),
    Run("-u root:rootpw role revoke guest --path /* --rw"),
    Run("get /app/x"),
    Run("set /app/x y"),
    Run("-u guest:other set /app/x y"),
    Run("-u guest:other user get guest"),
    Run("-u guest:other --debug ls --sort /"),
    Bare("ETCDCTL_USERNAME=root:rootpw", "--endpoints EP set /app/x y"),
    Run("-u root:rootpw user get root"),
    Run("-u root:rootpw role remove reader"),
    Run("-u root:rootpw role remove reader"),
    Run("-u root:rootpw user remove root"),
    Run("-u root:rootpw member list"),
    Run("-u root:rootpw auth disable"),
];

const LINES: &[Step] = &[
    Bare("", "--endpoints DEAD ls"),
    Bare("", "--endpoints DEAD --no-sync ls"),
    Bare("", "--endpoints DEAD --no-sync mk /a b"),
    Bare("", "--endpoints DEAD --no-sync rm /a"),
    Bare("", "--endpoints DEAD,DEAD get /a"),
    Bare("", "--endpoints DEAD set"),
    Bare("", "--endpoints DEAD member list"),
    Bare("", "--endpoints DEAD --no-sync member list"),
    Bare("", "--endpoints DEAD --no-sync member remove x"),
    Bare("", "--endpoints DEAD --no-sync auth enable"),
    Bare("", "--endpoints DEAD --no-sync role add x"),
    Bare("", "--endpoints DEAD cluster-health"),
    Bare("", "--endpoints DEAD --no-sync watch /a"),
    Bare("", "--endpoints DEAD,EP --no-sync set /a b"),
    Bare("", "--endpoints EP,DEAD get /a"),
    Bare("", "--endpoints localhost:1 ls"),
    Bare("", "--endpoints 127.0.0.1:1 ls"),
    Bare("", "--endpoints ftp://127.0.0.1:1 ls"),
    Bare("", "--endpoints http://a␠b ls"),
    Bare("", "--endpoints http://[::1 ls"),
    Bare("", "--endpoints , ls"),
    Bare("", "--endpoints unix:///nowhere ls"),
    Bare("", "--endpoints unix://nowhere:1 ls"),
    Bare("ETCDCTL_ENDPOINTS=EP", "get /a"),
    Bare("ETCDCTL_ENDPOINT=EP", "get /a"),
    Bare("ETCDCTL_PEERS=EP", "get /a"),
    Bare("ETCDCTL_ENDPOINTS=DEAD", "--endpoints EP get /a"),
    Bare("ETCDCTL_ENDPOINTS=DEAD", "-C EP get /a"),
    Bare("", "--endpoint EP get /a"),
    Bare("", "--peers EP get /a"),
    Bare("", "-C EP get /a"),
    Bare("", "-C=EP get -q /a"),
    Bare("ETCDCTL_NOTHING=x", "--endpoints EP get /a"),
    Run("nothing"),
    Run("member nothing"),
    Run("help nothing"),
    Run("get /a --unknown"),
    Run("ls / --sort -- -p"),
    Run("--timeout 0 get /a"),
    Run("--total-timeout 10s --timeout 1s get /a"),
    Run("-"),
    Run("-- get /a"),
];

/// What they print beside pages of help, whose words are our own, must be equal; of the pages, what can be typed.
const HELP: &[Step] = &[
    Run(""),
    Run("-h"),
    Run("help"),
    Run("h"),
    Run("--version"),
    Run("-v"),
    Run("-x"),
    Run("---x"),
    Run("--timeout"),
    Run("--timeout x get /a"),
    Run("--debug=maybe get /a"),
    Run("-o json -output simple get /a"),
    Run("cluster-health -h"),
    Run("mk -h"),
    Run("help mkdir"),
    Run("rm --help"),
    Run("rmdir --h"),
    Run("get -help"),
    Run("ls -h /a"),
    Run("set -h"),
    Run("help setdir"),
    Run("help update"),
    Run("help watch"),
    Run("help exec-watch"),
    Run("help member"),
    Run("member"),
    Run("member -h"),
    Run("member help"),
    Run("member help add"),
    Run("member list -h"),
    Run("member remove -h"),
    Run("member update -h"),
    Run("member -x"),
    Run("user"),
    Run("user add -h"),
    Run("user grant -h"),
    Run("user revoke -h"),
    Run("role"),
    Run("role grant -h"),
    Run("role list -h"),
    Run("auth"),
    Run("auth enable -h"),
    Run("get --unknown=5 /a"),
    Run("set --unknown"),
    Run("set /a b --ttl"),
    Run("set /a b --ttl 5s"),
    Run("set /a b --ttl -5"),
    Run("set /a b --ttl 99999999999999999999"),
    Run("ls -r=x"),
    Run("ls -r --recursive"),
    Run("watch --after-index 0x10 --after-index y"),
];

/// What may differ, by name.
const MASKED: &[Masked] = &[
    ("the moment a key goes by itself depends on when it was written", |text| between(text, "\"expiration\":\"", "\"")),
    ("keys are counted down", |text| mask::without_numbers(text, "ttl")),
    ("etcdctl lets stty complain that standard input is no terminal", |text| without_lines(text, "stty: ")),
    ("a new member's id is made of the time", |text| {
        let text = between(text, "with ID ", " ");
        text.split('\n').map(sorted_members).collect::<Vec<_>>().join("\n")
    }),
    ("connections have ports of their own", |text| between(text, "read tcp", "read: ")),
];

/// The name of a difference, and how to take it out.
type Masked = (&'static str, fn(&str) -> String);

/// What etcdctl 3.4 says otherwise.
const MASKED_IN_3_4: &[Masked] = &[
    ("3.4 exits with 1 where 3.5 exits with 128, as the v3 client does", |text| text.replace("[exit 128]", "[exit 1]")),
    ("3.4 names another branch of its documentation", |text| text.replace("/blob/master/", "/blob/main/")),
    ("newer versions of Go have short forms for two characters", |text| text.replace("\\u0008", "\\b")),
];

/// The etcdctl 3.4 of Debian is built with a newer library, which drops two dashes wherever they stand, and takes a word
/// with a dash for the value of the flag before it.
const NOT_WITH_3_4: &[&str] = &[
    "ls / --sort -- -p",
    "set /a b --ttl -5",
    "exec-watch --after-index 3 /once -- printenv ETCD_WATCH_KEY ETCD_WATCH_ACTION ETCD_WATCH_VALUE",
    "exec-watch --after-index 3 /once -- /does/not/exist",
    "exec-watch --after-index 3 /once -- does-not-exist",
];

#[test]
fn keys() {
    compare(KEYS, &[]);
}

#[test]
fn watches() {
    compare(WATCHES, &[]);
}

#[test]
fn members() {
    compare(MEMBERS, &[]);
}

#[test]
fn users_and_roles() {
    compare(AUTH, &[]);
}

#[test]
fn endpoints_variables_and_flags() {
    compare(LINES, &[]);
}

#[test]
fn help() {
    compare(HELP, &[("pages of help are in our own words", without_words), ("versions differ", without_versions)]);
}

/// Has a conversation with each original, and with our client in its place.
fn compare(steps: &[Step], masked: &[Masked]) {
    let original = Program::new("etcdctl 3.5.1", program::clients().join("etcdctl-3.5.1"));
    let older = Program::new("etcdctl 3.4", "etcdctl");
    let masked: Vec<Masked> = MASKED.iter().chain(masked).copied().collect();
    let masked_in_3_4: Vec<Masked> = masked.iter().chain(MASKED_IN_3_4).copied().collect();
    let mut differences = conversation(&original, steps, &masked);
    let known: Vec<Step> = steps.iter().copied().filter(|step| !NOT_WITH_3_4.contains(&line_of(*step))).collect();
    differences.append(&mut conversation(&older, &known, &masked_in_3_4));
    let count = differences.len();
    assert!(count == 0, "{count} commands differ:\n{}", differences.join("\n"));
}

fn conversation(original: &Program, steps: &[Step], masked: &[Masked]) -> Vec<String> {
    let servers = [(), ()].map(|()| Daemon::start(&Program::etcd_3_5_1(), &["--enable-v2"]));
    let [ours, theirs] = &servers;
    let tools = [called_etcdctl(&Program::quoratectl(), ours), called_etcdctl(original, theirs)];
    let mut sides = [Session::new(&tools[0], ours), Session::new(&tools[1], theirs)];
    let mut differences = Vec::new();
    for step in steps {
        let [got, expected] = sides.each_mut().map(|side| side.perform(*step, masked));
        if got != expected {
            differences.push(format!("$ {}\nours:\n{got}{}:\n{expected}", line_of(*step), original.name));
        }
    }
    differences
}

/// A tool under the name that stands in its texts, and that makes ours print as etcdctl does. One that is found by its
/// name has it already.
fn called_etcdctl(tool: &Program, server: &Daemon) -> Program {
    if !tool.path.is_absolute() {
        return tool.clone();
    }
    let link = server.directory().join("etcdctl");
    symlink(&tool.path, &link).expect("the test's own directory");
    Program::new(&tool.name, link)
}

fn line_of(step: Step) -> &'static str {
    let (Run(line) | Feed(line, _) | Watch(line, _) | Bare(_, line)) = step;
    line
}

/// One tool at one server.
struct Session<'a> {
    tool: &'a Program,
    server: &'a Daemon,
    mask: Mask,
    /// Where nobody listens.
    dead: SocketAddr,
}

impl<'a> Session<'a> {
    fn new(tool: &'a Program, server: &'a Daemon) -> Self {
        let [dead] = free_ports();
        Self { tool, server, mask: Mask::of(server), dead }
    }

    /// Output and exit code, masked.
    fn perform(&mut self, step: Step, masked: &[Masked]) -> String {
        let mut command = self.command(step);
        let said = match step {
            Feed(_, input) => said(command.stdin(self.file_with(input))),
            Watch(_, lines) => self.interrupted(&mut command, lines),
            Run(_) | Bare(..) => said(command.stdin(Stdio::null())),
        };
        let said = self.mask.apply(&said).replace(&self.dead.to_string(), "DEAD");
        masked.iter().fold(said, |text, (_, mask)| mask(&text))
    }

    fn command(&self, step: Step) -> Command {
        let mut command = etcdctl(self.tool);
        match step {
            Bare("", _) => {}
            Bare(variable, _) => {
                let (name, value) = variable.split_once('=').expect("NAME=VALUE");
                command.env(name, self.filled(value));
            }
            _ => drop(command.arg("--endpoints").arg(self.server.endpoint())),
        }
        let words = line_of(step).split(' ').filter(|word| !word.is_empty());
        command.args(words.map(|word| self.filled(word)));
        command
    }

    fn filled(&self, word: &str) -> String {
        word.replace("MEMBER", self.mask.member())
            .replace("PEER", &self.server.peer.to_string())
            .replace("EP", &self.server.endpoint())
            .replace("DEAD", &format!("http://{}", self.dead))
            .replace('␠', " ")
    }

    fn file_with(&self, text: &str) -> File {
        let path = self.server.directory().join("input");
        std::fs::write(&path, text).expect("the test's own directory");
        File::open(path).expect("just written")
    }

    /// What a watch said until it was interrupted.
    fn interrupted(&self, command: &mut Command, lines: usize) -> String {
        let path = self.server.directory().join("watched");
        let out = File::create(&path).expect("the test's own directory");
        let child = command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped()).spawn().expect("it starts");
        let seen = || std::fs::read_to_string(&path).unwrap_or_default();
        wait_for(WATCH_LIMIT, || (seen().lines().count() >= lines).then_some(()));
        interrupt(&child);
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        format!("{}--- errors\n{errors}[exit {}]\n", seen(), output.status.code().unwrap_or(-1))
    }
}

/// Interrupts a tool, whose parent passes the signal on.
fn interrupt(child: &Child) {
    let pid = i32::try_from(child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("it runs");
}

/// A tool in an environment of its own.
fn etcdctl(tool: &Program) -> Command {
    let mut command = Command::new("timeout");
    command.arg(COMMAND_SECONDS).arg(&tool.path);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("ETCDCTL_API", "2");
    command
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("the tool starts");
    let [out, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    format!("{out}--- errors\n{errors}[exit {}]\n", output.status.code().unwrap_or(-1))
}

/// Replaces what stands between every `before` and the next `after`.
fn between(text: &str, before: &str, after: &str) -> String {
    let mut parts = text.split(before);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.find(after).and_then(|at| part.get(at..)).unwrap_or(part);
        out = out + before + "…" + rest;
    }
    out
}

fn without_lines(text: &str, beginning: &str) -> String {
    text.split_inclusive('\n').filter(|line| !line.starts_with(beginning)).collect()
}

/// Members are told in the order of their ids.
fn sorted_members(line: &str) -> String {
    let Some(list) = line.strip_prefix("ETCD_INITIAL_CLUSTER=\"") else { return line.to_owned() };
    let mut members: Vec<_> = list.trim_end_matches('"').split(',').collect();
    members.sort_unstable();
    format!("ETCD_INITIAL_CLUSTER=\"{}\"", members.join(","))
}

/// Pages of help without their words: names, arguments, options and defaults stay.
fn without_words(text: &str) -> String {
    let mut section = "";
    let mut kept = Vec::new();
    for line in text.lines() {
        if line.ends_with(':') && !line.starts_with(' ') {
            section = line;
        }
        let shown = match section {
            "NAME:" => line.split_once(" - ").map_or(line, |(name, _)| name),
            "DESCRIPTION:" => continue,
            "COMMANDS:" | "OPTIONS:" | "GLOBAL OPTIONS:" => {
                line.trim_start().split_once("  ").map_or(line, |(names, _)| names)
            }
            _ => line,
        };
        // A placeholder in the words of etcd becomes one in ours.
        kept.push(shown.replace("--output simple, -o simple", "--output value, -o value") + &default_of(line));
    }
    kept.retain(|line| !line.is_empty());
    kept.join("\n")
}

fn default_of(line: &str) -> String {
    line.split_once("(default: ").map_or_else(String::new, |(_, default)| format!(" {default}"))
}

fn without_versions(text: &str) -> String {
    let is_version = |line: &&str| {
        line.trim().split('.').count() == 3 && line.trim().chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let text: Vec<&str> = text.lines().filter(|line| !is_version(line)).collect();
    between(&text.join("\n"), "etcdctl version: ", "\n")
}

/// An endpoint that gives the same answer to everybody.
struct Fake {
    address: SocketAddr,
    stopped: Arc<AtomicBool>,
}

impl Fake {
    /// Answers every request with `answer`; nothing means never.
    fn start(answer: &str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free loopback port");
        let address = listener.local_addr().expect("a listener has an address");
        let stopped = Arc::new(AtomicBool::new(false));
        let (answer, has_stopped) = (answer.to_owned(), stopped.clone());
        thread::spawn(move || {
            let mut silent = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if has_stopped.load(Ordering::Relaxed) {
                    return;
                }
                if answer.is_empty() {
                    silent.push(stream);
                } else {
                    Self::answer(stream, &answer);
                }
            }
        });
        Self { address, stopped }
    }

    fn answer(mut stream: TcpStream, answer: &str) {
        let mut head = [0; 4096];
        // Whoever sends nothing gets the answer, too.
        drop(stream.read(&mut head));
        drop(stream.write_all(answer.as_bytes()));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(self.address));
    }
}

/// An answer with status and body.
fn answer(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// What commands say at an endpoint that gives one answer.
fn meets(answer: &str, lines: &[&str]) {
    let original = Program::new("etcdctl 3.5.1", program::clients().join("etcdctl-3.5.1"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let ours = directory.path().join("etcdctl");
    symlink(Program::quoratectl().path, &ours).expect("the test's own directory");
    let fake = Fake::start(answer);
    for line in lines {
        let [got, expected] = [Program::new("ours", &ours), original.clone()].map(|tool| heard(&tool, &fake, line));
        assert_eq!(got, expected, "{line} at an endpoint that answers {answer:?}");
    }
}

fn heard(tool: &Program, fake: &Fake, line: &str) -> String {
    let mut command = etcdctl(tool);
    command.arg("--endpoints").arg(format!("http://{}", fake.address)).args(line.split(' '));
    between(&said(command.stdin(Stdio::null())), "read tcp", "read: ")
}

/// Some of everything.
const ANYTHING: &[&str] = &[
    "--no-sync get /a",
    "--no-sync mk /a b",
    "--no-sync rm /a",
    "get /a",
    "--no-sync member list",
    "--no-sync member add a http://127.0.0.1:1",
    "--no-sync member update 1 http://127.0.0.1:1",
    "--no-sync user list",
    "--no-sync user get a",
    "--no-sync role list",
    "--no-sync role add a",
    "--no-sync auth enable",
    "cluster-health",
];

#[test]
fn members_without_a_leader() {
    meets(&answer("503 Service Unavailable", ""), ANYTHING);
    meets(&answer("500 Internal Server Error", "{\"message\":\"x\"}"), ANYTHING);
}

#[test]
fn proxies_without_members() {
    meets(&answer("502 Bad Gateway", "<html>"), ANYTHING);
    meets(&answer("504 Gateway Timeout", ""), &["get /a", "--no-sync watch /a"]);
}

#[test]
fn servers_without_the_api() {
    meets(&answer("404 Not Found", "404 page not found\n"), ANYTHING);
    meets(&answer("200 OK", "<html>"), ANYTHING);
    meets(&answer("401 Unauthorized", "{\"message\":\"Insufficient credentials\"}"), ANYTHING);
    meets(&answer("409 Conflict", "{\"message\":\"x\"}"), ANYTHING);
}

#[test]
fn servers_that_say_nothing_or_nonsense() {
    meets(
        &answer("200 OK", ""),
        &["--no-sync get /a", "--no-sync member list", "--no-sync user list", "cluster-health"],
    );
    meets("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", &["--no-sync get /a", "--no-sync member list"]);
    meets(&answer("200 OK", "{\"members\":[]}"), &["get /a", "member list", "cluster-health"]);
    meets(&answer("200 OK", "{\"members\":null}"), &["--debug get /a", "cluster-health"]);
}

#[test]
fn members_that_are_away() {
    let away = r#"{"id":"a1","name":"m1","peerURLs":["http://127.0.0.1:2","http://127.0.0.1:3"],"clientURLs":["http://127.0.0.1:1","http://127.0.0.1:1/x"]}"#;
    let unborn = r#"{"id":"b2","name":"","peerURLs":["http://127.0.0.1:4"],"clientURLs":[]}"#;
    let commands = ["cluster-health", "get /a", "member list", "--no-sync member list", "--no-sync member remove a1"];
    meets(&answer("200 OK", &format!("{{\"members\":[{away},{unborn}]}}")), &commands);
    meets(&answer("200 OK", &format!("{{\"members\":[{unborn}],\"health\":true}}")), &commands);
}

#[test]
fn servers_that_redirect() {
    meets(&answer("302 Found", ""), &["--no-sync get /a"]);
    let loops = "HTTP/1.1 307 Temporary Redirect\r\nLocation: /x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    meets(loops, &["--no-sync get /a"]);
}

#[test]
fn servers_that_never_answer() {
    meets(
        "",
        &[
            "--timeout 300ms --no-sync get /a",
            "--timeout 300ms get /a",
            "--timeout 300ms --no-sync mk /a b",
            "--timeout 10s --total-timeout 300ms --no-sync get /a",
            "--timeout 10s --total-timeout 300ms get /a",
            "--timeout 300ms cluster-health",
            "--timeout 300ms --no-sync member list",
        ],
    );
}

/// Certificates are named by flags or by variables, and whoever has none, or trusts nobody, hears why.
#[test]
fn encrypted_endpoints() {
    let authority = Authority::new("ca");
    let ca = authority.file().to_string_lossy().into_owned();
    let trusted = format!("--trusted-ca-file={ca}");
    let [cert, key] = authority.issue("server", &["127.0.0.1"]).flags("--");
    let flags = [cert.as_str(), &key, &trusted, "--client-cert-auth", "--enable-v2"];
    let mut server = Daemon::prepare(&std::env::temp_dir(), &Program::etcd_3_5_1(), &flags);
    server.client_scheme = "https";
    server.spawn();
    assert!(server.wait_ready(READY_LIMIT), "it does not serve:\n{}", server.log());
    let [cert, key] = authority.issue("client", &[]).flags("--");
    let ask = |tool: &Program, variables: &[(&str, &str)], words: &[&str]| {
        let mut command = etcdctl(tool);
        command.envs(variables.iter().copied()).arg("--endpoints").arg(server.endpoint()).args(words);
        said(command.stdin(Stdio::null()))
    };
    let original = Program::new("etcdctl 3.5.1", program::clients().join("etcdctl-3.5.1"));
    let known = ["--ca-file", &ca, &cert, &key];
    for tool in [&Program::quoratectl(), &original] {
        assert_eq!(ask(tool, &[], &[&known[..], &["set", "/a", "b"]].concat()), "b\n--- errors\n[exit 0]\n");
        let health = ask(tool, &[], &[&known[..], &["cluster-health"]].concat());
        assert!(health.ends_with("cluster is healthy\n--- errors\n[exit 0]\n"), "{}: {health}", tool.name);
        let stranger = ask(tool, &[], &["--no-sync", "--ca-file", &ca, "get", "/a"]);
        assert!(stranger.contains("bad certificate") && stranger.ends_with("[exit 4]\n"), "{}: {stranger}", tool.name);
        let doubtful = ask(tool, &[], &["--no-sync", "get", "/a"]);
        assert!(doubtful.contains("x509: certificate signed by unknown authority"), "{}: {doubtful}", tool.name);
        let half = ask(tool, &[("ETCDCTL_CA_FILE", ca.as_str())], &[cert.as_str(), "get", "/a"]);
        let told = cert.trim_start_matches("--cert-file=");
        let text = format!("--- errors\nKeyFile and CertFile must both be present[key: , cert: {told}]\n[exit 1]\n");
        assert_eq!(half, text, "{}", tool.name);
        let absent = ask(tool, &[("ETCDCTL_CA_FILE", "/absent")], &["get", "/a"]);
        assert_eq!(absent, "--- errors\nopen /absent: no such file or directory\n[exit 1]\n", "{}", tool.name);
    }
}

/// A redirection to another endpoint is followed with the request as it is.
#[test]
fn redirections_are_followed() {
    let server = Daemon::start(&Program::etcd_3_5_1(), &["--enable-v2"]);
    let location = format!("{}/v2/keys/moved?prevExist=false", server.endpoint());
    let moved = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nLocation: {location}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    );
    let fake = Fake::start(&moved);
    let ours = called_etcdctl(&Program::quoratectl(), &server);
    let set = heard(&ours, &fake, "--no-sync set /elsewhere value");
    assert_eq!(set, "value\n--- errors\n[exit 0]\n");
    let mut get = etcdctl(&ours);
    let found = said(get.args(["--endpoints", &server.endpoint(), "-o", "json", "get", "/moved"]));
    assert!(found.contains("\"value\":\"value\""), "{found}");
}

/// A version that is not 2 means the client of today.
#[test]
fn the_variable_chooses_the_client() {
    let version = |variable: Option<&str>| {
        let mut command = Command::new(Program::quoratectl().path);
        command.env_remove("ETCDCTL_API").arg("version");
        command.envs(variable.map(|version| ("ETCDCTL_API", version)));
        String::from_utf8_lossy(&command.output().expect("it starts").stdout).into_owned()
    };
    assert!(version(None).contains("API version: 3."));
    assert_eq!(version(None), version(Some("3")));
    assert_eq!(version(Some("2")), "", "the client of the v2 API has no such command");
    assert!(Path::new(&Program::quoratectl().path).exists());
}

/// A data directory is not taken apart.
#[test]
fn backup_is_refused_by_name() {
    let mut command = etcdctl(&Program::quoratectl());
    let refused = said(command.args(["backup", "--data-dir", "x", "--backup-dir", "y"]));
    assert!(refused.contains("quoratectl backup: not possible: ") && refused.ends_with("[exit 1]\n"), "{refused}");
    assert!(!Path::new("y").exists(), "nothing was written");
}
