//! Log records as etcd writes them: one JSON object per line with `level`, `ts`, `caller` and `msg` first, then the
//! record's fields in the order given. `console` gives the same record tab-separated.
//!
//! Every record is one `write` of one whole line, so that lines of several threads never mix; a record that cannot be
//! written is dropped, because a full disk must not stop the member from serving.

use std::{
    fmt::Write as _,
    io::{self, Write},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    Layer, Registry,
    filter::LevelFilter,
    layer::{Context, SubscriberExt as _},
    reload,
};

use super::log_file::LogFile;
pub use super::log_file::Rotation;

/// Longest text of one field; what a client sends must not become a gigabyte of log.
const FIELD_BYTES_MAX: usize = 16 * 1024;

/// The target of the last record of a process that fails: its level reads `fatal`, as zap's does.
pub(super) const FATAL: &str = "fatal";

/// The two shapes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One JSON object a line.
    Json,
    /// Tab-separated columns, fields as JSON at the end.
    Console,
}

/// Where records go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard error.
    Stderr,
    /// Standard output.
    Stdout,
    /// The journal's native socket.
    Journal,
    /// A file, appended to, created with mode 0600.
    File(std::path::PathBuf),
}

/// What `start` needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// Records below this level are dropped.
    pub level: Level,
    /// JSON or console.
    pub shape: Shape,
    /// Every record goes to each of these.
    pub outputs: Vec<Output>,
    /// When files give way to others; never if there is none.
    pub rotation: Option<Rotation>,
}

/// Changes a running log.
#[derive(Clone)]
pub struct Control {
    level: reload::Handle<LevelFilter, Registry>,
    sinks: Arc<ArcSwap<Vec<Sink>>>,
}

/// Outputs that are open and not written to yet.
pub struct Outputs(Vec<Sink>);

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Control")
    }
}

impl Control {
    /// From here on records below `level` are dropped.
    ///
    /// # Errors
    /// If the log is gone.
    pub fn set_level(&self, level: Level) -> Result<()> {
        self.level.reload(LevelFilter::from_level(level)).context("changing the log level")
    }

    /// From here on records go to `outputs`. Those that are written at this moment go to the ones before.
    pub fn set_outputs(&self, outputs: Outputs) {
        self.sinks.store(Arc::new(outputs.0));
    }
}

/// Opens the outputs. A file is opened by its name, also one that is open already: whoever rotates logs has put another
/// file there.
///
/// # Errors
/// A log file that cannot be opened.
pub fn open(options: &Options) -> Result<Outputs> {
    let sinks = options.outputs.iter().map(|output| Sink::open(output, options.rotation.as_ref()));
    sinks.collect::<Result<_>>().map(Outputs)
}

/// Opens the outputs and makes them the destination of every record of this process, panics included.
///
/// # Errors
/// A log file that cannot be opened, or a second call.
pub fn start(options: &Options) -> Result<Control> {
    let sinks = Arc::new(ArcSwap::from_pointee(open(options)?.0));
    let (filter, level) = reload::Layer::new(LevelFilter::from_level(options.level));
    let records = Records { shape: options.shape, sinks: Arc::clone(&sinks) };
    let subscriber = tracing_subscriber::registry().with(records.with_filter(filter));
    tracing::subscriber::set_global_default(subscriber).context("logging was started twice")?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(target: "panic", at = %place, reason = %panic_text(panic), "panic: a part of the daemon failed");
    }));
    Ok(Control { level, sinks })
}

fn panic_text(panic: &std::panic::PanicHookInfo<'_>) -> String {
    let payload = panic.payload();
    let text = payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text").to_owned()
}

enum Sink {
    Stderr,
    Stdout,
    Journal,
    File(LogFile),
}

impl Sink {
    fn open(output: &Output, rotation: Option<&Rotation>) -> Result<Self> {
        Ok(match output {
            Output::Stderr => Self::Stderr,
            Output::Stdout => Self::Stdout,
            Output::Journal => Self::Journal,
            Output::File(path) => Self::File(LogFile::open(path.clone(), rotation.cloned())?),
        })
    }

    /// Errors are dropped on purpose: there is nowhere left to report them.
    fn write(&self, level: Level, line: &str) {
        let written: io::Result<()> = match self {
            Self::Journal => super::systemd::journal(priority(level), line.trim_end()),
            Self::Stderr => io::stderr().lock().write_all(line.as_bytes()),
            Self::Stdout => io::stdout().lock().write_all(line.as_bytes()),
            Self::File(file) => file.write(line.as_bytes()),
        };
        drop(written);
    }
}

