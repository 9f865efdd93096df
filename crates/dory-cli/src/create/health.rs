//! The health check's flags.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::Object;
use crate::flags::{Arguments, parse_int};
use crate::units::parse_duration;

/// The `Healthcheck` that the flags describe; `None` leaves the image's own.
pub(super) fn health(arguments: &Arguments) -> Result<Option<Value>> {
    let mut check = Object::default();
    check.set_some("Test", arguments.value("health-cmd").filter(|c| !c.is_empty()).map(|c| ["CMD-SHELL", c]));
    for (field, flag) in [
        ("Interval", "health-interval"),
        ("Timeout", "health-timeout"),
        ("StartPeriod", "health-start-period"),
        ("StartInterval", "health-start-interval"),
    ] {
        let duration = arguments.parsed(flag, parse_duration)?;
        if duration.is_some_and(|duration| duration < 0) {
            bail!("--{flag} cannot be negative");
        }
        check.set_some(field, duration);
    }
    check.set_some("Retries", arguments.parsed("health-retries", parse_int)?);
    if arguments.on("no-healthcheck") {
        if !check.0.is_empty() {
            bail!("--no-healthcheck conflicts with --health-* options");
        }
        return Ok(Some(json!({ "Test": ["NONE"] })));
    }
    Ok((!check.0.is_empty()).then_some(Value::Object(check.0)))
}

#[cfg(test)]
mod tests {
    use super::super::tests::parse;
    use serde_json::json;

    #[test]
    fn reads_health_checks() {
        let body =
            parse(&["--health-cmd", "true", "--health-interval=2s", "--health-retries=3", "x"]).unwrap();
        assert_eq!(
            body["Healthcheck"],
            json!({"Test": ["CMD-SHELL", "true"], "Interval": 2_000_000_000_i64, "Retries": 3})
        );
        assert_eq!(parse(&["--no-healthcheck", "x"]).unwrap()["Healthcheck"], json!({"Test": ["NONE"]}));
        assert!(parse(&["--no-healthcheck", "--health-cmd", "true", "x"]).is_err());
    }
}
