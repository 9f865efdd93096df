//! Lists in the forms that `--format` names: Docker's table, JSON lines, or a Go template per row.

use anyhow::Result;

use crate::data::Data;
use crate::table;
use crate::template::Template;

/// A kind of list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Listing {
    /// The format without `--format`, `table {{.ID}}\t…`.
    pub(crate) table: &'static str,
    /// Each field's column title.
    pub(crate) titles: &'static [(&'static str, &'static str)],
    /// The format of `--quiet`.
    pub(crate) quiet: &'static str,
}

/// One row of a list.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The fields, for templates and for `{{json .}}`.
    pub(crate) fields: Data,
    /// What templates may ask for and JSON does not show, such as single labels.
    pub(crate) methods: Data,
}

impl Row {
    /// A row of text fields.
    pub(crate) fn new(fields: Vec<(&'static str, String)>) -> Self {
        let mut fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        fields.sort_by(|(left, _): &(String, Data), (right, _)| left.cmp(right));
        Self { fields: Data::Map(fields), methods: Data::Null }
    }

    /// The row with `{{.Label "key"}}` for each of `labels`.
    pub(crate) fn with_labels(mut self, labels: impl IntoIterator<Item = (String, String)>) -> Self {
        let labels = labels.into_iter().map(|(key, value)| (key, value.into())).collect();
        self.methods = Data::Map(vec![("Label".to_owned(), Data::Map(labels))]);
        self
    }
}

impl Listing {
    /// The whole text for `rows`.
    ///
    /// # Errors
    /// [`crate::template::TemplateError`].
    pub(crate) fn render(&self, format: &str, quiet: bool, rows: &[Row]) -> Result<String> {
        let format = match format {
            "" | "table" if quiet => self.quiet,
            "" | "table" => self.table,
            "json" => "{{json .}}",
            other => other,
        };
        let (is_table, body) = match format.strip_prefix("table") {
            Some(body) => (true, body.trim_start()),
            None => (false, format),
        };
        let template = Template::parse(&unescape(body))?;
        let mut lines = Vec::with_capacity(rows.len() + 1);
        if is_table {
            let titles =
                self.titles.iter().map(|(field, title)| ((*field).to_owned(), (*title).into())).collect();
            lines.push(template.render_with(&Data::Map(titles), &label_titles(body))?);
        }
        for row in rows {
            lines.push(template.render_with(&row.fields, &row.methods)?);
        }
        if is_table {
            Ok(table::align(&lines))
        } else {
            Ok(lines.iter().map(|line| format!("{line}\n")).collect())
        }
    }
}

/// In a shell's single quotes `\t` and `\n` arrive as two characters.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

/// Titles of the columns of single labels: the last word of the key.
fn label_titles(format: &str) -> Data {
    let keys = format.split(".Label ").skip(1).filter_map(|rest| rest.split('"').nth(1));
    let titles = keys.map(|key| {
        let last = key.rsplit('.').next().unwrap_or(key).replace(['-', '_'], " ");
        (key.to_owned(), last.into())
    });
    Data::Map(vec![("Label".to_owned(), Data::Map(titles.collect()))])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: Listing = Listing {
        table: "table {{.ID}}\t{{.Name}}",
        titles: &[("ID", "ID"), ("Name", "NAME")],
        quiet: "{{.ID}}",
    };

    #[test]
    fn renders_all_forms() {
        let row = Row::new(vec![("Name", "<web>".into()), ("ID", "1".into())])
            .with_labels([("a.first-name".to_owned(), "x".to_owned())]);
        let render = |format: &str, quiet| LISTING.render(format, quiet, std::slice::from_ref(&row)).unwrap();
        assert_eq!(render("", false), "ID        NAME\n1         <web>\n");
        assert_eq!(render("", true), "1\n");
        assert_eq!(render("json", false), "{\"ID\":\"1\",\"Name\":\"<web>\"}\n");
        assert_eq!(render(r#"{{.ID}}\t{{.Label "a.first-name"}}{{.Label "none"}}"#, true), "1\tx\n");
        assert_eq!(
            render(r#"table {{.ID}}\t{{.Label "a.first-name"}}"#, false),
            "ID        first name\n1         x\n"
        );
    }
}
