//! What is wrong with a configuration: every mistake at once, each with its place, its text and a correct example.

use std::fmt;

use super::origin::Origin;

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The option, without dashes; empty when the mistake is about a whole file.
    pub option: String,
    /// The value as written, when there is one.
    pub value: Option<String>,
    /// Where it was written.
    pub origin: Origin,
    /// What is wrong, in etcd's words where etcd has words.
    pub what: String,
    /// How it would be right.
    pub example: Option<String>,
    /// A mistake of the command line's form, which etcd answers with usage and exit code 2.
    pub usage: bool,
}

/// All mistakes of one configuration, in the order in which they were met. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<Problem>);

impl ConfigErrors {
    /// `None` when there is no mistake.
    pub fn new(problems: Vec<Problem>) -> Option<Self> {
        if problems.is_empty() { None } else { Some(Self(problems)) }
    }

    /// The mistakes.
    pub fn problems(&self) -> &[Problem] {
        &self.0
    }

    /// etcd's exit code: 2 when the command line has no valid form, else 1.
    pub fn exit_code(&self) -> u8 {
        if self.0.iter().any(|problem| problem.usage) { 2 } else { 1 }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.what)
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for ConfigErrors {}
