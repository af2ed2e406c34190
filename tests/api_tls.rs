//! Encrypted client and metrics listeners: every client reaches them, strangers do not, and nobody keeps others waiting.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
    time::Duration,
};

use support::{
    certificates::{Authority, Pair},
    daemon::{Daemon, READY_LIMIT, free_ports},
    http, now,
    program::Program,
    wait_for,
};

/// Whom the certificates of these tests name.
const HOSTS: [&str; 2] = ["127.0.0.1", "localhost"];
/// Longest wait for something a daemon writes or answers.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a client says to whom it does not know.
const UNKNOWN: &str = "tls: failed to verify certificate: x509: certificate signed by unknown authority";

/// A daemon whose client port is encrypted as these flags say.
fn start<S: AsRef<str>>(flags: &[S]) -> Daemon {
    start_program(&Program::subject(), flags)
}

fn start_program<S: AsRef<str>>(program: &Program, flags: &[S]) -> Daemon {
    let flags: Vec<&str> = flags.iter().map(AsRef::as_ref).collect();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, &flags);
    daemon.client_scheme = "https";
    daemon.spawn();
    assert!(daemon.wait_ready(READY_LIMIT), "it does not serve:\n{}", daemon.log());
    daemon
}

/// The flags of a pair, and more.
fn with(pair: &Pair, more: &[String]) -> Vec<String> {
    pair.flags("--").into_iter().chain(more.iter().cloned()).collect()
}

