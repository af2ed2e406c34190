//! The directory of a proxy: `DATA/proxy` with one file, which makes the next start a proxy, too, and tells it whom to ask.
//!
//! `cluster` is etcd's: `{"PeerURLs":["http://…"]}`, mode 0600, replaced as a whole. It first holds what the node was told,
//! because the next start may not be told again, and then what was found.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    disk::private_directories,
    server::{DataDir, DataDirError},
};

/// Longest file that is read: [`super::endpoints::ENDPOINTS_MAX`] URLs of any sensible length.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// An operation on a path failed.
    #[error("{action} {}: check the path, its owner and permissions, and the free space", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        cause: io::Error,
    },
    /// The file is no list of peer URLs.
    #[error(
        "{} is damaged ({reason}): remove it, and start with --proxy=on and the cluster in --initial-cluster, so that the proxy \
         finds its members again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Deserialize, Serialize)]
struct Cluster {
    #[serde(rename = "PeerURLs")]
    peer_urls: Vec<String>,
}

/// The directory, and the lock of the data directory around it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Locks `data_dir`, which is made with mode 0700 if it is not there. `proxy` is made when there is something to write: it
    /// decides what the node is, also after a start that failed.
    ///
    /// # Errors
    /// [`DirectoryError`]; a data directory that another process uses, for one.
    pub fn open(data_dir: &Path) -> Result<Self, DirectoryError> {
        let lock = DataDir::lock_alone(data_dir)?;
        Ok(Self { path: data_dir.join("proxy"), _lock: lock })
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.path.join("cluster")
    }

    /// The peer URLs that were found last; nothing if none ever were.
    ///
    /// # Errors
    /// A file that cannot be read, or is damaged.
    pub fn read(&self) -> Result<Option<Vec<String>>, DirectoryError> {
        let path = self.file();
        let file = match File::open(&path) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(io_error("opening", &path))?,
        };
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(io_error("reading", &path))?;
        match serde_json::from_slice::<Cluster>(&bytes) {
            Ok(cluster) if !cluster.peer_urls.is_empty() => Ok(Some(cluster.peer_urls)),
            Ok(_) => Err(DirectoryError::Damaged { path, reason: "it names no peer URL".to_owned() }),
            Err(error) => Err(DirectoryError::Damaged { path, reason: error.to_string() }),
        }
    }

    /// Replaces the file, durably, and makes `proxy` with mode 0700 before the first.
    ///
    /// # Errors
    /// A file that cannot be written; the old one stays then.
    pub fn write(&self, peer_urls: &[String]) -> Result<(), DirectoryError> {
        self.make().map_err(io_error("creating", &self.path))?;
        let (path, backup) = (self.file(), self.path.join("cluster.bak"));
        let text = serde_json::json!({ "PeerURLs": peer_urls }).to_string();
        let written = || {
            let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).clone();
            let mut file = options.open(&backup)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&backup, &path)?;
            sync(&self.path)
        };
        written().map_err(io_error("writing", &path))
    }

    fn make(&self) -> io::Result<()> {
        if self.path.is_dir() {
            return Ok(());
        }
        private_directories().create(&self.path)?;
        self.path.parent().map_or(Ok(()), sync)
    }
}

/// Makes the names in a directory durable.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> DirectoryError + use<> {
    let path = path.to_owned();
    move |cause| DirectoryError::Io { action, path, cause }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_was_written_is_read_and_is_etcds() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let own = Directory::open(&data).unwrap();
        assert_eq!(own.read().unwrap(), None);
        assert!(!data.join("proxy").exists(), "the node is no proxy before it knows its cluster");
        own.write(&["http://a:1".to_owned(), "http://b:1".to_owned()]).unwrap();
        assert_eq!(fs::read_to_string(own.file()).unwrap(), r#"{"PeerURLs":["http://a:1","http://b:1"]}"#);
        assert_eq!(own.read().unwrap().unwrap(), ["http://a:1", "http://b:1"]);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&data.join("proxy")), mode(&own.file())), (0o700, 0o600));
    }

    #[test]
    fn a_damaged_file_stops_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let own = Directory::open(dir.path()).unwrap();
        own.write(&["http://a:1".to_owned()]).unwrap();
        for text in ["", "{", "[]", r#"{"PeerURLs":[]}"#, r#"{"PeerURLs":[1]}"#] {
            fs::write(own.file(), text).unwrap();
            let error = own.read().unwrap_err().to_string();
            assert!(error.contains("/proxy/cluster is damaged") && error.contains("--initial-cluster"), "{error}");
        }
    }

    #[test]
    fn one_process_at_a_time_uses_it() {
        let dir = tempfile::tempdir().unwrap();
        let _own = Directory::open(dir.path()).unwrap();
        assert!(Directory::open(dir.path()).unwrap_err().to_string().contains("in use by another process"));
    }
}
