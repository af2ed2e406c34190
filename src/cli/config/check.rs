//! What `config check` found, as text or JSON.

use serde_json::{Value as Json, json};

use super::{INVALID, VALID, probe};
use crate::config::{ConfigErrors, Loaded, Loudness, Notice, Origin, Problem};

/// Everything there is to say about a configuration.
pub(super) struct Report {
    errors: Vec<Problem>,
    /// The exit code that the errors alone call for.
    code: u8,
    warnings: Vec<Notice>,
    probes: Vec<probe::Finding>,
}

impl Report {
    /// Only a valid configuration is worth probing.
    pub(super) fn of(loaded: Result<Loaded, ConfigErrors>, deep: bool) -> Self {
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(errors) => {
                let code = errors.exit_code();
                let warnings = errors.warnings().cloned().collect();
                return Self { errors: errors.problems().to_vec(), code, warnings, probes: Vec::new() };
            }
        };
        let probes = if deep { probe::all(&loaded.config) } else { Vec::new() };
        let warnings = loaded.notices.into_iter().filter(|notice| notice.level == Loudness::Warn).collect();
        Self { errors: Vec::new(), code: VALID, warnings, probes }
    }

    pub(super) fn exit_code(&self) -> u8 {
        let failed = self.probes.iter().any(|finding| finding.grade == probe::Grade::Error);
        if failed { self.code.max(INVALID) } else { self.code }
    }

    /// One line per finding, then the verdict.
    pub(super) fn to_text(&self) -> String {
        let mut lines: Vec<String> = self.errors.iter().map(|problem| format!("error: {problem}")).collect();
        lines.extend(self.warnings.iter().map(|notice| format!("warning: {notice}")));
        lines.extend(self.probes.iter().map(probe::Finding::to_string));
        lines.push(self.verdict());
        lines.join("\n") + "\n"
    }

    fn verdict(&self) -> String {
        let failed = self.probes.iter().filter(|finding| finding.grade == probe::Grade::Error).count();
        match self.errors.len() + failed {
            0 => "the configuration is valid".to_owned(),
            1 => "the configuration is invalid: 1 mistake".to_owned(),
            count => format!("the configuration is invalid: {count} mistakes"),
        }
    }

    pub(super) fn to_json(&self) -> String {
        let report = json!({
            "valid": self.exit_code() == VALID,
            "errors": self.errors.iter().map(error_json).collect::<Vec<_>>(),
            "warnings": self.warnings.iter().map(warning_json).collect::<Vec<_>>(),
            "probes": self.probes.iter().map(probe::Finding::to_json).collect::<Vec<_>>(),
        });
        format!("{report:#}\n")
    }
}

fn error_json(problem: &Problem) -> Json {
    let (file, line) = match &problem.origin {
        Origin::File(path, line) => (Some(path.display().to_string()), Some(*line).filter(|line| *line > 0)),
        _ => (None, None),
    };
    json!({
        "option": problem.option,
        "value": problem.value,
        "origin": problem.origin.to_string(),
        "file": file,
        "line": line,
        "what": problem.what,
        "example": problem.example,
    })
}

fn warning_json(notice: &Notice) -> Json {
    let fields = notice.fields.iter().map(|(name, value)| ((*name).to_owned(), Json::from(value.as_str())));
    json!({ "message": notice.message, "fields": fields.collect::<serde_json::Map<_, _>>() })
}
