//! `make-mirror`: the keys of one cluster, kept alike in another.

use std::{cell::Cell, time::Duration};

use bytes::Bytes;
use tokio::time::{Instant, interval_at, sleep};

use super::{
    super::{
        failure::{Exit, Failure},
        parse::{Call, Flags},
        password,
        speak::say,
        table::{Command, Flag, Group, Running, Values},
    },
    global,
    keys::Span,
    session,
};
use crate::{
    client::{Client, Delivery, Options},
    pb::{
        etcdserverpb::{
            DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest,
            range_request::SortOrder, request_op::Request,
        },
        mvccpb::{Event, KeyValue, event::EventType},
    },
};

const PREFIX: Flag = Flag::text("prefix", "", "what the keys to mirror begin with");
const REV: Flag = Flag::integer("rev", "revision to begin at, without what was there before; 0 mirrors all there is");
const MAX_TXN_OPS: Flag =
    Flag::unsigned("max-txn-ops", "most operations in one transaction at the destination").default("128");
const DEST_PREFIX: Flag = Flag::text("dest-prefix", "", "what the keys begin with at the destination instead");
const NO_DEST_PREFIX: Flag = Flag::switch("no-dest-prefix", "leave the prefix out at the destination");
const DEST_CERT: Flag =
    Flag::text("dest-cert", "", "certificate file to identify with at the destination").values(Values::Files);
const DEST_KEY: Flag = Flag::text("dest-key", "", "file with the key of that certificate").values(Values::Files);
const DEST_CACERT: Flag =
    Flag::text("dest-cacert", "", "file with the authorities that may sign the destination's certificates")
        .values(Values::Files);
const DEST_INSECURE_TRANSPORT: Flag =
    Flag::switch("dest-insecure-transport", "speak with the destination without encryption").default("true");
const DEST_USER: Flag = Flag::text("dest-user", "", "name[:password] at the destination; a missing one is asked for");
const DEST_PASSWORD: Flag = Flag::text("dest-password", "", "password, when --dest-user holds the name alone");

pub(super) const MAKE_MIRROR: Command = Command {
    name: "make-mirror",
    arguments: "[options] <destination>",
    about: "Keeps the keys of another cluster like those of this one",
    details: "Copies the keys of this cluster to the one at <destination>, and then every change, until it is interrupted.\n\n\
              Every 30 seconds it shows how many keys and changes were copied so far. Leases are left out. With --rev above\n\
              1 only changes are copied, and keys lose the prefix unless --dest-prefix names it.",
    group: Group::Utility,
    flags: &[
        PREFIX,
        REV,
        MAX_TXN_OPS,
        DEST_PREFIX,
        NO_DEST_PREFIX,
        DEST_CERT,
        DEST_KEY,
        DEST_CACERT,
        DEST_INSECURE_TRANSPORT,
        DEST_USER,
        DEST_PASSWORD,
    ],
    run: Some(make_mirror),
    ..Command::EMPTY
};

fn make_mirror(mut call: Call) -> Running {
    Box::pin(async move {
        let [destination] = call
            .argument_texts()
            .try_into()
            .map_err(|_| Failure::bad_arguments("make-mirror takes one destination argument"))?;
        let settings = session::settings(&mut call)?;
        global::check_limits(&call.flags)?;
        let options = Options { endpoints: vec![destination], ..of_destination(&call.flags, &settings.client)? };
        let to = Client::connect(options).await.map_err(session::no_connection)?;
        let from = session::connect(&settings, settings.client.endpoints.clone()).await?;
        let mirror = Mirror::new(from, to, Keys::of(&call.flags)?);
        let copied = &mirror.copied;
        tokio::select! {
            ended = mirror.run(call.flags.integer(&REV)) => ended,
            ended = tell(copied) => ended,
        }
    })
}

/// How to reach the destination; what has no flag of its own is as for the source.
fn of_destination(flags: &Flags, source: &Options) -> Result<Options, Failure> {
    let files = [DEST_CERT, DEST_KEY, DEST_CACERT].map(|flag| flags.text(&flag));
    let tls = global::dialler_with(files, false, flags.switch(&DEST_INSECURE_TRANSPORT))?;
    let ask = || password::ask("Destination Password: ");
    let credentials = global::user(flags.text(&DEST_USER), flags.text(&DEST_PASSWORD), ask)?;
    Ok(Options { credentials, tls, ..source.clone() })
}

/// Shows now and then how much was copied.
async fn tell(copied: &Cell<u64>) -> Result<(), Failure> {
    let mut ticks = interval_at(Instant::now() + TELLING_INTERVAL, TELLING_INTERVAL);
    loop {
        ticks.tick().await;
        say(format_args!("{}\n", copied.get()))?;
    }
}

