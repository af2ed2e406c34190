//! What is wrong with a cluster.

use super::{Page, Shown, Table};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) enum Severity {
    /// The cluster does not do its work, or soon will not.
    Error,
    /// It works, and something that is not as it should be will show when it is needed.
    Warning,
    /// It could be better.
    Hint,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::cli) struct Finding {
    pub(in crate::cli) severity: Severity,
    /// A short name that scripts know it by.
    pub(in crate::cli) code: &'static str,
    /// What is wrong, and where.
    pub(in crate::cli) cause: String,
    /// What to do about it.
    pub(in crate::cli) remedy: String,
}

/// All that is wrong, the worst first.
pub(in crate::cli) struct Findings(pub(in crate::cli) Vec<Finding>);

impl Shown for Findings {
    fn simple(&self, page: &mut Page) {
        for Finding { severity, code, cause, remedy } in &self.0 {
            page.line(format_args!("{}: {code}: {cause}; {remedy}", severity.name()));
        }
    }

    fn fields(&self, page: &mut Page) {
        for finding in &self.0 {
            page.quoted_field("Severity", finding.severity.name());
            page.quoted_field("Code", finding.code);
            page.quoted_field("Cause", &finding.cause);
            page.quoted_field("Remedy", &finding.remedy);
            page.end_line();
        }
    }

    fn json(&self, page: &mut Page) {
        page.array(&self.0, |page, finding| {
            page.object(|object| {
                object.text("severity", finding.severity.name());
                object.text("code", finding.code);
                object.text("cause", &finding.cause);
                object.text("remedy", &finding.remedy);
            });
        });
    }

    fn table(&self) -> Option<Table> {
        let row = |finding: &Finding| {
            let Finding { severity, code, cause, remedy } = finding.clone();
            vec![severity.name().to_owned(), code.to_owned(), cause, remedy]
        };
        Some(Table { headings: &["severity", "code", "cause", "remedy"], rows: self.0.iter().map(row).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, tests::printed};

    #[test]
    fn a_finding_is_one_line_or_one_object() {
        let finding = Finding {
            severity: Severity::Warning,
            code: "even-members",
            cause: "4 members".to_owned(),
            remedy: "add one".to_owned(),
        };
        let findings = Findings(vec![finding]);
        assert_eq!(printed(Format::Simple, false, &findings), "warning: even-members: 4 members; add one\n");
        let json = r#"[{"severity":"warning","code":"even-members","cause":"4 members","remedy":"add one"}]"#;
        assert_eq!(printed(Format::Json, false, &findings), format!("{json}\n"));
        assert_eq!(printed(Format::Json, false, &Findings(Vec::new())), "[]\n");
        let fields = "\"Severity\" : \"warning\"\n\"Code\" : \"even-members\"\n\"Cause\" : \"4 members\"\n\
                      \"Remedy\" : \"add one\"\n\n";
        assert_eq!(printed(Format::Fields, false, &findings), fields);
    }
}
