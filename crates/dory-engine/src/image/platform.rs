//! Which platform of an image is wanted.

use std::fmt;

use dory_store::ImageConfig;
use serde::Deserialize;

use crate::{EngineError, Result};

/// The value of a query's `platform`: `linux/arm64/v8` as older clients write it, or an OCI platform in JSON (API 1.48).
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct PlatformChoice {
    os: String,
    architecture: String,
    variant: String,
}

impl PlatformChoice {
    /// Reads the value; an empty one chooses any.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.starts_with('{') {
            return serde_json::from_str(text)
                .map_err(|error| EngineError::invalid(format!("failed to parse platform: {error}")));
        }
        let mut parts = text.split('/');
        let mut next = || parts.next().unwrap_or_default().to_owned();
        let choice = Self { os: next(), architecture: next(), variant: next() };
        if parts.next().is_some() {
            return Err(EngineError::invalid(format!(
                "\"{text}\": unknown operating system or architecture: invalid argument"
            )));
        }
        Ok(choice)
    }

    /// Whether an image is for it; what is not said on either side fits.
    pub(crate) fn fits(&self, config: &ImageConfig) -> bool {
        let fits = |wanted: &str, has: &str| wanted.is_empty() || has.is_empty() || wanted == has;
        fits(&self.os, &config.os)
            && fits(&self.architecture, &config.architecture)
            && fits(&self.variant, &config.variant)
    }

    /// Refuses an image for another platform in dockerd's words; `name` is as it was asked for.
    pub(crate) fn check(&self, name: &str, config: &ImageConfig) -> Result<()> {
        if self.fits(config) {
            return Ok(());
        }
        let actual = Self {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
        };
        Err(EngineError::not_found(format!(
            "image with reference {name} was found but does not match the specified platform: wanted {self}, actual: \
             {actual}"
        )))
    }
}

impl fmt::Display for PlatformChoice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.os, &self.architecture, &self.variant];
        let said: Vec<_> = parts.iter().filter(|part| !part.is_empty()).map(|part| part.as_str()).collect();
        formatter.write_str(&said.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chooses() {
        let config = ImageConfig {
            os: "linux".into(),
            architecture: "arm64".into(),
            variant: "v8".into(),
            ..ImageConfig::default()
        };
        for (text, fits) in [
            ("", true),
            ("linux", true),
            ("linux/arm64", true),
            ("linux/arm64/v8", true),
            ("linux/arm64/v7", false),
            ("linux/amd64", false),
            (r#"{"os":"linux","architecture":"arm64"}"#, true),
            (r#"{"architecture":"amd64"}"#, false),
        ] {
            let choice = PlatformChoice::parse(text).unwrap();
            assert_eq!(choice.fits(&config), fits, "{text}");
        }
        let refused = PlatformChoice::parse("linux/amd64").unwrap().check("a:1", &config).unwrap_err();
        assert!(refused.to_string().ends_with("wanted linux/amd64, actual: linux/arm64/v8"), "{refused}");
        for text in ["a/b/c/d", "{"] {
            assert!(PlatformChoice::parse(text).is_err(), "{text}");
        }
    }
}
