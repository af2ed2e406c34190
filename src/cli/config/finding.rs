//! One thing that `config check` has to say, whoever found it, as a line of text or as JSON.

use serde_json::{Value as Json, json};

use crate::config::{Notice, Origin, Problem};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Severity {
    /// What was tried works.
    Fine,
    /// It starts, and may not do what was meant.
    Warning,
    /// It does not start, or should not.
    Error,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Fine => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) severity: Severity,
    /// The option it is about, without dashes, if it is about one.
    pub(super) option: Option<String>,
    /// Where that was written.
    pub(super) origin: Option<Origin>,
    /// The other place, when two do not fit together.
    pub(super) other: Option<Origin>,
    /// What was found.
    pub(super) message: String,
    /// What to do about it.
    pub(super) remedy: Option<String>,
    /// All of it as one line, without the severity.
    pub(super) line: String,
}

impl Finding {
    /// What a probe of the host found: the option as it was set, wherever that was.
    pub(super) fn probed(severity: Severity, option: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let line = format!("{option}: {message}");
        Self { severity, option: Some(option.to_owned()), origin: None, other: None, message, remedy: None, line }
    }

    /// The same, with what to do about it.
    pub(super) fn with_remedy(self, remedy: String) -> Self {
        Self { line: format!("{}; {remedy}", self.line), remedy: Some(remedy), ..self }
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    pub(super) fn to_text(&self) -> String {
        format!("{}: {}", self.severity.name(), self.line)
    }

    pub(super) fn to_json(&self) -> Json {
        json!({
            "severity": self.severity.name(),
            "option": self.option,
            "origin": self.origin.as_ref().map(place),
            "other": self.other.as_ref().map(place),
            "message": self.message,
            "remedy": self.remedy,
        })
    }
}

/// A place, and if it is in a file, file and line.
fn place(origin: &Origin) -> Json {
    let (file, line) = match origin {
        Origin::File(path, line) => (Some(path.display().to_string()), Some(*line).filter(|line| *line > 0)),
        _ => (None, None),
    };
    json!({ "text": origin.to_string(), "file": file, "line": line })
}

impl From<&Problem> for Finding {
    fn from(problem: &Problem) -> Self {
        let remedy = match &problem.example {
            Some(example) => Some(format!("write {example}")),
            None => problem.remedy.clone(),
        };
        Self {
            severity: Severity::Error,
            option: Some(problem.option.clone()).filter(|option| !option.is_empty()),
            origin: Some(problem.origin.clone()),
            other: None,
            message: problem.what.clone(),
            remedy,
            line: problem.to_string(),
        }
    }
}

impl From<&Notice> for Finding {
    fn from(notice: &Notice) -> Self {
        Self {
            severity: Severity::Warning,
            option: notice.option.map(str::to_owned),
            origin: notice.origin.clone(),
            other: None,
            message: notice.to_string(),
            remedy: notice.remedy.clone(),
            line: notice.to_string(),
        }
    }
}
