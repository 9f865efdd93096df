//! Here-documents: `<<EOF`, as `RUN`, `COPY` and `ADD` take them.

use crate::error::ExpansionError;
use crate::expand::Lexer;

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it; a file that it makes has this name.
    pub name: String,
    /// The descriptor of the shell that it is for; 0 where none is written.
    pub descriptor: u32,
    /// Its word had no quotes: variables in it are expanded (by the builder for COPY, by the shell for RUN).
    pub expand: bool,
    /// `<<-`: leading tabs are dropped.
    pub chomp: bool,
    /// Its lines, each with its newline.
    pub content: String,
}

impl Heredoc {
    /// Reads `<<WORD`, `3<<-"WORD"`, and the like; `None` where `word` is something else.
    pub(crate) fn parse(word: &str) -> Result<Option<Self>, ExpansionError> {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let Some(rest) = word[digits..].strip_prefix("<<") else { return Ok(None) };
        let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let lexer = Lexer { skip_unset: true, ..Lexer::new('\\') };
        let [name] = lexer.words(rest)?.try_into().unwrap_or_default();
        let [written] = Lexer { raw_quotes: true, ..lexer }.words(rest)?.try_into().unwrap_or_default();
        if name.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self {
            expand: quotes(&name) == quotes(&written),
            name,
            descriptor: word[..digits].parse().unwrap_or(0),
            chomp,
            content: String::new(),
        }))
    }

    /// The here-documents that a line announces, in their order.
    pub(crate) fn announced(line: &str) -> Result<Vec<Self>, ExpansionError> {
        let lexer = Lexer { raw_quotes: true, raw_escapes: true, skip_unset: true, escape: '\\' };
        // A line that no shell could split announces none; the shell will say what is wrong with it.
        let words = lexer.words(line).unwrap_or_default();
        words.iter().filter_map(|word| Self::parse(word).transpose()).collect()
    }

    /// Whether `line` ends it.
    pub(crate) fn ends(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.chomp { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

fn quotes(word: &str) -> usize {
    word.matches(['\'', '"']).count()
}

/// `content` without the tabs at the beginning of its lines: what `<<-` means.
#[must_use]
pub fn without_leading_tabs(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_forms() {
        for (word, name, descriptor, expand, chomp) in [
            ("<<EOF", "EOF", 0, true, false),
            ("<<-EOF", "EOF", 0, true, true),
            ("3<<EOF", "EOF", 3, true, false),
            ("<<'EOF'", "EOF", 0, false, false),
            ("<<\"E O\"", "E O", 0, false, false),
            ("<<E\"O\"F", "EOF", 0, false, false),
            ("<<  EOF", "EOF", 0, true, false),
        ] {
            let heredoc = Heredoc::parse(word).expect(word).expect(word);
            let got = (heredoc.name.as_str(), heredoc.descriptor, heredoc.expand, heredoc.chomp);
            assert_eq!(got, (name, descriptor, expand, chomp), "{word}");
        }
        for word in ["", "<", "<<", "<<-", "a<<b", "<<<x", "<<a<b", "<<a b"] {
            assert_eq!(Heredoc::parse(word), Ok(None), "{word}");
        }
    }

    #[test]
    fn finds_what_a_line_announces() {
        let names =
            |line| Heredoc::announced(line).map(|all| all.into_iter().map(|h| h.name).collect::<Vec<_>>());
        assert_eq!(names("RUN <<A cat <<-B >x"), Ok(vec!["A".into(), "B".into()]));
        assert_eq!(names("COPY <<a.txt <<'b.txt' /dest/"), Ok(vec!["a.txt".into(), "b.txt".into()]));
        assert_eq!(names("RUN echo '<<A' \"$((1<<2))\""), Ok(vec![]));
    }
}
