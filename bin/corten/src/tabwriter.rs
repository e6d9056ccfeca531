//! Columns as Go's `text/tabwriter` makes them, with Docker's settings: at least ten wide, three blanks apart.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Aligns tab-separated cells. A column's width is that of its widest cell in neighbouring lines; what follows the last
/// tab of a line belongs to no column.
pub fn align(text: &str) -> String {
    align_with(text, MIN_WIDTH, PADDING)
}

/// The same with other settings.
pub fn align_with(text: &str, min_width: usize, padding: usize) -> String {
    let lines: Vec<Vec<&str>> = text.split('\n').map(|line| line.split('\t').collect()).collect();
    let mut writer = Writer { lines: &lines, min_width, padding, out: String::with_capacity(text.len() * 2) };
    writer.block(0, lines.len(), &mut Vec::new());
    // The last line got a newline that it does not have.
    writer.out.pop();
    writer.out
}

struct Writer<'a> {
    lines: &'a [Vec<&'a str>],
    min_width: usize,
    padding: usize,
    out: String,
}

impl Writer<'_> {
    /// Writes the lines from `from` to `to`, given the widths of their columns so far.
    fn block(&mut self, from: usize, to: usize, widths: &mut Vec<usize>) {
        let column = widths.len();
        let mut at = from;
        let mut written = from;
        while at < to {
            if column + 1 >= self.lines[at].len() {
                at += 1;
                continue;
            }
            // Lines before this one have no such column: they are done.
            self.write(written, at, widths);
            let mut width = self.min_width;
            let start = at;
            while at < to && column + 1 < self.lines[at].len() {
                width = width.max(self.lines[at][column].chars().count() + self.padding);
                at += 1;
            }
            widths.push(width);
            self.block(start, at, widths);
            widths.pop();
            written = at;
        }
        self.write(written, to, widths);
    }

    fn write(&mut self, from: usize, to: usize, widths: &[usize]) {
        for line in &self.lines[from..to] {
            for (index, cell) in line.iter().enumerate() {
                self.out.push_str(cell);
                if let (Some(width), true) = (widths.get(index), index + 1 < line.len()) {
                    self.out.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
                }
            }
            self.out.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_at_least_ten_wide() {
        assert_eq!(align("A\tB\n1\t2\n"), "A         B\n1         2\n");
    }

    #[test]
    fn the_widest_cell_decides_and_the_last_cell_is_free() {
        assert_eq!(align("NAME\tX\nlonger than ten\ty\n"), "NAME              X\nlonger than ten   y\n");
    }

    #[test]
    fn a_line_without_tabs_ends_a_column() {
        assert_eq!(align("averylongcell\tb\nplain\na\tb\n"), "averylongcell   b\nplain\na         b\n");
    }

    #[test]
    fn empty_cells_count() {
        assert_eq!(align("A\t\tC\n"), "A                   C\n");
        assert_eq!(align("é\tb\n"), "é         b\n");
        assert_eq!(align(""), "");
    }
}
