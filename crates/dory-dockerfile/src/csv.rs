//! One line of comma-separated fields (RFC 4180), as `--mount` has them.

/// The fields of a line of comma-separated values; `None` where a quote is out of place or open.
#[must_use]
pub fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let field = &rest[..end];
                if field.contains('"') {
                    return None;
                }
                (field.to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// A field up to its closing quote, and what follows; a doubled quote stands for one.
fn quoted_field(mut rest: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        for (line, expected) in [
            ("a=b,c", Some(&["a=b", "c"][..])),
            ("\"a=b,c\",d", Some(&["a=b,c", "d"])),
            ("\"a\"\"b\"", Some(&["a\"b"])),
            ("", Some(&[""])),
            ("a,", Some(&["a", ""])),
            ("a\"b", None),
            ("\"a\"b", None),
            ("\"a", None),
        ] {
            assert_eq!(
                fields(line).as_deref(),
                expected.map(|all| all.iter().map(|&f| f.to_owned()).collect::<Vec<_>>()).as_deref(),
                "{line}"
            );
        }
    }
}
