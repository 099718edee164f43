//! Lines and columns as places in a text.

/// Where the lines of a text begin.
pub(crate) struct Lines<'a> {
    source: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(source: &'a str) -> Lines<'a> {
        let ends = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Lines { source, starts: std::iter::once(0).chain(ends.map(|(at, _)| at + 1)).collect() }
    }

    /// The byte at a line and a column, both counted from 1, columns in characters.
    pub(crate) fn byte(&self, line: usize, column: usize) -> Result<usize, String> {
        let start = line.checked_sub(1).and_then(|line| self.starts.get(line));
        let start = *start.ok_or_else(|| format!("there is no line {line}"))?;
        let rest = &self.source[start..];
        let characters = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
        let at = column.checked_sub(1).and_then(|column| characters.into_iter().nth(column));
        Ok(start + at.ok_or_else(|| format!("line {line} has no column {column}"))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters() {
        let lines = Lines::of("a\n\u{e9}b\n");
        assert_eq!(lines.byte(1, 1), Ok(0));
        assert_eq!(lines.byte(2, 2), Ok(4));
        assert!(lines.byte(0, 1).is_err());
        assert!(lines.byte(9, 1).is_err());
        assert!(lines.byte(2, 0).is_err());
    }
}
