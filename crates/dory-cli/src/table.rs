//! Columns as Docker's tables have them: ten characters wide at least, three blanks apart, the last one unpadded.

/// Least width of a column with its gap.
const LEAST_WIDTH: usize = 10;
/// Blanks between a column's longest cell and the next column.
const GAP: usize = 3;

/// Aligns the cells of `lines`, which are separated by tabs.
///
/// As in Go's tabwriter, a column is a run of lines that have a cell there *and* a tab behind it.
pub(crate) fn align(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> = lines.iter().map(|line| line.split('\t').collect()).collect();
    let mut widths: Vec<Vec<usize>> = rows.iter().map(|row| vec![0; row.len()]).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    for column in 0..columns {
        let mut start = 0;
        while start < rows.len() {
            let end = start + rows[start..].iter().take_while(|row| column + 1 < row.len()).count();
            let width = rows[start..end].iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
            for row_widths in &mut widths[start..end] {
                row_widths[column] = (width + GAP).max(LEAST_WIDTH);
            }
            start = end + 1;
        }
    }
    let mut text = String::new();
    for (row, widths) in rows.iter().zip(&widths) {
        for (cell, width) in row.iter().zip(widths) {
            text.push_str(&format!("{cell:<width$}"));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aligns_as_docker_does() {
        let lines = ["DRIVER\tVOLUME NAME".to_owned(), "local\tx".to_owned()];
        assert_eq!(align(&lines), "DRIVER    VOLUME NAME\nlocal     x\n");
        let lines =
            ["CONTAINER ID\tIMAGE\tNAMES".to_owned(), "512a3bbf9e03\tdébian:bookworm\tweb".to_owned()];
        assert_eq!(
            align(&lines),
            "CONTAINER ID   IMAGE             NAMES\n512a3bbf9e03   débian:bookworm   web\n"
        );
        assert_eq!(align(&["A\t".to_owned()]), "A         \n");
    }
}
