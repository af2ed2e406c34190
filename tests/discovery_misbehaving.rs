//! A v2 discovery service that answers slowly, wrongly, with another size, with duplicates, too much, elsewhere, or never: each
//! is answered with etcd's words or asked again, and nothing is believed, kept or waited for beyond its bounds.

mod support;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use quorate::discovery::{Cause, Founders, Outcome, Own, Progress, Registration, V2};
use support::now;

/// How long a wait lasts here before it is answered with nothing.
const POLL: Duration = Duration::from_millis(200);
/// No search of these takes longer.
const PATIENCE: Duration = Duration::from_secs(40);

/// A request, as far as it matters here.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    /// Below the token.
    path: String,
    query: String,
    body: String,
}

/// What to send; nothing closes the connection, and `Silence` keeps it open.
enum Reply {
    Answer(u16, String, String),
    Nothing,
    Silence,
}

fn ok(body: &str) -> Reply {
    Reply::Answer(200, "X-Etcd-Index: 9\r\n".to_owned(), body.to_owned())
}

fn with_status(status: u16, body: &str) -> Reply {
    Reply::Answer(status, String::new(), body.to_owned())
}

fn refusal(status: u16, code: u32, message: &str) -> Reply {
    with_status(status, &format!(r#"{{"errorCode":{code},"message":"{message}","cause":"/T","index":9}}"#))
}

/// A service that behaves, apart from what a test makes of it.
#[derive(Default)]
struct Token {
    /// Identifier and entry, in order.
    members: Vec<(String, String)>,
    size: String,
}

impl Token {
    fn of(size: &str, members: &[(&str, &str)]) -> Self {
        let members = members.iter().map(|(id, entry)| ((*id).to_owned(), (*entry).to_owned())).collect();
        Self { members, size: size.to_owned() }
    }

    fn answer(&mut self, asked: &Asked) -> Reply {
        match (asked.method.as_str(), asked.path.as_str()) {
            ("GET", "_config/size") => ok(&format!(r#"{{"node":{{"value":"{}"}}}}"#, self.size)),
            ("GET", _) if asked.query.contains("wait=true") => {
                thread::sleep(POLL);
                ok("")
            }
            ("GET", "") => ok(&self.listing()),
            ("GET", id) => match self.members.iter().find(|(other, _)| other == id) {
                Some((_, entry)) => ok(&format!(r#"{{"node":{{"value":"{entry}"}}}}"#)),
                None => refusal(404, 100, "Key not found"),
            },
            ("PUT", id) if self.members.iter().any(|(other, _)| other == id) => refusal(412, 105, "Key already exists"),
            (_, id) => {
                let entry = asked.body.trim_start_matches("value=").replace("%3D", "=").replace("%3A", ":");
                self.members.push((id.to_owned(), entry.replace("%2F", "/").replace("%2C", ",")));
                with_status(201, r#"{"node":{"createdIndex":9}}"#)
            }
        }
    }

    fn listing(&self) -> String {
        let node = |(place, (id, entry)): (usize, &(String, String))| {
            format!(r#"{{"key":"/T/{id}","value":"{entry}","createdIndex":{}}}"#, place + 1)
        };
        let nodes: Vec<String> = self.members.iter().enumerate().map(node).collect();
        format!(r#"{{"node":{{"key":"/T","dir":true,"nodes":[{}]}}}}"#, nodes.join(","))
    }
}

type Trick = Box<dyn Fn(&mut Token, &Asked, usize) -> Option<Reply> + Send + Sync>;

/// A running service. `trick` sees every request first, with how many came before it.
struct Service {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Service {
    fn start(token: Token, trick: impl Fn(&mut Token, &Asked, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (token, trick): (_, Arc<Trick>) = (Arc::new(Mutex::new(token)), Arc::new(Box::new(trick)));
        let (count, seen) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&asked));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (token, trick, count, seen) =
                    (Arc::clone(&token), Arc::clone(&trick), Arc::clone(&count), Arc::clone(&seen));
                thread::spawn(move || {
                    let mut stream = stream.expect("accepted");
                    let Some(asked) = read(&stream) else { return };
                    seen.lock().expect("no panic").push(asked.clone());
                    let number = count.fetch_add(1, Ordering::SeqCst);
                    let reply = {
                        let token = &mut *token.lock().expect("no panic");
                        trick(token, &asked, number).unwrap_or_else(|| token.answer(&asked))
                    };
                    send(&mut stream, &reply);
                });
            }
        });
        Self { address, asked }
    }

    fn url(&self) -> String {
        format!("http://{}/T", self.address)
    }

    fn count(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }

    fn puts(&self) -> usize {
        self.asked.lock().expect("no panic").iter().filter(|asked| asked.method == "PUT").count()
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim_end().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let target = target.split_once("/T").map_or("", |(_, below)| below).trim_start_matches('/').to_owned();
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let body = String::from_utf8_lossy(&body).into_owned();
    Some(Asked { method, path: path.to_owned(), query: query.to_owned(), body })
}

fn send(stream: &mut TcpStream, reply: &Reply) {
    match reply {
        Reply::Answer(status, headers, body) => {
            let length = body.len();
            // Who has gone does not matter to a service.
            drop(write!(stream, "HTTP/1.1 {status} Said\r\n{headers}Content-Length: {length}\r\n\r\n{body}"));
        }
        Reply::Nothing => {}
        Reply::Silence => thread::sleep(PATIENCE),
    }
}

fn own() -> Own {
    Own { name: "m1".to_owned(), peer_urls: vec!["http://127.0.0.1:2380".to_owned()] }
}

/// Searches at `url` with what `place` remembers, and lists what was told of the way.
fn search_in(place: &tempfile::TempDir, url: &str) -> (Result<Outcome, Cause>, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let tell = |progress: Progress| told.lock().expect("no panic").push(progress.to_string());
    let mut registration = Registration::open(place.path()).expect("our own directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(async {
        let search = V2::new(url, None, &tell)?;
        let own = own();
        let searching = search.join(&own, &mut registration);
        tokio::time::timeout(PATIENCE, searching).await.expect("the search ends")
    });
    (found, told.into_inner().expect("no panic"))
}

fn search(url: &str) -> (Result<Outcome, Cause>, Vec<String>) {
    search_in(&tempfile::tempdir().expect("a directory"), url)
}

/// This node's founders.
fn founders(found: Result<Outcome, Cause>) -> Founders {
    match found {
        Ok(Outcome::Founders(founders)) => founders,
        other => panic!("{other:?}"),
    }
}

fn refused(found: Result<Outcome, Cause>) -> String {
    found.expect_err("refused").to_string()
}

/// The service fails in this way once, then behaves: the search takes a pause, tells why, and comes to its end.
fn recovers_from(why: &str, trick: impl Fn() -> Reply + Send + Sync + 'static) {
    let service = Service::start(Token::of("1", &[]), move |_, _, number| (number == 0).then(&trick));
    let (found, told) = search(&service.url());
    assert_eq!(founders(found).members.len(), 1);
    let told = told.join("\n");
    assert!(told.contains(why) && told.contains("asking again in 2 s"), "{why:?} in {told}");
}

#[test]
fn whole_search_with_a_service_that_behaves() {
    let others = [("b", "m2=http://127.0.0.2:2380"), ("c", "m3=http://127.0.0.3:2380")];
    let service = Service::start(Token::of("3", &others), |_, _, _| None);
    let founders = founders(search(&service.url()).0);
    assert_eq!(founders.members.keys().collect::<Vec<_>>(), ["m1", "m2", "m3"]);
    assert_eq!((founders.own.as_str(), founders.token), ("m1", service.url()));
    assert_eq!(service.puts(), 1);
}

#[test]
fn never_answering_is_not_waited_for_longer_than_five_seconds() {
    recovers_from("context deadline exceeded", || Reply::Silence);
}

#[test]
fn connection_that_breaks_is_made_again() {
    recovers_from("connection", || Reply::Nothing);
}

#[test]
fn statuses_of_servers_in_trouble_pass() {
    recovers_from("503", || with_status(503, "<html>"));
    recovers_from("429", || refusal(429, 300, "Raft Internal Error"));
}

#[test]
fn huge_answers_are_not_read() {
    recovers_from("the answer is longer than", || ok(&"x".repeat(8 << 20)));
}

#[test]
fn redirections_are_followed_but_not_in_circles() {
    let circle = Service::start(Token::of("1", &[]), |_, _, number| {
        (number <= 10).then(|| Reply::Answer(307, "Location: /T/_config/size\r\n".to_owned(), String::new()))
    });
    let (found, told) = search(&circle.url());
    assert_eq!(founders(found).members.len(), 1);
    assert!(told.join("\n").contains("too many redirects"), "{told:?}");

    let real = Service::start(Token::of("1", &[]), |_, _, _| None);
    let target = real.url();
    let front = Service::start(Token::default(), move |_, asked, _| {
        let location = format!("Location: {target}/{}?{}\r\n", asked.path, asked.query);
        Some(Reply::Answer(307, location, String::new()))
    });
    assert_eq!(founders(search(&front.url()).0).members.len(), 1);
    assert_eq!(real.puts(), 1, "a redirected registration is made where it leads to");
}

#[test]
fn what_is_no_discovery_service_is_told_from_one_in_trouble() {
    for body in ["<html>hello</html>", "{}", "unable to GET token", ""] {
        let body = body.to_owned();
        let service = Service::start(Token::default(), move |_, _, _| Some(with_status(200, &body)));
        assert!(refused(search(&service.url()).0).starts_with("discovery: bad discovery endpoint"));
    }
    let service = Service::start(Token::default(), |_, _, _| Some(with_status(400, "unable to GET token")));
    assert!(refused(search(&service.url()).0).starts_with("discovery: bad discovery endpoint"));
    let service =
        Service::start(Token::default(), |_, _, _| Some(refusal(401, 110, "The request requires user authentication")));
    assert!(refused(search(&service.url()).0).starts_with("110: The request requires user authentication (/T) [9]"));
}

#[test]
fn sizes_that_no_cluster_has_are_refused() {
    for size in ["0", "-1", "1e3", "99999999999999999999", "100000"] {
        let service = Service::start(Token::of(size, &[]), |_, _, _| None);
        assert!(refused(search(&service.url()).0).starts_with("discovery: size key is bad"), "{size}");
        assert_eq!(service.puts(), 0);
    }
}

#[test]
fn size_that_shrinks_leaves_no_place() {
    let service = Service::start(Token::of("2", &[("b", "m2=http://127.0.0.2:2380")]), |token, asked, _| {
        if asked.method == "PUT" {
            token.size = "1".to_owned();
        }
        None
    });
    assert!(matches!(search(&service.url()).0, Ok(Outcome::Full(_))));
}

#[test]
fn full_cluster_is_not_registered_with() {
    let service = Service::start(Token::of("1", &[("b", "m2=http://127.0.0.2:2380")]), |_, _, _| None);
    let Ok(Outcome::Full(listed)) = search(&service.url()).0 else { panic!("full") };
    assert_eq!(listed.members().expect("members").to_string(), "m2=http://127.0.0.2:2380");
    assert_eq!(service.puts(), 0);
}

#[test]
fn lists_with_duplicates_and_nonsense_found_nothing() {
    for (entry, why) in [
        ("m1=http://127.0.0.2:2380", "discovery: found duplicate name"),
        (
            "m2=http://127.0.0.1:2380",
            "discovery cluster m1=http://127.0.0.1:2380,m2=http://127.0.0.1:2380 has duplicate url",
        ),
        ("m2", "discovery: invalid URL"),
        ("m2=ftp://127.0.0.2:1", "discovery: invalid URL"),
        ("m2=http://127.0.0.2:1/path", "discovery: invalid URL"),
        ("m2\\nx=http://127.0.0.2:1", "discovery: invalid URL"),
        ("", "discovery: found duplicate name"),
    ] {
        let service = Service::start(Token::of("2", &[("b", entry)]), |_, _, _| None);
        let said = refused(search(&service.url()).0);
        assert!(said.starts_with(why), "{entry}: {said}");
    }
    // One key that is listed twice is one member, who is waited for no longer once another comes.
    let service = Service::start(Token::of("3", &[("b", "m2=http://127.0.0.2:2380")]), |token, asked, number| {
        if asked.path.is_empty() && !asked.query.contains("wait") && number < 6 {
            let twice =
                token.listing().replace("[{", r#"[{"key":"/T/b","value":"m2=http://127.0.0.9:1","createdIndex":99},{"#);
            return Some(ok(&twice));
        }
        if number == 8 {
            token.members.push(("c".to_owned(), "m3=http://127.0.0.3:2380".to_owned()));
        }
        None
    });
    assert_eq!(founders(search(&service.url()).0).members.len(), 3);
}

#[test]
fn registration_whose_outcome_is_unknown_is_known_again() {
    let service = Service::start(Token::of("1", &[]), |token, asked, _| {
        let is_first = asked.method == "PUT" && token.members.is_empty();
        is_first.then(|| {
            drop(token.answer(asked));
            Reply::Nothing
        })
    });
    assert_eq!(founders(search(&service.url()).0).members.len(), 1);
    assert_eq!(service.puts(), 2);
}

#[test]
fn race_for_the_last_place_that_is_lost_before_registering_finds_the_cluster_full() {
    let service = Service::start(Token::of("1", &[]), |token, asked, _| {
        (asked.method == "PUT").then(|| {
            token.members.push(("b".to_owned(), "m2=http://127.0.0.2:2380".to_owned()));
            refusal(400, 103, "Reached the max number of peers in the cluster")
        })
    });
    let Ok(Outcome::Full(listed)) = search(&service.url()).0 else { panic!("full") };
    assert_eq!(listed.members().expect("members").to_string(), "m2=http://127.0.0.2:2380");
}

#[test]
fn strangers_registration_under_this_identifier_is_refused() {
    let service = Service::start(Token::of("2", &[]), |token, asked, _| {
        if asked.method == "PUT" {
            token.members.push((asked.path.clone(), "m1=http://127.0.0.1:2380".to_owned()));
        }
        None
    });
    assert!(refused(search(&service.url()).0).starts_with("discovery: found duplicate id"));
}

#[test]
fn registration_that_was_changed_is_told() {
    let service = Service::start(Token::of("1", &[]), |token, asked, _| {
        if asked.path.is_empty() && !token.members.is_empty() {
            token.members[0].1 = "evil=http://127.0.0.9:1".to_owned();
        }
        None
    });
    assert!(refused(search(&service.url()).0).contains("this member is registered as m1=http://127.0.0.1:2380"));
}

#[test]
fn registration_that_is_never_listed_is_not_waited_for_for_ever() {
    let service = Service::start(Token::of("2", &[]), |_, asked, _| {
        (asked.path.is_empty() && !asked.query.contains("wait=true")).then(|| ok(&Token::default().listing()))
    });
    let begun = now();
    let said = refused(search(&service.url()).0);
    assert!(said.starts_with("discovery: the service no longer has the registration of this member"), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn waits_that_end_at_once_do_not_become_a_flood() {
    let service = Service::start(Token::of("2", &[]), |token, asked, number| {
        if number == 20 {
            token.members.push(("b".to_owned(), "m2=http://127.0.0.2:2380".to_owned()));
        }
        asked.query.contains("wait=true").then(|| match number % 3 {
            0 => ok(""),
            1 => ok(r#"{"action":"set","node":{"key":"/T/x","value":"nonsense"}}"#),
            _ => refusal(400, 401, "The event in requested index is outdated and cleared"),
        })
    });
    let begun = now();
    assert_eq!(founders(search(&service.url()).0).members.len(), 2);
    let (took, count) = (begun.elapsed(), service.count());
    assert!(took > Duration::from_secs(3) && count < 40, "{count} requests in {took:?}");
}

#[test]
fn cluster_that_was_complete_needs_the_service_no_more() {
    let place = tempfile::tempdir().expect("a directory");
    let service = Service::start(Token::of("1", &[]), |_, _, _| None);
    let first = founders(search_in(&place, &service.url()).0);
    let count = service.count();
    assert_eq!(founders(search_in(&place, &service.url()).0), first);
    assert_eq!(service.count(), count, "nobody was asked");
}

#[test]
fn proxy_on_the_way_is_asked_for_whole_urls() {
    let proxy = Service::start(Token::of("1", &[]), |_, _, _| None);
    let tell = |_: Progress| {};
    let place = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let found = runtime.block_on(async {
        let address = proxy.address.to_string();
        let search = V2::new("http://nowhere.invalid/T", Some(&address), &tell)?;
        search.join(&own(), &mut Registration::open(place.path()).expect("our own directory")).await
    });
    assert_eq!(founders(found).members.len(), 1);
}
