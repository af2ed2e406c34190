//! What counts as a mistake. Each rule is told all that was seen, and adds what it finds.

mod load;
mod membership;
mod places;
mod state;
#[cfg(test)]
mod tests;

use std::fmt::Display;

use super::facts::Cluster;
use crate::cli::output::{Finding, Severity};

/// What the rules have found so far.
#[derive(Debug, Default)]
struct Found(Vec<Finding>);

impl Found {
    fn error(&mut self, code: &'static str, cause: impl Display, remedy: impl Display) {
        self.add(Severity::Error, code, &cause, &remedy);
    }

    fn warning(&mut self, code: &'static str, cause: impl Display, remedy: impl Display) {
        self.add(Severity::Warning, code, &cause, &remedy);
    }

    fn hint(&mut self, code: &'static str, cause: impl Display, remedy: impl Display) {
        self.add(Severity::Hint, code, &cause, &remedy);
    }

    fn add(&mut self, severity: Severity, code: &'static str, cause: &dyn Display, remedy: &dyn Display) {
        self.0.push(Finding { severity, code, cause: cause.to_string(), remedy: remedy.to_string() });
    }
}

type Rule = fn(&Cluster, &mut Found);

/// Every rule there is.
const RULES: [&[Rule]; 4] = [places::RULES, membership::RULES, state::RULES, load::RULES];

/// Applies every rule; the worst comes first, and nothing twice.
pub(super) fn judge(cluster: &Cluster) -> Vec<Finding> {
    let mut found = Found::default();
    for rule in RULES.into_iter().flatten() {
        rule(cluster, &mut found);
    }
    let mut findings = found.0;
    findings.sort();
    findings.dedup();
    findings
}

/// Texts in one line.
fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}
