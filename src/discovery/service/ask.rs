//! From an HTTP request to what it asks for.
//!
//! Everything a client sends is understood here or refused; stores are never shown the client's own text, so that none reads
//! it otherwise. Parameters of etcd's v2 API that would do something else than registering are refused by name; others
//! are ignored, as etcd ignores what it does not know.

use http::{Method, request::Parts};

use super::{
    registry::What,
    token::{MemberName, Node, Token},
    tree::{Refusal, Reply, Why, key},
};

/// Longest value of a member, in bytes: a name and some peer URLs.
pub const VALUE_BYTES_MAX: usize = 4 * 1024;
/// Longest query, in bytes.
pub const QUERY_BYTES_MAX: usize = 4 * 1024;
/// Parameters of v2 that change what a write means, and have no place here.
const REFUSED: [&str; 7] = ["dir", "ttl", "refresh", "prevValue", "prevIndex", "inOrder", "noValueOnSuccess"];

/// What a path leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The page.
    Page,
    /// A new token.
    New,
    /// A node in the tree of a token.
    Tree(Token, Node),
    /// Whether the service works.
    Health,
    /// What robots may read: nothing.
    Robots,
    /// Counters.
    Metrics,
}

impl Route {
    /// Where `path` leads; `None` for nowhere.
    pub(super) fn of(path: &str) -> Option<Self> {
        Some(match path {
            "/" => Self::Page,
            "/new" | "/new/" => Self::New,
            "/health" => Self::Health,
            "/robots.txt" => Self::Robots,
            "/metrics" => Self::Metrics,
            path => return Self::of_tree(path),
        })
    }

    fn of_tree(path: &str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let (token, rest) = path.split_once('/').unwrap_or((path, ""));
        let node = match rest.strip_suffix('/').unwrap_or(rest) {
            "" => Node::Directory,
            "_config" => Node::Config,
            "_config/size" => Node::Size,
            name => Node::Member(MemberName::parse(name)?),
        };
        Some(Self::Tree(Token::parse(token)?, node))
    }
}

/// The parameters of a query or a form, decoded; the first of a name counts, as in Go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Those of a form and, behind them, of a query.
    ///
    /// # Errors
    /// Go's text for an escape that is none.
    pub(super) fn parse(form: &str, query: &str) -> Result<Self, String> {
        let pairs = form.split('&').chain(query.split('&')).filter(|pair| !pair.is_empty());
        let pairs = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((unescape(name)?, unescape(value)?))
        });
        pairs.collect::<Result<_, String>>().map(Self)
    }

    /// The value of `name`.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            // `prevExist` stands without quotes in etcd, too.
            let shown = if name == "prevExist" { name.to_owned() } else { format!("\"{name}\"") };
            Refusal::of_request(Why::InvalidField, format!("invalid value for {shown}"))
        };
        match text {
            "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(Some(true)),
            "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(Some(false)),
            _ => Err(wrong()),
        }
    }

    fn index(&self, name: &str) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| is_number);
        number.map(Some).ok_or_else(|| Refusal::of_request(Why::BadIndex, format!("invalid value for \"{name}\"")))
    }
}

