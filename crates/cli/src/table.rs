//! Aligned columns for terminals. Numbers to the right, words to the left; nothing wraps.

use crate::print;

/// A table being filled row by row.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row has one cell per column");
        self.rows.push(cells.iter().map(|cell| print::one_line(cell).into_owned()).collect());
    }

    /// Leaves a column out that says nothing in any row.
    pub(crate) fn without_empty(mut self, name: &str) -> Self {
        let Some(at) = self.head.iter().position(|head| *head == name) else {
            return self;
        };
        if self.rows.iter().all(|row| row[at].is_empty()) {
            self.head.remove(at);
            self.rows.iter_mut().for_each(|row| drop(row.remove(at)));
        }
        self
    }

    pub(crate) fn render(&self) -> String {
        let columns = self.head.len();
        let width = |c: usize| {
            let cells = self.rows.iter().map(|r| r[c].chars().count());
            cells.chain([self.head[c].chars().count()]).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let right: Vec<bool> = (0..columns).map(|c| self.is_numeric(c)).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = String::new();
            for (c, cell) in cells.enumerate() {
                let pad = " ".repeat(widths[c] - cell.chars().count());
                let (before, after) = if right[c] { (pad.as_str(), "") } else { ("", pad.as_str()) };
                text.push_str(before);
                text.push_str(cell);
                text.push_str(after);
                text.push_str("  ");
            }
            format!("{}\n", text.trim_end())
        };
        let mut text = line(&mut self.head.iter().copied());
        for row in &self.rows {
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        text
    }

    fn is_numeric(&self, column: usize) -> bool {
        let numeric = |cell: &str| cell == "-" || cell.starts_with(|c: char| c.is_ascii_digit() || c == '<');
        !self.rows.is_empty() && self.rows.iter().all(|r| numeric(&r[column]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_left_numbers_right() {
        let mut table = Table::new(&["arm", "params"]);
        table.row(vec!["dense".into(), "9".into()]);
        table.row(vec!["m".into(), "1.2M".into()]);
        assert_eq!(table.render(), "arm    params\ndense       9\nm        1.2M\n");
    }

    #[test]
    fn a_column_that_says_nothing_is_left_out() {
        let filled = |last: &str| {
            let mut table = Table::new(&["arm", "differs"]);
            table.row(vec!["dense".into(), String::new()]);
            table.row(vec!["dense".into(), last.into()]);
            table.without_empty("differs").render()
        };
        assert_eq!(filled(""), "arm\ndense\ndense\n");
        assert_eq!(filled("seed=2"), "arm    differs\ndense\ndense  seed=2\n");
    }
}