/// Which keys are mirrored, and to where.
struct Keys {
    prefix: Bytes,
    /// What stands in place of the prefix; `None` if that depends on where the mirror begins.
    instead: Option<Bytes>,
    operations_max: usize,
}

impl Keys {
    fn of(flags: &Flags) -> Result<Self, Failure> {
        let (prefix, other) = (flags.text(&PREFIX).to_owned(), flags.text(&DEST_PREFIX).to_owned());
        let instead = match (flags.switch(&NO_DEST_PREFIX), other) {
            (true, other) if !other.is_empty() => {
                let both = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
                return Err(Failure::bad_arguments(both));
            }
            (true, _) => Some(Bytes::new()),
            (false, other) => Some(other).filter(|other| !other.is_empty()).map(Bytes::from),
        };
        let operations_max = usize::try_from(flags.unsigned(&MAX_TXN_OPS)).unwrap_or(usize::MAX);
        Ok(Self { prefix: prefix.into(), instead, operations_max })
    }
}

/// A mirror at work.
struct Mirror {
    from: Client,
    to: Client,
    span: Span,
    keys: Keys,
    /// Keys and changes that were copied.
    copied: Cell<u64>,
}

impl Mirror {
    fn new(from: Client, to: Client, keys: Keys) -> Self {
        let span = Span::of_prefix(&keys.prefix);
        Self { from, to, span, keys, copied: Cell::new(0) }
    }

    /// Copies until something fails.
    async fn run(&self, revision: i64) -> Result<(), Failure> {
        if revision > 1 {
            let instead = self.keys.instead.clone().unwrap_or_default();
            return self.follow(revision, &instead).await;
        }
        let instead = self.keys.instead.as_ref().unwrap_or(&self.keys.prefix);
        let at = self.present().await?;
        self.copy(at, instead).await?;
        self.follow(at + 1, instead).await
    }

    /// The present revision of the source.
    async fn present(&self) -> Result<i64, Failure> {
        let key = if self.keys.prefix.is_empty() { ANY_KEY } else { self.keys.prefix.clone() };
        let answer = self.from.call(RangeRequest { key, ..RangeRequest::default() }, None).await?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Copies what was there at a revision, a page at a time.
    async fn copy(&self, revision: i64, instead: &Bytes) -> Result<(), Failure> {
        let mut request = RangeRequest {
            key: self.span.key.clone(),
            range_end: self.span.range_end.clone(),
            revision,
            limit: PAGE_KEYS,
            sort_order: SortOrder::None.into(),
            ..RangeRequest::default()
        };
        loop {
            let page = self.from.call(request.clone(), None).await?;
            let last = page.kvs.last().map(|kv| kv.key.clone());
            for kv in page.kvs {
                self.to.call(self.put(kv, instead), None).await?;
                self.count();
            }
            match last {
                Some(key) if page.more => request.key = behind(&key),
                _ => return Ok(()),
            }
        }
    }

    /// Copies the changes from `revision` on. What changed in one revision changes in one, if a transaction can hold it.
    async fn follow(&self, mut revision: i64, instead: &Bytes) -> Result<(), Failure> {
        loop {
            let (next, ended) = self.follow_once(revision, instead).await?;
            revision = next;
            match ended {
                Ended::NoLeader => sleep(ELECTION_PATIENCE).await,
                Ended::ForGood(why) => return Err(why),
            }
        }
    }

    /// The same with one watch. Tells with which revision to go on, and why the watch has ended.
    async fn follow_once(&self, mut revision: i64, instead: &Bytes) -> Result<(i64, Ended), Failure> {
        let Span { key, range_end } = self.span.clone();
        let mut watcher = self.from.watcher();
        watcher.watch(WatchCreateRequest { key, range_end, start_revision: revision, ..WatchCreateRequest::default() });
        loop {
            let Delivery { response, error, over, .. } = watcher.next().await;
            let last = response.events.last().and_then(|event| event.kv.as_ref()).map(|kv| kv.mod_revision);
            self.perform(response.events, instead).await?;
            revision = last.map_or(revision, |last| last + 1);
            match error {
                Some(error) if error.is_refusal("etcdserver: no leader") => return Ok((revision, Ended::NoLeader)),
                Some(error) => return Ok((revision, Ended::ForGood(error.into()))),
                None if over => return Ok((revision, Ended::by_server(&response.cancel_reason))),
                None => {}
            }
        }
    }

    async fn perform(&self, events: Vec<Event>, instead: &Bytes) -> Result<(), Failure> {
        let mut batch: Vec<RequestOp> = Vec::new();
        let mut revision = 0;
        for event in events {
            let is_put = event.r#type() == EventType::Put;
            let Some(kv) = event.kv else { continue };
            if (revision != 0 && kv.mod_revision > revision) || batch.len() == self.keys.operations_max {
                self.commit(std::mem::take(&mut batch)).await?;
            }
            revision = kv.mod_revision;
            batch.push(RequestOp { request: Some(self.operation(is_put, kv, instead)) });
            self.count();
        }
        if batch.is_empty() { Ok(()) } else { self.commit(batch).await }
    }

    async fn commit(&self, success: Vec<RequestOp>) -> Result<(), Failure> {
        Ok(self.to.call(TxnRequest { success, ..TxnRequest::default() }, None).await.map(drop)?)
    }

    fn operation(&self, is_put: bool, kv: KeyValue, instead: &Bytes) -> Request {
        if is_put {
            return Request::RequestPut(self.put(kv, instead));
        }
        let key = self.renamed(&kv.key, instead);
        Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() })
    }

    fn put(&self, kv: KeyValue, instead: &Bytes) -> PutRequest {
        PutRequest { key: self.renamed(&kv.key, instead), value: kv.value, ..PutRequest::default() }
    }

    /// A key as the destination has it.
    fn renamed(&self, key: &Bytes, instead: &Bytes) -> Bytes {
        let rest = key.strip_prefix(&self.keys.prefix[..]).unwrap_or(key);
        [instead, rest].concat().into()
    }

    fn count(&self) {
        self.copied.set(self.copied.get() + 1);
    }
}

