//! What most requests to all members are about, as text.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::super::go_text,
    frame::{Line, Tone},
};
use crate::{client::ClientError, pb::quorate::HotResponse};

/// Prefixes and clients that are shown.
const SHOWN: usize = 5;
/// Letters of a prefix that are shown.
const LETTERS_MAX: usize = 60;

/// What a member says of it.
#[derive(Clone, Debug, Default)]
pub(super) enum Hot {
    /// It has no such service, as etcd has none.
    #[default]
    Unknown,
    Told(HotResponse),
    /// It does not tell everybody.
    Refused(String),
}

impl Hot {
    /// Who has refused or knows of none need not be asked again.
    pub(super) fn is_final(&self) -> bool {
        !matches!(self, Self::Told(_))
    }
}

impl From<Result<HotResponse, ClientError>> for Hot {
    fn from(answer: Result<HotResponse, ClientError>) -> Self {
        match answer {
            Ok(told) => Self::Told(told),
            Err(error) if error.is_unimplemented() => Self::Unknown,
            Err(ClientError::Refused(refusal)) => Self::Refused(refusal.to_string()),
            // The next time, perhaps.
            Err(_) => Self::Told(HotResponse::default()),
        }
    }
}

/// What all members say together, each name with its requests a second, and those of them that write.
pub(super) fn lines<'a>(members: impl Iterator<Item = &'a Hot>) -> Vec<Line> {
    let (mut prefixes, mut clients, mut refusal) = (Names::default(), Names::default(), None);
    for member in members {
        match member {
            Hot::Unknown => {}
            Hot::Refused(why) => refusal = Some(why),
            Hot::Told(told) => {
                let seconds = Duration::from_millis(told.window_ms).as_secs_f64();
                for hot in &told.prefixes {
                    prefixes.add(shown(&hot.prefix), [hot.requests, hot.writes], seconds);
                }
                for hot in &told.clients {
                    clients.add(hot.address.clone(), [hot.requests, 0], seconds);
                }
            }
        }
    }
    let mut lines = prefixes.lines(["PREFIX", "REQUEST/s", "WRITE/s"]);
    lines.extend(clients.lines(["CLIENT", "REQUEST/s", ""]));
    if let (true, Some(why)) = (lines.is_empty(), refusal) {
        lines.push(Line { tone: Tone::Plain, text: format!("prefixes and clients are not told: {why}") });
    }
    lines
}

/// A prefix that a terminal shows and does not obey.
fn shown(prefix: &[u8]) -> String {
    let quoted = go_text::quote(prefix);
    let text = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(&quoted);
    if text.chars().count() <= LETTERS_MAX {
        return text.to_owned();
    }
    text.chars().take(LETTERS_MAX - 1).chain(['…']).collect()
}

/// Names with their rates, all and of writes.
#[derive(Default)]
struct Names {
    rates: BTreeMap<String, [f64; 2]>,
}

impl Names {
    fn add(&mut self, name: String, counts: [u64; 2], seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        let rates = self.rates.entry(name).or_default();
        for (rate, count) in rates.iter_mut().zip(counts) {
            #[expect(clippy::cast_precision_loss, reason = "requests of some seconds")]
            let count = count as f64;
            *rate += count / seconds;
        }
    }

    /// Those with most requests below their headings; nothing if there are none.
    fn lines(self, headings: [&str; 3]) -> Vec<Line> {
        let mut rows: Vec<_> = self.rates.into_iter().collect();
        rows.sort_by(|(_, [one, _]), (_, [other, _])| other.total_cmp(one));
        rows.truncate(SHOWN);
        if rows.is_empty() {
            return Vec::new();
        }
        let [name, requests, writes] = headings;
        let width = rows.iter().map(|(name, _)| name.chars().count()).chain([name.len()]).max().unwrap_or(0);
        let line = |name: &str, requests: &str, writes: &str| {
            format!("{name:<width$}  {requests:>9}  {writes:>9}").trim_end().to_owned()
        };
        let heading = Line { tone: Tone::Heading, text: line(name, requests, writes) };
        let rows = rows.iter().map(|(name, [requests, of_writes])| {
            let of_writes = if writes.is_empty() { String::new() } else { format!("{of_writes:.0}") };
            Line { tone: Tone::Plain, text: line(name, &format!("{requests:.0}"), &of_writes) }
        });
        std::iter::once(heading).chain(rows).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::quorate::{HotClient, HotPrefix};

    fn told(prefix: &[u8], requests: u64, writes: u64) -> Hot {
        let prefixes = vec![HotPrefix { prefix: prefix.to_vec().into(), requests, writes }];
        let clients = vec![HotClient { address: "10.0.0.9".to_owned(), requests }];
        Hot::Told(HotResponse { header: None, window_ms: 2_000, prefixes, clients })
    }

    fn texts(members: &[Hot]) -> Vec<String> {
        lines(members.iter()).into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn members_are_added_up_and_the_busiest_stands_first() {
        let seen = texts(&[told(b"/a/", 20, 2), told(b"/b/", 60, 0), Hot::Unknown, told(b"/a/", 20, 4)]);
        let words: Vec<_> = seen.iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        assert_eq!(words, ["PREFIX REQUEST/s WRITE/s", "/b/ 30 0", "/a/ 20 3", "CLIENT REQUEST/s", "10.0.0.9 50"]);
    }

    #[test]
    fn who_says_nothing_takes_no_room_and_a_refusal_is_shown() {
        assert_eq!(texts(&[Hot::Unknown]), [""; 0]);
        let refused = Hot::Refused("etcdserver: permission denied".to_owned());
        assert_eq!(texts(&[refused]), ["prefixes and clients are not told: etcdserver: permission denied"]);
    }

    #[test]
    fn prefixes_are_shown_and_not_obeyed() {
        assert_eq!(shown("/größe/\u{1b}[2J\u{9b}".as_bytes()), "/größe/\\x1b[2J\\u009b");
        assert_eq!(shown(b"\xff\0/"), "\\xff\\x00/");
        assert_eq!(shown(&[b'k'; 90]).chars().count(), LETTERS_MAX);
    }
}
