//! Tells in time when certificates, authorities and lists of revoked certificates end.

use std::{
    collections::HashMap,
    path::PathBuf,
    time::{Duration, UNIX_EPOCH},
};

use tokio::time::{MissedTickBehavior, interval};

use super::kept::{End, all, freshen};
use crate::{
    clock::{self, Clock as _},
    metrics,
};

/// So long ahead an end is told. `config check --deep` tells it as early.
pub const ENDS_SOON: Duration = Duration::from_hours(30 * 24);
/// How often what is in use is looked at, whether or not anybody connects.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often an end is told again.
const REMINDER: Duration = Duration::from_hours(24);

/// Looks at everything that is in use and was read from files, publishes when it ends, and warns once a day of what ends
/// soon. Never returns.
pub async fn keep_up() {
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut reminders = Reminders::default();
    loop {
        look.tick().await;
        let in_use = all();
        freshen(in_use.clone()).await;
        let ends: Vec<End> = in_use.iter().filter_map(|looked| looked.end()).collect();
        ends.iter().for_each(publish);
        let now = clock::system().wall();
        reminders.due(&ends, now).into_iter().for_each(|end| warn(end, now));
    }
}

fn publish(end: &End) {
    let at = i64::try_from(end.at.as_secs()).unwrap_or(i64::MAX);
    metrics::CERTIFICATE_ENDS.with([&end.file.display().to_string(), end.kind]).set(at);
}

fn warn(end: &End, now: Duration) {
    let ends = humantime::format_rfc3339_seconds(UNIX_EPOCH.checked_add(end.at).unwrap_or(UNIX_EPOCH));
    let file = end.file.display();
    match end.at.checked_sub(now) {
        Some(left) => {
            let days = left.as_secs() / (24 * 60 * 60);
            tracing::warn!(%file, %ends, days, "a {} ends soon: put a new one into its file, no restart is needed", end.kind);
        }
        None => {
            tracing::warn!(%file, %ends, "a {} has ended: put a new one into its file, no restart is needed", end.kind);
        }
    }
}

/// What was told, and when.
#[derive(Debug, Default)]
struct Reminders(HashMap<PathBuf, Duration>);

impl Reminders {
    /// What is to be told at `now`: what ends soon and was not told for a day.
    fn due<'e>(&mut self, ends: &'e [End], now: Duration) -> Vec<&'e End> {
        let mut due = Vec::new();
        for end in ends.iter().filter(|end| end.at < now + ENDS_SOON) {
            // A wall clock that was set back does not silence it.
            let is_recent = |told: &Duration| *told <= now && now < *told + REMINDER;
            if !self.0.get(&end.file).is_some_and(is_recent) {
                self.0.insert(end.file.clone(), now);
                due.push(end);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_a_month_ahead_once_a_day_and_for_each_file_once() {
        const DAY: Duration = Duration::from_hours(24);
        let end = |file: &str, days: u32| End { kind: "certificate", file: file.into(), at: DAY * days };
        let mut reminders = Reminders::default();
        let ends = [end("a", 100), end("a", 100), end("b", 60)];
        let mut told = |day: u32| reminders.due(&ends, DAY * day).len();
        assert_eq!((told(30), told(31), told(31)), (0, 1, 0), "the second one ends within thirty days");
        assert_eq!((told(72), told(73), told(10)), (2, 2, 0), "both, also when one has ended");
        assert_eq!(told(71), 2, "a clock that was set back does not silence it");
    }
}
