//! Go's templates, as far as `--format` is used: fields, variables, pipelines, `range`, `if`, `with`, and the functions
//! of the language and of Docker.

mod evaluate;
mod functions;
mod parse;

use std::fmt;

pub(crate) use parse::Template;

/// A template that cannot be parsed or carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TemplateError(pub(crate) String);

impl fmt::Display for TemplateError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "template parsing error: template: {}", self.0)
    }
}

impl std::error::Error for TemplateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Data;

    fn render(template: &str) -> Result<String, String> {
        let data: Data = serde_json::from_str(
            r#"{"Id":"abc","Name":"/web","State":{"Pid":42,"Running":true,"Error":""},
                "Config":{"Env":["A=1","B=2"],"Labels":{"a.b":"x","z":"y"},"Cmd":null},
                "NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"}]},
                "Networks":{"bridge":{"IPAddress":"172.17.0.2"},"other":{"IPAddress":"10.0.0.2"}}}}"#,
        )
        .unwrap();
        let template = Template::parse(template).map_err(|error| error.0)?;
        template.render(&data).map_err(|error| error.0)
    }

    #[test]
    fn renders_what_scripts_use() {
        for (template, expected) in [
            ("plain", "plain"),
            ("{{.State.Pid}}", "42"),
            ("{{ .State.Running }} {{.Config.Cmd}}", "true <no value>"),
            ("{{json .State}}", r#"{"Pid":42,"Running":true,"Error":""}"#),
            ("{{.Config.Env}}{{.Config.Labels}}", "[A=1 B=2]map[a.b:x z:y]"),
            ("{{range .Config.Env}}{{.}},{{end}}", "A=1,B=2,"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a.b=x;z=y;"),
            ("{{range $i, $e := .Config.Env}}{{if $i}}, {{end}}{{$e}}{{end}}", "A=1, B=2"),
            ("{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", "172.17.0.2 10.0.0.2 "),
            ("{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}", "8080"),
            ("{{index .Config.Labels \"a.b\"}}{{with .Config.Labels}}{{.z}}{{end}}", "xy"),
            ("{{if and .State.Running (eq .State.Pid 42)}}up{{else}}down{{end}}", "up"),
            ("{{if .State.Error}}e{{else if not .State.Running}}d{{else}}ok{{end}}", "ok"),
            ("{{if .State.Health}}{{.State.Health.Status}}{{else}}none{{end}}", "none"),
            ("{{.Name | upper | printf \"%s-%d\" }}", "/WEB-%!d(MISSING)"),
            ("{{printf \"%.2s|%5d|%q\" .Id 7 .Name}}", "ab|    7|\"/web\""),
            ("{{join .Config.Env \",\"}} {{len .Config.Env}} {{split .Id \"b\"}}", "A=1,B=2 2 [a c]"),
            ("a {{- \" b \" -}} c{{/* nothing */}}", "a b c"),
            ("{{$x := .Id}}{{with .State}}{{$x}}{{$.Name}}{{end}}", "abc/web"),
            ("{{slice .Id 0 2}}{{title \"ab\"}}{{truncate .Id 1}}{{println `raw`}}", "abAbaraw\n"),
            ("{{range .Config.Cmd}}x{{else}}empty{{end}}", "empty"),
            ("{{.Config.Labels.absent}}", "<no value>"),
        ] {
            assert_eq!(render(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (template, message) in [
            ("{{.Nope}}", "executing \"\" at <.Nope>: map has no entry for key \"Nope\""),
            ("{{.Id.x}}", "executing \"\" at <.Id.x>: can't evaluate field x in type string"),
            ("{{.Id", "unclosed action"),
            ("{{if .Id}}x", "unexpected EOF"),
            ("{{end}}", "unexpected {{end}}"),
            ("{{nope .Id}}", "function \"nope\" not defined"),
            ("{{\"x}}", "unterminated quoted string"),
            ("{{$x}}", "undefined variable \"$x\""),
        ] {
            assert_eq!(render(template).unwrap_err(), message, "{template}");
        }
    }
}
