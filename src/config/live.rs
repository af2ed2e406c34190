//! What a running daemon takes over of a configuration that was read again.

use std::fmt;

use super::{
    Config, Http, Integrity, Log, Origin, Raft, ScheduledSnapshots, Setting, Settings, Storage, Value, Watch,
    feature::Support,
    table::{OptionSpec, Reload},
};

impl Config {
    /// This configuration with what a running daemon can take of `new`; the rest of it waits for the next start. Which
    /// options these are the table says, and a test compares.
    #[must_use]
    pub fn with_live(&self, new: &Self) -> Self {
        let old = self.clone();
        Self {
            raft: Raft { heartbeat: new.raft.heartbeat, election: new.raft.election, ..old.raft },
            storage: Storage {
                snapshot_entries: new.storage.snapshot_entries,
                catchup_entries: new.storage.catchup_entries,
                quota: new.storage.quota,
                lifts_no_space: new.storage.lifts_no_space,
                auto_compaction: new.storage.auto_compaction,
                compaction_batch_max: new.storage.compaction_batch_max,
                compaction_pause: new.storage.compaction_pause,
                scheduled: ScheduledSnapshots { dir: old.storage.scheduled.dir, ..new.storage.scheduled.clone() },
                ..old.storage
            },
            limits: new.limits.clone(),
            http: Http { cors: new.http.cors.clone(), host_whitelist: new.http.host_whitelist.clone(), ..old.http },
            watch: Watch { warn_apply: new.watch.warn_apply, warn_unary: new.watch.warn_unary, ..old.watch },
            integrity: Integrity {
                corrupt_check: new.integrity.corrupt_check,
                compact_hash_check: new.integrity.compact_hash_check,
                ..old.integrity
            },
            log: Log { level: new.log.level, outputs: new.log.outputs.clone(), ..old.log },
            metrics: new.metrics.clone(),
            ..old
        }
    }
}

impl Settings {
    /// What changes when `new` takes the place of these settings.
    pub fn changes(&self, new: &Self) -> Changes {
        let pairs = self.all.iter().zip(&new.all);
        let changed = pairs.filter(|(old, new)| old.value != new.value).map(|(old, new)| Change::of(old, new));
        let (live, restart) = changed.partition(|change| change.spec.reload == Reload::Live);
        Changes { live, restart }
    }

    /// These settings with those of `new` that a running daemon can take.
    #[must_use]
    pub fn with_live(&self, new: &Self) -> Self {
        let choose = |(old, new): (&Setting, &Setting)| {
            if old.spec.reload == Reload::Live { new.clone() } else { old.clone() }
        };
        Self { all: self.all.iter().zip(&new.all).map(choose).collect(), compat: self.compat }
    }
}

/// Options that two configurations differ in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Those a running daemon can take.
    pub live: Vec<Change>,
    /// Those that need a restart.
    pub restart: Vec<Change>,
}

/// An option's old and new value.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// The option.
    pub spec: &'static OptionSpec,
    /// Its value until now.
    pub old: Value,
    /// Its value in what was read.
    pub new: Value,
    /// Where the new one stands.
    pub origin: Origin,
}

impl Change {
    fn of(old: &Setting, new: &Setting) -> Self {
        Self { spec: old.spec, old: old.value.clone(), new: new.value.clone(), origin: new.origin.clone() }
    }
}

