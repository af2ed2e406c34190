//! `watch`: events as they happen, shown and handed to a command.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    io::BufRead,
    os::unix::ffi::{OsStrExt, OsStringExt},
    process::{Command as Child, ExitStatus},
};

use tokio::sync::mpsc;

use super::{
    super::{
        failure::{Exit, Failure},
        go_text,
        parse::{Call, parse_line},
        speak::{complain, say},
        table::{Command, Flag, Group, Running},
    },
    argify::argify,
    keys::prefix_end,
    session,
};
use crate::{
    cli::output::{self, Style},
    client::{Delivery, WatchKey, Watcher},
    pb::{
        etcdserverpb::{WatchCreateRequest, WatchResponse},
        mvccpb::Event,
    },
};

const INTERACTIVE: Flag = Flag::switch("interactive", "read what to watch from standard input").short('i');
const PREFIX: Flag = Flag::switch("prefix", "every key that begins with the given one");
const REV: Flag = Flag::integer("rev", "revision to begin at, 0 means from now on");
const PREV_KV: Flag = Flag::switch("prev-kv", "show pairs as they were before, too");
const PROGRESS_NOTIFY: Flag = Flag::switch("progress-notify", "have the member tell now and then how far it is");

pub(super) const WATCH: Command = Command {
    name: "watch",
    arguments: "[options] [key or prefix] [range_end] [--] [exec-command arg1 arg2 ...]",
    about: "Shows changes of keys as they happen",
    group: Group::KeyValue,
    flags: &[INTERACTIVE, PREFIX, REV, PREV_KV, PROGRESS_NOTIFY],
    run: Some(watch),
    ..Command::EMPTY
};
static LINE: Command = WATCH;

fn watch(mut call: Call) -> Running {
    Box::pin(async move {
        let environment = Environment::read(std::env::vars_os())?;
        if call.flags.switch(&INTERACTIVE) {
            let settings = session::settings_with(&mut call, &VARIABLES)?;
            let client = session::connect(&settings, settings.client.endpoints.clone()).await?;
            return Interactive::new(client.watcher(), settings.style, environment).run(lines_of_stdin()).await;
        }
        let plan = Plan::of(&call, &environment).map_err(Failure::bad_arguments)?;
        let settings = session::settings_with(&mut call, &VARIABLES)?;
        let client = session::connect(&settings, settings.client.endpoints.clone()).await?;
        let request = plan.request().map_err(Failure::bad_arguments)?;
        follow(client.watcher(), request, settings.style, &plan.exec).await
    })
}

/// Shows one watch to its end.
async fn follow(
    mut watcher: Watcher,
    request: WatchCreateRequest,
    style: Style,
    exec: &[OsString],
) -> Result<(), Failure> {
    watcher.watch(request);
    loop {
        let delivery = watcher.next().await;
        show(&delivery, style, exec).await?;
        if delivery.over {
            return Err(Failure::new(Exit::Interrupted, "watch is canceled by the server"));
        }
    }
}

/// The key to watch as the environment gives it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Environment {
    key: Vec<u8>,
    range_end: Vec<u8>,
}

impl Environment {
    fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Self, Failure> {
        let variables: BTreeMap<_, _> = variables.collect();
        let value =
            |name: &str| variables.get(OsStr::new(name)).map_or_else(Vec::new, |value| value.as_bytes().to_vec());
        let [key, range_end] = VARIABLES.map(value);
        if key.is_empty() && !range_end.is_empty() {
            let quoted = go_text::quote(&range_end);
            return Err(Failure::bad_arguments(format_args!(
                "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={quoted}"
            )));
        }
        Ok(Self { key, range_end })
    }

    /// The arguments that the variables stand for.
    fn arguments(&self) -> Vec<Vec<u8>> {
        [&self.key, &self.range_end].into_iter().filter(|bytes| !bytes.is_empty()).cloned().collect()
    }
}

/// The variables of this command.
const VARIABLES: [&str; 2] = ["ETCDCTL_WATCH_KEY", "ETCDCTL_WATCH_RANGE_END"];

/// What a call of `watch` asks for.
#[derive(Clone, Debug)]
struct Plan {
    /// Key and perhaps range end.
    arguments: Vec<Vec<u8>>,
    /// A command to run for every event; empty for none.
    exec: Vec<OsString>,
    prefix: bool,
    options: WatchCreateRequest,
}

