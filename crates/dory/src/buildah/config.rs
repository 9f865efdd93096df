//! `dory buildah config`: what an image says about itself, changed by flags.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use clap::Args;
use dory_store::{HistoryEntry, ImageConfig};
use dory_types::Timestamp;

/// Flags of Buildah's `config`. `NAME-` takes a label, variable, port or volume away.
#[derive(Debug, Args)]
pub(super) struct ConfigFlags {
    /// Who made it.
    #[arg(long)]
    author: Option<String>,
    /// For which processors.
    #[arg(long)]
    arch: Option<String>,
    /// For which system.
    #[arg(long)]
    os: Option<String>,
    /// Default command, in words or as a JSON list.
    #[arg(long)]
    cmd: Option<String>,
    /// Entry point: a JSON list, or a line for the shell.
    #[arg(long)]
    entrypoint: Option<String>,
    /// The shell of lines.
    #[arg(long)]
    shell: Option<String>,
    /// Variables, `NAME=VALUE`.
    #[arg(short, long)]
    env: Vec<String>,
    /// Labels, `KEY=VALUE`.
    #[arg(short, long)]
    label: Vec<String>,
    /// Ports, such as `80` or `53/udp`.
    #[arg(short, long)]
    port: Vec<String>,
    /// Volumes.
    #[arg(short, long)]
    volume: Vec<String>,
    /// Default user.
    #[arg(short, long)]
    user: Option<String>,
    /// Default working directory.
    #[arg(long, visible_alias = "workdir")]
    workingdir: Option<String>,
    /// Signal that ends it.
    #[arg(long)]
    stop_signal: Option<String>,
    /// Instructions for images that are built on it.
    #[arg(long)]
    onbuild: Vec<String>,
    /// A comment.
    #[arg(long)]
    comment: Option<String>,
    /// What the history says of this change.
    #[arg(long)]
    created_by: Option<String>,
    /// Add the change to the history.
    #[arg(long)]
    add_history: bool,
    /// The working container.
    pub(super) container: String,
}

impl ConfigFlags {
    /// Changes `image`.
    ///
    /// # Errors
    /// A value that is none.
    pub(super) fn apply(&self, image: &mut ImageConfig) -> Result<()> {
        let set = |field: &mut String, value: &Option<String>| {
            if let Some(value) = value {
                field.clone_from(value);
            }
        };
        set(&mut image.author, &self.author);
        set(&mut image.architecture, &self.arch);
        set(&mut image.os, &self.os);
        set(&mut image.comment, &self.comment);
        let config = &mut image.config;
        set(&mut config.user, &self.user);
        set(&mut config.working_dir, &self.workingdir);
        if let Some(entrypoint) = &self.entrypoint {
            config.entrypoint = match words_of_json(entrypoint) {
                _ if entrypoint.is_empty() => None,
                Some(words) => Some(words),
                None => Some(["/bin/sh", "-c", entrypoint].map(str::to_owned).to_vec()),
            };
            // As with Dockerfiles: the command belonged to the entry point before.
            if self.cmd.is_none() {
                config.cmd = None;
            }
        }
        if let Some(cmd) = &self.cmd {
            config.cmd = Some(words(cmd)?).filter(|words| !words.is_empty());
        }
        if let Some(shell) = &self.shell {
            config.shell = words(shell)?;
        }
        if let Some(signal) = &self.stop_signal {
            config.stop_signal = Some(signal.clone()).filter(|signal| !signal.is_empty());
        }
        config.on_build.extend(self.onbuild.iter().cloned());
        for change in &self.env {
            variable(&mut config.env, change)?;
        }
        for change in &self.label {
            match (change.split_once('='), change.strip_suffix('-')) {
                (Some((key, value)), _) => drop(config.labels.insert(key.to_owned(), value.to_owned())),
                (None, Some("")) => config.labels.clear(),
                (None, Some(key)) => drop(config.labels.remove(key)),
                (None, None) => bail!("the label `{change}` has no value"),
            }
        }
        let port = |port: &str| if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
        self.port.iter().for_each(|change| entry(&mut config.exposed_ports, change, port));
        self.volume.iter().for_each(|change| entry(&mut config.volumes, change, str::to_owned));
        if self.add_history || self.created_by.is_some() {
            image.history.push(HistoryEntry {
                created: Some(Timestamp::now()),
                created_by: self.created_by.clone().unwrap_or_else(|| "buildah config".to_owned()),
                empty_layer: true,
                ..HistoryEntry::default()
            });
        }
        Ok(())
    }
}

