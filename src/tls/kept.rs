//! What is read from files, and read again when they change.
//!
//! Files are looked at by what the system says of them, whatever way their paths lead there: a rename, a symbolic link that
//! was swapped (Kubernetes' `..data`) and a file written over all show. Files that cannot be used leave in place what was
//! read last; that is told once, and they are tried again when they change again. A pair that is written one file after the
//! other does not fit for a moment, which is the same case.

use std::{
    fmt::Debug,
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwap;
use sha2::{Digest as _, Sha256};
use tokio::{task::spawn_blocking, time::timeout};

use super::TlsError;
use crate::clock::{self, Clock as _};

/// How long a handshake waits for a look at its files; then it goes on with what is there. A file system that hangs holds up
/// nobody else: who looks while another one does finds nothing to do.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// A file whose time of change is not older than this may change again without showing it: clocks of file systems tick as
/// slowly as every two seconds. It is compared by its content.
const TICK: Duration = Duration::from_secs(2);

/// What files hold.
pub(super) trait Material: Debug + Send + Sync + Sized + 'static {
    /// What it is, for the log and the label of a metric.
    const KIND: &'static str;
    /// Longest file that is read, in bytes.
    const BYTES_MAX: u64;

    /// Reads it.
    fn parse(files: &[FileText]) -> Result<Self, TlsError>;
    /// When it stops counting, since the Unix epoch.
    fn ends(&self) -> Option<Duration>;
}

/// A file and what is in it.
#[derive(Debug)]
pub(super) struct FileText {
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
}

/// What was read of these files last.
#[derive(Debug)]
pub(super) struct Kept<M> {
    files: Vec<PathBuf>,
    seen: Mutex<Seen>,
    current: ArcSwap<M>,
}

/// What the files were like when they were looked at last.
#[derive(Debug)]
struct Seen {
    stamps: Vec<Stamp>,
    /// Whether the stamps alone tell a change.
    is_settled: bool,
    content: Content,
}

/// What changes with a file: device, place on it, length, times of the last write and of the last change of anything.
type Stamp = Option<(u64, u64, u64, [i64; 4])>;
/// A digest of all files, or why one cannot be read.
type Content = Result<[u8; 32], String>;

impl<M: Material> Kept<M> {
    /// Reads the files; from now on they are looked at.
    ///
    /// # Errors
    /// [`TlsError`].
    pub(super) fn read(files: Vec<PathBuf>) -> Result<Arc<Self>, TlsError> {
        let stamps = stamps(&files);
        let texts = texts::<M>(&files);
        let seen = Seen { is_settled: is_settled(&stamps), stamps, content: content(&texts) };
        let current = ArcSwap::from_pointee(M::parse(&texts?)?);
        let kept = Arc::new(Self { files, seen: Mutex::new(seen), current });
        let looked: Arc<dyn Look> = Arc::clone(&kept) as _;
        register(&looked);
        Ok(kept)
    }

    /// What is in force.
    pub(super) fn current(&self) -> Arc<M> {
        self.current.load_full()
    }

    fn read_again(&self, texts: Result<Vec<FileText>, TlsError>) {
        let files = self.files.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
        match texts.and_then(|texts| M::parse(&texts)) {
            Ok(new) => {
                self.current.store(Arc::new(new));
                tracing::info!(files, "read a new {}", M::KIND);
            }
            Err(error) => tracing::warn!(
                files,
                %error,
                "cannot use a changed {}: the last good one stays in force; put it right, and it is read at once", M::KIND
            ),
        }
    }
}

/// Something that is looked at.
pub(super) trait Look: Send + Sync {
    /// Reads again what has changed. It may wait for a disk.
    fn look(&self);
    /// What it is and where, and when it stops counting, since the Unix epoch.
    fn end(&self) -> Option<End>;
}

/// When something stops counting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// What.
    pub(super) kind: &'static str,
    /// The file it stands in.
    pub(super) file: PathBuf,
    /// Since the Unix epoch.
    pub(super) at: Duration,
}

impl<M: Material> Look for Kept<M> {
    fn look(&self) {
        let Ok(mut seen) = self.seen.try_lock() else { return };
        let stamps = stamps(&self.files);
        if seen.is_settled && stamps == seen.stamps {
            return;
        }
        let texts = texts::<M>(&self.files);
        let content = content(&texts);
        let is_same = content == seen.content;
        *seen = Seen { is_settled: is_settled(&stamps), stamps, content };
        if !is_same {
            self.read_again(texts);
        }
    }

    fn end(&self) -> Option<End> {
        let file = self.files.first()?.clone();
        self.current().ends().map(|at| End { kind: M::KIND, file, at })
    }
}

/// Looks at `parts` before a handshake goes on with what they are then.
pub(super) async fn freshen(parts: Vec<Arc<dyn Look>>) {
    if parts.is_empty() {
        return;
    }
    let looking = spawn_blocking(move || parts.iter().for_each(|part| part.look()));
    if timeout(LOOK_PATIENCE, looking).await.is_err() {
        tracing::warn!("certificates do not answer when they are looked at; what was read last is used");
    }
}

/// Everything in this process that is looked at.
static LOOKED_AT: Mutex<Vec<Weak<dyn Look>>> = Mutex::new(Vec::new());

fn register(looked: &Arc<dyn Look>) {
    let mut all = LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|other| other.strong_count() > 0);
    all.push(Arc::downgrade(looked));
}

/// Everything that is in use.
pub(super) fn all() -> Vec<Arc<dyn Look>> {
    LOOKED_AT.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |path: &PathBuf| {
        let of = fs::metadata(path).ok()?;
        Some((of.dev(), of.ino(), of.len(), [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()]))
    };
    files.iter().map(stamp).collect()
}

/// Whether the last change of all files is so long ago that another one would show.
fn is_settled(stamps: &[Stamp]) -> bool {
    let now = clock::system().wall();
    let changed = |seconds: i64| Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    stamps.iter().flatten().all(|(_, _, _, [written, _, changed_, _])| changed(*written.max(changed_)) + TICK < now)
}

fn texts<M: Material>(files: &[PathBuf]) -> Result<Vec<FileText>, TlsError> {
    let read = |path: &PathBuf| Ok(FileText { path: path.clone(), bytes: contents(path, M::BYTES_MAX)? });
    files.iter().map(read).collect()
}

fn content(texts: &Result<Vec<FileText>, TlsError>) -> Content {
    let texts = texts.as_ref().map_err(ToString::to_string)?;
    let mut digest = Sha256::new();
    for text in texts {
        digest.update(text.bytes.len().to_le_bytes());
        digest.update(&text.bytes);
    }
    Ok(digest.finalize().into())
}

/// A whole file of bounded length.
pub(super) fn contents(path: &Path, bytes_max: u64) -> Result<Vec<u8>, TlsError> {
    let open = |cause: io::Error| TlsError::Open { path: path.to_owned(), cause };
    let file = fs::File::open(path).map_err(open)?;
    if !file.metadata().map_err(open)?.is_file() {
        return Err(TlsError::content(path, "it is no file: name a file"));
    }
    let mut bytes = Vec::new();
    file.take(bytes_max + 1).read_to_end(&mut bytes).map_err(open)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > bytes_max {
        return Err(TlsError::content(path, format!("it has more than {bytes_max} bytes: it is no such file")));
    }
    Ok(bytes)
}
