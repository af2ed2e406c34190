//! URLs of listeners and members, read by etcd's rules and refused in etcd's words.
//!
//! - A URL has a scheme of four, and a host with a port (`http`, `https`) or a socket path (`unix`, `unixs`); nothing else
//!   fits into a [`Url`].
//! - Lists are sorted as text and free of repetitions: member IDs are computed from them.

use std::{fmt, net::IpAddr, path::PathBuf};

use super::{go, model::Bind};

/// Schemes a listener or member may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names are the schemes")]
pub enum Scheme {
    Http,
    Https,
    Unix,
    Unixs,
}

impl Scheme {
    /// Whether connections are encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Https | Self::Unixs)
    }

    /// Whether the URL names a socket file.
    pub fn is_unix(self) -> bool {
        matches!(self, Self::Unix | Self::Unixs)
    }
}

/// One URL, printed as etcd prints it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Url {
    text: String,
    scheme: Scheme,
    host: String,
    port: u16,
}

impl Url {
    /// Reads one URL; blanks around it do not count.
    ///
    /// # Errors
    /// etcd's text for what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let parts = UrlParts::split(text).map_err(|why| format!("parse {}: {why}", go::quote(text)))?;
        let scheme = match parts.scheme.as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            "unix" => Scheme::Unix,
            "unixs" => Scheme::Unixs,
            _ => return Err(format!("URL scheme must be http, https, unix, or unixs: {text}")),
        };
        let printed = format!("{}{}", parts.scheme, text.get(parts.scheme.len()..).unwrap_or_default());
        if scheme.is_unix() {
            return Ok(Self { text: printed, scheme, host: format!("{}{}", parts.host, parts.path), port: 0 });
        }
        let Some((host, port)) = split_host_port(parts.host) else {
            return Err(format!("URL address does not have the form \"host:port\": {text}"));
        };
        if !parts.path.is_empty() {
            return Err(format!("URL must not contain a path: {text}"));
        }
        Ok(Self { text: printed, scheme, host: host.to_owned(), port })
    }

    /// Reads a comma-separated list; the result is sorted as text and free of repetitions.
    ///
    /// # Errors
    /// etcd's text for the first bad URL.
    pub fn parse_list(text: &str) -> Result<Vec<Self>, String> {
        Self::sorted(text.split(','))
    }

    /// Reads the URLs of a list; the result is sorted as text and free of repetitions.
    ///
    /// # Errors
    /// etcd's text for the first bad URL.
    pub fn sorted<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<Self>, String> {
        let mut urls = texts.into_iter().map(Self::parse).collect::<Result<Vec<_>, _>>()?;
        urls.sort();
        urls.dedup();
        Ok(urls)
    }

    /// As etcd prints it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The scheme.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Host name or address without brackets; for socket files the path.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port; 0 for socket files.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host when it is an IP address.
    pub fn ip(&self) -> Option<IpAddr> {
        if self.scheme.is_unix() { None } else { self.host.parse().ok() }
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A URL that can be bound: its host is an address, `localhost` or empty, or it names a socket file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenUrl {
    /// The URL as given.
    pub url: Url,
    /// What it binds.
    pub bind: Bind,
}

impl ListenUrl {
    /// Checks that `url` can be bound.
    ///
    /// # Errors
    /// etcd's text when the host is a name other than `localhost`.
    pub fn new(url: Url) -> Result<Self, String> {
        let bind = if url.scheme.is_unix() {
            Bind::Unix(PathBuf::from(&url.host))
        } else if url.host.is_empty() {
            Bind::Any(url.port)
        } else if url.host == "localhost" {
            Bind::Localhost(url.port)
        } else if let Some(ip) = url.ip() {
            Bind::Address(ip, url.port)
        } else {
            return Err(format!("expected IP in URL for binding ({url})"));
        };
        Ok(Self { url, bind })
    }
}

impl fmt::Display for ListenUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.url.fmt(f)
    }
}

