//! Lists of endpoints from a file, taken over while the proxy runs.
//!
//! The file holds addresses separated by commas, blanks or line ends; `#` begins a comment. It is read every so often and at
//! [`Lists::read_now`]; a change counts once two readings agree, so that a file that is being written is left alone. A list
//! that is empty or wrong changes nothing and is told once.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio::{io::AsyncReadExt as _, select, sync::Notify, time};
use tokio_util::sync::CancellationToken;

use super::{ENDPOINTS_MAX, Endpoint, Endpoints};
use crate::types::with_causes;

/// How often the file is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest file that is read: [`ENDPOINTS_MAX`] addresses of any sensible length.
const FILE_BYTES_MAX: u64 = 256 * 1024;

/// Why a list was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file.
    #[error("reading the endpoints of {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        cause: io::Error,
    },
    /// Nothing is in it.
    #[error("{} names no endpoint: write one host:port per line", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// More than this program keeps.
    #[error("{} has more than {FILE_BYTES_MAX} bytes or {ENDPOINTS_MAX} endpoints", path.display())]
    TooLong {
        /// Which.
        path: PathBuf,
    },
    /// One of them is no address, in the words of whoever dials it.
    #[error("{}: {reason}", path.display())]
    Bad {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
}

/// Reads one address; the error says what is wrong with it.
pub type Parse = fn(&str) -> Result<Endpoint, String>;

/// A file with endpoints.
#[derive(Debug)]
pub struct Lists {
    path: PathBuf,
    parse: Parse,
    asked: Notify,
}

impl Lists {
    /// The file at `path`, whose addresses `parse` reads.
    pub fn new(path: PathBuf, parse: Parse) -> Arc<Self> {
        Arc::new(Self { path, parse, asked: Notify::new() })
    }

    /// What is in the file now.
    ///
    /// # Errors
    /// [`SourceError`].
    pub async fn read(&self) -> Result<Vec<Endpoint>, SourceError> {
        let path = || self.path.clone();
        let unreadable = |cause| SourceError::Unreadable { path: path(), cause };
        let file = tokio::fs::File::open(&self.path).await.map_err(unreadable)?;
        let mut text = String::new();
        file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).await.map_err(unreadable)?;
        let words: Vec<&str> = text.lines().flat_map(words).collect();
        if text.len() as u64 > FILE_BYTES_MAX || words.len() > ENDPOINTS_MAX {
            return Err(SourceError::TooLong { path: path() });
        }
        if words.is_empty() {
            return Err(SourceError::Empty { path: path() });
        }
        let endpoints = words.into_iter().map(self.parse).collect::<Result<_, _>>();
        endpoints.map_err(|reason| SourceError::Bad { path: path(), reason })
    }

    /// Has the file read at once, as somebody who sent SIGHUP expects.
    pub fn read_now(&self) {
        self.asked.notify_one();
    }

    /// Keeps `endpoints` as the file says, until `stop` is cancelled.
    pub async fn follow(self: Arc<Self>, endpoints: Arc<Endpoints>, stop: CancellationToken) {
        let mut reader = Reader::default();
        loop {
            let is_asked = select! {
                () = stop.cancelled() => return,
                () = self.asked.notified() => true,
                () = time::sleep(LOOK_INTERVAL) => false,
            };
            match reader.judge(self.read().await, is_asked) {
                Some(Ok(list)) => take_over(&endpoints, &list),
                Some(Err(error)) => tracing::error!(error = with_causes(&error), "the endpoints are kept as they were"),
                None => {}
            }
        }
    }
}

/// The words of one line in front of a comment.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let bare = line.split('#').next().unwrap_or_default();
    bare.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty())
}

fn take_over(endpoints: &Endpoints, list: &[Endpoint]) {
    if endpoints.replace(list) {
        let names: Vec<String> = endpoints.all().iter().map(|endpoint| endpoint.address.clone()).collect();
        tracing::info!(endpoints = ?names, "the endpoints have changed");
    }
}

/// What the last reading said, so that one that rests is told from one that is under way.
#[derive(Debug, Default)]
struct Reader {
    seen: Option<Result<Vec<Endpoint>, String>>,
    is_settled: bool,
}

