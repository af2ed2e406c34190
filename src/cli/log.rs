//! Log lines on standard error, one JSON object each, in the shape etcd's tools write.

use std::{
    fmt::{self, Write as _},
    io::Write as _,
    time::Duration,
};

use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer,
    filter::{FilterFn, filter_fn},
    layer::{Context, SubscriberExt},
    registry::LookupSpan,
};

use super::{output::json, speak::complain};
use crate::clock::{self, Clock};

/// Starts logging; `debug` includes what the libraries have to say.
pub(super) fn start(debug: bool) {
    start_at(if debug { LevelFilter::DEBUG } else { LevelFilter::WARN });
}

/// Starts logging for a command that tells what it does.
pub(super) fn start_verbose() {
    start_at(LevelFilter::INFO);
}

/// Starts logging without what the client tells of calls that failed, for commands that tell of failures themselves.
pub(super) fn start_without_calls(debug: bool) {
    if debug {
        return start(debug);
    }
    let wanted =
        |metadata: &Metadata<'_>| *metadata.level() <= LevelFilter::WARN && !metadata.target().starts_with(CLIENT);
    begin(filter_fn(wanted).with_max_level_hint(LevelFilter::WARN));
}

fn start_at(level: LevelFilter) {
    begin(filter_fn(move |metadata| *metadata.level() <= level).with_max_level_hint(level));
}

fn begin<F: Fn(&Metadata<'_>) -> bool + Send + Sync + 'static>(filter: FilterFn<F>) {
    let subscriber = tracing_subscriber::registry().with(Lines.with_filter(filter));
    // A second start in one process, as in tests, keeps the first.
    tracing::subscriber::set_global_default(subscriber).unwrap_or_default();
}

/// Writes a line of the level above all others.
pub(super) fn fatal(message: &str, field: &str, value: &str) {
    let members = format!(",{}:{}", json::string(field), json::string(value));
    let fields = Fields { message: message.to_owned(), members };
    complain(line("fatal", clock::system().wall(), "", file!(), &fields).trim_end());
}

struct Lines;

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let mut fields = Fields::default();
        event.record(&mut fields);
        let caller = format!("{}:{}", metadata.file().unwrap_or("?"), metadata.line().unwrap_or(0));
        let logger = if metadata.target().starts_with(CLIENT) { "etcd-client" } else { "" };
        let line = line(&metadata.level().as_str().to_lowercase(), clock::system().wall(), logger, &caller, &fields);
        // There is nowhere left to report a failure to.
        std::io::stderr().write_all(line.as_bytes()).unwrap_or_default();
    }
}

/// What an event says, the members of its JSON object ready to be joined.
#[derive(Default)]
struct Fields {
    message: String,
    members: String,
}

impl Fields {
    fn add(&mut self, field: &Field, value: fmt::Arguments) {
        // Writing to a string cannot fail.
        write!(self.members, ",{}:{value}", json::string(field.name())).unwrap_or_default();
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let text = format!("{value:?}");
        if field.name() == "message" {
            self.message = text;
        } else {
            self.add(field, format_args!("{}", json::string(&text)));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, format_args!("{}", json::string(value)));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, format_args!("{value}"));
    }
}

fn line(level: &str, wall: Duration, logger: &str, caller: &str, fields: &Fields) -> String {
    let (time, message) = (timestamp(wall), json::string(&fields.message));
    let logger = if logger.is_empty() { String::new() } else { format!("\"logger\":\"{logger}\",") };
    let (caller, members) = (json::string(caller), &fields.members);
    format!("{{\"level\":\"{level}\",\"ts\":\"{time}\",{logger}\"caller\":{caller},\"msg\":{message}{members}}}\n")
}

/// `wall`, the time since the Unix epoch, in UTC: `2026-11-24T14:01:29.236051Z`.
fn timestamp(wall: Duration) -> String {
    let seconds = wall.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:06}Z", wall.subsec_micros())
}

/// The Gregorian date `days` after 1970-01-01: eras of 400 years, years that begin in March.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Where the events of the client come from.
const CLIENT: &str = "quorate::client";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_gregorian() {
        assert_eq!(timestamp(Duration::ZERO), "1970-01-01T00:00:00.000000Z");
        assert_eq!(timestamp(Duration::from_micros(951_782_400_000_001)), "2000-02-29T00:00:00.000001Z");
        assert_eq!(timestamp(Duration::from_secs(1_795_528_889)), "2026-11-24T14:01:29.000000Z");
        assert_eq!(timestamp(Duration::from_secs(1_709_251_199)), "2024-02-29T23:59:59.000000Z");
    }

    #[test]
    fn a_line_is_one_object() {
        let fields = Fields { message: "said \"so\"".to_owned(), members: ",\"attempt\":0".to_owned() };
        assert_eq!(
            line("warn", Duration::ZERO, "etcd-client", "client/call.rs:1", &fields),
            "{\"level\":\"warn\",\"ts\":\"1970-01-01T00:00:00.000000Z\",\"logger\":\"etcd-client\",\
             \"caller\":\"client/call.rs:1\",\"msg\":\"said \\\"so\\\"\",\"attempt\":0}\n"
        );
    }
}
