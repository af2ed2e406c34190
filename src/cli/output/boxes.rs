//! Tables drawn with lines.

use super::Page;

/// Headings and the rows below them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::cli) struct Table {
    /// Shown in capitals, underscores as blanks.
    pub(super) headings: &'static [&'static str],
    /// One cell per heading.
    pub(super) rows: Vec<Vec<String>>,
}

impl Table {
    /// Cells stand right, headings in the middle of their column.
    pub(super) fn print(&self, page: &mut Page) {
        let headings: Vec<_> = self.headings.iter().map(|name| name.to_uppercase().replace('_', " ")).collect();
        let rows: Vec<Vec<_>> =
            self.rows.iter().map(|row| row.iter().map(|cell| cell.trim().to_owned()).collect()).collect();
        let widths = widths(&headings, &rows);
        page.line(rule('┌', '┬', '┐', &widths));
        page.line(row(&headings, &widths, centered));
        if rows.is_empty() {
            page.line(rule('└', '┴', '┘', &widths));
            return;
        }
        page.line(rule('├', '┼', '┤', &widths));
        for cells in &rows {
            page.line(row(cells, &widths, right));
        }
        page.line(rule('└', '┴', '┘', &widths));
    }

    /// The rows as the simple form shows them.
    pub(super) fn comma_lines(&self, page: &mut Page) {
        self.rows.iter().for_each(|row| page.line(row.join(", ")));
    }
}

fn widths(headings: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let widest = |column: usize, heading: &String| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.chain([heading]).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    headings.iter().enumerate().map(|(column, heading)| widest(column, heading)).collect()
}

fn rule(left: char, middle: char, right: char, widths: &[usize]) -> String {
    let lines: Vec<_> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
    format!("{left}{}{right}", lines.join(&middle.to_string()))
}

fn row(cells: &[String], widths: &[usize], align: fn(&str, usize) -> String) -> String {
    let cells: Vec<_> = cells.iter().zip(widths).map(|(cell, width)| align(cell, *width)).collect();
    format!("│ {} │", cells.join(" │ "))
}

fn centered(text: &str, width: usize) -> String {
    format!("{text:^width$}")
}

fn right(text: &str, width: usize) -> String {
    format!("{text:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::{Format, Style};

    fn drawn(table: &Table) -> String {
        let mut out = Vec::new();
        let mut page = Page::new(&mut out, Style { format: Format::Table, hex: false, values_only: false });
        table.print(&mut page);
        page.finish().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn cells_stand_right_below_centered_capitals() {
        let rows = vec![vec!["1".to_owned(), "started".to_owned()], vec!["22".to_owned(), " x ".to_owned()]];
        let table = Table { headings: &["ID", "is_up"], rows };
        let expected = "┌────┬─────────┐\n│ ID │  IS UP  │\n├────┼─────────┤\n│  1 │ started │\n│ 22 │       x │\n└────┴─────────┘\n";
        assert_eq!(drawn(&table), expected);
    }
}