/// A URL cut the way Go's `net/url` cuts it. User, query and fragment are not looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlParts<'t> {
    /// Lower case; empty when there is none.
    pub scheme: String,
    /// With the port, if there is one.
    pub host: &'t str,
    /// Everything behind the host, or behind the scheme if no host follows.
    pub path: &'t str,
}

impl<'t> UrlParts<'t> {
    /// Cuts `text`.
    ///
    /// # Errors
    /// Go's words for what is wrong with it.
    pub fn split(text: &'t str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        let bare = text.split(['#', '?']).next().unwrap_or_default();
        let Some((scheme, rest)) = split_scheme(bare)? else {
            return Self::without_scheme(bare);
        };
        let scheme = scheme.to_ascii_lowercase();
        let Some(authority) = rest.strip_prefix("//") else {
            return Ok(Self { scheme, host: "", path: rest });
        };
        let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
        let host = authority.rsplit('@').next().unwrap_or_default();
        check_host(host)?;
        Ok(Self { scheme, host, path })
    }

    fn without_scheme(text: &'t str) -> Result<Self, String> {
        let segment = text.split('/').next().unwrap_or_default();
        if segment.contains(':') {
            return Err("first path segment in URL cannot contain colon".to_owned());
        }
        Ok(Self { scheme: String::new(), host: "", path: text })
    }
}

/// Checks that `text` is the URL of a web service: any path, but a host, and one of two schemes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check_web(text: &str) -> Result<(), String> {
    let parts = UrlParts::split(text.trim()).map_err(|why| format!("parse {}: {why}", go::quote(text)))?;
    if !["http", "https"].contains(&parts.scheme.as_str()) {
        return Err(format!("unsupported protocol scheme {}", go::quote(&parts.scheme)));
    }
    if parts.host.is_empty() { Err(format!("no host in {}", go::quote(text))) } else { Ok(()) }
}

/// The scheme and what follows its colon; `None` when the text has no scheme.
fn split_scheme(text: &str) -> Result<Option<(&str, &str)>, String> {
    let Some((scheme, rest)) = text.split_once(':') else { return Ok(None) };
    let lettered = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    match scheme.chars().next() {
        None => Err("missing protocol scheme".to_owned()),
        Some(first) if first.is_ascii_alphabetic() && lettered => Ok(Some((scheme, rest))),
        Some(_) => Ok(None),
    }
}

fn check_host(host: &str) -> Result<(), String> {
    let port = if host.starts_with('[') {
        host.rsplit_once(']').ok_or("missing ']' in host")?.1
    } else {
        host.find(':').and_then(|at| host.get(at..)).unwrap_or_default()
    };
    if let Some(escape) = bad_escape(host) {
        return Err(format!("invalid URL escape {}", go::quote(escape)));
    }
    let number = port.strip_prefix(':').unwrap_or_default();
    let colon_or_nothing = port.is_empty() || port.starts_with(':');
    if !colon_or_nothing || !number.chars().all(|c| c.is_ascii_digit()) || port_number(number).is_none() {
        return Err(format!("invalid port {} after host", go::quote(port)));
    }
    let odd = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-_.~!$&'()*+,;=:[]<>\"%".contains(c);
    match host.chars().find(|c| odd(*c)) {
        Some(c) => Err(format!("invalid character {} in host name", go::quote(&c.to_string()))),
        None => Ok(()),
    }
}

/// A percent sign that two hexadecimal digits do not follow, with up to two characters behind it.
fn bad_escape(host: &str) -> Option<&str> {
    let tails = host.match_indices('%').filter_map(|(at, _)| host.get(at..));
    let hex = |tail: &str| tail.len() > 2 && tail.chars().skip(1).take(2).all(|c| c.is_ascii_hexdigit());
    let bad = tails.into_iter().find(|tail| !hex(tail))?;
    let end = bad.char_indices().nth(3).map_or(bad.len(), |(end, _)| end);
    bad.get(..end)
}

/// No digits mean "any port", as in Go.
fn port_number(digits: &str) -> Option<u16> {
    if digits.is_empty() { Some(0) } else { digits.parse().ok() }
}

