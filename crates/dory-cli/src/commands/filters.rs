//! `--filter`.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

/// The API's `filters` parameter for `name=value` texts; empty where there are none.
///
/// # Errors
/// Docker's text for a filter without a value.
pub(super) fn filters(texts: &[String]) -> Result<String> {
    let mut filters: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for text in texts {
        let Some((name, value)) = text.split_once('=') else {
            bail!("bad format of filter (expected name=value)");
        };
        filters.entry(name.trim()).or_default().push(value.trim());
    }
    if filters.is_empty() {
        return Ok(String::new());
    }
    Ok(serde_json::to_string(&filters)?)
}

#[cfg(test)]
mod tests {
    #[test]
    fn groups_by_name() {
        let texts = ["label=a=b".to_owned(), "status=exited".to_owned(), "label=c".to_owned()];
        assert_eq!(super::filters(&texts).unwrap(), r#"{"label":["a=b","c"],"status":["exited"]}"#);
        assert_eq!(super::filters(&[]).unwrap(), "");
        assert!(super::filters(&["x".to_owned()]).is_err());
    }
}
