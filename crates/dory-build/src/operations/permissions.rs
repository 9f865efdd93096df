//! `--chmod`: octal, or symbolic as chmod(1) has it.

/// A change of permissions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Permissions {
    /// These.
    Octal(u32),
    /// `u+x,go-w`, one after the other.
    Symbolic(Vec<Clause>),
}

/// One part of a symbolic change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clause {
    /// Bits of the classes that are meant: 0o700 for `u`, 0o070 for `g`, 0o007 for `o`.
    classes: u32,
    operator: char,
    letters: String,
}

impl Permissions {
    /// Reads one; `None` for what is none.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Octal);
        }
        let clauses: Option<Vec<Vec<Clause>>> = text.split(',').map(clauses).collect();
        Some(Self::Symbolic(clauses?.into_iter().flatten().collect()))
    }

    /// The permissions of a file that has `mode`.
    pub(crate) fn of(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(clauses) => {
                clauses.iter().fold(mode & 0o7777, |mode, clause| clause.apply(mode, is_directory))
            }
        }
    }
}

fn clauses(text: &str) -> Option<Vec<Clause>> {
    let start = text.find(['+', '-', '='])?;
    let mut classes = 0;
    for class in text[..start].chars() {
        classes |= match class {
            'u' => 0o700,
            'g' => 0o070,
            'o' => 0o007,
            'a' => 0o777,
            _ => return None,
        };
    }
    let mut rest = &text[start..];
    let mut found = Vec::new();
    while let Some(operator) = rest.chars().next() {
        let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
        let letters = &rest[1..end];
        if !letters.chars().all(|letter| "rwxXstugo".contains(letter)) {
            return None;
        }
        found.push(Clause {
            classes: if classes == 0 { 0o777 } else { classes },
            operator,
            letters: letters.to_owned(),
        });
        rest = &rest[end..];
    }
    Some(found)
}

impl Clause {
    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let spread = |bits: u32| (bits << 6 | bits << 3 | bits) & self.classes;
        let mut bits = 0;
        for letter in self.letters.chars() {
            bits |= match letter {
                'r' => spread(4),
                'w' => spread(2),
                'x' => spread(1),
                'X' if is_directory || mode & 0o111 != 0 => spread(1),
                's' => {
                    (if self.classes & 0o700 != 0 { 0o4000 } else { 0 })
                        | (if self.classes & 0o070 != 0 { 0o2000 } else { 0 })
                }
                't' => 0o1000,
                'u' => spread(mode >> 6 & 7),
                'g' => spread(mode >> 3 & 7),
                'o' => spread(mode & 7),
                _ => 0,
            };
        }
        match self.operator {
            '+' => mode | bits,
            '-' => mode & !bits,
            _ => mode & !self.classes | bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_as_chmod_does() {
        let cases = [
            ("755", 0o600, false, 0o755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o740, false, 0o770),
            ("u+s,+t", 0o755, true, 0o5755),
            ("u-x+w", 0o500, false, 0o600),
        ];
        for (text, mode, is_directory, expected) in cases {
            let changed = Permissions::parse(text).unwrap().of(mode, is_directory);
            assert_eq!(changed, expected, "{text} of {mode:o}: {changed:o}");
        }
        for text in ["", "u", "9", "z+x", "u+q", "77777"] {
            assert_eq!(Permissions::parse(text), None, "{text}");
        }
    }
}