/// Undoes form encoding.
fn unescape(text: &str) -> Result<String, String> {
    let text = text.replace('+', " ");
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let digits = part.get(..2).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let Some(byte) = byte else {
            let shown: String = part.chars().take(2).collect();
            return Err(format!("invalid URL escape \"%{shown}\""));
        };
        bytes.push(byte);
        bytes.extend_from_slice(part.as_bytes().get(2..).unwrap_or_default());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the body of such a request is a form.
pub(super) fn has_form(parts: &Parts) -> bool {
    let kind = parts.headers.get(http::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form = kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(FORM);
    is_form && matches!(parts.method, Method::PUT | Method::POST)
}

/// The media type of a form.
const FORM: &str = "application/x-www-form-urlencoded";

/// What is asked of a node of the tree.
///
/// # Errors
/// The answer to what makes no sense.
pub(super) fn understand(token: &Token, node: &Node, method: &Method, parameters: &Parameters) -> Result<What, Reply> {
    let refuse = |refusal: Refusal| Reply::refusal(&refusal);
    let (index, sorted, wait, exists) = check(parameters).map_err(refuse)?;
    match (method, node) {
        (&Method::GET | &Method::HEAD, _) if !wait => Ok(What::Get { sorted }),
        (&Method::GET, Node::Directory | Node::Member(_)) => Ok(What::Wait { index }),
        // Nobody changes a size, so that a wait for it would be one for nothing.
        (&Method::GET, _) => Ok(What::Get { sorted }),
        _ if wait => {
            let cause = "\"wait\" can only be used with GET requests";
            Err(refuse(Refusal::of_request(Why::InvalidField, cause)))
        }
        (&Method::PUT, Node::Member(name)) => put(name, parameters, exists).map_err(refuse),
        (&Method::PUT, Node::Directory) => Err(refuse(Refusal::of_request(Why::NotAFile, key(token, node)))),
        (&Method::DELETE, Node::Member(name)) => Ok(What::Delete { name: name.clone() }),
        (_, Node::Member(_)) => Err(Reply::wrong_method("HEAD,GET,PUT,DELETE")),
        _ => Err(Reply::wrong_method("HEAD,GET")),
    }
}

/// All parameters that v2 checks, whatever the method: index, sorted, wait, whether the node has to be there.
fn check(parameters: &Parameters) -> Result<(Option<u64>, bool, bool, Option<bool>), Refusal> {
    let index = parameters.index("waitIndex")?;
    parameters.flag("recursive")?;
    let sorted = parameters.flag("sorted")?.unwrap_or(false);
    let wait = parameters.flag("wait")?.unwrap_or(false);
    parameters.flag("quorum")?;
    if parameters.flag("stream")?.unwrap_or(false) {
        let cause = "\"stream\" is not served by the discovery service: wait once more after each event";
        return Err(Refusal::of_request(Why::InvalidField, cause));
    }
    let exists = parameters.flag("prevExist")?;
    Ok((index, sorted, wait, exists))
}

fn put(name: &MemberName, parameters: &Parameters, exists: Option<bool>) -> Result<What, Refusal> {
    if let Some(refused) = REFUSED.iter().find(|refused| parameters.get(refused).is_some()) {
        let cause = format!("\"{refused}\" is not served by the discovery service");
        return Err(Refusal::of_request(Why::InvalidField, cause));
    }
    let value = parameters.get("value").unwrap_or_default();
    if value.len() > VALUE_BYTES_MAX {
        let cause = format!("the value is longer than {VALUE_BYTES_MAX} bytes");
        return Err(Refusal::of_request(Why::InvalidForm, cause));
    }
    Ok(What::Put { name: name.clone(), value: value.to_owned(), exists })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: &Method, path: &str, form: &str, query: &str) -> Result<What, String> {
        let token = "0123456789abcdef0123456789abcdef";
        let Some(Route::Tree(token, node)) = Route::of(&format!("/{token}{path}")) else { panic!("{path}") };
        let parameters = Parameters::parse(form, query).unwrap();
        understand(&token, &node, method, &parameters)
            .map_err(|reply| format!("{} {}", reply.status.as_u16(), String::from_utf8_lossy(&reply.body).trim()))
    }

    #[test]
    fn paths_lead_where_the_public_service_leads() {
        let token = "0123456789abcdef0123456789abcdef";
        for (path, node) in
            [("", Node::Directory), ("/", Node::Directory), ("/_config", Node::Config), ("/_config/size", Node::Size)]
        {
            let route = Route::of(&format!("/{token}{path}"));
            assert_eq!(route, Some(Route::Tree(Token::parse(token).unwrap(), node)), "{path}");
        }
        assert!(matches!(Route::of(&format!("/{token}/8e9e05c52164694d")), Some(Route::Tree(_, Node::Member(_)))));
        assert_eq!(Route::of("/new"), Some(Route::New));
        for path in ["", "/x", "//", "/newer", &format!("/{token}/a/b"), &format!("/{token}x"), "/../new"] {
            assert_eq!(Route::of(path), None, "{path}");
        }
    }

    #[test]
    fn what_clients_of_discovery_send_is_understood() {
        let common = "quorum=false&recursive=false&sorted=false";
        assert_eq!(asked(&Method::GET, "/_config/size", "", common), Ok(What::Get { sorted: false }));
        assert_eq!(asked(&Method::GET, "", "", common), Ok(What::Get { sorted: false }));
        let name = MemberName::parse("a1").unwrap();
        let put = What::Put { name, value: "m1=http://a:1".into(), exists: Some(false) };
        assert_eq!(asked(&Method::PUT, "/a1", "value=m1%3Dhttp%3A%2F%2Fa%3A1", "prevExist=false"), Ok(put));
        let wait = "recursive=true&wait=true&waitIndex=7";
        assert_eq!(asked(&Method::GET, "", "", wait), Ok(What::Wait { index: Some(7) }));
    }

    #[test]
    fn nonsense_is_refused_in_etcds_words() {
        for (method, path, form, query, expected) in [
            (
                Method::GET,
                "",
                "",
                "wait=maybe",
                r#"400 {"errorCode":209,"message":"Invalid field","cause":"invalid value for \"wait\"","index":0}"#,
            ),
            (
                Method::GET,
                "",
                "",
                "waitIndex=-1",
                r#"400 {"errorCode":203,"message":"The given index in POST form is not a number","cause":"invalid value for \"waitIndex\"","index":0}"#,
            ),
            (
                Method::PUT,
                "/a",
                "value=x",
                "prevExist=",
                r#"400 {"errorCode":209,"message":"Invalid field","cause":"invalid value for prevExist","index":0}"#,
            ),
            (
                Method::PUT,
                "/a",
                "value=x&ttl=5",
                "",
                r#"400 {"errorCode":209,"message":"Invalid field","cause":"\"ttl\" is not served by the discovery service","index":0}"#,
            ),
            (
                Method::PUT,
                "/a",
                "",
                "wait=true",
                r#"400 {"errorCode":209,"message":"Invalid field","cause":"\"wait\" can only be used with GET requests","index":0}"#,
            ),
            (
                Method::PUT,
                "",
                "value=x",
                "",
                r#"403 {"errorCode":102,"message":"Not a file","cause":"/_etcd/registry/0123456789abcdef0123456789abcdef","index":0}"#,
            ),
            (Method::PUT, "/_config/size", "value=9", "", "405 Method Not Allowed"),
            (Method::DELETE, "", "", "", "405 Method Not Allowed"),
            (Method::POST, "/a", "value=x", "", "405 Method Not Allowed"),
        ] {
            assert_eq!(asked(&method, path, form, query), Err(expected.to_owned()), "{method} {path} {form} {query}");
        }
        let long = format!("value={}", "x".repeat(VALUE_BYTES_MAX + 1));
        assert!(asked(&Method::PUT, "/a", &long, "").unwrap_err().starts_with("400 {\"errorCode\":210"));
    }

    #[test]
    fn parameters_are_decoded_and_the_form_comes_first() {
        let parameters = Parameters::parse("value=a+b%2f&empty", "value=c&x=%C3%A4").unwrap();
        assert_eq!(parameters.get("value"), Some("a b/"));
        assert_eq!((parameters.get("x"), parameters.get("empty"), parameters.get("y")), (Some("ä"), Some(""), None));
        assert_eq!(Parameters::parse("", "a=%zz"), Err("invalid URL escape \"%zz\"".to_owned()));
        assert_eq!(Parameters::parse("", "a=%4"), Err("invalid URL escape \"%4\"".to_owned()));
        assert_eq!(Parameters::parse("", "a=%€"), Err("invalid URL escape \"%€\"".to_owned()));
    }
}
