//! The JSON gateway, asked with curl, and what may differ between the answers of two fresh members.

use super::mask;
use std::process::{Command, Stdio};

/// The name of a difference, and how to take it out.
pub type Masked = (&'static str, fn(&str) -> String);

/// What may differ, by name.
pub const MASKED: &[Masked] = &[
    ("sizes of the database are the engine's own", |text| {
        mask::without_numbers(&mask::without_numbers(text, "dbSize"), "dbSizeInUse")
    }),
    ("log positions count the entries of start-up", |text| {
        mask::without_numbers(&mask::without_numbers(text, "raftIndex"), "raftAppliedIndex")
    }),
    ("remaining seconds tick", |text| text.replace(r#""TTL":"599""#, r#""TTL":"600""#)),
    ("the words of JSON syntax errors are the parser's, and etcd's vary by build", without_parser_words),
    ("the order of health checks is random in etcd", |text| {
        let mut lines: Vec<_> = text.split('\n').collect();
        lines.sort_by_key(|line| if line.starts_with('[') { *line } else { "~" });
        if text.starts_with("[+]") { lines.join("\n") } else { text.to_owned() }
    }),
    ("spaces in etcd's JSON vary by build", without_spaces),
];

/// Status, content type and body of the answer to a `GET`, or a `POST` where there is a body. Streams are read until they
/// end or have been silent for a second.
///
/// # Panics
/// If curl is not installed.
pub fn post(flags: &[String], url: &str, body: Option<&str>) -> String {
    let mut command = Command::new("curl");
    let endless = ["watch", "observe"].iter().any(|path| url.ends_with(path));
    command.args(["--silent", "--no-buffer", "--max-time", if endless { "2" } else { "20" }]);
    command.args(["--write-out", "\n[%{http_code} %{content_type}]"]).args(flags);
    if let Some(body) = body {
        command.args(["--request", "POST", "--data", body]);
    }
    let output = command.arg(url).stdin(Stdio::null()).output();
    String::from_utf8_lossy(&output.expect("curl is installed: apt-get install curl").stdout).into_owned()
}

fn without_parser_words(text: &str) -> String {
    // etcd's parsers begin like this; ours ends with the place.
    let parser = ["\"proto:", "\"invalid character", "\"unexpected EOF", "\"EOF", " at line "];
    if !parser.iter().any(|word| text.contains(word)) {
        return text.to_owned();
    }
    match (text.split_once("\"message\":"), text.rsplit_once('}')) {
        (Some((head, _)), Some((_, tail))) => format!("{head}\"message\":\"…\"}}{tail}"),
        _ => text.to_owned(),
    }
}

/// Every line of JSON without the spaces between its tokens, however deep it nests.
pub fn without_spaces(text: &str) -> String {
    text.split('\n')
        .map(|line| if line.starts_with('{') { compact(line) } else { line.to_owned() })
        .collect::<Vec<_>>()
        .join("\n")
}

/// One line of JSON without the spaces between its tokens.
pub fn compact(json: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = json.chars().filter(|&c| {
        let keep = quoted || c != ' ';
        quoted ^= c == '"' && !escaped;
        escaped = quoted && c == '\\' && !escaped;
        keep
    });
    kept.collect()
}

/// Tokens are random; everything else that may differ has a name.
pub fn normal(answer: &str) -> String {
    let masked = MASKED.iter().fold(answer.to_owned(), |text, (_, mask)| mask(&text));
    match masked.split_once(r#""token":""#) {
        Some((before, after)) => {
            format!("{before}\"token\":\"T\"{}", after.split_once('"').map_or("", |(_, rest)| rest))
        }
        None => masked,
    }
}
