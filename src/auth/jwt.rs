//! JSON web tokens (RFC 7519): what says who somebody is without any state.
//!
//! A token names its user, the auth revision at which it was made, and when it ends. Whoever has the public key can read
//! one; a change of users, roles or permissions makes all that are older useless for keys.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use base64::{
    Engine as _, alphabet,
    engine::{GeneralPurpose, general_purpose::NO_PAD},
    prelude::BASE64_URL_SAFE_NO_PAD,
};
use serde::Serialize;
use thiserror::Error;

use super::{
    Identity,
    json::{self, Value},
    remembered::{Claims, Signed, Verified},
};
use crate::{
    config::go::parse_duration,
    tls::jws::{Algorithm, KeyError, Keys},
};

/// Lifetime of tokens, unless the option says another (etcd's).
const TTL_DEFAULT: Duration = Duration::from_mins(5);
/// How etcd's library reads base64: bits of the last character that say nothing may say anything.
const READING: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, NO_PAD.with_decode_allow_trailing_bits(true));
/// Longest token that is looked at; ours have a kilobyte at most.
const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The options that etcd knows.
const OPTIONS: [&str; 4] = ["sign-method", "pub-key", "priv-key", "ttl"];

/// Makes and reads tokens. What that takes long for is remembered, so that callers may first ask what is.
#[derive(Debug)]
pub struct Jwt {
    keys: Keys,
    lifetime: Duration,
    verified: Mutex<Verified>,
    signed: Mutex<Signed>,
}

/// Why the options of tokens cannot be used.
#[derive(Debug, Error)]
pub enum JwtError {
    /// An option that says no method, no duration, or names a file that cannot be read (etcd's text, and what is wrong).
    #[error("auth: invalid auth options: {0}")]
    Options(String),
    /// A key that cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Why there is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unsigned {
    /// There is no private key (etcd's text).
    #[error("auth: token signing attempted with verify-only key")]
    VerifyOnly,
    /// Signing failed.
    #[error("the token cannot be signed")]
    Signing,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unread {
    /// Not a token at all.
    #[error("token is malformed")]
    Malformed,
    /// Signed in another way than this member's.
    #[error("token is signed by another method")]
    Method,
    /// Not signed by the key.
    #[error("token signature is invalid")]
    Signature,
    /// Its time is over.
    #[error("token is expired")]
    Expired,
    /// Its time has not come.
    #[error("token is not valid yet")]
    Early,
    /// It does not name a user and a revision.
    #[error("token has no user or revision")]
    Claims,
}

impl Unread {
    /// The word for it in metrics.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Method => "method",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Claims => "claims",
        }
    }
}

#[derive(Serialize)]
struct Header {
    alg: &'static str,
    typ: &'static str,
}

#[derive(Serialize)]
struct WrittenClaims<'a> {
    exp: u64,
    revision: u64,
    username: &'a str,
}

impl Jwt {
    /// Tokens as the options behind `jwt,` describe them; `read` reads a file of keys.
    ///
    /// # Errors
    /// [`JwtError`].
    pub fn new(
        options: &BTreeMap<String, String>,
        read: impl Fn(&Path) -> io::Result<Vec<u8>>,
    ) -> Result<Self, JwtError> {
        let option = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let method = option("sign-method").unwrap_or_default();
        let algorithm = Algorithm::named(method).ok_or_else(|| {
            JwtError::Options(format!("sign-method {method:?} is none of RS, PS, ES, HS with 256, 384, 512, and EdDSA"))
        })?;
        let file = |name: &str| {
            let contents = |path: &str| {
                read(Path::new(path)).map_err(|why| JwtError::Options(format!("{name}: open {path}: {why}")))
            };
            option(name).map(contents).transpose()
        };
        let (private, public) = (file("priv-key")?, file("pub-key")?);
        let keys = Keys::new(algorithm, private.as_deref(), public.as_deref())?;
        let lifetime = option("ttl").map_or(Ok(TTL_DEFAULT), lifetime)?;
        Ok(Self { keys, lifetime, verified: Mutex::default(), signed: Mutex::default() })
    }

