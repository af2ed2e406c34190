//! Two sides of a handshake in one process.

use std::{net::IpAddr, path::Path};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

use super::*;

/// A certificate that trusts itself, for these hosts.
fn made(directory: &Path, name: &str, hosts: &[&str]) -> PairFiles {
    let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
    self_signed(SelfSigned { directory: &directory.join(name), hosts: &hosts, years: 1 }).unwrap()
}

fn acceptor(files: &PairFiles, clients: Option<&PairFiles>, rules: Rules) -> Acceptor {
    let clients = clients.map(|files| Clients {
        trust: Trust::File(files.cert.clone()),
        names: AllowedNames::Any,
        from: PeerNames::OfSender,
        revoked: None,
    });
    let identity = Identity::read(files.clone()).unwrap();
    Acceptor::new(AcceptorOptions { identity, clients, rules }).unwrap()
}

fn dialler(trusted: Option<&PairFiles>, shown: Option<&PairFiles>) -> Dialler {
    let trust = trusted.map(|files| Trust::File(files.cert.clone()));
    let identity = shown.map(|files| Identity::read(files.clone()).unwrap());
    Dialler::new(DiallerOptions { identity, trust, ..DiallerOptions::default() }).unwrap()
}

const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// What each side says: the protocol agreed on and a byte that came over, or why not.
async fn shake(
    acceptor: &Acceptor,
    dialler: &Dialler,
    host: &str,
    protocol: Protocol,
) -> (Result<Option<bool>, String>, Result<u8, String>) {
    let (near, far) = duplex(64 * 1024);
    let server = async {
        let mut stream = acceptor.accept(far, Some(HERE)).await.map_err(|Rejected { cause, .. }| words(&cause))?;
        stream.write_u8(42).await.map_err(|error| words(&error))?;
        stream.flush().await.map_err(|error| words(&error))?;
        Ok(stream.http2())
    };
    let client = async {
        let mut stream = dialler.connect(host, protocol, near).await.map_err(|error| words(&error))?;
        stream.read_u8().await.map_err(|error| words(&error))
    };
    tokio::join!(server, client)
}

#[tokio::test]
async fn both_sides_know_each_other_and_agree_on_a_protocol() {
    let directory = tempfile::tempdir().unwrap();
    let server = made(directory.path(), "server", &["127.0.0.1", "localhost"]);
    let client = made(directory.path(), "client", &["127.0.0.1"]);
    let acceptor = acceptor(&server, Some(&client), Rules::default());
    let known = dialler(Some(&server), Some(&client));
    assert_eq!(shake(&acceptor, &known, "localhost", Protocol::Http2).await, (Ok(Some(true)), Ok(42)));
    assert_eq!(shake(&acceptor, &known, "127.0.0.1", Protocol::Unnamed).await, (Ok(None), Ok(42)));
    let (told, heard) = shake(&acceptor, &dialler(Some(&server), None), "localhost", Protocol::Http2).await;
    assert_eq!(told, Err("tls: client didn't provide a certificate".to_owned()));
    assert_eq!(heard, Err("remote error: tls: certificate required".to_owned()));
}

#[tokio::test]
async fn strangers_are_turned_away_on_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let server = made(directory.path(), "server", &["127.0.0.1"]);
    let other = made(directory.path(), "other", &["10.1.2.3"]);
    let unknown = "tls: failed to verify certificate: x509: certificate signed by unknown authority";
    let open = acceptor(&server, None, Rules::default());
    let (_, heard) = shake(&open, &dialler(Some(&other), None), "127.0.0.1", Protocol::Http2).await;
    assert_eq!(heard, Err(unknown.to_owned()));
    let (_, heard) = shake(&open, &dialler(Some(&server), None), "localhost", Protocol::Http2).await;
    let other_name = "tls: failed to verify certificate: x509: certificate is not valid for any names, but wanted to \
                      match localhost";
    assert_eq!(heard, Err(other_name.to_owned()));
    let (told, _) = shake(&open, &dialler(None, None), "whoever", Protocol::Http2).await;
    assert_eq!(told, Ok(Some(true)), "who trusts anybody is served");
    let closed = acceptor(&server, Some(&server), Rules::default());
    let (told, _) = shake(&closed, &dialler(Some(&server), Some(&other)), "127.0.0.1", Protocol::Http2).await;
    assert_eq!(told, Err(unknown.to_owned()));
    let elsewhere = acceptor(&server, Some(&other), Rules::default());
    let (told, _) = shake(&elsewhere, &dialler(Some(&server), Some(&other)), "127.0.0.1", Protocol::Http2).await;
    assert_eq!(told, Err("x509: certificate is valid for 10.1.2.3, not 127.0.0.1".to_owned()));
}