impl Plan {
    /// Tells keys from the command to run, which stands behind two dashes.
    fn of(call: &Call, environment: &Environment) -> Result<Self, &'static str> {
        let separator = call.words.iter().position(|word| word == "--");
        let exec = separator.and_then(|at| call.words.get(at + 1..)).unwrap_or_default().to_vec();
        if separator.is_some() && exec.is_empty() {
            return Err("bad number of arguments (found separator --, but no commands)");
        }
        let mut arguments = call.argument_bytes();
        arguments.truncate(arguments.len().saturating_sub(exec.len()));
        if !environment.key.is_empty() && !arguments.is_empty() {
            return Err("bad number of arguments (found conflicting environment key)");
        }
        if arguments.is_empty() {
            arguments = environment.arguments();
        }
        if arguments.is_empty() {
            return Err(NO_KEY);
        }
        let flags = &call.flags;
        let options = WatchCreateRequest {
            start_revision: flags.integer(&REV),
            prev_kv: flags.switch(&PREV_KV),
            progress_notify: flags.switch(&PROGRESS_NOTIFY),
            ..WatchCreateRequest::default()
        };
        Ok(Self { arguments, exec, prefix: flags.switch(&PREFIX), options })
    }

    fn request(&self) -> Result<WatchCreateRequest, &'static str> {
        let (key, range_end) = match self.arguments.as_slice() {
            [_, _] if self.prefix => return Err("`range_end` and `--prefix` are mutually exclusive"),
            [key, end] => (key.as_slice(), end.clone().into()),
            [key, ..] if self.prefix && key.is_empty() => (&b"\0"[..], prefix_end(b"")),
            [key, ..] if self.prefix => (key.as_slice(), prefix_end(key)),
            [key, ..] => (key.as_slice(), Vec::new().into()),
            [] => return Err(NO_KEY),
        };
        Ok(WatchCreateRequest { key: key.to_vec().into(), range_end, ..self.options.clone() })
    }
}

const NO_KEY: &str = "bad number of arguments";

/// Watches that come from standard input, one line each.
struct Interactive {
    watcher: Watcher,
    style: Style,
    environment: Environment,
    /// The commands to run.
    exec: BTreeMap<WatchKey, Vec<OsString>>,
}

impl Interactive {
    fn new(watcher: Watcher, style: Style, environment: Environment) -> Self {
        Self { watcher, style, environment, exec: BTreeMap::new() }
    }

    async fn run(mut self, mut lines: mpsc::Receiver<String>) -> Result<(), Failure> {
        loop {
            tokio::select! {
                line = lines.recv() => match line {
                    Some(line) => self.obey(&line)?,
                    None => return Err(Failure::new(Exit::BadInput, "error reading watch request line: EOF")),
                },
                delivery = self.watcher.next() => {
                    let exec = self.exec.get(&delivery.watch).map_or(&[][..], Vec::as_slice);
                    show(&delivery, self.style, exec).await?;
                }
            }
        }
    }

    fn obey(&mut self, line: &str) -> Result<(), Failure> {
        match self.order(line)? {
            Order::Watch(plan) => match plan.request() {
                Ok(request) => {
                    self.exec.insert(self.watcher.watch(request), plan.exec);
                }
                Err(why) => complain(format_args!("Invalid command {line} ({why})")),
            },
            Order::Progress => self.watcher.request_progress(),
            Order::Nonsense(why) => complain(why),
        }
        Ok(())
    }

    fn order(&self, line: &str) -> Result<Order, Failure> {
        let words = argify(line).map_err(|why| Failure::new(Exit::BadInput, why))?;
        let Some((name, rest)) = words.split_first() else {
            return Ok(Order::Nonsense(format!("Invalid command: {line} (watch and progress supported)")));
        };
        match name.as_bytes() {
            b"watch" if rest.is_empty() && self.environment.key.is_empty() => {
                Ok(Order::Nonsense(format!("Invalid command {line} (command type or key is not provided)")))
            }
            b"watch" => {
                let call = parse_line(&LINE, rest.to_vec()).map_err(Failure::bad_arguments)?;
                Ok(Order::Watch(Plan::of(&call, &self.environment).map_err(Failure::bad_arguments)?))
            }
            b"progress" => Ok(Order::Progress),
            _ => Ok(Order::Nonsense(format!("Invalid command {line} (only support watch)"))),
        }
    }
}

/// What a line asks for.
enum Order {
    Watch(Plan),
    Progress,
    Nonsense(String),
}