    /// The options that mean nothing.
    pub fn unknown_options(options: &BTreeMap<String, String>) -> Vec<&str> {
        options.keys().map(String::as_str).filter(|name| !OPTIONS.contains(name)).collect()
    }

    /// A token for `user`, recognised at `revision`, if one that says the same was signed before; `now` since the Unix epoch.
    pub fn issue_again(&self, user: &str, revision: u64, now: Duration) -> Option<String> {
        self.signed().token(user, revision, self.end(now)).map(str::to_owned)
    }

    /// A token for `user`, recognised at `revision`; `now` since the Unix epoch. Signing may take milliseconds.
    ///
    /// # Errors
    /// [`Unsigned`].
    pub fn issue(&self, user: &str, revision: u64, now: Duration) -> Result<String, Unsigned> {
        if !self.keys.can_sign() {
            return Err(Unsigned::VerifyOnly);
        }
        // Others may have waited for the same one.
        if let Some(token) = self.issue_again(user, revision, now) {
            return Ok(token);
        }
        let header = Header { alg: self.keys.algorithm().name(), typ: "JWT" };
        let claims = WrittenClaims { exp: self.end(now), revision, username: user };
        let part = |json: Result<Vec<u8>, serde_json::Error>| json.map(|json| BASE64_URL_SAFE_NO_PAD.encode(json));
        let parts =
            part(serde_json::to_vec(&header)).and_then(|header| Ok((header, part(serde_json::to_vec(&claims))?)));
        let (header, body) = parts.map_err(|_| Unsigned::Signing)?;
        let signed = format!("{header}.{body}");
        let signature = self.keys.sign(signed.as_bytes()).ok_or(Unsigned::Signing)?;
        let token = format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature));
        self.signed().keep(user, revision, claims.exp, &token);
        Ok(token)
    }

    /// Who shows `token`, if its signature was right before; `now` since the Unix epoch.
    ///
    /// # Errors
    /// [`Unread::Expired`], [`Unread::Early`].
    pub fn read_again(&self, token: &str, now: Duration) -> Option<Result<Identity, Unread>> {
        self.verified().recognise(token, now)
    }

    /// Who shows `token`; `now` since the Unix epoch. Checking a signature may take milliseconds.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn read(&self, token: &str, now: Duration) -> Result<Identity, Unread> {
        // Others may have waited for the same one.
        if let Some(read) = self.read_again(token, now) {
            return read;
        }
        let claims = self.verify(token)?;
        let identity = claims.at(now);
        // What has ended will not count again.
        if identity != Err(Unread::Expired) {
            self.verified().remember(token, claims);
        }
        identity
    }

    /// What a token says whose signature is right.
    fn verify(&self, token: &str) -> Result<Claims, Unread> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Unread::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Unread::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Unread::Malformed)?;
        let decode = |part: &str| READING.decode(part).map_err(|_| Unread::Malformed);
        let [algorithm] = json::members(&decode(header)?, ["alg"]).map_err(|()| Unread::Malformed)?;
        if algorithm.and_then(text).as_deref() != Some(self.keys.algorithm().name()) {
            return Err(Unread::Method);
        }
        let (claims, signature) = (decode(claims)?, decode(signature)?);
        if !self.keys.verify(signed.as_bytes(), &signature) {
            return Err(Unread::Signature);
        }
        read_claims(&claims)
    }

    /// When a token ends that is made now, in seconds since the Unix epoch.
    fn end(&self, now: Duration) -> u64 {
        now.saturating_add(self.lifetime).as_secs()
    }

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signed(&self) -> MutexGuard<'_, Signed> {
        self.signed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the claims say to etcd's library. A time that is missing, or zero, is no limit; what is there and is no number, null
