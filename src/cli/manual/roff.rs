//! Text with the macros of man(7).

/// The day of the last change of what the pages say.
const DAY: &str = "2026-11-30";

/// A page under way. In all texts, what stands between backticks becomes bold.
#[derive(Debug)]
pub(super) struct Roff(String);

impl Roff {
    /// Begins a page called `name` of `section`, which is about `about`.
    pub(super) fn new(name: &str, section: u8, about: &str) -> Self {
        let mut page = Self(".\\\" Written by make man from the option and command tables: change those.\n".to_owned());
        let (title, version) = (name.to_uppercase(), env!("CARGO_PKG_VERSION"));
        page.line(format_args!(".TH {title} {section} {DAY} \"quorate {version}\" \"Quorate\""));
        // Names of options and URLs are long and unbreakable: filled to the right edge, narrow terminals would have gaps.
        page.line(format_args!(".ad l"));
        page.heading("NAME").text(&format!("{name} - {about}"))
    }

    pub(super) fn heading(mut self, title: &str) -> Self {
        self.line(format_args!(".SH {}", escaped(title)));
        self
    }

    pub(super) fn subheading(mut self, title: &str) -> Self {
        self.line(format_args!(".SS {}", escaped(title)));
        self
    }

    /// Goes on with the paragraph.
    pub(super) fn text(mut self, text: &str) -> Self {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let line = inline(line.trim());
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            self.line(format_args!("{guard}{line}"));
        }
        self
    }

    /// Begins a paragraph.
    pub(super) fn paragraph(mut self, text: &str) -> Self {
        let is_first = self.0.lines().next_back().is_some_and(|line| line.starts_with(".S"));
        if !is_first {
            self.line(format_args!(".PP"));
        }
        self.text(text)
    }

    /// Begins an entry of a list, with its first paragraph. Its tag may be broken behind each `|`.
    pub(super) fn item(mut self, tag: &str, text: &str) -> Self {
        self.line(format_args!(".TP\n{}", inline(tag).replace('|', "|\\:")));
        self.text(text)
    }

    /// Goes on with an entry of a list in a paragraph of its own, set in.
    pub(super) fn nested(mut self, text: &str) -> Self {
        self.line(format_args!(".RS"));
        self = self.text(text);
        self.line(format_args!(".RE"));
        self
    }

    /// Sets lines as they are, indented.
    pub(super) fn example(mut self, lines: &str) -> Self {
        self.line(format_args!(".RS 4\n.EX"));
        for line in lines.lines() {
            let guard = if line.starts_with(['.', '\'']) { "\\&" } else { "" };
            self.line(format_args!("{guard}{}", escaped(line)));
        }
        self.line(format_args!(".EE\n.RE"));
        self
    }

    /// A chain of [`Roff::paragraph`]s.
    pub(super) fn paragraphs(self, texts: &[&str]) -> Self {
        texts.iter().fold(self, |page, text| page.paragraph(text))
    }

    /// A chain of [`Roff::item`]s.
    pub(super) fn items(self, items: &[(&str, &str)]) -> Self {
        items.iter().fold(self, |page, (tag, text)| page.item(tag, text))
    }

    pub(super) fn into_text(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        self.0.push_str(&std::fmt::format(line));
        self.0.push('\n');
    }
}

/// Text with its backticks turned into bold. A list of addresses may be broken behind each comma.
fn inline(text: &str) -> String {
    let mut out = String::new();
    for (number, part) in text.split('`').enumerate() {
        let part = escaped(part);
        if number % 2 == 1 && !part.is_empty() {
            out.push_str("\\fB");
            out.push_str(&part);
            out.push_str("\\fR");
        } else {
            out.push_str(&part);
        }
    }
    out.replace(",http", ",\\:http")
}

/// Text without a meaning to roff: what is typed on a keyboard stays what it is, hyphens above all. What is not ASCII is
/// named by its number, because roff itself reads bytes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '~' => out.push_str("\\(ti"),
            '^' => out.push_str("\\(ha"),
            '\'' => out.push_str("\\(aq"),
            '"' => out.push_str("\\(dq"),
            other if other.is_ascii() => out.push(other),
            other => out.push_str(&std::fmt::format(format_args!("\\[u{:04X}]", u32::from(other)))),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_no_meaning_to_roff() {
        let page = Roff::new("a", 1, "b").text(".x `--y` \\z\n'w").example(".q\n  -r");
        let text = page.into_text();
        let rest = text.split_once("NAME\na \\- b\n").expect("a name").1;
        assert_eq!(rest, "\\&.x \\fB\\-\\-y\\fR \\ez\n\\(aqw\n.RS 4\n.EX\n\\&.q\n  \\-r\n.EE\n.RE\n");
    }

    #[test]
    fn long_tags_may_be_broken_and_every_character_is_ascii() {
        let text = Roff::new("a", 1, "b").item("`--x` on|off", "y,…").into_text();
        assert!(text.ends_with(".TP\n\\fB\\-\\-x\\fR on|\\:off\ny,\\[u2026]\n"), "{text}");
    }
}
