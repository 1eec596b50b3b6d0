//! Aligned columns, as kubectl's tab writer lays them out.
//!
//! Our own, since it has to go on in a watch: later rows keep to the widths of earlier ones.

use std::io::{self, Write};

/// A table under way.
#[derive(Debug)]
pub(crate) struct Table {
    headers: Vec<String>,
    widths: Vec<usize>,
    begun: bool,
}

const NARROWEST: usize = 6;
const GAP: usize = 3;

impl Table {
    pub(crate) fn new(headers: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let headers: Vec<String> = headers.into_iter().map(Into::into).collect();
        Self {
            widths: vec![NARROWEST; headers.len()],
            headers,
            begun: false,
        }
    }

    /// Writes rows, before the first ones the headers. A table without rows stays unwritten.
    pub(crate) fn write(&mut self, out: &mut dyn Write, rows: &[Vec<String>]) -> io::Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let headers = (!self.begun).then(|| std::mem::take(&mut self.headers));
        self.begun = true;
        let clean = rows
            .iter()
            .map(|row| row.iter().map(|cell| one_line(cell)).collect());
        let rows: Vec<Vec<String>> = headers.into_iter().chain(clean).collect();
        for row in &rows {
            // The last cell of a row ends with the line, and so needs no width.
            for (width, cell) in self
                .widths
                .iter_mut()
                .zip(row)
                .take(row.len().saturating_sub(1))
            {
                *width = (*width).max(cell.chars().count() + GAP);
            }
        }
        for row in &rows {
            for (at, cell) in row.iter().enumerate() {
                match self.widths.get(at) {
                    Some(&width) if at + 1 < row.len() => write!(out, "{cell:width$}")?,
                    _ => out.write_all(cell.as_bytes())?,
                }
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }
}

/// A cell's first line, without what would disturb the table or the terminal.
fn one_line(cell: &str) -> String {
    let (first, cut) = match cell.find(['\n', '\r', '\x0c']) {
        Some(end) => (&cell[..end], "..."),
        None => (cell, ""),
    };
    let first = first.replace('\x1b', "^[").replace(char::is_control, " ");
    first + cut
}

#[cfg(test)]
mod tests {
    use super::Table;

    fn write(table: &mut Table, rows: &[&[&str]]) -> String {
        let rows: Vec<Vec<String>> = rows
            .iter()
            .map(|row| row.iter().map(|cell| cell.to_string()).collect())
            .collect();
        let mut out = Vec::new();
        table.write(&mut out, &rows).expect("memory takes all");
        String::from_utf8(out).expect("is text")
    }

    #[test]
    fn columns_align_and_later_rows_keep_to_them() {
        let mut table = Table::new(["NAME", "N", "STATUS"]);
        assert_eq!(write(&mut table, &[]), "");
        assert_eq!(
            write(
                &mut table,
                &[&["web-0", "1", "Running"], &["größer", "12345", ""]]
            ),
            "NAME     N       STATUS\nweb-0    1       Running\ngrößer   12345   \n"
        );
        assert_eq!(
            write(&mut table, &[&["x", "2", "Gone"]]),
            "x        2       Gone\n"
        );
        assert_eq!(
            write(&mut table, &[&["a-longer-name", "2", "Gone"]]),
            "a-longer-name   2       Gone\n"
        );
    }

    #[test]
    fn a_cell_is_one_line_that_leaves_the_terminal_alone() {
        let mut table = Table::new(["A", "B"]);
        assert_eq!(
            write(&mut table, &[&["red \x1b[31m\ttext", "first\nsecond"]]),
            "A                 B\nred ^[[31m text   first...\n"
        );
    }
}
