//! Tree and data to text.

use super::TemplateError;
use super::functions;
use super::parse::{Base, Node, Operand, Pipeline, Template};
use crate::data::Data;

/// Objects with keys that people chose. Docker's client knows them as maps, where an absent key is no error.
const OPEN_MAPS: [&str; 12] = [
    "Labels",
    "Networks",
    "Ports",
    "Options",
    "Sysctls",
    "Tmpfs",
    "Volumes",
    "ExposedPorts",
    "DriverOpts",
    "GraphDriver",
    "Annotations",
    "StorageOpt",
];
/// Fields that Docker leaves out when they are empty, and that scripts ask for all the same.
const OPTIONAL_FIELDS: [&str; 6] = ["Health", "Healthcheck", "Init", "Runtimes", "SizeRw", "SizeRootFs"];

/// Where an evaluation stands.
#[derive(Clone)]
struct Scope<'d> {
    dot: Data,
    variables: Vec<(String, Data)>,
    methods: &'d Data,
    /// In a condition, an absent field is false rather than an error.
    lenient: bool,
}

impl Template {
    /// Fills the template from `data`.
    ///
    /// # Errors
    /// [`TemplateError`] for fields that do not exist and calls that do not fit.
    pub(crate) fn render(&self, data: &Data) -> Result<String, TemplateError> {
        self.render_with(data, &Data::Null)
    }

    /// As [`Self::render`], with fields in `methods` that are found by name and are no part of `data`.
    pub(crate) fn render_with(&self, data: &Data, methods: &Data) -> Result<String, TemplateError> {
        let variables = vec![("$".to_owned(), data.clone())];
        let mut scope = Scope { dot: data.clone(), variables, methods, lenient: false };
        let mut text = String::new();
        scope.nodes(&self.nodes, &mut text)?;
        Ok(text)
    }
}