/// Go's `SplitHostPort`: the colon must be there, brackets are taken off, other hosts hold no colon.
fn split_host_port(authority: &str) -> Option<(&str, u16)> {
    let (host, port) = authority.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']'));
    let host = match bracketed {
        Some(inner) => inner,
        None if host.contains([':', '[', ']']) => return None,
        None => host,
    };
    Some((host, port_number(port)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        Url::parse(text).expect_err("must be refused")
    }

    #[test]
    fn urls_are_refused_in_etcds_words() {
        for (text, why) in [
            ("x", "URL scheme must be http, https, unix, or unixs: x"),
            ("", "URL scheme must be http, https, unix, or unixs: "),
            ("localhost:2379", "URL scheme must be http, https, unix, or unixs: localhost:2379"),
            ("ftp://127.0.0.1:1", "URL scheme must be http, https, unix, or unixs: ftp://127.0.0.1:1"),
            ("127.0.0.1:1", "parse \"127.0.0.1:1\": first path segment in URL cannot contain colon"),
            ("http://127.0.0.1", "URL address does not have the form \"host:port\": http://127.0.0.1"),
            ("http://127.0.0.1:1/", "URL must not contain a path: http://127.0.0.1:1/"),
            ("http://127.0.0.1:abc", "parse \"http://127.0.0.1:abc\": invalid port \":abc\" after host"),
            ("http://127.0.0.1:65536", "parse \"http://127.0.0.1:65536\": invalid port \":65536\" after host"),
            ("http://[::1:2379", "parse \"http://[::1:2379\": missing ']' in host"),
            ("http://a b:2379", "parse \"http://a b:2379\": invalid character \" \" in host name"),
            ("http://::1:2379", "parse \"http://::1:2379\": invalid port \"::1:2379\" after host"),
            ("http://%zz:2379", "parse \"http://%zz:2379\": invalid URL escape \"%zz\""),
            ("http://[::1%eth0]:2380", "parse \"http://[::1%eth0]:2380\": invalid URL escape \"%et\""),
            ("://x", "parse \"://x\": missing protocol scheme"),
        ] {
            assert_eq!(refusal(text), why, "{text}");
        }
    }

    #[test]
    fn lists_are_trimmed_sorted_and_free_of_repetitions() {
        let urls = Url::parse_list(" http://b:1 ,http://a:1,http://b:1").expect("valid");
        let texts: Vec<_> = urls.iter().map(Url::as_str).collect();
        assert_eq!(texts, ["http://a:1", "http://b:1"]);
    }

    #[test]
    fn host_and_port_are_taken_apart() {
        let url = Url::parse("HTTP://[::1]:2379").expect("valid");
        assert_eq!((url.as_str(), url.host(), url.port()), ("http://[::1]:2379", "::1", 2379));
        assert_eq!(Url::parse("http://u:p@h:1?x#y").expect("valid").host(), "h");
    }

    #[test]
    fn socket_files_join_host_and_path() {
        for (text, path) in
            [("unix://localhost:0", "localhost:0"), ("unixs:///run/e.sock", "/run/e.sock"), ("unix://d/e", "d/e")]
        {
            let url = ListenUrl::new(Url::parse(text).expect("valid")).expect("bindable");
            assert_eq!(url.bind, Bind::Unix(PathBuf::from(path)));
        }
    }

    #[test]
    fn only_addresses_and_localhost_can_be_bound() {
        let bind = |text: &str| ListenUrl::new(Url::parse(text).expect("valid")).map(|url| url.bind);
        assert_eq!(bind("http://:1"), Ok(Bind::Any(1)));
        assert_eq!(bind("http://localhost:1"), Ok(Bind::Localhost(1)));
        assert_eq!(bind("http://[::]:1"), Ok(Bind::Address("::".parse().expect("address"), 1)));
        assert_eq!(bind("http://foo:2379"), Err("expected IP in URL for binding (http://foo:2379)".to_owned()));
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in "[a-z:/@#?\\[\\]%0-9. é]{0,24}") {
            if let Ok(url) = Url::parse(&format!("http://{text}")) {
                prop_assert_eq!(Url::parse(url.as_str()), Ok(url));
            }
        }
    }
}
