//! JSON web tokens: a member of ours and one of etcd with the same keys take each other's, and refuse the same ones.

#![expect(clippy::indexing_slicing, reason = "there are two sides")]

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use quorate::pb::etcdserverpb as pb;
use ring::hmac;
use tempfile::TempDir;

use super::{
    caller::{Ask, Caller, Who, ask},
    support::{daemon::Daemon, grpc::Client, program::Program},
};

/// Keys made by openssl.
struct Keys(TempDir);

impl Keys {
    fn new(kind: &str) -> Self {
        let keys = Self(tempfile::tempdir().expect("a directory"));
        openssl(&format!("genpkey {kind} -out {}", keys.private().display()));
        openssl(&format!("pkey -in {} -pubout -out {}", keys.private().display(), keys.public().display()));
        keys
    }

    fn private(&self) -> PathBuf {
        self.0.path().join("private.pem")
    }

    fn public(&self) -> PathBuf {
        self.0.path().join("public.pem")
    }
}

fn openssl(words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).output().expect("apt-get install openssl");
    assert!(output.status.success(), "openssl {words}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A member of each kind with these options of tokens, and who calls it.
struct Sides {
    daemons: Vec<Daemon>,
    callers: Vec<Caller>,
}

impl Sides {
    async fn start(token: &str) -> Self {
        let flag = format!("--auth-token=jwt,{token}");
        let flags = [flag.as_str(), "--bcrypt-cost=4"];
        let daemons = [Program::subject(), Program::etcd()].map(|program| Daemon::start(&program, &flags));
        let mut callers = Vec::new();
        for daemon in &daemons {
            callers.push(Caller::new(Client::connect(&daemon.endpoint()).await.expect("it serves").channel));
        }
        Self { daemons: daemons.into(), callers }
    }

    /// The answer of both to one call.
    async fn both(&self, who: Who, ask: &Ask) -> String {
        let [ours, theirs] = [self.callers[0].answer(who, ask).await, self.callers[1].answer(who, ask).await];
        assert_eq!(ours, theirs, "{ask:?} by {who:?}");
        ours
    }

    async fn log_in(&mut self, user: &str) -> String {
        let [ours, theirs] =
            [self.callers[0].log_in(user, "secret").await, self.callers[1].log_in(user, "secret").await];
        assert_eq!(ours, theirs, "{user} logs in");
        ours
    }

    /// What both say of a token, whoever has made it.
    async fn of_token(&self, token: &str, ask: &Ask) -> String {
        let metadata = [("token".to_owned(), token.to_owned())];
        let [ours, theirs] =
            [self.callers[0].answer_with(&metadata, ask).await, self.callers[1].answer_with(&metadata, ask).await];
        assert_eq!(ours, theirs, "{ask:?}");
        ours
    }

    /// Root and a user without any permission, and authentication.
    async fn set_up(&self) {
        let user = |name: &str| {
            let (name, password) = (name.to_owned(), "secret".to_owned());
            ask("/etcdserverpb.Auth/UserAdd", &pb::AuthUserAddRequest { name, password, ..Default::default() })
        };
        let grant = pb::AuthUserGrantRoleRequest { user: "root".to_owned(), role: "root".to_owned() };
        let steps = [
            user("root"),
            user("u"),
            ask("/etcdserverpb.Auth/UserGrantRole", &grant),
            ask("/etcdserverpb.Auth/AuthEnable", &pb::AuthEnableRequest {}),
        ];
        for step in &steps {
            self.both(Who::Nobody, step).await;
        }
    }
}

fn get() -> Ask {
    ask("/etcdserverpb.KV/Range", &pb::RangeRequest { key: "k".into(), ..Default::default() })
}

fn add_role(name: &str) -> Ask {
    ask("/etcdserverpb.Auth/RoleAdd", &pb::AuthRoleAddRequest { name: name.to_owned() })
}

const OLD: &str = "InvalidArgument: etcdserver: revision of auth store is old";
const INVALID: &str = "Unauthenticated: etcdserver: invalid auth token";
const DENIED: &str = "PermissionDenied: etcdserver: permission denied";

/// Tokens of either side are taken by both, until users change.
async fn expect_the_same_tokens(method: &str, kind: &str) {
    let keys = Keys::new(kind);
    let token = format!(
        "pub-key={},priv-key={},sign-method={method},ttl=10m",
        keys.public().display(),
        keys.private().display()
    );
    let mut sides = Sides::start(&token).await;
    sides.set_up().await;
    assert_eq!(sides.both(Who::Nobody, &get()).await, "InvalidArgument: etcdserver: user name is empty");
    for user in ["root", "u"] {
        assert_eq!(sides.log_in(user).await, "OK", "{method}");
    }
    for side in 0..2 {
        let of = |user| sides.callers[side].token(user).to_owned();
        let read = sides.of_token(&of("root"), &get()).await;
        assert!(!read.contains("etcdserver"), "{method}: {read}");
        assert_eq!(sides.of_token(&of("u"), &get()).await, DENIED, "{method}");
        let (head, signature) =
            of("u").rsplit_once('.').map(|(head, tail)| (head.to_owned(), tail.to_owned())).expect("a token");
        let other = of("root").rsplit_once('.').map(|(head, _)| head.to_owned()).expect("a token");
        assert_eq!(sides.of_token(&format!("{other}.{signature}"), &get()).await, INVALID, "{method}");
        assert_eq!(sides.of_token(&format!("{head}."), &get()).await, INVALID, "{method}");
    }
    sides.both(Who::User("root"), &add_role("r")).await;
    assert_eq!(sides.both(Who::User("root"), &get()).await, OLD, "{method}");
    // Who is root is so whatever has changed.
    assert!(!sides.both(Who::User("root"), &add_role("s")).await.contains("etcdserver"), "{method}");
    drop(sides.daemons);
}

#[tokio::test]
async fn tokens_of_either_are_taken_by_both() {
    let methods = [
        ("RS256", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
        ("PS384", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048"),
        ("ES256", "-algorithm EC -pkeyopt ec_paramgen_curve:P-256"),
        ("ES384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384"),
        ("ES512", "-algorithm EC -pkeyopt ec_paramgen_curve:P-521"),
        ("EdDSA", "-algorithm ed25519"),
    ];
    for (method, kind) in methods {
        expect_the_same_tokens(method, kind).await;
    }
}

#[tokio::test]
async fn tokens_of_a_shared_secret_end_in_time() {
    let keys = Keys::new("-algorithm ed25519");
    let mut sides = Sides::start(&format!("priv-key={},sign-method=HS512,ttl=2s", keys.private().display())).await;
    sides.set_up().await;
    assert_eq!(sides.log_in("u").await, "OK");
    let [ours, theirs] = [0, 1].map(|side: usize| sides.callers[side].token("u").to_owned());
    for token in [&ours, &theirs] {
        assert_eq!(sides.of_token(token, &get()).await, DENIED);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    for token in [&ours, &theirs] {
        assert_eq!(sides.of_token(token, &get()).await, INVALID);
    }
}

#[tokio::test]
async fn members_with_the_public_key_alone_check_and_do_not_make_tokens() {
    let keys = Keys::new("-algorithm RSA -pkeyopt rsa_keygen_bits:2048");
    let mut sides = Sides::start(&format!("pub-key={},sign-method=RS512", keys.public().display())).await;
    sides.set_up().await;
    assert_eq!(sides.log_in("u").await, "Unknown: auth: token signing attempted with verify-only key");
}

/// `text` with another last character that says the same to who does not look at bits that are left.
fn with_bits(text: &str) -> String {
    let alphabet = base64::alphabet::URL_SAFE.as_str();
    let at = text.chars().last().and_then(|last| alphabet.find(last)).expect("base64");
    let left = [0, 0, 4, 2][text.len() % 4];
    assert_eq!((left > 0, at.checked_rem(1 << left)), (true, Some(0)), "{text}");
    format!("{}{}", &text[..text.len() - 1], &alphabet[at + 1..at + 2])
}

/// Tokens that nobody makes, with a signature of the right key.
#[tokio::test]
async fn tokens_are_read_as_by_etcds_library() {
    let keys = Keys::new("-algorithm ed25519");
    let sides = Sides::start(&format!("priv-key={},sign-method=HS256,ttl=10m", keys.private().display())).await;
    sides.set_up().await;
    let key = hmac::Key::new(hmac::HMAC_SHA256, &std::fs::read(keys.private()).expect("the key"));
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let signed = |header: &str, claims: &str| {
        let head = format!("{header}.{claims}");
        let signature = part(hmac::sign(&key, head.as_bytes()).as_ref());
        [format!("{head}.{signature}"), format!("{head}.{}", with_bits(&signature))]
    };
    let nested = |depth: usize| format!(r#""x":{}{}"#, "[".repeat(depth), "]".repeat(depth)).into_bytes();
    let claims = |more: &[u8]| [br#"{"username":"u","revision":1000,"#, more, b"}"].concat();
    let plain = br#"{"alg":"HS256","typ":"JWT"}"#.to_vec();
    let mut asked = 0;
    for (header, claims, is_read) in [
        (plain.clone(), claims(br#""y":0"#), true),
        (plain.clone(), claims(b"\"y\":\"\xff\xe2\x82\""), true),
        (plain.clone(), claims(b"\"\xff\":1"), true),
        (plain.clone(), claims(b"\xff"), false),
        (plain.clone(), claims(br#""y":"\ud83d","z":"\ude00\ud83d\ude00""#), true),
        (plain.clone(), claims(&nested(126)), true),
        (plain.clone(), claims(&nested(200)), true),
        (plain.clone(), claims(&nested(2_000)), true),
        (plain.clone(), claims(br#""y":1e400"#), false),
        (plain.clone(), claims(br#""username":1"#), false),
        (plain.clone(), b"null".to_vec(), false),
        (plain.clone(), b"[]".to_vec(), false),
        ([br#"{"alg":"HS256","#, &nested(200)[..], b"}"].concat(), claims(br#""y":0"#), true),
        (b"{\"alg\":\"HS256\",\"x\":\"\xff\"}".to_vec(), claims(br#""y":0"#), true),
        (b"null".to_vec(), claims(br#""y":0"#), false),
    ] {
        let told = String::from_utf8_lossy(&claims).into_owned();
        for token in signed(&part(&header), &part(&claims)) {
            let answer = sides.of_token(&token, &get()).await;
            assert_eq!(answer, if is_read { DENIED } else { INVALID }, "{told}");
            asked += 1;
        }
    }
    assert_eq!(asked, 30);
    let lax = with_bits(&part(br#"{"username":"u","revision":1000,  "y":0}"#));
    for token in signed(&part(&plain), &lax) {
        assert_eq!(sides.of_token(&token, &get()).await, DENIED);
    }
}

/// What a program says that does not start with these options.
fn refusal(program: &Program, token: &str, directory: &Path) -> String {
    let output = Command::new(&program.path)
        .args([&format!("--auth-token={token}"), &format!("--data-dir={}", directory.display())])
        .args(["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:0"])
        .args(["--listen-peer-urls=http://127.0.0.1:0"])
        .output()
        .expect("the program starts");
    assert!(!output.status.success(), "{token}");
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}

#[test]
fn options_that_etcd_refuses_are_refused_in_its_words() {
    let (keys, other) = (Keys::new("-algorithm ed25519"), Keys::new("-algorithm ed25519"));
    let (private, public) = (keys.private().display().to_string(), other.public().display().to_string());
    let directory = tempfile::tempdir().expect("a directory");
    for (token, told) in [
        ("jwt".to_owned(), "auth: invalid auth options"),
        ("jwt,sign-method=none".to_owned(), "unsupported signing method"),
        ("jwt,sign-method=RS1".to_owned(), "auth: invalid auth options"),
        ("jwt,sign-method=RS256".to_owned(), "auth: missing key data"),
        ("jwt,sign-method=RS256,priv-key=/not/there".to_owned(), "auth: invalid auth options"),
        (
            format!("jwt,sign-method=EdDSA,priv-key={private},pub-key={public}"),
            "auth: public and private keys don't match",
        ),
        (format!("jwt,sign-method=EdDSA,priv-key={private},ttl=soon"), "auth: invalid auth options"),
    ] {
        for (place, program) in [Program::subject(), Program::etcd()].iter().enumerate() {
            let said = refusal(program, &token, &directory.path().join(place.to_string()));
            let is_told =
                said.contains(told) || (place == 0 && told.starts_with("unsupported") && said.contains("none"));
            assert!(is_told, "{token}: {said}");
        }
    }
}