/// Runs a client to its end: what it printed, or what it said instead.
fn run(program: &Path, words: &[String]) -> Result<String, String> {
    let output = Command::new(program).args(words).env_remove("ETCDCTL_API").output();
    let output = output.unwrap_or_else(|error| panic!("{} does not start: {error}", program.display()));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// `etcdctl`, ours or the real one, against one endpoint.
fn ctl(program: &Program, endpoint: &str, flags: &[String], words: &str) -> Result<String, String> {
    let mut all = vec![format!("--endpoints={endpoint}"), "--command-timeout=3s".to_owned()];
    all.extend(flags.iter().cloned());
    all.extend(words.split(' ').map(str::to_owned));
    run(&program.path, &all)
}

fn curl(words: &[&str]) -> Result<String, String> {
    let words: Vec<String> = ["-sS", "--max-time", "10"].iter().chain(words).map(ToString::to_string).collect();
    run(Path::new("curl"), &words)
}

fn trusting(file: &Path) -> String {
    format!("--cacert={}", file.display())
}

fn wait_log(daemon: &Daemon, text: &str) -> String {
    let found = wait_for(PATIENCE, || daemon.log().lines().find(|line| line.contains(text)).map(str::to_owned));
    found.unwrap_or_else(|| panic!("{text:?} is not in\n{}", daemon.log()))
}

#[test]
fn every_client_is_served_over_tls() {
    let authority = Authority::new("ca");
    let daemon = start(&with(&authority.issue("server", &HOSTS), &[]));
    let (endpoint, ca) = (daemon.endpoint(), trusting(&authority.file()));
    let named = endpoint.replace("127.0.0.1", "localhost");
    let bare = daemon.client.to_string();
    for program in [Program::quoratectl(), Program::etcdctl()] {
        for endpoint in [&endpoint, &named, &bare] {
            assert_eq!(ctl(&program, endpoint, std::slice::from_ref(&ca), "put k v"), Ok("OK".to_owned()));
            assert_eq!(
                ctl(&program, endpoint, std::slice::from_ref(&ca), "get k --print-value-only"),
                Ok("v".to_owned())
            );
            let unverified = ["--insecure-skip-tls-verify".to_owned()];
            assert_eq!(ctl(&program, endpoint, &unverified, "get k --print-value-only"), Ok("v".to_owned()));
        }
    }
    let file = authority.file().display().to_string();
    for version in ["--http1.1", "--http2"] {
        let health = curl(&[version, "--cacert", &file, "-w", " %{http_version}", &format!("{endpoint}/health")]);
        let spoken = if version == "--http2" { "2" } else { "1.1" };
        assert_eq!(health, Ok(format!("{{\"health\":\"true\",\"reason\":\"\"}} {spoken}")));
        let range = curl(&[version, "--cacert", &file, "-d", r#"{"key":"aw=="}"#, &format!("{endpoint}/v3/kv/range")]);
        assert!(range.as_ref().is_ok_and(|json| json.contains(r#""value":"dg==""#)), "{range:?}");
    }
    wait_log(&daemon, "serving client traffic securely");
    wait_log(&daemon, "starting with client TLS");
}

/// With authorities given, whoever shows no certificate of theirs is turned away, and the log says why as etcd's does.
#[test]
fn clients_show_certificates_where_they_are_demanded() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let trusted = format!("--trusted-ca-file={}", authority.file().display());
    let daemon = start(&with(&authority.issue("server", &HOSTS), &["--client-cert-auth".to_owned(), trusted]));
    let ca = trusting(&authority.file());
    let flags = |pair: &Pair| pair.client_flags().into_iter().chain([ca.clone()]).collect::<Vec<_>>();
    let known = flags(&authority.issue("client", &[]));
    let unknown = flags(&stranger.issue("client", &[]));
    for program in [Program::quoratectl(), Program::etcdctl()] {
        assert_eq!(ctl(&program, &daemon.endpoint(), &known, "put k v"), Ok("OK".to_owned()));
        let refused = ctl(&program, &daemon.endpoint(), std::slice::from_ref(&ca), "get k");
        assert!(refused.as_ref().is_err_and(|why| why.contains("context deadline exceeded")), "{refused:?}");
    }
    let line = wait_log(&daemon, "tls: client didn't provide a certificate");
    assert!(
        line.contains("rejected connection on client endpoint") && line.contains("\"remote-addr\":\"127.0.0.1:"),
        "{line}"
    );
    assert!(line.contains("\"level\":\"warn\"") && line.contains("\"server-name\":\"\""), "{line}");
    // A second later the next one is told again.
    std::thread::sleep(Duration::from_millis(1_100));
    assert!(ctl(&Program::quoratectl(), &daemon.endpoint(), &unknown, "get k").is_err());
    wait_log(&daemon, UNKNOWN);
}

#[test]
fn clients_tell_why_they_do_not_trust_a_server() {
    let (authority, stranger) = (Authority::new("ca"), Authority::new("stranger"));
    let daemon = start(&with(&authority.issue("server", &["localhost"]), &[]));
    let expired = start(&with(&authority.issue_expired("expired", &HOSTS), &[]));
    let strict = Authority::limited("strict", 0);
    let between = strict.below("between");
    let long = start(&with(&between.issue_chain("long", &HOSTS), &[]));
    let localhost = daemon.endpoint().replace("127.0.0.1", "localhost");
    let cases = [
        (&long.endpoint(), strict.file(), "x509: too many intermediates for path length constraint"),
        (&localhost, stranger.file(), UNKNOWN),
        (
            &daemon.endpoint(),
            authority.file(),
            "x509: cannot validate certificate for 127.0.0.1 because it doesn't contain any IP SANs",
        ),
        (&expired.endpoint(), authority.file(), "x509: certificate has expired or is not yet valid: current time 2"),
    ];
    for program in [Program::quoratectl(), Program::etcdctl()] {
        for (endpoint, file, why) in &cases {
            let flags = [trusting(file), "--debug".to_owned()];
            let refused = ctl(&program, endpoint, &flags, "get k").expect_err("the server is not trusted");
            assert!(
                refused.contains("authentication handshake failed") && refused.contains(why),
                "{}: {refused}",
                program.name
            );
        }
    }
    let plain = Daemon::start(&Program::subject(), &[]);
    let endpoint = plain.endpoint().replace("http:", "https:");
    let flags = [trusting(&authority.file())];
    let refused = ctl(&Program::quoratectl(), &endpoint, &flags, "get k").expect_err("the server does not speak TLS");
    assert!(refused.contains("context deadline exceeded"), "{refused}");
}

/// One address with both schemes, and a second one with the other alone.
#[test]
fn plain_and_encrypted_urls_stand_side_by_side() {
    let authority = Authority::new("ca");
    let [plain] = free_ports();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[]);
    for flag in authority.issue("server", &HOSTS).flags("--") {
        daemon.add_argument(flag);
    }
    let shared = daemon.client;
    daemon.add_argument(format!("--listen-client-urls=https://{shared},http://{shared},http://{plain}"));
    daemon.spawn();
    assert!(daemon.wait_ready(READY_LIMIT), "{}", daemon.log());
    for address in [shared, plain] {
        assert_eq!(http::get(address, "/health").expect("an answer").status, 200);
        assert_eq!(ctl(&Program::etcdctl(), &format!("http://{address}"), &[], "put k v"), Ok("OK".to_owned()));
    }
    let flags = [trusting(&authority.file())];
    assert_eq!(ctl(&Program::etcdctl(), &format!("https://{shared}"), &flags, "put k v"), Ok("OK".to_owned()));
}

/// gRPC has one port and HTTP another, both encrypted.
#[test]
fn http_has_an_encrypted_port_of_its_own() {
    let authority = Authority::new("ca");
    let [http] = free_ports();
    let flag = format!("--listen-client-http-urls=https://{http}");
    let daemon = start(&with(&authority.issue("server", &HOSTS), &[flag]));
    let (endpoint, file) = (daemon.endpoint(), authority.file().display().to_string());
    assert_eq!(ctl(&Program::etcdctl(), &endpoint, &[trusting(&authority.file())], "put k v"), Ok("OK".to_owned()));
    let health = |url: String| curl(&["-f", "--cacert", &file, &format!("{url}/health")]);
    assert!(health(format!("https://{http}")).is_ok_and(|text| text.contains("true")));
    assert!(health(endpoint).is_err());
}

fn said(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream.write_all(request).expect("it takes bytes");
    let mut answer = Vec::new();
    // A reset is an end, too.
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn plain_http_hears_what_go_says() {
    let authority = Authority::new("ca");
    let daemon = start(&with(&authority.issue("server", &HOSTS), &[]));
    let refusal = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    assert_eq!(said(daemon.client, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"), refusal);
    assert_eq!(said(daemon.client, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), "");
    assert_eq!(said(daemon.client, b"\0\0\0\0\0\0"), "");
    let line = wait_log(&daemon, "tls: first record does not look like a TLS handshake");
    assert!(line.contains("rejected connection on client endpoint"), "{line}");
}

#[test]
fn versions_and_suites_are_those_of_the_options() {
    let authority = Authority::new("ca");
    let pair = authority.issue("server", &HOSTS);
    let file = authority.file().display().to_string();
    let get = |daemon: &Daemon, words: &[&str]| {
        let url = format!("{}/health", daemon.endpoint());
        curl(&[&["--cacert", &file], words, &[url.as_str()]].concat()).map(drop)
    };
    let newest = start(&with(&pair, &["--tls-min-version=TLS1.3".to_owned()]));
    assert_eq!(get(&newest, &["--tlsv1.3"]), Ok(()));
    let refused = get(&newest, &["--tls-max", "1.2"]).expect_err("it is too old");
    assert!(refused.contains("alert protocol version"), "{refused}");
    wait_log(&newest, "tls: client offered only unsupported versions");
    let suites = ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_128_CBC_SHA"].join(",");
    let flags = ["--tls-max-version=TLS1.2".to_owned(), format!("--cipher-suites={suites}")];
    let oldest = start(&with(&pair, &flags));
    assert_eq!(get(&oldest, &["--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"]), Ok(()));
    get(&oldest, &["--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"]).expect_err("it is not among them");
    wait_log(&oldest, "tls: no cipher suite supported by both client and server");
    get(&oldest, &["--tlsv1.3"]).expect_err("it is too new");
    assert!(wait_log(&oldest, "a cipher suite is not available here").contains("TLS_RSA_WITH_AES_128_CBC_SHA"));
}

#[test]
fn member_makes_its_own_certificate_and_keeps_it() {
    let mut daemon = start(&["--auto-tls", "--self-signed-cert-validity=3"]);
    let files = ["cert.pem", "key.pem"].map(|name| daemon.data_dir().join("fixtures/client").join(name));
    let modes = files.each_ref().map(|path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777);
    assert_eq!(modes[1], 0o600, "{modes:?}");
    wait_log(&daemon, "automatically generate certificates");
    let first = fs::read(&files[0]).expect("readable");
    let counts_in = |hours: u64| {
        let words = format!("x509 -noout -in {} -checkend {}", files[0].display(), hours * 60 * 60);
        run(Path::new("openssl"), &words.split(' ').map(str::to_owned).collect::<Vec<_>>()).is_ok()
    };
    assert_eq!((counts_in(3 * 365 * 24 - 1), counts_in(3 * 365 * 24 + 1)), (true, false), "three years");
    let flags = [trusting(&files[0])];
    for program in [Program::quoratectl(), Program::etcdctl()] {
        assert_eq!(ctl(&program, &daemon.endpoint(), &flags, "put k v"), Ok("OK".to_owned()));
    }
    let cert = files[0].display().to_string();
    curl(&["--cacert", &cert, &format!("{}/health", daemon.endpoint())]).expect("curl trusts it");
    daemon.terminate();
    daemon.restart();
    assert_eq!(fs::read(&files[0]).expect("readable"), first);
    assert_eq!(ctl(&Program::quoratectl(), &daemon.endpoint(), &flags, "put k v"), Ok("OK".to_owned()));
}

/// etcd's own way to the same certificate: an authority and a server in one, which the library refuses by itself.
#[test]
fn self_signed_authority_may_serve() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=x -addext \
                 subjectAltName=IP:127.0.0.1";
    let files = ["-keyout", &key, "-out", &cert].map(str::to_owned);
    let words: Vec<String> = words.split_whitespace().map(str::to_owned).chain(files).collect();
    run(Path::new("openssl"), &words).expect("openssl makes a certificate");
    let daemon = start(&[format!("--cert-file={cert}"), format!("--key-file={key}")]);
    for program in [Program::quoratectl(), Program::etcdctl()] {
        assert_eq!(ctl(&program, &daemon.endpoint(), &[format!("--cacert={cert}")], "put k v"), Ok("OK".to_owned()));
    }
}

/// A renewal is two files written over the old ones.
#[test]
fn renewed_certificate_is_shown_without_a_restart() {
    let (first, second) = (Authority::new("first"), Authority::new("second"));
    let (old, new) = (first.issue("server", &HOSTS), second.issue("server", &HOSTS));
    let daemon = start(&with(&old, &[]));
    let get = |authority: &Authority| {
        ctl(&Program::quoratectl(), &daemon.endpoint(), &[trusting(&authority.file())], "get k")
    };
    assert_eq!(get(&first), Ok(String::new()));
    fs::copy(&new.cert, &old.cert).expect("written");
    fs::copy(&new.key, &old.key).expect("written");
    assert_eq!(get(&second), Ok(String::new()));
    assert!(get(&first).is_err());
    wait_log(&daemon, "read a new certificate");
}

#[test]
fn metrics_can_be_scraped_over_tls() {
    let authority = Authority::new("ca");
    let [metrics] = free_ports();
    let daemon =
        start(&with(&authority.issue("server", &HOSTS), &[format!("--listen-metrics-urls=https://{metrics}")]));
    let file = authority.file().display().to_string();
    let scraped = curl(&["--cacert", &file, &format!("https://{metrics}/metrics")]).expect("metrics");
    assert!(scraped.contains("etcd_server_has_leader 1"), "{scraped}");
    drop(daemon);
}

#[test]
fn socket_file_can_be_encrypted() {
    let authority = Authority::new("ca");
    let directory = tempfile::tempdir().expect("temporary directory");
    let url = format!("unixs://{}", directory.path().join("q.sock").display());
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), &Program::subject(), &[]);
    for flag in authority.issue("server", &HOSTS).flags("--") {
        daemon.add_argument(flag);
    }
    daemon.add_argument(format!("--listen-client-urls=http://{},{url}", daemon.client));
    daemon.spawn();
    assert!(daemon.wait_ready(READY_LIMIT), "{}", daemon.log());
    assert_eq!(ctl(&Program::quoratectl(), &url, &[trusting(&authority.file())], "put k v"), Ok("OK".to_owned()));
}

/// Half of them say nothing, the others begin a handshake and stop, and they are more than may be under way at a time.
#[test]
fn stalled_handshakes_keep_nobody_waiting_and_end() {
    let authority = Authority::new("ca");
    let daemon = start(&with(&authority.issue("server", &HOSTS), &[]));
    let begun = now();
    let mut stalled: Vec<TcpStream> = (0..400)
        .map(|number| {
            let mut stream = TcpStream::connect(daemon.client).expect("a place");
            stream.write_all(if number % 2 == 0 { b"" } else { b"\x16\x03\x01\x02" }).expect("bytes are taken");
            stream
        })
        .collect();
    let flags = [trusting(&authority.file())];
    assert_eq!(ctl(&Program::quoratectl(), &daemon.endpoint(), &flags, "put k v"), Ok("OK".to_owned()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    for stream in &mut stalled {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let ended = stream.read(&mut [0; 64]);
        assert!(
            ended.as_ref().is_ok_and(|bytes| *bytes == 0)
                || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(18), "{:?}", begun.elapsed());
    let told = daemon.log().lines().filter(|line| line.contains("rejected connection")).count();
    assert!((1..20).contains(&told), "{told} records");
    let file = authority.file().display().to_string();
    let metrics = curl(&["--cacert", &file, &format!("{}/metrics", daemon.endpoint())]).expect("metrics");
    let counted = |reason: &str| {
        let row = format!("quorate_tls_handshakes_failed_total{{endpoint=\"client\",reason=\"{reason}\"}} ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&row));
        found.and_then(|number| number.parse::<usize>().ok()).unwrap_or(0)
    };
    let (cut_off, timed_out) = (counted("cut_off"), counted("timed_out"));
    assert!(cut_off >= 400 - 256 && timed_out > 0, "{cut_off} {timed_out}:\n{metrics}");
    assert_eq!(cut_off + timed_out, 400);
}

/// A key with a password, which stands in a file of its own; all of them handed over by the service manager.
#[test]
fn encrypted_key_is_opened_and_credentials_are_found() {
    let authority = Authority::new("ca");
    let pair = authority.issue("server", &HOSTS);
    let directory = tempfile::tempdir().expect("temporary directory");
    let place = |name: &str| directory.path().join(name);
    let key = pair.key.display().to_string();
    let encrypt = |method: &[&str], name: &str| {
        let out = place(name).display().to_string();
        let words = [&["pkcs8", "-topk8", "-in", &key, "-out", &out, "-passout", "pass:open sesame"], method].concat();
        run(Path::new("openssl"), &words.iter().map(ToString::to_string).collect::<Vec<_>>()).expect("a key");
    };
    encrypt(&[], "server.key");
    encrypt(&["-scrypt"], "scrypt.key");
    fs::copy(&pair.cert, place("server.crt")).expect("a copy");
    fs::write(place("password"), "wrong\nopen sesame\n").expect("written");
    fs::write(place("wrong"), "wrong\n").expect("written");
    let flags = |key: &str, password: Option<&str>| {
        let mut flags = vec!["--cert-file=credential:server.crt".to_owned(), format!("--key-file=credential:{key}")];
        flags.extend(password.map(|name| format!("--key-password-file=credential:{name}")));
        flags
    };
    let mut program = Program::subject();
    program.variables.push(("CREDENTIALS_DIRECTORY", directory.path().display().to_string().leak()));
    let daemon = start_program(&program, &flags("server.key", Some("password")));
    let ca = [trusting(&authority.file())];
    assert_eq!(ctl(&Program::etcdctl(), &daemon.endpoint(), &ca, "put k v"), Ok("OK".to_owned()));
    let opens = "tls: no password in";
    for (program, flags, why) in [
        (&program, flags("server.key", None), "tls: the private key is encrypted: name a file with the password"),
        (&program, flags("server.key", Some("wrong")), opens),
        (
            &program,
            flags("scrypt.key", Some("password")),
            "tls: the private key is encrypted by a method that is not taken",
        ),
        (&Program::subject(), flags("server.key", None), "open credential:server.crt: no such file or directory"),
    ] {
        expect_no_start(program, &flags, why);
    }
}

/// What ends within a month is told, and published.
#[test]
fn ends_of_certificates_are_told_in_time() {
    let authority = Authority::new("ca");
    let pair = authority.issue_until("server", &HOSTS, Duration::from_hours(24 * 20));
    let daemon = start(&with(&pair, &[]));
    let line = wait_log(&daemon, "a certificate ends soon");
    assert!(line.contains("\"days\":19") && line.contains(&pair.cert.display().to_string()), "{line}");
    let file = authority.file().display().to_string();
    let metrics = curl(&["--cacert", &file, &format!("{}/metrics", daemon.endpoint())]).expect("metrics");
    let row = format!(
        "quorate_tls_certificate_end_timestamp_seconds{{file=\"{}\",kind=\"certificate\"}} ",
        pair.cert.display()
    );
    let end = metrics.lines().find_map(|line| line.strip_prefix(&row)).expect("a row");
    let date = run(Path::new("date"), &["-d".to_owned(), "20 days".to_owned(), "+%s".to_owned()]).expect("a date");
    let [end, date] = [end, &date].map(|text| text.parse::<f64>().expect("seconds"));
    assert!((end - date).abs() < 60.0, "{end} {date}");
}

#[test]
fn files_that_cannot_be_used_end_the_start() {
    let authority = Authority::new("ca");
    let (one, two) = (authority.issue("one", &HOSTS), authority.issue("two", &HOSTS));
    let crossed = Pair { cert: one.cert.clone(), key: two.key.clone() };
    let absent = Pair { cert: "/absent.crt".into(), key: two.key };
    let empty = format!("--trusted-ca-file={}", one.key.display());
    for (flags, why) in [
        (with(&crossed, &[]), "tls: private key does not match public key"),
        (with(&absent, &[]), "open /absent.crt: no such file or directory"),
        (with(&one, &[empty]), "tls: failed to find any PEM data in certificate input"),
    ] {
        expect_no_start(&Program::subject(), &flags, why);
    }
}

/// A start with these flags ends, and its last words are why.
fn expect_no_start(program: &Program, flags: &[String], why: &str) {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut daemon = Daemon::prepare(&std::env::temp_dir(), program, &flags);
    daemon.client_scheme = "https";
    daemon.spawn();
    let ended = wait_for(PATIENCE, || daemon.exited());
    assert!(ended.is_some_and(|status| status.code() == Some(1)), "{ended:?}\n{}", daemon.log());
    let log = daemon.log();
    let last = log.lines().last().unwrap_or_default();
    assert!(last.contains("\"level\":\"fatal\"") && last.contains(why) && last.contains("client listeners"), "{last}");
}