#[tokio::test]
async fn versions_restrict() {
    let directory = tempfile::tempdir().unwrap();
    let server = made(directory.path(), "server", &["127.0.0.1"]);
    let newest = Rules { min: Version::V1_3, ..Rules::default() };
    let acceptor = acceptor(&server, None, newest);
    let rules = Rules { max: Some(Version::V1_2), ..Rules::default() };
    let old = Dialler::new(DiallerOptions { rules, ..DiallerOptions::default() }).unwrap();
    let (told, heard) = shake(&acceptor, &old, "127.0.0.1", Protocol::Unnamed).await;
    assert!(told.unwrap_err().starts_with("tls: client offered only unsupported versions"));
    assert_eq!(heard, Err("remote error: tls: protocol version not supported".to_owned()));
}

#[tokio::test]
async fn changed_files_are_read_before_the_next_handshake() {
    let directory = tempfile::tempdir().unwrap();
    let first = made(directory.path(), "first", &["127.0.0.1"]);
    let second = made(directory.path(), "second", &["127.0.0.1"]);
    let acceptor = acceptor(&first, None, Rules::default());
    let (before, after) = (dialler(Some(&first), None), dialler(Some(&second), None));
    assert_eq!(shake(&acceptor, &before, "127.0.0.1", Protocol::Unnamed).await.1, Ok(42));
    std::fs::write(&first.key, "damaged").unwrap();
    assert_eq!(shake(&acceptor, &before, "127.0.0.1", Protocol::Unnamed).await.1, Ok(42), "the last pair is kept");
    std::fs::copy(&second.cert, &first.cert).unwrap();
    std::fs::copy(&second.key, &first.key).unwrap();
    assert_eq!(shake(&acceptor, &after, "127.0.0.1", Protocol::Unnamed).await.1, Ok(42));
}

#[test]
fn files_that_do_not_fit_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (made(directory.path(), "one", &["a"]), made(directory.path(), "two", &["a"]));
    let refused = |cert: &Path, key: &Path| {
        let files = PairFiles::new(cert, key);
        Identity::read(files).unwrap_err().to_string()
    };
    assert!(refused(&one.cert, &two.key).contains("two/key.pem: tls: private key does not match public key"));
    assert!(refused(&one.key, &one.key).contains("failed to find any PEM data in certificate input"));
    assert!(refused(&one.cert, &one.cert).contains("failed to find any PEM data in key input"));
    let absent = directory.path().join("absent");
    assert_eq!(refused(&absent, &one.key), format!("open {}: no such file or directory", absent.display()));
}

#[test]
fn a_made_certificate_stays() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let files = made(directory.path(), "x", &["127.0.0.1", "::1", "localhost"]);
    let first = std::fs::read(&files.cert).unwrap();
    assert_eq!(made(directory.path(), "x", &["other"]), files);
    assert_eq!(std::fs::read(&files.cert).unwrap(), first);
    assert_eq!(std::fs::metadata(&files.key).unwrap().permissions().mode() & 0o777, 0o600);
    let read = Certificate::read(&certificates(&files.cert).unwrap()[0]).unwrap();
    assert_eq!((read.dns_names, read.addresses.len(), read.is_ca), (vec!["localhost".to_owned()], 2, false));
    assert_eq!(read.not_after, read.not_before + std::time::Duration::from_hours(365 * 24));
}

