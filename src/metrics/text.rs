//! The Prometheus text format, version 0.0.4.

use std::fmt::Write as _;

use super::{Counter, Family, Gauge, Histogram};

/// What can be shown under one name.
pub trait Collect: Sync {
    /// The word in the `# TYPE` line.
    fn kind(&self) -> &'static str;

    /// Label names besides a histogram's `le`.
    fn labels(&self) -> &[&'static str] {
        &[]
    }

    /// Appends the sample lines; nothing while there is no series.
    fn samples(&self, name: &str, out: &mut String);
}

/// Appends help, type and samples of one name, or nothing if it has no sample.
pub(super) fn family(name: &str, help: &str, what: &dyn Collect, out: &mut String) {
    let mut samples = String::new();
    what.samples(name, &mut samples);
    if !samples.is_empty() {
        head(name, help, what.kind(), out);
        out.push_str(&samples);
    }
}

/// Appends the `# HELP` and `# TYPE` lines.
pub(super) fn head(name: &str, help: &str, kind: &str, out: &mut String) {
    line(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

/// Appends one sample; `labels` is either empty or `{…}`.
pub(super) fn sample(name: &str, labels: &str, value: f64, out: &mut String) {
    line(out, format_args!("{name}{labels} {}\n", number(value)));
}

/// Appends formatted text, which a `String` never refuses.
fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes any text");
}

/// The `{name="value",…}` of a sample, empty without labels.
pub(super) fn label_set<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs: Vec<String> = labels.into_iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// A number as Go prints it (`%g`, shortest): what dashboards and scripts written for etcd compare.
pub(super) fn number(value: f64) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "+Inf".into() } else { "-Inf".into() };
    }
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..21).contains(&exponent) || exponent >= 6 => {
            format!("{mantissa}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
        }
        _ => value.to_string(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "the format carries floating-point numbers only")]
pub(super) fn float(value: u64) -> f64 {
    value as f64
}

impl Collect for Counter {
    fn kind(&self) -> &'static str {
        "counter"
    }
    fn samples(&self, name: &str, out: &mut String) {
        sample(name, "", float(self.get()), out);
    }
}

impl Collect for Gauge {
    fn kind(&self) -> &'static str {
        "gauge"
    }
    fn samples(&self, name: &str, out: &mut String) {
        sample(name, "", signed(self.get()), out);
    }
}

#[expect(clippy::cast_precision_loss, reason = "the format carries floating-point numbers only")]
fn signed(value: i64) -> f64 {
    value as f64
}

impl Collect for Histogram {
    fn kind(&self) -> &'static str {
        "histogram"
    }
    fn samples(&self, name: &str, out: &mut String) {
        histogram(name, &[], self, out);
    }
}

/// Appends the buckets, the sum and the count of one histogram.
pub(super) fn histogram(name: &str, labels: &[(&str, &str)], histogram: &Histogram, out: &mut String) {
    let bucket = |le: &str, below: u64, out: &mut String| {
        let labels = label_set(labels.iter().copied().chain([("le", le)]));
        sample(&format!("{name}_bucket"), &labels, float(below), out);
    };
    let mut below_last = 0;
    for (bound, below) in histogram.cumulative() {
        bucket(&number(bound), below, out);
        below_last = below;
    }
    // Observations may arrive between two reads; the counts never shrink towards the end.
    let count = histogram.count().max(below_last);
    bucket("+Inf", count, out);
    let labels = label_set(labels.iter().copied());
    sample(&format!("{name}_sum"), &labels, histogram.sum(), out);
    sample(&format!("{name}_count"), &labels, float(count), out);
}

impl<const L: usize> Collect for Family<Counter, L> {
    fn kind(&self) -> &'static str {
        "counter"
    }
    fn labels(&self) -> &[&'static str] {
        Family::labels(self)
    }
    fn samples(&self, name: &str, out: &mut String) {
        self.each(|values, counter| {
            let labels = label_set(Family::labels(self).iter().copied().zip(values));
            sample(name, &labels, float(counter.get()), out);
        });
    }
}

impl<const L: usize> Collect for Family<Gauge, L> {
    fn kind(&self) -> &'static str {
        "gauge"
    }
    fn labels(&self) -> &[&'static str] {
        Family::labels(self)
    }
    fn samples(&self, name: &str, out: &mut String) {
        self.each(|values, gauge| {
            let labels = label_set(Family::labels(self).iter().copied().zip(values));
            sample(name, &labels, signed(gauge.get()), out);
        });
    }
}

impl<const L: usize> Collect for Family<Histogram, L> {
    fn kind(&self) -> &'static str {
        "histogram"
    }
    fn labels(&self) -> &[&'static str] {
        Family::labels(self)
    }
    fn samples(&self, name: &str, out: &mut String) {
        self.each(|values, one| {
            let labels: Vec<(&str, &str)> = Family::labels(self).iter().copied().zip(values).collect();
            histogram(name, &labels, one, out);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Unit, doubling};

    #[test]
    fn numbers_print_as_go_prints_them() {
        let printed = [0.0, 2.0, 0.0001, 0.0128, 524_288.0, 8_388_608.0, 1e-5, -3.5, 31_338_496.0].map(number);
        assert_eq!(printed, ["0", "2", "0.0001", "0.0128", "524288", "8.388608e+06", "1e-05", "-3.5", "3.1338496e+07"]);
        assert_eq!([f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(number), ["+Inf", "-Inf", "NaN"]);
    }

    #[test]
    fn a_name_without_series_is_not_shown() {
        let peers = Family::<Counter, 1>::new(["To"], Counter::new);
        let mut out = String::new();
        family("sent_total", "Bytes sent.", &peers, &mut out);
        assert_eq!(out, "");
        peers.with(["a\"b\\c\nd"]).add(3);
        family("sent_total", "Bytes sent.", &peers, &mut out);
        assert_eq!(
            out,
            "# HELP sent_total Bytes sent.\n# TYPE sent_total counter\nsent_total{To=\"a\\\"b\\\\c\\nd\"} 3\n"
        );
    }

    #[test]
    fn histograms_show_cumulative_buckets_sum_and_count() {
        let one = Histogram::new(&const { doubling::<2>(0.5) }, Unit::Seconds);
        one.observe_value(0.25);
        one.observe_value(4.0);
        let mut out = String::new();
        one.samples("d_seconds", &mut out);
        assert_eq!(
            out,
            "d_seconds_bucket{le=\"0.5\"} 1\nd_seconds_bucket{le=\"1\"} 1\nd_seconds_bucket{le=\"+Inf\"} 2\n\
             d_seconds_sum 4.25\nd_seconds_count 2\n"
        );
    }
}
