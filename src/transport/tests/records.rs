//! What the log is told of peers that come and go: a few lines for each, however often they do.

use std::{
    fmt::{Debug, Write as _},
    sync::PoisonError,
};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
    subscriber::DefaultGuard,
};

use super::*;

/// Keeps the records of this thread, one line each.
#[derive(Clone, Debug, Default)]
struct Records(Arc<Mutex<Vec<String>>>);

impl Records {
    fn keep() -> (Self, DefaultGuard) {
        let records = Self::default();
        (records.clone(), tracing::subscriber::set_default(records))
    }

    /// Those of information and above with `text` in them.
    fn with(&self, text: &str) -> Vec<String> {
        let records = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().filter(|record| record.contains(text)).cloned().collect()
    }
}

impl Subscriber for Records {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO && metadata.target().starts_with("quorate")
    }
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn event(&self, event: &Event<'_>) {
        let mut line = Line(event.metadata().level().to_string());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// A peer that answers every stream with the next of `answers` and closes; returns where it listens.
fn answer_all(tasks: &mut JoinSet<()>, answers: impl Fn(usize) -> Vec<u8> + Send + 'static) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    tasks.spawn(async move {
        for at in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            // Whatever comes of it, the next one is answered.
            let _unread: Result<_, std::io::Error> = stream.read(&mut [0; 4096]).await;
            let _unsent: Result<_, std::io::Error> = stream.write_all(&answers(at)).await;
        }
    });
    url
}

const OPEN: &str =
    "HTTP/1.1 200 OK\r\nX-Etcd-Cluster-Id: c1\r\nX-Server-Version: 3.7.1\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What the log is told within three seconds of a peer that answers so.
async fn told_of(answers: impl Fn(usize) -> Vec<u8> + Send + 'static) -> Records {
    let (records, _kept) = Records::keep();
    let node = Node::start(1).await;
    let mut tasks = JoinSet::new();
    node.transport.set_peers([(MemberId(2), vec![answer_all(&mut tasks, answers)])].into());
    tokio::time::sleep(Duration::from_secs(3)).await;
    records
}

#[tokio::test]
async fn a_peer_that_closes_every_stream_is_told_of_once() {
    let records = told_of(|_| format!("{OPEN}0\r\n\r\n").into_bytes()).await;
    assert_eq!(records.with("no stream from a peer").len(), 1, "{records:?}");
    assert!(records.with("").len() <= 3, "{records:?}");
}

#[tokio::test]
async fn a_peer_that_sends_nonsense_is_told_of_once() {
    let records = told_of(|_| format!("{OPEN}14\r\n{}\r\n0\r\n\r\n", "\u{7f}".repeat(20)).into_bytes()).await;
    assert_eq!(records.with("nonsense").len(), 1, "{records:?}");
    assert!(records.with("").len() <= 4, "{records:?}");
}

#[tokio::test]
async fn refusals_in_ever_new_words_are_told_of_once() {
    let records = told_of(|at| {
        let words = format!("attempt {at:06}");
        format!("HTTP/1.1 500 Oops\r\nContent-Length: {}\r\n\r\n{words}", words.len()).into_bytes()
    })
    .await;
    assert_eq!(records.with("refused").len(), 1, "{records:?}");
    assert_eq!(records.with("").len(), 1, "{records:?}");
}

/// A copied data directory made a flood at which nothing said what it was.
#[tokio::test]
async fn two_processes_with_one_members_data_are_recognised_on_both_sides() {
    let (records, _kept) = Records::keep();
    let nodes = [Node::start(1).await, Node::start(2).await, Node::start(2).await];
    introduce(&nodes[..2]);
    nodes[2].transport.set_peers([(MemberId(1), vec![nodes[0].url.clone()])].into());
    let cause = "another process answers with this ";
    until("the cause is named", || records.with(cause).len() >= 3).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let mut told = records.with(cause);
    told.sort();
    assert!(told.len() == 3 && told.iter().all(|line| line.starts_with("ERROR") && line.contains("stop")), "{told:?}");
    assert!(told[0].contains("told_by=1") && told[1].contains("told_by=1") && told[2].contains("peer=2"), "{told:?}");
    assert!(records.with("").len() <= 16, "{records:?}");
}

/// The same process dials again after every break.
#[tokio::test]
async fn a_member_whose_connections_break_is_not_taken_for_two() {
    let (records, _kept) = Records::keep();
    let nodes = Node::start_all(2).await;
    for _ in 0..10 {
        connected(&nodes).await;
        nodes[0].cut.send(()).unwrap();
        until("the break is noticed", || nodes[1].transport.active_since(MemberId(1)).is_none()).await;
    }
    assert_eq!(records.with("another process"), Vec::<String>::new());
    assert_eq!(records.with("the connection to a peer is lost").len(), 1, "{records:?}");
}