impl Scope<'_> {
    fn nodes(&mut self, nodes: &[Node], text: &mut String) -> Result<(), TemplateError> {
        let outer = self.variables.len();
        for node in nodes {
            self.node(node, text)?;
        }
        self.variables.truncate(outer);
        Ok(())
    }

    fn node(&mut self, node: &Node, text: &mut String) -> Result<(), TemplateError> {
        match node {
            Node::Text(plain) => text.push_str(plain),
            Node::Action(pipeline) => {
                let value = self.pipeline(pipeline)?;
                if pipeline.variable.is_none() {
                    text.push_str(&functions::display(&value));
                }
            }
            Node::If { condition, then, otherwise } => {
                let value = self.condition(condition)?;
                self.nodes(if functions::is_true(&value) { then } else { otherwise }, text)?;
            }
            Node::With { subject, then, otherwise } => {
                let value = self.condition(subject)?;
                if !functions::is_true(&value) {
                    return self.nodes(otherwise, text);
                }
                let outer = std::mem::replace(&mut self.dot, value);
                self.nodes(then, text)?;
                self.dot = outer;
            }
            Node::Range { key, value, over, body, otherwise } => {
                let entries = entries(self.pipeline(over)?)?;
                if entries.is_empty() {
                    return self.nodes(otherwise, text);
                }
                for (index, element) in entries {
                    let depth = self.variables.len();
                    self.variables.extend(key.iter().map(|name| (name.clone(), index.clone())));
                    self.variables.extend(value.iter().map(|name| (name.clone(), element.clone())));
                    let outer = std::mem::replace(&mut self.dot, element);
                    self.nodes(body, text)?;
                    self.dot = outer;
                    self.variables.truncate(depth);
                }
            }
        }
        Ok(())
    }

    fn condition(&mut self, pipeline: &Pipeline) -> Result<Data, TemplateError> {
        let outer = std::mem::replace(&mut self.lenient, true);
        let value = self.pipeline(pipeline);
        self.lenient = outer;
        value
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Data, TemplateError> {
        let mut piped = None;
        for command in &pipeline.commands {
            piped = Some(self.command(command, piped)?);
        }
        let value = piped.unwrap_or_default();
        if let Some(name) = &pipeline.variable {
            self.variables.push((name.clone(), value.clone()));
        }
        Ok(value)
    }

    fn command(&mut self, operands: &[Operand], piped: Option<Data>) -> Result<Data, TemplateError> {
        let (first, rest) = operands.split_first().ok_or_else(|| TemplateError("empty command".into()))?;
        let mut arguments = Vec::with_capacity(rest.len() + 1);
        for operand in rest {
            arguments.push(self.operand(operand)?);
        }
        arguments.extend(piped);
        if let Base::Function(name) = &first.base {
            return functions::call(name, &arguments);
        }
        let value = self.operand(first)?;
        match arguments.as_slice() {
            [] => Ok(value),
            // A method with one argument, as `.Label "name"` of lists: the value is a table of its answers.
            [Data::Text(key)] if matches!(value, Data::Map(_)) => {
                Ok(value.get(key).cloned().unwrap_or("".into()))
            }
            _ => Err(TemplateError("can't give argument to non-function".into())),
        }
    }

    fn operand(&mut self, operand: &Operand) -> Result<Data, TemplateError> {
        let (value, name) = match &operand.base {
            Base::Dot => (self.dot.clone(), String::new()),
            Base::Literal(value) => (value.clone(), String::new()),
            Base::Nested(pipeline) => (self.pipeline(pipeline)?, "(...)".to_owned()),
            Base::Function(name) => (functions::call(name, &[])?, name.clone()),
            Base::Variable(name) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = found.ok_or_else(|| TemplateError(format!("undefined variable \"{name}\"")))?;
                (value.1.clone(), name.clone())
            }
        };
        self.fields(value, &operand.fields, name)
    }

    fn fields(&self, value: Data, fields: &[String], mut path: String) -> Result<Data, TemplateError> {
        let mut value = value;
        let mut open_map = false;
        for field in fields {
            path.push('.');
            path.push_str(field);
            let found = lookup(&value, field).or_else(|| self.methods.get(field)).cloned();
            value = match (found, &value) {
                (Some(found), _) => found,
                (None, Data::Map(_)) if open_map || OPTIONAL_FIELDS.contains(&field.as_str()) => Data::Null,
                (None, _) if self.lenient => return Ok(Data::Null),
                (None, Data::Map(_)) => {
                    let message = format!("executing \"\" at <{path}>: map has no entry for key \"{field}\"");
                    return Err(TemplateError(message));
                }
                (None, Data::Null) => {
                    let message =
                        format!("executing \"\" at <{path}>: nil data; no entry for key \"{field}\"");
                    return Err(TemplateError(message));
                }
                (None, other) => {
                    let kind = functions::type_name(other);
                    let message =
                        format!("executing \"\" at <{path}>: can't evaluate field {field} in type {kind}");
                    return Err(TemplateError(message));
                }
            };
            open_map = OPEN_MAPS.contains(&field.as_str());
        }
        Ok(value)
    }
}

/// The field `name`. Templates use the names of Go's fields, which differ from those in JSON in their capitals only (`ID`
/// and `Id`, `APIVersion` and `ApiVersion`).
fn lookup<'v>(value: &'v Data, name: &str) -> Option<&'v Data> {
    let Data::Map(fields) = value else { return None };
    let insensitive =
        || fields.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    value.get(name).or_else(insensitive)
}

/// Keys and values of what is ranged over; maps in the order of their keys, as Go does.
fn entries(value: Data) -> Result<Vec<(Data, Data)>, TemplateError> {
    match value {
        Data::Null => Ok(Vec::new()),
        Data::List(values) => Ok((0_i64..).map(Data::from).zip(values).collect()),
        Data::Map(mut fields) => {
            fields.sort_by(|(left, _), (right, _)| left.cmp(right));
            Ok(fields.into_iter().map(|(key, value)| (Data::Text(key), value)).collect())
        }
        other => Err(TemplateError(format!("range can't iterate over {}", functions::display(&other)))),
    }
}