/// Why a watch is over.
enum Ended {
    /// There may be a leader again soon.
    NoLeader,
    /// Another watch would fare alike.
    ForGood(Failure),
}

impl Ended {
    fn by_server(reason: &str) -> Self {
        let reason = if reason.is_empty() { "watch is canceled by the server" } else { reason };
        Self::ForGood(Failure::new(Exit::Error, reason))
    }
}

/// The first key behind `key`.
pub(super) fn behind(key: &[u8]) -> Bytes {
    [key, b"\0"].concat().into()
}

/// Time between two lines about how much was copied.
const TELLING_INTERVAL: Duration = Duration::from_secs(30);
/// Pause before a member that has no leader is asked again.
const ELECTION_PATIENCE: Duration = Duration::from_secs(1);
/// Keys that are read at once.
const PAGE_KEYS: i64 = 1_000;
/// A key to ask for when only the revision counts.
const ANY_KEY: Bytes = Bytes::from_static(b"foo");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::parse::parse_line;

    static COMMAND: Command = MAKE_MIRROR;

    fn keys(line: &[&str]) -> Result<Keys, Failure> {
        Keys::of(&parse_line(&COMMAND, line.iter().map(Into::into).collect()).unwrap().flags)
    }

    async fn mirror(line: &[&str]) -> Mirror {
        let options = Options { endpoints: vec!["127.0.0.1:1".to_owned()], ..Options::default() };
        let client = Client::connect(options).await.unwrap();
        Mirror::new(client.clone(), client, keys(line).unwrap())
    }

    #[tokio::test]
    async fn keys_change_their_prefix() {
        let renamed = async |line: &[&str], instead: &'static str| {
            let renamed = mirror(line).await.renamed(&"a/b/a/".into(), &instead.into());
            String::from_utf8(renamed.to_vec()).unwrap()
        };
        assert_eq!(renamed(&["x", "--prefix", "a/"], "c/").await, "c/b/a/");
        assert_eq!(renamed(&["x", "--prefix", "a/"], "").await, "b/a/");
        assert_eq!(renamed(&["x"], "c/").await, "c/a/b/a/");
    }

    #[test]
    fn where_keys_go_is_named_once() {
        let instead = |line: &[&str]| keys(line).unwrap().instead;
        assert_eq!(instead(&["x", "--prefix", "a"]), None);
        assert_eq!(instead(&["x", "--no-dest-prefix"]), Some(Bytes::new()));
        assert_eq!(instead(&["x", "--dest-prefix", "b"]), Some("b".into()));
        let refused = keys(&["x", "--dest-prefix", "b", "--no-dest-prefix"]).err().unwrap();
        assert_eq!(refused.exit, Exit::BadArguments);
    }

    #[tokio::test]
    async fn deletions_go_where_puts_go() {
        let mirror = mirror(&["x", "--prefix", "a"]).await;
        let kv = KeyValue { key: "ab".into(), value: "v".into(), lease: 7, ..KeyValue::default() };
        let put = PutRequest { key: "cb".into(), value: "v".into(), ..PutRequest::default() };
        assert_eq!(mirror.operation(true, kv.clone(), &"c".into()), Request::RequestPut(put));
        let delete = DeleteRangeRequest { key: "cb".into(), ..DeleteRangeRequest::default() };
        assert_eq!(mirror.operation(false, kv, &"c".into()), Request::RequestDeleteRange(delete));
    }
}
