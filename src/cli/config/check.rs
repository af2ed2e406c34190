//! What `config check` found, as text or JSON.

use std::path::PathBuf;

use serde_json::json;

use super::{
    INVALID, VALID,
    cluster::{self, Member},
    finding::Finding,
    probe,
};
use crate::config::{ConfigErrors, Extras, Loaded, Loudness, Notice, Sources, load_with, show::Format};

/// Everything there is to say about one configuration, or about those of a cluster.
pub(super) struct Report {
    findings: Vec<Finding>,
    /// The exit code that the errors call for.
    code: u8,
    /// How many members' configurations were looked at.
    members: usize,
}

impl Report {
    /// The configuration that a daemon with these sources would get. Only a valid one is worth probing.
    pub(super) fn of_one(sources: &Sources, extras: Extras<'_>, deep: bool) -> Self {
        let loaded = load_with(sources, extras);
        let (mut findings, mut code) = judged(&loaded);
        if let Some(loaded) = loaded.ok().filter(|_| deep) {
            findings.extend(probe::all(&loaded.config).into_iter().map(|finding| placed(finding, &loaded)));
            code = code.max(code_of(&findings));
        }
        Self { findings, code, members: 1 }
    }

    /// The files of several members, each for itself and then all together.
    pub(super) fn of_cluster(sources: &Sources, files: &[(PathBuf, Format)], extras: Extras<'_>) -> Self {
        let (mut findings, mut code, mut members) = (Vec::new(), VALID, Vec::new());
        for (path, format) in files {
            let loaded = load_with(&sources.of_file(path, *format), extras);
            let (own, own_code) = judged(&loaded);
            findings.extend(own);
            code = code.max(own_code);
            let member = loaded.ok().map(|loaded| Member { path: path.clone(), format: *format, loaded });
            members.extend(member.filter(|member| !member.is_proxy()));
        }
        findings.extend(cluster::check(&members));
        code = code.max(code_of(&findings));
        Self { findings, code, members: files.len() }
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.code
    }

    /// One line per finding, then the verdict.
    pub(super) fn to_text(&self) -> String {
        let mut lines: Vec<String> = self.findings.iter().map(Finding::to_text).collect();
        lines.push(self.verdict());
        lines.join("\n") + "\n"
    }

    fn verdict(&self) -> String {
        let mistakes = match self.findings.iter().filter(|finding| finding.is_error()).count() {
            0 if self.members == 1 => return "the configuration is valid".to_owned(),
            0 => return format!("the {} configurations are valid and form one cluster", self.members),
            1 => "1 mistake".to_owned(),
            count => format!("{count} mistakes"),
        };
        match self.members {
            1 => format!("the configuration is invalid: {mistakes}"),
            members => format!("the {members} configurations form no cluster: {mistakes}"),
        }
    }

    pub(super) fn to_json(&self) -> String {
        let findings: Vec<_> = self.findings.iter().map(Finding::to_json).collect();
        let report = json!({ "valid": self.code == VALID, "members": self.members, "findings": findings });
        format!("{report:#}\n")
    }
}

/// Mistakes, then warnings, and the exit code that a daemon would end with.
fn judged(loaded: &Result<Loaded, ConfigErrors>) -> (Vec<Finding>, u8) {
    match loaded {
        Ok(Loaded { notices, .. }) => {
            let warnings = notices.iter().filter(|notice| notice.level == Loudness::Warn);
            let findings: Vec<Finding> = warnings.map(Finding::from).collect();
            let code = code_of(&findings);
            (findings, code)
        }
        Err(errors) => {
            let warnings = errors.warnings().map(|notice: &Notice| Finding::from(notice));
            (errors.problems().iter().map(Finding::from).chain(warnings).collect(), errors.exit_code())
        }
    }
}

/// A probe knows the option; where it was set the settings know.
fn placed(finding: Finding, loaded: &Loaded) -> Finding {
    let setting = finding.option.as_deref().and_then(|option| loaded.settings.get(option));
    let origin = setting.map(|setting| setting.origin.clone());
    Finding { origin, ..finding }
}

fn code_of(findings: &[Finding]) -> u8 {
    if findings.iter().any(Finding::is_error) { INVALID } else { VALID }
}