/// included, is an error.
fn read_claims(claims: &[u8]) -> Result<Claims, Unread> {
    let names = ["username", "revision", "nbf", "exp"];
    let [user, revision, begin, end] = json::members(claims, names).map_err(|()| Unread::Malformed)?;
    let time = |time: Option<Value>| match time {
        None => Ok(None),
        Some(Value::Number(time)) => Ok((time != 0.0).then(|| go_time(time))),
        Some(_) => Err(Unread::Claims),
    };
    let user = user.and_then(text).ok_or(Unread::Claims)?;
    let Some(Value::Number(revision)) = revision else { return Err(Unread::Claims) };
    let identity = Identity { user, revision: go_unsigned(revision) };
    Ok(Claims { identity, begin: time(begin)?, end: time(end)? })
}

fn text(value: Value) -> Option<String> {
    if let Value::Text(text) = value { Some(text) } else { None }
}

/// Seconds between the zero time of Go's library, from which it counts, and the Unix epoch.
const GO_EPOCH_SECONDS: i64 = 62_135_596_800;

/// The time `seconds` after the Unix epoch, cut to whole ones. What is too late for Go's library is before everything.
fn go_time(seconds: f64) -> i64 {
    go_signed(seconds.floor()).wrapping_add(GO_EPOCH_SECONDS).saturating_sub(GO_EPOCH_SECONDS)
}

/// 2^63.
const SIGNED_END: f64 = 9_223_372_036_854_775_808.0;

/// A float as Go cuts it to `int64`: what is out of range becomes the least.
#[expect(clippy::cast_possible_truncation, reason = "what is out of range is told apart, and below it is the least")]
fn go_signed(float: f64) -> i64 {
    if float < SIGNED_END { float as i64 } else { i64::MIN }
}

/// A float as Go cuts it to `uint64`: what is below zero comes out large.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "what is too large is cut to the largest")]
fn go_unsigned(float: f64) -> u64 {
    if float < SIGNED_END { go_signed(float).cast_unsigned() } else { float as u64 }
}