/// Reads standard input in a thread of its own, which ends with the process.
fn lines_of_stdin() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES_AHEAD);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        let mut line = Vec::new();
        // A line without an end is no line.
        while stdin.read_until(b'\n', &mut line).is_ok() && line.pop() == Some(b'\n') {
            let text = String::from_utf8_lossy(&line).into_owned();
            if sender.blocking_send(text).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

/// Lines read before they can be obeyed.
const LINES_AHEAD: usize = 1;

/// Prints a delivery, then runs the command for each of its events.
async fn show(delivery: &Delivery, style: Style, exec: &[OsString]) -> Result<(), Failure> {
    let response = &delivery.response;
    match &delivery.error {
        Some(error) => complain(format_args!("watch was canceled ({error})")),
        None if delivery.over => return Ok(()),
        None => {}
    }
    if let Some(revision) = progress(response) {
        say(format_args!("progress notify: {revision}\n"))?;
    }
    output::print(style, response)?;
    if exec.is_empty() {
        return Ok(());
    }
    let revision = response.header.map_or(0, |header| header.revision);
    for event in &response.events {
        run(exec, revision, event).await?;
    }
    Ok(())
}

/// The revision a response without events tells of, if it tells of one.
fn progress(response: &WatchResponse) -> Option<i64> {
    let says_nothing_else =
        response.events.is_empty() && !response.canceled && !response.created && response.compact_revision == 0;
    response.header.map(|header| header.revision).filter(|revision| says_nothing_else && *revision != 0)
}

/// Runs the command for one event and waits for it, so that events are handled in their order.
async fn run(exec: &[OsString], revision: i64, event: &Event) -> Result<(), Failure> {
    let Some((program, arguments)) = exec.split_first() else { return Ok(()) };
    let mut child = Child::new(program);
    child.args(arguments).envs(event_variables(revision, event));
    let outcome = tokio::task::spawn_blocking(move || child.status()).await;
    let why = match outcome {
        Ok(Ok(status)) if status.success() => return Ok(()),
        Ok(Ok(status)) => status_text(status),
        Ok(Err(error)) => go_text::start_failure(program, &error),
        Err(error) => error.to_string(),
    };
    let shown: Vec<_> = exec.iter().map(|word| word.clone().into_vec()).collect();
    complain(format_args!("command {} error ({why})", go_text::quote_list(&shown)));
    Err(Failure::reported(Exit::Error))
}

fn event_variables(revision: i64, event: &Event) -> [(&'static str, String); 4] {
    let kv = event.kv.clone().unwrap_or_default();
    [
        ("ETCD_WATCH_REVISION", revision.to_string()),
        ("ETCD_WATCH_EVENT_TYPE", go_text::quote(event.r#type().as_str_name().as_bytes())),
        ("ETCD_WATCH_KEY", go_text::quote(&kv.key)),
        ("ETCD_WATCH_VALUE", go_text::quote(&kv.value)),
    ]
}

fn status_text(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit status {code}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{Program, parse},
        pb::{etcdserverpb::ResponseHeader, mvccpb::KeyValue},
    };

    fn environment(key: &str, range_end: &str) -> Environment {
        Environment { key: key.into(), range_end: range_end.into() }
    }

    fn plan(line: &str, environment: &Environment) -> Result<Plan, &'static str> {
        let words = line.split_whitespace().map(OsString::from).collect();
        let call = parse::parse(Program { name: "etcdctl", version: "" }, &super::super::ROOT, words).unwrap();
        Plan::of(&call, environment)
    }

    /// Key, range end and command of a line.
    fn planned(line: &str, environment: &Environment) -> Result<(Vec<String>, Vec<OsString>), &'static str> {
        let plan = plan(line, environment)?;
        let texts = plan.arguments.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect();
        Ok((texts, plan.exec))
    }

    fn expected(arguments: &[&str], exec: &[&str]) -> (Vec<String>, Vec<OsString>) {
        (arguments.iter().map(ToString::to_string).collect(), exec.iter().map(OsString::from).collect())
    }

    #[test]
    fn keys_stand_before_the_dashes_and_the_command_behind() {
        let none = Environment::default();
        assert_eq!(planned("watch foo", &none), Ok(expected(&["foo"], &[])));
        assert_eq!(planned("watch foo bar --rev 1", &none), Ok(expected(&["foo", "bar"], &[])));
        assert_eq!(planned("watch foo --rev 1 bar -- echo hi", &none), Ok(expected(&["foo", "bar"], &["echo", "hi"])));
        assert_eq!(planned("watch foo -- echo echo", &none), Ok(expected(&["foo"], &["echo", "echo"])));
        assert_eq!(planned("--hex watch foo -- sh -c x", &none), Ok(expected(&["foo"], &["sh", "-c", "x"])));
        assert_eq!(planned("watch foo -- echo -- x", &none), Ok(expected(&["foo"], &["echo", "--", "x"])));
    }

    #[test]
    fn the_environment_gives_the_key_when_nothing_else_does() {
        let foo = environment("foo", "");
        assert_eq!(planned("watch", &foo), Ok(expected(&["foo"], &[])));
        assert_eq!(
            planned("watch --rev 1 -- echo hi", &environment("a", "z")),
            Ok(expected(&["a", "z"], &["echo", "hi"]))
        );
        let conflict = Err("bad number of arguments (found conflicting environment key)");
        assert_eq!(planned("watch foo", &foo), conflict);
        assert_eq!(planned("watch foo -- echo 1", &foo), conflict);
    }

    #[test]
    fn missing_parts_are_told() {
        let none = Environment::default();
        assert_eq!(planned("watch", &none), Err(NO_KEY));
        assert_eq!(planned("watch --rev 1", &none), Err(NO_KEY));
        assert_eq!(planned("watch -- echo", &none), Err(NO_KEY));
        let separator = Err("bad number of arguments (found separator --, but no commands)");
        assert_eq!(planned("watch foo --", &none), separator);
    }

    #[test]
    fn an_end_without_a_key_in_the_environment_is_refused() {
        let variables = [("ETCDCTL_WATCH_RANGE_END".into(), "z".into())];
        let refused = Environment::read(variables.into_iter()).unwrap_err();
        let text = "ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END=\"z\"";
        assert_eq!((refused.exit, refused.message.as_deref()), (Exit::BadArguments, Some(text)));
    }

    #[test]
    fn flags_become_the_request() {
        let none = Environment::default();
        let request = |line| plan(line, &none).unwrap().request();
        let expected = WatchCreateRequest {
            key: "a".into(),
            range_end: "b".into(),
            start_revision: 7,
            prev_kv: true,
            progress_notify: true,
            ..WatchCreateRequest::default()
        };
        assert_eq!(request("watch a --prefix --rev 7 --prev-kv --progress-notify"), Ok(expected));
        assert_eq!(request("watch a c").unwrap().range_end, "c");
        assert_eq!(request("watch a b c").unwrap().range_end, "", "more than two are as good as one");
        assert_eq!(request("watch a b --prefix"), Err("`range_end` and `--prefix` are mutually exclusive"));
    }

    #[tokio::test]
    async fn lines_order_watches_and_progress() {
        let options = crate::client::Options { endpoints: vec!["127.0.0.1:1".to_owned()], ..Default::default() };
        let client = crate::client::Client::connect(options).await.unwrap();
        let style = Style { format: output::Format::Simple, hex: false, values_only: false };
        let interactive = Interactive::new(client.watcher(), style, Environment::default());
        let order = |line| match interactive.order(line) {
            Ok(Order::Watch(plan)) => format!("{:?} {:?}", plan.arguments.len(), plan.exec),
            Ok(Order::Progress) => "progress".to_owned(),
            Ok(Order::Nonsense(why)) => why,
            Err(failure) => format!("{:?} {}", failure.exit, failure.message.unwrap_or_default()),
        };
        assert_eq!(order(r#"watch "a b" c --rev 3 -- echo 'd e'"#), r#"2 ["echo", "d e"]"#);
        assert_eq!(order("progress"), "progress");
        assert_eq!(order(""), "Invalid command:  (watch and progress supported)");
        assert_eq!(order("foo"), "Invalid command foo (only support watch)");
        assert_eq!(order("watch"), "Invalid command watch (command type or key is not provided)");
        assert_eq!(order("watch foo --bad"), "BadArguments unknown flag: --bad");
        let separator = "BadArguments bad number of arguments (found separator --, but no commands)";
        assert_eq!(order("watch foo --"), separator);
    }

    #[test]
    fn a_command_is_told_the_event_in_quotes() {
        let kv = KeyValue { key: "k\n".into(), value: "v".into(), ..KeyValue::default() };
        let event = Event { r#type: 0, kv: Some(kv), prev_kv: None };
        let variables = event_variables(7, &event).map(|(_, value)| value);
        assert_eq!(variables, ["7", "\"PUT\"", "\"k\\n\"", "\"v\""]);
    }

    #[tokio::test]
    async fn a_command_that_fails_ends_the_watch() {
        let outcome = async |words: &[&str]| {
            let exec: Vec<_> = words.iter().map(OsString::from).collect();
            run(&exec, 1, &Event::default()).await
        };
        assert_eq!(outcome(&["true"]).await, Ok(()));
        assert_eq!(outcome(&["false"]).await, Err(Failure::reported(Exit::Error)));
        assert_eq!(outcome(&["/does/not/exist"]).await, Err(Failure::reported(Exit::Error)));
    }

    #[test]
    fn only_a_response_that_says_nothing_else_is_progress() {
        let header = Some(ResponseHeader { revision: 5, ..ResponseHeader::default() });
        let quiet = WatchResponse { header, ..WatchResponse::default() };
        assert_eq!(progress(&quiet), Some(5));
        assert_eq!(progress(&WatchResponse { canceled: true, ..quiet.clone() }), None);
        assert_eq!(progress(&WatchResponse { events: vec![Event::default()], ..quiet }), None);
    }
}