/// A JSON list of words; `None` where the text is no such thing.
fn words_of_json(text: &str) -> Option<Vec<String>> {
    text.trim_start().starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// Words as a shell splits them, or a JSON list.
fn words(text: &str) -> Result<Vec<String>> {
    if let Some(words) = words_of_json(text) {
        return Ok(words);
    }
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            (mark, Some(open)) if mark == open => quote = None,
            ('\'' | '"', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(characters.next()),
            (character, None) if character.is_whitespace() => words.extend(word.take()),
            (character, _) => word.get_or_insert_default().push(character),
        }
    }
    if let Some(quote) = quote {
        bail!("`{text}` has no end: a {quote} is missing");
    }
    words.extend(word);
    Ok(words)
}

fn variable(env: &mut Vec<String>, change: &str) -> Result<()> {
    let drop_variable =
        |env: &mut Vec<String>, name: &str| env.retain(|pair| pair.split('=').next() != Some(name));
    match (change.split_once('='), change.strip_suffix('-')) {
        (Some((name, _)), _) => {
            let place = env.iter().position(|pair| pair.split('=').next() == Some(name));
            match place {
                Some(place) => change.clone_into(&mut env[place]),
                None => env.push(change.to_owned()),
            }
        }
        (None, Some("")) => env.clear(),
        (None, Some(name)) => drop_variable(env, name),
        (None, None) => {
            let value =
                std::env::var(change).with_context(|| format!("the variable `{change}` has no value"))?;
            drop_variable(env, change);
            env.push(format!("{change}={value}"));
        }
    }
    Ok(())
}

fn entry(
    entries: &mut BTreeMap<String, BTreeMap<String, String>>,
    change: &str,
    name: impl Fn(&str) -> String,
) {
    match change.strip_suffix('-') {
        Some("") => entries.clear(),
        Some(gone) => drop(entries.remove(&name(gone))),
        None => drop(entries.insert(name(change), BTreeMap::new())),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        flags: ConfigFlags,
    }

    fn apply(image: &mut ImageConfig, words: &[&str]) -> Result<()> {
        let words = ["config"].iter().chain(words).chain(&["c"]);
        Line::parse_from(words).flags.apply(image)
    }

    #[test]
    fn flags_change_the_image() {
        let mut image = ImageConfig::default();
        image.config.env = vec!["PATH=/bin".to_owned(), "OLD=1".to_owned()];
        image.config.cmd = Some(vec!["sh".to_owned()]);
        apply(
            &mut image,
            &["--entrypoint", "[\"a\", \"b\"]", "-e", "NEW=x y", "-e", "OLD-", "-e", "PATH=/usr/bin"],
        )
        .unwrap();
        apply(
            &mut image,
            &["-l", "k=v", "-p", "80", "-p", "53/udp", "-v", "/data", "-u", "7:8", "--author", "me"],
        )
        .unwrap();
        assert_eq!(image.config.entrypoint.as_deref(), Some(&["a".to_owned(), "b".to_owned()][..]));
        assert_eq!(image.config.cmd, None);
        assert_eq!(image.config.env, ["PATH=/usr/bin", "NEW=x y"]);
        assert_eq!(image.config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
        assert_eq!((image.config.labels["k"].as_str(), image.author.as_str()), ("v", "me"));
        apply(&mut image, &["-l", "k-", "-p", "-", "--cmd", "run 'two words' \"\"", "--entrypoint", "x y"])
            .unwrap();
        assert!(image.config.labels.is_empty() && image.config.exposed_ports.is_empty());
        assert_eq!(image.config.cmd.as_deref().unwrap(), ["run", "two words", ""]);
        assert_eq!(image.config.entrypoint.as_deref().unwrap(), ["/bin/sh", "-c", "x y"]);
        assert!(apply(&mut image, &["--cmd", "'x"]).is_err() && apply(&mut image, &["-l", "x"]).is_err());
    }
}