/// One below zero is none at all: etcd makes tokens that have ended.
fn lifetime(text: &str) -> Result<Duration, JwtError> {
    let nanos = parse_duration(text).map_err(|why| JwtError::Options(format!("ttl: {why}")))?;
    Ok(Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_700_000_000);

    fn made(secret: &[u8], options: &[(&str, &str)]) -> Result<Jwt, JwtError> {
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let read = |path: &Path| {
            if path == Path::new("secret") { Ok(secret.to_vec()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        Jwt::new(&options, |path| read(path))
    }

    fn jwt(secret: &[u8]) -> Jwt {
        made(secret, &[("sign-method", "HS256"), ("priv-key", "secret"), ("ttl", "10m")]).unwrap()
    }

    fn signed(jwt: &Jwt, header: &str, claims: &str) -> String {
        let part = |text: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(text);
        let signed = format!("{}.{}", part(header.as_bytes()), part(claims.as_bytes()));
        format!("{signed}.{}", part(&jwt.keys.sign(signed.as_bytes()).unwrap()))
    }

    #[test]
    fn tokens_say_who_shows_them_until_they_end() {
        let jwt = jwt(b"secret");
        let token = jwt.issue("alice", 7, NOW).unwrap();
        let alice = Identity { user: "alice".to_owned(), revision: 7 };
        assert_eq!(jwt.read(&token, NOW), Ok(alice.clone()));
        assert_eq!(jwt.read(&token, NOW + Duration::from_secs(599)), Ok(alice));
        assert_eq!(jwt.read(&token, NOW + Duration::from_mins(10)), Err(Unread::Expired));
    }

    #[test]
    fn a_signature_is_checked_once_and_the_time_with_every_use() {
        let jwt = jwt(b"secret");
        let token = jwt.issue("alice", 7, NOW).unwrap();
        assert_eq!(jwt.read_again(&token, NOW), None);
        let alice = jwt.read(&token, NOW);
        assert!(alice.is_ok());
        assert_eq!(jwt.read_again(&token, NOW), Some(alice));
        assert_eq!(jwt.read_again(&token, NOW + Duration::from_mins(10)), Some(Err(Unread::Expired)));
        let (head, _) = token.rsplit_once('.').unwrap();
        for wrong in [format!("{head}."), format!("{token}A")] {
            assert!(jwt.read(&wrong, NOW).is_err());
            assert_eq!(jwt.read_again(&wrong, NOW), None, "what was wrong is not remembered");
        }
        let ended = jwt.issue("alice", 7, NOW.checked_sub(Duration::from_hours(1)).unwrap()).unwrap();
        assert_eq!(jwt.read(&ended, NOW), Err(Unread::Expired));
        assert_eq!(jwt.read_again(&ended, NOW), None, "nor what has ended");
    }

    #[test]
    fn who_logs_in_twice_within_a_second_is_told_one_token() {
        let jwt = jwt(b"secret");
        assert_eq!(jwt.issue_again("alice", 7, NOW), None);
        let token = jwt.issue("alice", 7, NOW).unwrap();
        assert_eq!(jwt.issue_again("alice", 7, NOW + Duration::from_millis(999)), Some(token));
        assert_eq!(jwt.issue_again("alice", 7, NOW + Duration::from_secs(1)), None);
        assert_eq!(jwt.issue_again("alice", 8, NOW), None);
        assert_eq!(jwt.issue_again("bob", 7, NOW), None);
    }

    #[test]
    fn tokens_have_the_form_of_etcds() {
        let token = jwt(b"secret").issue("alice", 7, NOW).unwrap();
        let parts: Vec<_> = token.split('.').map(|part| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).collect();
        assert_eq!(parts[0], br#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(parts[1], br#"{"exp":1700000600,"revision":7,"username":"alice"}"#);
    }

    #[test]
    fn what_is_not_signed_by_the_key_in_its_way_is_not_taken() {
        let (ours, other) = (jwt(b"secret"), jwt(b"other"));
        let token = ours.issue("alice", 7, NOW).unwrap();
        assert_eq!(other.read(&token, NOW), Err(Unread::Signature));
        let claims = r#"{"username":"root","revision":7}"#;
        for (alg, refusal) in [("none", Unread::Method), ("HS384", Unread::Method), ("hs256", Unread::Method)] {
            assert_eq!(ours.read(&signed(&ours, &format!(r#"{{"alg":"{alg}"}}"#), claims), NOW), Err(refusal));
        }
        let (head, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{}.{}", head.replacen('.', ".AAAA", 1), signature);
        assert_eq!(ours.read(&forged, NOW), Err(Unread::Signature));
        assert_eq!(ours.read(&format!("{head}."), NOW), Err(Unread::Signature));
        let long = "a".repeat(TOKEN_BYTES_MAX);
        for broken in ["", "a", "a.b", "a.b.c", "..", "a.b.c.d", &format!("{token}="), &format!("{token}.a"), &long] {
            assert_eq!(ours.read(broken, NOW), Err(Unread::Malformed), "{broken:.20}");
        }
    }

    #[test]
    fn claims_are_read_as_etcd_reads_them() {
        let jwt = jwt(b"secret");
        let read = |claims: &str| jwt.read(&signed(&jwt, r#"{"alg":"HS256"}"#, claims), NOW);
        assert_eq!(read(r#"{"username":"u","revision":3.9}"#), Ok(Identity { user: "u".to_owned(), revision: 3 }));
        for (number, revision) in
            [("-1", u64::MAX), ("-0.5", 0), ("1e19", 10_000_000_000_000_000_000), ("1e300", u64::MAX)]
        {
            let identity = Identity { user: "u".to_owned(), revision };
            assert_eq!(read(&format!(r#"{{"username":"u","revision":{number}}}"#)), Ok(identity), "{number}");
        }
        assert_eq!(read(r#"{"username":"u","revision":3,"nbf":1700000001}"#), Err(Unread::Early));
        assert_eq!(read(r#"{"username":"u","revision":3,"exp":1700000000}"#), Err(Unread::Expired));
        for claims in [
            r#"{"username":1,"revision":3}"#,
            r#"{"username":"u","revision":"3"}"#,
            r#"{"username":"u"}"#,
            r#"{"revision":3}"#,
            r#"{"username":"u","revision":3,"exp":"soon"}"#,
            "null",
        ] {
            assert_eq!(read(claims), Err(Unread::Claims), "{claims}");
        }
        for claims in ["{", "[]"] {
            assert_eq!(read(claims), Err(Unread::Malformed), "{claims}");
        }
    }

    #[test]
    fn bits_that_say_nothing_may_say_anything() {
        let jwt = jwt(b"secret");
        let token = jwt.issue("alice", 7, NOW).unwrap();
        let (head, last) = token.split_at(token.len() - 1);
        let alphabet = alphabet::URL_SAFE.as_str();
        let at = alphabet.find(last).unwrap();
        assert_eq!(at % 4, 0, "two bits are left");
        for (bits, other) in alphabet.char_indices().filter(|(place, _)| place / 4 == at / 4) {
            assert!(jwt.read(&format!("{head}{other}"), NOW).is_ok(), "{bits}");
        }
    }

    /// Each was seen to be answered so by etcd 3.7.1.
    #[test]
    fn times_are_read_as_etcd_reads_them() {
        let jwt = jwt(b"secret");
        let read = |name: &str, time: &str| {
            let claims = format!(r#"{{"username":"u","revision":3,"{name}":{time}}}"#);
            jwt.read(&signed(&jwt, r#"{"alg":"HS256"}"#, &claims), NOW).map(|identity| identity.revision)
        };
        for time in ["0", "-0", "1700000001", "9999999999.5", "1e18", "9.2e18", "9223371974719179007"] {
            assert_eq!(read("exp", time), Ok(3), "{time}");
        }
        for time in ["0.5", "-1", "1700000000.9", "9223372036854775807", "1e19", "1e300", "-1e300"] {
            assert_eq!(read("exp", time), Err(Unread::Expired), "{time}");
        }
        for time in ["0", "-1", "1.5", "1700000000.9", "9.3e18", "1e300", "-1e300"] {
            assert_eq!(read("nbf", time), Ok(3), "{time}");
        }
        for time in ["1700000001", "1e18", "9e18", "9223371974719179008"] {
            assert_eq!(read("nbf", time), Err(Unread::Early), "{time}");
        }
        for time in ["null", "true", "[]", "{}", r#""9999999999""#] {
            assert_eq!((read("exp", time), read("nbf", time)), (Err(Unread::Claims), Err(Unread::Claims)), "{time}");
        }
        assert_eq!(read("exp", "1e400"), Err(Unread::Malformed));
    }

    #[test]
    fn options_that_cannot_be_used_are_named() {
        let refused = |options: &[(&str, &str)]| made(b"", options).unwrap_err().to_string();
        assert!(refused(&[]).starts_with("auth: invalid auth options: sign-method"));
        assert!(refused(&[("sign-method", "none")]).contains(r#""none""#));
        let hs256 = ("sign-method", "HS256");
        assert!(refused(&[hs256, ("priv-key", "elsewhere")]).contains("priv-key: open elsewhere: "));
        assert_eq!(refused(&[hs256, ("priv-key", "secret")]), "auth: missing key data");
        assert_eq!(refused(&[("sign-method", "RS256")]), "auth: missing key data");
        let soon = made(b"x", &[hs256, ("priv-key", "secret"), ("ttl", "soon")]).unwrap_err().to_string();
        assert!(soon.starts_with("auth: invalid auth options: ttl: "), "{soon}");
    }

    #[test]
    fn tokens_last_five_minutes_unless_said_otherwise() {
        let ttl = |ttl: &str| made(b"x", &[("sign-method", "HS256"), ("priv-key", "secret"), ("ttl", ttl)]).unwrap();
        assert_eq!(ttl("").lifetime, Duration::from_mins(5));
        assert_eq!(ttl("1h").lifetime, Duration::from_hours(1));
        assert_eq!(ttl("-1s").lifetime, Duration::ZERO);
        let options = [("sign-method", "x"), ("iss", "y")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(Jwt::unknown_options(&options.into()), ["iss"]);
    }
}