impl Reader {
    /// What to act on: a reading that agrees with the one before and was not acted on yet, or one that was asked for.
    fn judge(
        &mut self,
        reading: Result<Vec<Endpoint>, SourceError>,
        is_asked: bool,
    ) -> Option<Result<Vec<Endpoint>, SourceError>> {
        let now = reading.as_ref().map(Clone::clone).map_err(|error| with_causes(error));
        let rests = self.seen.as_ref() == Some(&now);
        let is_new = !rests || !self.is_settled;
        self.seen = Some(now);
        self.is_settled = rests || is_asked;
        (is_asked || (rests && is_new)).then_some(reading)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn parse(text: &str) -> Result<Endpoint, String> {
        if text.contains(':') { Ok(Endpoint::new(text)) } else { Err(format!("{text} has no port")) }
    }

    fn lists(dir: &tempfile::TempDir, text: &str) -> Arc<Lists> {
        let path = dir.path().join("endpoints");
        fs::write(&path, text).unwrap();
        Lists::new(path, parse)
    }

    async fn read(text: &str) -> Result<Vec<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        let list = lists(&dir, text).read().await.map_err(|error| error.to_string())?;
        Ok(list.into_iter().map(|endpoint| endpoint.address).collect())
    }

    #[tokio::test]
    async fn a_list_may_have_comments_commas_and_lines() {
        assert_eq!(read("a:1, b:2 # the old ones\n\n# none\nc:3\n").await.unwrap(), ["a:1", "b:2", "c:3"]);
    }

    #[tokio::test]
    async fn what_is_no_list_is_named() {
        assert!(read("# nobody\n").await.unwrap_err().contains("names no endpoint"));
        assert!(read("a:1\nb\n").await.unwrap_err().ends_with("endpoints: b has no port"));
        assert!(read(&"a:1\n".repeat(ENDPOINTS_MAX + 1)).await.unwrap_err().contains("more than"));
        assert!(read(&"#".repeat(300_000)).await.unwrap_err().contains("more than"));
    }

    #[test]
    fn a_change_counts_when_it_rests_and_once() {
        let list = |name: &str| Ok(vec![Endpoint::new(name)]);
        let mut reader = Reader::default();
        assert!(reader.judge(list("a"), false).is_none(), "it may be half written");
        assert!(reader.judge(list("a"), false).is_some());
        assert!(reader.judge(list("a"), false).is_none(), "it was acted on");
        assert!(reader.judge(list("b"), false).is_none());
        assert!(reader.judge(list("c"), false).is_none(), "it was");
        assert!(reader.judge(list("c"), false).is_some());
        assert!(reader.judge(list("d"), true).is_some(), "somebody asked");
        assert!(reader.judge(list("d"), false).is_none(), "and has it");
    }

    #[test]
    fn a_mistake_is_told_once() {
        let bad = || Err(SourceError::Empty { path: "x".into() });
        let mut reader = Reader::default();
        assert!(reader.judge(bad(), false).is_none());
        assert!(matches!(reader.judge(bad(), false), Some(Err(_))));
        assert!(reader.judge(bad(), false).is_none());
    }

    #[tokio::test]
    async fn the_pool_follows_the_file_and_keeps_the_last_good_list() {
        let dir = tempfile::tempdir().unwrap();
        let lists = lists(&dir, "a:1");
        let endpoints = Endpoints::new(super::super::Recovery::AfterWait(Duration::from_secs(1)));
        let stop = CancellationToken::new();
        let mut changes = endpoints.changes();
        let names = || endpoints.all().iter().map(|endpoint| endpoint.address.clone()).collect::<Vec<_>>();
        let story = async {
            lists.read_now();
            changes.changed().await.unwrap();
            assert_eq!(names(), ["a:1"]);
            fs::write(dir.path().join("endpoints"), "nonsense").unwrap();
            lists.read_now();
            time::sleep(Duration::from_millis(100)).await;
            assert_eq!(names(), ["a:1"], "what is no list changes nothing");
            fs::write(dir.path().join("endpoints"), "b:1").unwrap();
            changes.changed().await.unwrap();
            assert_eq!(names(), ["b:1"]);
            stop.cancel();
        };
        tokio::join!(story, Arc::clone(&lists).follow(Arc::clone(&endpoints), stop.clone()));
    }
}