struct Records {
    shape: Shape,
    sinks: Arc<ArcSwap<Vec<Sink>>>,
}

impl<S: Subscriber> Layer<S> for Records {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let mut line = match self.shape {
            Shape::Json => json_line(event.metadata(), &fields),
            Shape::Console => console_line(event.metadata(), &fields),
        };
        line.push('\n');
        self.sinks.load().iter().for_each(|sink| sink.write(*event.metadata().level(), &line));
    }
}

fn level_name(metadata: &Metadata<'_>) -> &'static str {
    match *metadata.level() {
        Level::ERROR if metadata.target() == FATAL => FATAL,
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

/// The priority of syslog.
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[expect(clippy::disallowed_methods, reason = "a log record carries wall-clock time and decides nothing")]
fn timestamp() -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_micros(SystemTime::now())
}

/// `server/mod.rs:12` from a path of any depth, as etcd shortens its callers.
fn caller(metadata: &Metadata<'_>) -> String {
    let path = metadata.file().unwrap_or("unknown.rs");
    let start = path.rmatch_indices('/').nth(1).map_or(0, |(at, _)| at + 1);
    format!("{}:{}", path.get(start..).unwrap_or(path), metadata.line().unwrap_or(0))
}

fn json_line(metadata: &Metadata<'_>, fields: &Fields) -> String {
    let mut line = String::with_capacity(256);
    line.push_str("{\"level\":\"");
    line.push_str(level_name(metadata));
    put(&mut line, format_args!("\",\"ts\":\"{}\",\"caller\":", timestamp()));
    put_json(&mut line, &caller(metadata));
    line.push_str(",\"msg\":");
    put_json(&mut line, if fields.message.is_empty() { metadata.name() } else { &fields.message });
    line.push_str(&fields.rest);
    line.push('}');
    line
}

fn console_line(metadata: &Metadata<'_>, fields: &Fields) -> String {
    let mut line = String::with_capacity(256);
    let message = fields.message.replace(['\n', '\r'], " ");
    put(&mut line, format_args!("{}\t{}\t{}\t{message}", timestamp(), level_name(metadata), caller(metadata)));
    if let Some(rest) = fields.rest.strip_prefix(',') {
        put(&mut line, format_args!("\t{{{rest}}}"));
    }
    line
}

/// Writing to a `String` cannot fail.
fn put(line: &mut String, arguments: std::fmt::Arguments<'_>) {
    let written = line.write_fmt(arguments);
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
}

/// `text` as a JSON string, cut at [`FIELD_BYTES_MAX`].
fn put_json(line: &mut String, text: &str) {
    let cut = text.floor_char_boundary(FIELD_BYTES_MAX);
    let value = serde_json::Value::from(text.get(..cut).unwrap_or(text));
    put(line, format_args!("{value}"));
}

/// The message, and every other field as `,"name":value`.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn name(&mut self, field: &Field) {
        self.rest.push(',');
        put_json(&mut self.rest, &field.name().replace('_', "-"));
        self.rest.push(':');
    }

    fn plain(&mut self, field: &Field, value: impl std::fmt::Display) {
        self.name(field);
        put(&mut self.rest, format_args!("{value}"));
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.message);
        } else {
            self.name(field);
            put_json(&mut self.rest, value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        let number = serde_json::Number::from_f64(value).map_or(serde_json::Value::Null, serde_json::Value::Number);
        self.plain(field, number);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Capture(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Capture {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut fields = Fields::default();
            event.record(&mut fields);
            self.0.lock().unwrap().push(json_line(event.metadata(), &fields));
        }
    }

    #[test]
    fn record_is_one_json_object_with_etcds_keys_first() {
        let log = Arc::new(Mutex::new(Vec::<String>::new()));
        let subscriber = tracing_subscriber::registry().with(Capture(log.clone()));
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(data_dir = "a \"b\"\n", size = 7u64, "told {}", "once");
        });
        let line = log.lock().unwrap().pop().unwrap();
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, ["level", "ts", "caller", "msg", "data-dir", "size"]);
        assert_eq!(value["msg"], "told once");
        assert_eq!(value["data-dir"], "a \"b\"\n");
        assert_eq!(value["size"], 7);
        assert!(value["caller"].as_str().unwrap().starts_with("daemon/logging.rs:"), "{value}");
        assert!(!line.contains('\n'));
    }
}
