//! What the use of an option alone already means: old names, names set twice, what has no meaning here.

use std::collections::BTreeMap;

use super::{
    Notice, Origin, Problem,
    feature::Support,
    gates,
    layers::{Gathered, Layers, Written},
    table::{self, Kind, OPTIONS, OptionSpec, Successor},
};

/// Mistakes and remarks about the options that are set, in the order of the table.
pub(super) fn judge(gathered: &Gathered, layers: &Layers) -> (Vec<Problem>, Vec<Notice>) {
    let mut verdict = Verdict { layers, problems: Vec::new(), notices: Vec::new() };
    for spec in OPTIONS {
        let last = gathered.written.iter().rev().find(|written| written.spec.name == spec.name);
        if let Some(written) = last {
            verdict.on_use(written, gathered);
        }
    }
    verdict.on_gates();
    (verdict.problems, verdict.notices)
}

/// Whether the value asks for what a missing feature would give.
pub(super) fn asks(spec: &OptionSpec, layers: &Layers) -> bool {
    let value = layers.value(spec);
    layers.is_set(spec.name) && !value.is_zero() && value.to_text() != spec.default_for(layers.compat)
}

struct Verdict<'l> {
    layers: &'l Layers,
    problems: Vec<Problem>,
    notices: Vec<Notice>,
}

impl Verdict<'_> {
    fn on_use(&mut self, written: &Written, gathered: &Gathered) {
        let Written { spec, value, origin, .. } = written;
        if spec.kind == Kind::Ignored {
            let message = format!("flag \"-{}\" is no longer supported - ignoring.", spec.name);
            self.notices.push(remark(&message, spec, origin, "remove it"));
            return;
        }
        if let Some(text) = spec.deprecation(self.layers.compat, &value.to_text()) {
            let remedy = successor(spec).map_or_else(|| "remove it".to_owned(), |name| format!("set {name} instead"));
            self.notices.push(remark(&text, spec, origin, &remedy));
        }
        if let Some(what) = conflict(written, gathered) {
            self.problems
                .push(Problem::of(spec, &value.to_text(), origin.clone(), written.form, what).with_example(None));
        }
        if spec.is_current() && asks(spec, self.layers) {
            self.on_support(spec);
        }
        let own_name = |spec: &OptionSpec| gathered.written.iter().any(|written| written.spec.name == spec.name);
        if let Some(successor) = successor_option(spec).filter(|spec| !own_name(spec) && asks(spec, self.layers)) {
            self.on_support(successor);
        }
    }

    fn on_support(&mut self, spec: &OptionSpec) {
        match spec.support {
            Support::Works => {}
            Support::NoEffect(why) => self.warn_of_no_effect(spec, why),
        }
    }

    fn warn_of_no_effect(&mut self, spec: &OptionSpec, why: &str) {
        let message = format!("--{} has no effect: {why}", spec.name);
        self.notices.push(remark(&message, spec, &self.layers.origin(spec.name), "remove it"));
    }

    /// Gates that ask for something that does not exist.
    fn on_gates(&mut self) {
        let default = gates::states(&gates::resolve(&BTreeMap::new()));
        let states = gates::states(&gates::resolve(&self.layers.chosen_gates()));
        for ((gate, on), (_, default)) in states.into_iter().zip(default) {
            let why = match gate.support {
                Support::NoEffect(why) if on != default => why.to_owned(),
                _ => continue,
            };
            let message = format!("feature gate {}={on} has no effect: {why}", gate.name);
            let notice = Notice::warn(&message, Vec::new());
            let origin = self.layers.origin("feature-gates");
            self.notices.push(notice.about(Some("feature-gates"), origin).with_remedy("leave the gate at its default"));
        }
    }
}

fn remark(message: &str, spec: &OptionSpec, origin: &Origin, remedy: &str) -> Notice {
    let notice = Notice::warn(message, vec![("origin", origin.to_string())]);
    notice.about(Some(spec.name), origin.clone()).with_remedy(remedy)
}

/// What to set in place of an old name.
fn successor(spec: &OptionSpec) -> Option<String> {
    Some(match spec.successor {
        Successor::None => return None,
        Successor::Option(name) => name.to_owned(),
        Successor::Gate(gate) => format!("feature-gates={gate}"),
        Successor::CaFile(side) => format!("{side}trusted-ca-file and {side}client-cert-auth"),
        Successor::DebugLevel => "log-level".to_owned(),
    })
}

fn successor_option(spec: &OptionSpec) -> Option<&'static OptionSpec> {
    match spec.successor {
        Successor::Option(name) => table::find(name),
        Successor::CaFile("") => table::find("trusted-ca-file"),
        Successor::CaFile(_) => table::find("peer-trusted-ca-file"),
        _ => None,
    }
}

/// etcd's text when an old name and its successor are both set.
fn conflict(written: &Written, gathered: &Gathered) -> Option<String> {
    let old = written.spec.name;
    let sets = |name: &str| gathered.written.iter().rev().find(|other| other.spec.name == name);
    match written.spec.successor {
        Successor::Option(new) if sets(new).is_some() => Some(match old {
            "experimental-warning-unary-request-duration" => {
                format!("both --{old} and --{new} flags are set. Use only --{new}")
            }
            "log-output" => "both '--log-output' and '--log-outputs' are set; only set '--log-outputs'".to_owned(),
            _ => format!("cannot set --{old} and --{new} at the same time, please use --{new} only"),
        }),
        Successor::Gate(gate) => {
            let words = sets("feature-gates")?.value.to_text();
            let on = words.split(',').find_map(|word| word.strip_prefix(gate)?.strip_prefix('='))?;
            let was = written.value.to_text();
            Some(format!(
                "cannot specify both flags: --{old}={was} and --feature-gates={gate}={on} at the same time, please just \
                 use --feature-gates={gate}={on}"
            ))
        }
        _ => None,
    }
}