/// What a member is shown while an administrator changes files below it.
#[tokio::test]
async fn new_authorities_and_lists_count_from_the_next_handshake_on() {
    let directory = tempfile::tempdir().unwrap();
    let server = made(directory.path(), "server", &["127.0.0.1"]);
    let clients = ["one", "two"].map(|name| made(directory.path(), name, &["127.0.0.1"]));
    let authorities = directory.path().join("ca.pem");
    std::fs::copy(&clients[0].cert, &authorities).unwrap();
    let known = Clients {
        trust: Trust::File(authorities.clone()),
        names: AllowedNames::Any,
        from: PeerNames::Any,
        revoked: None,
    };
    let identity = Identity::read(server.clone()).unwrap();
    let options = AcceptorOptions { identity, clients: Some(known), rules: Rules::default() };
    let acceptor = Acceptor::new(options).unwrap();
    let let_in = async || {
        let [one, two] = clients.each_ref().map(|client| dialler(Some(&server), Some(client)));
        let shaken = async |dialler: &Dialler| shake(&acceptor, dialler, "127.0.0.1", Protocol::Http2).await.0.is_ok();
        [shaken(&one).await, shaken(&two).await]
    };
    assert_eq!(let_in().await, [true, false]);
    std::fs::copy(&clients[1].cert, &authorities).unwrap();
    assert_eq!(let_in().await, [false, true]);
    std::fs::write(&authorities, "damaged").unwrap();
    assert_eq!(let_in().await, [false, true], "the last authorities are kept");
    std::fs::remove_file(&authorities).unwrap();
    assert_eq!(let_in().await, [false, true]);
    std::fs::copy(&clients[0].cert, &authorities).unwrap();
    assert_eq!(let_in().await, [true, false]);
}

#[tokio::test]
async fn names_are_demanded_of_both_sides() {
    let directory = tempfile::tempdir().unwrap();
    let server = made(directory.path(), "server", &["127.0.0.1"]);
    let client = made(directory.path(), "client", &["c.example"]);
    let refused = "client certificate authentication failed".to_owned();
    for (names, is_let_in) in [
        (AllowedNames::Hosts(vec!["x".to_owned(), "C.example".to_owned()]), true),
        (AllowedNames::Hosts(vec!["127.0.0.1".to_owned()]), false),
        (AllowedNames::Common(vec![String::new()]), true),
        (AllowedNames::Common(vec!["c.example".to_owned()]), false),
    ] {
        let trust = Trust::File(client.cert.clone());
        let clients = Clients { trust, names, from: PeerNames::Any, revoked: None };
        let identity = Identity::read(server.clone()).unwrap();
        let acceptor =
            Acceptor::new(AcceptorOptions { identity, clients: Some(clients), rules: Rules::default() }).unwrap();
        let (told, heard) =
            shake(&acceptor, &dialler(Some(&server), Some(&client)), "127.0.0.1", Protocol::Http2).await;
        let expected = if is_let_in {
            (Ok(Some(true)), Ok(42))
        } else {
            (Err(refused.clone()), Err("remote error: tls: bad certificate".to_owned()))
        };
        assert_eq!((told, heard), expected);
    }
    let acceptor = acceptor(&server, None, Rules::default());
    for (host, trust, is_believed) in [
        ("127.0.0.1", Some(Trust::File(server.cert.clone())), true),
        ("elsewhere", Some(Trust::File(server.cert.clone())), false),
        ("127.0.0.1", None, false),
    ] {
        let names = AllowedNames::Hosts(vec![host.to_owned()]);
        let dialler = Dialler::new(DiallerOptions { trust, names, ..DiallerOptions::default() }).unwrap();
        let (_, heard) = shake(&acceptor, &dialler, "127.0.0.1", Protocol::Http2).await;
        assert_eq!(heard, if is_believed { Ok(42) } else { Err(refused.clone()) }, "{host}");
    }
}