impl fmt::Display for Change {
    /// `log-level: info → debug (/etc/quorate/quorate.toml:3)`; secrets are not repeated.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Value| match value.to_text() {
            _ if self.spec.secret => "***".to_owned(),
            text if text.is_empty() => "\"\"".to_owned(),
            text => text,
        };
        write!(f, "{}: {} → {} ({}", self.spec.name, shown(&self.old), shown(&self.new), self.origin)?;
        if let Support::NoEffect(why) = self.spec.support {
            write!(f, "; without effect: {why}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Sources, load,
        table::{Kind, OPTIONS},
    };

    /// Another value than the default for the options whose kind does not suggest one.
    const OTHER: [(&str, &str); 29] = [
        ("snapshot-keep", "3"),
        ("compat-version", "3.6"),
        ("heartbeat-interval", "150"),
        ("election-timeout", "2000"),
        ("listen-peer-urls", "http://127.0.0.1:1"),
        ("listen-client-urls", "http://127.0.0.1:1"),
        ("initial-advertise-peer-urls", "http://127.0.0.1:1"),
        ("advertise-client-urls", "http://127.0.0.1:1"),
        ("initial-cluster", "default=http://localhost:2380,b=http://127.0.0.1:1"),
        ("initial-cluster-state", "existing"),
        ("cors", "http://a:80"),
        ("host-whitelist", "a"),
        ("auth-token", ""),
        ("metrics", "extensive"),
        ("log-outputs", "stdout"),
        ("log-level", "debug"),
        ("log-format", "console"),
        ("auto-compaction-mode", "revision"),
        ("backend-bbolt-freelist-type", "array"),
        ("tls-min-version", "TLS1.3"),
        ("name", "other"),
        ("initial-cluster-token", "other"),
        ("auto-compaction-retention", "2h"),
        ("v2-deprecation", "gone"),
        ("discovery-fallback", "proxy"),
        ("distributed-tracing-address", "localhost:1"),
        ("distributed-tracing-service-name", "other"),
        ("log-rotation-config-json", "{}"),
        ("distributed-tracing-sampling-rate", "1"),
    ];

    /// The option's value as a flag that differs from its default.
    fn flag(spec: &OptionSpec) -> String {
        let other = OTHER.iter().find(|(name, _)| *name == spec.name).map(|(_, value)| (*value).to_owned());
        let value = other.unwrap_or_else(|| match spec.kind {
            Kind::Switch => (spec.default != "true").to_string(),
            Kind::Uint | Kind::Uint32 | Kind::Int => "7".to_owned(),
            Kind::Duration => "7s".to_owned(),
            _ => spec.example.to_owned(),
        });
        format!("--{}={value}", spec.name)
    }

    fn loaded(flags: &[String]) -> Option<(Config, Settings)> {
        let args = flags.iter().map(Into::into).collect();
        let loaded = load(&Sources { args, ..Sources::default() }).ok()?;
        Some((loaded.config, loaded.settings))
    }

    /// The table and the two functions above cannot say different things.
    #[test]
    fn with_live_takes_what_the_table_calls_live_and_nothing_else() {
        // What is off needs the mode's partner to show, and an advertised URL goes with a listener.
        let base =
            ["--auto-compaction-retention=1h", "--advertise-client-urls=http://localhost:2379"].map(str::to_owned);
        let (config, settings) = loaded(&base).expect("valid");
        let mut seen = 0;
        for spec in OPTIONS.iter().filter(|spec| spec.is_current()) {
            let mut flags = base.to_vec();
            flags.push(flag(spec));
            let is_live = spec.reload == Reload::Live;
            // A file that is not there is refused whole.
            let Some((new, new_settings)) = loaded(&flags) else {
                assert!(!is_live, "{} is refused", spec.name);
                continue;
            };
            let changes = settings.changes(&new_settings);
            if changes == Changes::default() {
                assert!(["logger", "proxy"].contains(&spec.name), "{} has another value than its default", spec.name);
                continue;
            }
            let (live, restart) = (changes.live.len(), changes.restart.len());
            assert_eq!(live > 0, is_live, "{}: {changes:?}", spec.name);
            assert_eq!(restart > 0, !is_live, "{}: {changes:?}", spec.name);
            let kept = config.with_live(&new);
            if is_live {
                assert_eq!(kept, new, "{}", spec.name);
                assert!(kept != config || spec.support != Support::Works, "{} changes nothing", spec.name);
                assert_eq!(settings.with_live(&new_settings), new_settings, "{}", spec.name);
            } else {
                assert_eq!(kept, config, "{}", spec.name);
                assert_eq!(settings.with_live(&new_settings), settings, "{}", spec.name);
            }
            seen += 1;
        }
        assert!(seen > 70, "{seen} options can be set alone");
    }

    #[test]
    fn a_change_tells_old_new_and_place() {
        let (_, old) = loaded(&[]).expect("valid");
        let (_, new) = loaded(&["--log-level=debug".to_owned(), "--max-wals=3".to_owned()]).expect("valid");
        let changes = old.changes(&new);
        assert_eq!(changes.live[0].to_string(), "log-level: info → debug (--log-level)");
        let restart =
            "max-wals: 5 → 3 (--max-wals; without effect: log files are removed as soon as no member needs them)";
        assert_eq!(changes.restart[0].to_string(), restart);
        assert_eq!(old.changes(&old), Changes::default());
    }
}
