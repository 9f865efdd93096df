//! Text to tree.

use serde_json::Number;

use super::TemplateError;
use crate::data::Data;

/// A parsed template.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    Text(String),
    Action(Pipeline),
    If {
        condition: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    With {
        subject: Pipeline,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Pipeline,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Commands joined by `|`, the value of each being the last argument of the next.
#[derive(Debug, Clone)]
pub(super) struct Pipeline {
    /// `$x` of `$x := …` or `$x = …`.
    pub(super) variable: Option<String>,
    pub(super) commands: Vec<Vec<Operand>>,
}

#[derive(Debug, Clone)]
pub(super) struct Operand {
    pub(super) base: Base,
    /// The fields behind it, `.A.B`.
    pub(super) fields: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(Data),
    Function(String),
    Nested(Pipeline),
}

/// What the text of a template consists of.
enum Piece<'t> {
    Text(&'t str),
    Action(&'t str),
}

/// What ended a list of nodes.
enum Terminator<'t> {
    End,
    Else(&'t str),
    EndOfText,
}

impl Template {
    /// Parses `text`.
    ///
    /// # Errors
    /// [`TemplateError`].
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        let pieces = split(text)?;
        let mut rest = pieces.into_iter();
        match parse_nodes(&mut rest)? {
            (nodes, Terminator::EndOfText) => Ok(Self { nodes }),
            (_, Terminator::End) => Err(error("unexpected {{end}}")),
            (_, Terminator::Else(_)) => Err(error("unexpected {{else}}")),
        }
    }
}

fn error(message: impl Into<String>) -> TemplateError {
    TemplateError(message.into())
}

/// Separates text from actions, with `{{-` and `-}}` trimming the text beside them.
fn split(text: &str) -> Result<Vec<Piece<'_>>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trim_start = false;
    while let Some((before, after)) = rest.split_once("{{") {
        let (trim_end, after) = match after.strip_prefix('-') {
            Some(after) if after.starts_with(char::is_whitespace) => (true, after),
            _ => (false, after),
        };
        let mut before = if trim_start { before.trim_start() } else { before };
        if trim_end {
            before = before.trim_end();
        }
        pieces.push(Piece::Text(before));
        let end = action_end(after)?;
        let action = &after[..end];
        rest = &after[end + 2..];
        trim_start = action.ends_with(" -");
        let action = if trim_start { &action[..action.len() - 1] } else { action };
        if !action.trim_start().starts_with("/*") {
            pieces.push(Piece::Action(action.trim()));
        }
    }
    pieces.push(Piece::Text(if trim_start { rest.trim_start() } else { rest }));
    Ok(pieces)
}

/// Where `}}` stands, outside of quotes.
fn action_end(text: &str) -> Result<usize, TemplateError> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut index = 0;
    while index < bytes.len() {
        match (quote, bytes[index]) {
            (None, b'}') if bytes.get(index + 1) == Some(&b'}') => return Ok(index),
            (None, byte @ (b'"' | b'`')) => quote = Some(byte),
            (Some(b'"'), b'\\') => index += 1,
            (Some(open), byte) if open == byte => quote = None,
            _ => {}
        }
        index += 1;
    }
    Err(error(if quote.is_some() { "unterminated quoted string" } else { "unclosed action" }))
}

fn parse_nodes<'t>(
    rest: &mut impl Iterator<Item = Piece<'t>>,
) -> Result<(Vec<Node>, Terminator<'t>), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = rest.next() {
        let action = match piece {
            Piece::Text("") => continue,
            Piece::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Piece::Action(action) => action,
        };
        let (word, argument) = action.split_once(char::is_whitespace).unwrap_or((action, ""));
        match word {
            "end" => return Ok((nodes, Terminator::End)),
            "else" => return Ok((nodes, Terminator::Else(argument.trim()))),
            "if" => nodes.push(parse_if(argument, rest)?),
            "with" => {
                let subject = parse_pipeline(argument)?;
                let (then, otherwise) = parse_branches(rest)?;
                nodes.push(Node::With { subject, then, otherwise });
            }
            "range" => nodes.push(parse_range(argument, rest)?),
            _ => nodes.push(Node::Action(parse_pipeline(action)?)),
        }
    }
    Ok((nodes, Terminator::EndOfText))
}

fn parse_if<'t>(condition: &str, rest: &mut impl Iterator<Item = Piece<'t>>) -> Result<Node, TemplateError> {
    let condition = parse_pipeline(condition)?;
    let (then, otherwise) = parse_branches(rest)?;
    Ok(Node::If { condition, then, otherwise })
}

/// The nodes up to `{{end}}`, and those behind an `{{else}}`; `{{else if}}` nests and shares the one `{{end}}`.
fn parse_branches<'t>(
    rest: &mut dyn Iterator<Item = Piece<'t>>,
) -> Result<(Vec<Node>, Vec<Node>), TemplateError> {
    let mut rest = rest;
    let (then, terminator) = parse_nodes(&mut rest)?;
    match terminator {
        Terminator::End => Ok((then, Vec::new())),
        Terminator::EndOfText => Err(error("unexpected EOF")),
        Terminator::Else("") => match parse_nodes(&mut rest)? {
            (otherwise, Terminator::End) => Ok((then, otherwise)),
            (_, Terminator::Else(_)) => Err(error("expected end; found {{else}}")),
            (_, Terminator::EndOfText) => Err(error("unexpected EOF")),
        },
        Terminator::Else(argument) => match argument.split_once(char::is_whitespace) {
            Some(("if", condition)) => Ok((then, vec![parse_if(condition, &mut rest)?])),
            _ => Err(error(format!("unexpected <{argument}> in else"))),
        },
    }
}

