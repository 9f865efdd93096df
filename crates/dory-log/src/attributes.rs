//! The `attrs` of log records: labels, variables and a tag of the container, as the log options choose them.

use std::collections::BTreeMap;

use regex_lite::Regex;

use crate::config::LogConfigError;

/// What the options `labels`, `env` and `tag` may speak of.
#[derive(Debug, Clone, Copy, Default)]
pub struct LogSubject<'a> {
    /// Full id of the container.
    pub id: &'a str,
    /// Name of the container, with or without the leading slash.
    pub name: &'a str,
    /// Image id with its algorithm, `sha256:…`.
    pub image_id: &'a str,
    /// The image as the user named it.
    pub image_name: &'a str,
    /// Labels of the container.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// Environment of the container, `NAME=value`.
    pub env: &'a [String],
}

/// The attributes that `options` choose from `subject`.
pub(crate) fn collect(
    options: &BTreeMap<String, String>,
    subject: &LogSubject<'_>,
) -> Result<BTreeMap<String, String>, LogConfigError> {
    let mut attributes = BTreeMap::new();
    let labels = subject.labels.into_iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables = subject.env.iter().filter_map(|entry| entry.split_once('='));
    for (name, value) in
        Choice::of(options, "labels")?.chosen(labels).chain(Choice::of(options, "env")?.chosen(variables))
    {
        attributes.insert(name.to_owned(), value.to_owned());
    }
    if let Some(template) = options.get("tag") {
        let tag = expand_tag(template, subject).ok_or_else(|| LogConfigError::Tag(template.clone()))?;
        if !tag.is_empty() {
            attributes.insert("tag".to_owned(), tag);
        }
    }
    Ok(attributes)
}

/// What the options `labels` and `labels-regex`, or `env` and `env-regex`, choose by name.
struct Choice<'a> {
    names: Vec<&'a str>,
    pattern: Option<Regex>,
}

impl<'a> Choice<'a> {
    fn of(options: &'a BTreeMap<String, String>, option: &str) -> Result<Self, LogConfigError> {
        let names = options.get(option).map_or_else(Vec::new, |names| names.split(',').collect());
        let pattern = options.get(&format!("{option}-regex")).filter(|pattern| !pattern.is_empty());
        let pattern = pattern.map(|pattern| {
            Regex::new(pattern).map_err(|error| LogConfigError::Pattern {
                pattern: pattern.clone(),
                reason: error.to_string(),
            })
        });
        Ok(Self { names, pattern: pattern.transpose()? })
    }

    fn chosen<'b>(
        self,
        all: impl Iterator<Item = (&'b str, &'b str)>,
    ) -> impl Iterator<Item = (&'b str, &'b str)> {
        all.filter(move |(name, _)| {
            self.names.contains(name) || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
        })
    }
}

/// Replaces the fields of a tag template; `None` for anything but plain fields.
fn expand_tag(template: &str, subject: &LogSubject<'_>) -> Option<String> {
    let mut tag = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (field, after) = after.split_once("}}")?;
        tag.push_str(before);
        tag.push_str(&field_value(field.trim(), subject)?);
        rest = after;
    }
    tag.push_str(rest);
    Some(tag)
}

fn field_value(field: &str, subject: &LogSubject<'_>) -> Option<String> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    Some(match field {
        ".ID" => short(subject.id),
        ".FullID" => subject.id.to_owned(),
        ".Name" => subject.name.trim_start_matches('/').to_owned(),
        ".ImageID" => short(subject.image_id.trim_start_matches("sha256:")),
        ".ImageFullID" => subject.image_id.to_owned(),
        ".ImageName" => subject.image_name.to_owned(),
        // Some log collectors look for the daemon's name: Docker's is a constant too.
        ".DaemonName" => "docker".to_owned(),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn chooses_labels_variables_and_tag() {
        let labels = options(&[("app", "web"), ("other", "x")]);
        let env = ["PATH=/bin".to_owned(), "FOO=a=b".to_owned()];
        let id = "0123456789abcdef".repeat(4);
        let subject =
            LogSubject { id: &id, name: "/web", labels: Some(&labels), env: &env, ..Default::default() };
        let chosen = options(&[("labels", "app,none"), ("env", "FOO,BAR"), ("tag", "t-{{.Name}}/{{ .ID }}")]);
        let expected = options(&[("app", "web"), ("FOO", "a=b"), ("tag", "t-web/0123456789ab")]);
        assert_eq!(collect(&chosen, &subject).unwrap(), expected);
    }

    #[test]
    fn chooses_by_pattern() {
        let labels = options(&[("app", "web"), ("com.example.a", "1"), ("other", "x")]);
        let env = ["PATH=/bin".to_owned(), "FOO_A=1".to_owned(), "FOO_B=2".to_owned()];
        let subject = LogSubject { labels: Some(&labels), env: &env, ..Default::default() };
        let chosen =
            options(&[("labels", "app"), ("labels-regex", r"^com\.example\."), ("env-regex", "^FOO_")]);
        let expected = options(&[("app", "web"), ("com.example.a", "1"), ("FOO_A", "1"), ("FOO_B", "2")]);
        assert_eq!(collect(&chosen, &subject).unwrap(), expected);
        let error = collect(&options(&[("env-regex", "(")]), &subject).unwrap_err();
        assert!(error.to_string().contains("error parsing regexp: "), "{error}");
    }

    #[test]
    fn refuses_other_templates() {
        for template in ["{{.Nothing}}", "{{.ID", "{{if .ID}}x{{end}}"] {
            let error = collect(&options(&[("tag", template)]), &LogSubject::default()).unwrap_err();
            assert_eq!(error, LogConfigError::Tag(template.to_owned()));
        }
    }
}
