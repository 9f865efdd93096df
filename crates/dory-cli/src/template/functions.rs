//! The functions of Go's templates and those that Docker adds, and how values print.

use std::cmp::Ordering;

use super::TemplateError;
use crate::data::Data;

/// Whether Go takes `value` for true: not empty, not zero.
pub(super) fn is_true(value: &Data) -> bool {
    match value {
        Data::Null => false,
        Data::Bool(value) => *value,
        Data::Number(number) => number.as_f64() != Some(0.0),
        Data::Text(text) => !text.is_empty(),
        Data::List(values) => !values.is_empty(),
        Data::Map(fields) => !fields.is_empty(),
    }
}

/// The value as Go prints it.
pub(super) fn display(value: &Data) -> String {
    match value {
        Data::Null => "<no value>".to_owned(),
        Data::Bool(value) => value.to_string(),
        Data::Number(number) => number.to_string(),
        Data::Text(text) => text.clone(),
        Data::List(values) => format!("[{}]", values.iter().map(display).collect::<Vec<_>>().join(" ")),
        Data::Map(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by(|(left, _), (right, _)| left.cmp(right));
            let entries: Vec<_> =
                fields.iter().map(|(key, value)| format!("{key}:{}", display(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}

/// Go's name for the type, in messages.
pub(super) fn type_name(value: &Data) -> &'static str {
    match value {
        Data::Null => "nil",
        Data::Bool(_) => "bool",
        Data::Number(_) => "float64",
        Data::Text(_) => "string",
        Data::List(_) => "[]interface {}",
        Data::Map(_) => "map[string]interface {}",
    }
}

/// Calls the function `name`.
pub(super) fn call(name: &str, arguments: &[Data]) -> Result<Data, TemplateError> {
    let bad = || TemplateError(format!("error calling {name}: wrong arguments"));
    let text = |index: usize| arguments.get(index).and_then(Data::as_text).ok_or_else(bad);
    let number = |index: usize| arguments.get(index).and_then(Data::as_int).ok_or_else(bad);
    let first = || arguments.first().ok_or_else(bad);
    Ok(match name {
        "json" => first()?.to_json().into(),
        "print" => arguments.iter().map(display).collect::<String>().into(),
        "println" => (arguments.iter().map(display).collect::<Vec<_>>().join(" ") + "\n").into(),
        "printf" => printf(text(0)?, &arguments[1..]).into(),
        "lower" => text(0)?.to_lowercase().into(),
        "upper" => text(0)?.to_uppercase().into(),
        "title" => title(text(0)?).into(),
        "join" => join(first()?, text(1)?).ok_or_else(bad)?.into(),
        "split" => Data::List(text(0)?.split(text(1)?).map(Data::from).collect()),
        "truncate" => {
            text(0)?.chars().take(usize::try_from(number(1)?).map_err(|_| bad())?).collect::<String>().into()
        }
        "pad" => pad(text(0)?, number(1)?, number(2)?).into(),
        "slice" => slice(arguments).ok_or_else(bad)?,
        "len" => length(first()?).ok_or_else(bad)?.into(),
        "index" => index(arguments)?,
        "not" => Data::Bool(!is_true(first()?)),
        "and" => arguments.iter().find(|value| !is_true(value)).or(arguments.last()).ok_or_else(bad)?.clone(),
        "or" => arguments.iter().find(|value| is_true(value)).or(arguments.last()).ok_or_else(bad)?.clone(),
        "eq" => {
            Data::Bool(arguments.len() > 1 && arguments[1..].iter().any(|other| equal(&arguments[0], other)))
        }
        "ne" => Data::Bool(!equal(first()?, arguments.get(1).ok_or_else(bad)?)),
        "lt" | "le" | "gt" | "ge" => {
            let order = compare(first()?, arguments.get(1).ok_or_else(bad)?).ok_or_else(bad)?;
            Data::Bool(match name {
                "lt" => order == Ordering::Less,
                "le" => order != Ordering::Greater,
                "gt" => order == Ordering::Greater,
                _ => order != Ordering::Less,
            })
        }
        _ => return Err(TemplateError(format!("function \"{name}\" not defined"))),
    })
}

fn equal(left: &Data, right: &Data) -> bool {
    left == right || compare(left, right) == Some(Ordering::Equal)
}

fn compare(left: &Data, right: &Data) -> Option<Ordering> {
    match (left, right) {
        (Data::Number(left), Data::Number(right)) => left.as_f64()?.partial_cmp(&right.as_f64()?),
        (Data::Text(left), Data::Text(right)) => Some(left.cmp(right)),
        _ => None,
    }
}

fn length(value: &Data) -> Option<i64> {
    let length = match value {
        Data::Null => 0,
        Data::Text(text) => text.len(),
        Data::List(values) => values.len(),
        Data::Map(fields) => fields.len(),
        Data::Bool(_) | Data::Number(_) => return None,
    };
    i64::try_from(length).ok()
}

fn join(list: &Data, separator: &str) -> Option<String> {
    match list {
        Data::List(values) => Some(values.iter().map(display).collect::<Vec<_>>().join(separator)),
        Data::Null => Some(String::new()),
        _ => None,
    }
}

fn title(text: &str) -> String {
    let mut at_start = true;
    text.chars()
        .map(|letter| {
            let upper = if at_start { letter.to_ascii_uppercase() } else { letter };
            at_start = letter.is_whitespace();
            upper
        })
        .collect()
}

/// Docker's `pad`: blanks before and behind.
fn pad(text: &str, before: i64, behind: i64) -> String {
    let blanks = |count: i64| " ".repeat(usize::try_from(count).unwrap_or(0).min(1 << 16));
    if text.is_empty() { String::new() } else { blanks(before) + text + &blanks(behind) }
}

fn slice(arguments: &[Data]) -> Option<Data> {
    let bound = |index: usize, default: usize| match arguments.get(index) {
        Some(value) => usize::try_from(value.as_int()?).ok(),
        None => Some(default),
    };
    match arguments.first()? {
        Data::Text(text) => Some(text.get(bound(1, 0)?..bound(2, text.len())?)?.into()),
        Data::List(values) => Some(Data::List(values.get(bound(1, 0)?..bound(2, values.len())?)?.to_vec())),
        _ => None,
    }
}

fn index(arguments: &[Data]) -> Result<Data, TemplateError> {
    let wrong = |message: &str| TemplateError(format!("error calling index: {message}"));
    let (value, keys) = arguments.split_first().ok_or_else(|| wrong("missing argument"))?;
    keys.iter().try_fold(value.clone(), |value, key| match (&value, key) {
        (Data::Map(_), Data::Text(key)) => Ok(value.get(key).cloned().unwrap_or_default()),
        (Data::List(values), Data::Number(_)) => key
            .as_int()
            .and_then(|position| values.get(usize::try_from(position).ok()?))
            .cloned()
            .ok_or_else(|| wrong(&format!("index out of range: {}", display(key)))),
        (Data::Null, _) => Err(wrong("index of untyped nil")),
        (other, _) => Err(wrong(&format!("can't index item of type {}", type_name(other)))),
    })
}

/// Go's `fmt.Sprintf` for the verbs that formats use: `%s`, `%v`, `%d`, `%q`, `%t`, `%f`, with width and precision.
fn printf(format: &str, arguments: &[Data]) -> String {
    let mut text = String::new();
    let mut arguments = arguments.iter();
    let mut letters = format.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        let mut options = String::new();
        while let Some(option) = letters.next_if(|letter| matches!(letter, '0'..='9' | '-' | '.' | '+')) {
            options.push(option);
        }
        match letters.next() {
            Some('%') => text.push('%'),
            None => text.push_str("%!(NOVERB)"),
            Some(verb) => match arguments.next() {
                Some(argument) => text.push_str(&format_one(verb, &options, argument)),
                None => text.push_str(&format!("%!{verb}(MISSING)")),
            },
        }
    }
    text
}

fn format_one(verb: char, options: &str, value: &Data) -> String {
    let (width, precision) = options.split_once('.').unwrap_or((options, ""));
    let (left, width) = width.strip_prefix('-').map_or((false, width), |width| (true, width));
    // A format is the user's own text, but a width of billions would still be a slip rather than a wish.
    let count: usize = width.parse::<usize>().unwrap_or(0).min(1 << 16);
    let body = match verb {
        'q' => Data::from(display(value)).to_json(),
        'f' => match value {
            Data::Number(number) => {
                format!(
                    "{:.*}",
                    precision.parse::<usize>().unwrap_or(6).min(64),
                    number.as_f64().unwrap_or_default()
                )
            }
            other => display(other),
        },
        's' | 'v' if !precision.is_empty() => {
            display(value).chars().take(precision.parse().unwrap_or(0)).collect()
        }
        _ => display(value),
    };
    match (left, width.starts_with('0') && verb == 'd') {
        (true, _) => format!("{body:<count$}"),
        (false, true) => format!("{body:0>count$}"),
        (false, false) => format!("{body:>count$}"),
    }
}