fn parse_range<'t>(
    argument: &str,
    rest: &mut impl Iterator<Item = Piece<'t>>,
) -> Result<Node, TemplateError> {
    let (variables, over) = match argument.split_once(":=") {
        Some((variables, over)) => (variables, over),
        None => ("", argument),
    };
    let mut names = variables.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let (key, value) = match (names.next(), names.next()) {
        (Some(value), None) => (None, Some(value)),
        (key, value) => (key, value),
    };
    let over = parse_pipeline(over)?;
    let (body, otherwise) = parse_branches(rest)?;
    Ok(Node::Range { key, value, over, body, otherwise })
}

fn parse_pipeline(text: &str) -> Result<Pipeline, TemplateError> {
    let mut scanner = Scanner { rest: text.trim() };
    let pipeline = scanner.pipeline()?;
    if scanner.rest.is_empty() {
        Ok(pipeline)
    } else {
        Err(error(format!("unexpected \"{}\"", scanner.rest)))
    }
}

struct Scanner<'t> {
    rest: &'t str,
}

impl Scanner<'_> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Takes a name of letters, digits and `_`.
    fn word(&mut self) -> String {
        let end = self
            .rest
            .find(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.to_owned()
    }

    fn pipeline(&mut self) -> Result<Pipeline, TemplateError> {
        let variable = self.declaration();
        let mut commands = vec![self.command()?];
        while let Some(rest) = self.rest.strip_prefix('|') {
            self.rest = rest;
            commands.push(self.command()?);
        }
        Ok(Pipeline { variable, commands })
    }

    /// Takes `$x :=` or `$x =` off the front.
    fn declaration(&mut self) -> Option<String> {
        let mut ahead = Scanner { rest: self.rest.trim_start().strip_prefix('$')? };
        let name = ahead.word();
        let rest = ahead.rest.trim_start();
        let rest = rest.strip_prefix(":=").or_else(|| rest.strip_prefix('='))?;
        self.rest = rest;
        Some(format!("${name}"))
    }

    fn command(&mut self) -> Result<Vec<Operand>, TemplateError> {
        let mut operands = Vec::new();
        loop {
            self.skip_space();
            if self.rest.is_empty() || self.rest.starts_with(['|', ')']) {
                break;
            }
            operands.push(self.operand()?);
        }
        if operands.is_empty() { Err(error("missing value for command")) } else { Ok(operands) }
    }

    fn operand(&mut self) -> Result<Operand, TemplateError> {
        let first = self.rest.chars().next().unwrap_or_default();
        let base = match first {
            '.' => Base::Dot,
            '$' => {
                self.rest = &self.rest[1..];
                Base::Variable(format!("${}", self.word()))
            }
            '(' => {
                self.rest = &self.rest[1..];
                let nested = self.pipeline()?;
                self.rest = self.rest.strip_prefix(')').ok_or_else(|| error("unclosed left paren"))?;
                Base::Nested(nested)
            }
            '"' => Base::Literal(self.quoted()?.into()),
            '`' => {
                let (text, rest) =
                    self.rest[1..].split_once('`').ok_or_else(|| error("unterminated raw quoted string"))?;
                self.rest = rest;
                Base::Literal(text.into())
            }
            '-' | '0'..='9' => return self.number(),
            letter if letter.is_alphabetic() || letter == '_' => match self.word().as_str() {
                "true" => Base::Literal(Data::Bool(true)),
                "false" => Base::Literal(Data::Bool(false)),
                "nil" => Base::Literal(Data::Null),
                name => Base::Function(name.to_owned()),
            },
            other => return Err(error(format!("unexpected \"{other}\" in operand"))),
        };
        Ok(Operand { base, fields: self.fields() })
    }

    /// Takes `.A.B`, or the lone `.`.
    fn fields(&mut self) -> Vec<String> {
        let mut fields = Vec::new();
        while let Some(rest) = self.rest.strip_prefix('.') {
            self.rest = rest;
            let name = self.word();
            if name.is_empty() {
                break;
            }
            fields.push(name);
        }
        fields
    }

    fn number(&mut self) -> Result<Operand, TemplateError> {
        let end = self
            .rest
            .find(|letter: char| !letter.is_ascii_digit() && !matches!(letter, '-' | '.'))
            .unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let number: Number = digits.parse().map_err(|_| error(format!("bad number syntax: \"{digits}\"")))?;
        self.rest = rest;
        Ok(Operand { base: Base::Literal(Data::Number(number)), fields: Vec::new() })
    }

    fn quoted(&mut self) -> Result<String, TemplateError> {
        let mut text = String::new();
        let mut letters = self.rest[1..].char_indices();
        while let Some((index, letter)) = letters.next() {
            match letter {
                '"' => {
                    self.rest = &self.rest[index + 2..];
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some((_, 'n')) => text.push('\n'),
                    Some((_, 't')) => text.push('\t'),
                    Some((_, 'r')) => text.push('\r'),
                    Some((_, other)) => text.push(other),
                    None => break,
                },
                other => text.push(other),
            }
        }
        Err(error("unterminated quoted string"))
    }
}
