//! What members tell in numbers: the text format of Prometheus, of which only the metrics that are asked for are kept.

use std::{collections::BTreeMap, time::Duration};

use super::global::Settings;
use crate::client::{
    Endpoint,
    web::{self, Page, PageError},
};

/// Longest page of metrics that is read, in bytes; that of a busy member has a few hundred thousand.
pub(super) const PAGE_BYTES_MAX: usize = 16 << 20;
/// Series kept of one metric; the metrics of a member have some dozens each.
const SERIES_MAX: usize = 4_096;

/// Reads the metrics called `names` from the member at `endpoint`.
///
/// # Errors
/// [`PageError`].
pub(super) async fn read(endpoint: &str, settings: &Settings, names: &[&str]) -> Result<Samples, PageError> {
    let page = page(endpoint, settings, settings.command_timeout).await?;
    Ok(Samples::read(&String::from_utf8_lossy(&page.body), names))
}

/// The page itself, within `limit`.
///
/// # Errors
/// [`PageError`], also for another answer than the page.
pub(super) async fn page(endpoint: &str, settings: &Settings, limit: Duration) -> Result<Page, PageError> {
    let (endpoint, tls) = (Endpoint::parse(endpoint), settings.client.tls.as_ref());
    let page = web::page(&endpoint, "/metrics", tls, limit, PAGE_BYTES_MAX).await?;
    if page.status.is_success() { Ok(page) } else { Err(PageError::Exchange(format!("/metrics: {}", page.status))) }
}

/// Series of metrics, each with its labels as they are written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples {
    series: BTreeMap<String, Vec<(String, f64)>>,
}

impl Samples {
    /// Reads the metrics called `names`; a line that makes no sense is left out. Of a histogram, `X_bucket` is read for `X`.
    pub(super) fn read(text: &str, names: &[&str]) -> Self {
        let mut samples = Self::default();
        for (name, labels, value) in text.lines().filter_map(sample) {
            let plain = name.strip_suffix(BUCKET).unwrap_or(name);
            if names.contains(&plain) {
                let series = samples.series.entry(name.to_owned()).or_default();
                if series.len() < SERIES_MAX {
                    series.push((labels.to_owned(), value));
                }
            }
        }
        samples
    }

    /// The only value of a metric, or the sum of its series; `None` if there is no such metric.
    pub(super) fn value(&self, name: &str) -> Option<f64> {
        self.sum(name, "")
    }

    /// The sum of the series whose labels contain `part`; `None` if there is none.
    pub(super) fn sum(&self, name: &str, part: &str) -> Option<f64> {
        let series = self.series.get(name)?;
        let mut values = series.iter().filter(|(labels, _)| labels.contains(part)).map(|(_, value)| *value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The histogram of a name, over all series whose labels contain `part`.
    pub(super) fn histogram(&self, name: &str, part: &str) -> Histogram {
        let mut buckets: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
        let series = self.series.get(&format!("{name}{BUCKET}")).map_or(&[][..], Vec::as_slice);
        for (labels, count) in series.iter().filter(|(labels, _)| labels.contains(part)) {
            let Some(bound) = label(labels, "le").and_then(|text| text.parse::<f64>().ok()) else { continue };
            // Bounds are not negative: their bits have their order.
            buckets.entry(bound.to_bits()).or_insert((bound, 0.0)).1 += count;
        }
        Histogram { buckets: buckets.into_values().collect() }
    }
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Histogram {
    /// Bounds, the last one infinite, with how many were not above each.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// How many there are.
    pub(super) fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// What came after `earlier`; all of it, if the process has begun anew since.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        if earlier.count() > self.count() || earlier.buckets.len() != self.buckets.len() {
            return self.clone();
        }
        let pairs = self.buckets.iter().zip(&earlier.buckets);
        Self { buckets: pairs.map(|((bound, now), (_, before))| (*bound, (now - before).max(0.0))).collect() }
    }

    /// The time that a share of them did not exceed, in seconds, estimated within its bucket; `None` of nothing. What lies
    /// above the highest bound is told as that bound.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let rank = share * self.count();
        if rank <= 0.0 {
            return None;
        }
        let (mut low, mut below) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            if *count >= rank {
                let inside = (rank - below) / (count - below).max(f64::MIN_POSITIVE);
                return Some(if bound.is_finite() { low + (bound - low) * inside } else { low });
            }
            (low, below) = (*bound, *count);
        }
        None
    }
}

/// Name, labels and value of a line.
fn sample(line: &str) -> Option<(&str, &str, f64)> {
    if line.starts_with('#') {
        return None;
    }
    let (head, labels, rest) = match line.split_once('{') {
        Some((name, rest)) => rest.rsplit_once('}').map(|(labels, rest)| (name, labels, rest))?,
        None => line.split_once(' ').map(|(name, rest)| (name, "", rest))?,
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some((head.trim(), labels, value))
}

/// The value of a label.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    labels.split(',').find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix("=\"")?.strip_suffix('"'))
}

const BUCKET: &str = "_bucket";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP up whatever\nup 1\nother 3\ncalls{a=\"x\",b=\"}\"} 2\ncalls{a=\"y\"} 5 1700000\nnonsense\n\
                        t_bucket{k=\"1\",le=\"0.5\"} 2\nt_bucket{k=\"1\",le=\"1\"} 4\nt_bucket{k=\"1\",le=\"+Inf\"} 5\n\
                        t_bucket{k=\"2\",le=\"0.5\"} 2\nt_bucket{k=\"2\",le=\"1\"} 2\nt_bucket{k=\"2\",le=\"+Inf\"} 2\n";

    fn samples() -> Samples {
        Samples::read(TEXT, &["up", "calls", "t"])
    }

    #[test]
    fn only_what_is_asked_for_is_kept() {
        let samples = samples();
        assert_eq!((samples.value("up"), samples.value("other")), (Some(1.0), None));
        assert_eq!((samples.value("calls"), samples.sum("calls", "a=\"y\"")), (Some(7.0), Some(5.0)));
        assert_eq!(samples.sum("calls", "z"), None);
    }

    #[test]
    fn a_histogram_knows_what_a_share_did_not_exceed() {
        let all = samples().histogram("t", "");
        assert_eq!(all.buckets, [(0.5, 4.0), (1.0, 6.0), (f64::INFINITY, 7.0)]);
        assert_eq!((all.count(), all.quantile(0.5)), (7.0, Some(0.4375)));
        assert_eq!((all.quantile(0.99), Histogram::default().quantile(0.5)), (Some(1.0), None));
        assert_eq!(samples().histogram("t", "k=\"2\"").quantile(1.0), Some(0.5));
    }

    #[test]
    fn what_came_since_is_a_histogram_too() {
        let all = samples().histogram("t", "");
        assert_eq!(all.since(&all).quantile(0.5), None);
        let first = samples().histogram("t", "k=\"1\"");
        assert_eq!(all.since(&first).count().to_string(), "2");
        assert_eq!(first.since(&all), first, "a process that has begun anew");
    }
}
