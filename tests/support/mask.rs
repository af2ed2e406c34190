//! Takes out of a text what two fresh members may not have in common, and nothing else.

use super::daemon::Daemon;
use super::http;

/// What a member is called in texts, and what tests call it instead.
#[derive(Clone, Debug, Default)]
pub struct Mask {
    names: Vec<(String, &'static str)>,
}

impl Mask {
    /// Reads the identity of a running daemon.
    ///
    /// # Panics
    /// If it does not answer.
    pub fn of(daemon: &Daemon) -> Self {
        let answer = http::post(daemon.client, "/v3/maintenance/status", "{}").expect("the gateway answers").body;
        Self::told_by(daemon, &answer)
    }

    /// Reads the identity of a running daemon out of its status, as the gateway tells it.
    ///
    /// # Panics
    /// If it is not in there.
    pub fn told_by(daemon: &Daemon, answer: &str) -> Self {
        let mut names = vec![(daemon.client.to_string(), "CLIENT"), (daemon.peer.to_string(), "PEER")];
        for (field, name) in [("cluster_id", "CLUSTER"), ("member_id", "MEMBER")] {
            let id = number_after(answer, field).unwrap_or_else(|| panic!("no {field} in {answer}"));
            names.push((format!("{id:x}"), name));
            names.push((id.to_string(), name));
        }
        Self { names }
    }

    /// Adds a lease, which texts show in either base.
    pub fn add_lease(&mut self, lease: i64) {
        self.names.push((format!("{lease:016x}"), "LEASE"));
        self.names.push((format!("{lease:x}"), "LEASE"));
        self.names.push((lease.to_string(), "LEASE"));
    }

    /// Adds one more name for what differs.
    pub fn add(&mut self, from: String, to: &'static str) {
        self.names.push((from, to));
    }

    /// The id of the member, in hexadecimal.
    pub fn member(&self) -> &str {
        self.names.iter().find(|(_, name)| *name == "MEMBER").map_or("", |(id, _)| id)
    }

    pub fn apply(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from.as_str(), to))
    }
}

/// The number behind `"field":`, quoted or not.
pub fn number_after(json: &str, field: &str) -> Option<u64> {
    let (_, rest) = json.split_once(&format!("\"{field}\":"))?;
    let digits: String = rest.trim_start_matches(['"', ' ']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Replaces the number behind every `"field":` by `N`.
pub fn without_numbers(json: &str, field: &str) -> String {
    let mark = format!("\"{field}\":");
    let mut parts = json.split(&mark);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let quoted = part.starts_with('"');
        let digits = part.trim_start_matches('"').trim_start_matches(|c: char| c.is_ascii_digit() || c == '-');
        out.push_str(&mark);
        out.push_str(if quoted { "\"N" } else { "N" });
        out.push_str(digits);
    }
    out
}

/// The first line in which two texts differ, with its neighbours; `None` if they are equal.
pub fn difference(ours: &str, theirs: &str) -> Option<String> {
    if ours == theirs {
        return None;
    }
    let (left, right): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    let at = left.iter().zip(&right).position(|(a, b)| a != b).unwrap_or(left.len().min(right.len()));
    let show =
        |lines: &[&str]| lines.get(at.saturating_sub(3)..lines.len().min(at + 3)).unwrap_or_default().join("\n  ");
    Some(format!("line {} differs\nours:\n  {}\netcd:\n  {}", at + 1, show(&left), show(&right)))
}
