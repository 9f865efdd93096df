//! What a container takes over from its image (moby `daemon/commit.go` `merge`).

use dory_store::RunConfig;

use crate::config::{ContainerConfig, Empty, HealthConfig, StrSlice};
use crate::{EngineError, Result};

/// Fills in what the request left open.
pub(crate) fn merge_image(config: &mut ContainerConfig, image: &RunConfig) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    for port in image.exposed_ports.keys() {
        config.exposed_ports.entry(port.clone()).or_default();
    }
    let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let known: Vec<String> = config.env.iter().map(|entry| name(entry)).collect();
    let inherited = image.env.iter().filter(|entry| !known.contains(&name(entry))).cloned();
    config.env = config.env.iter().cloned().chain(inherited).collect::<Vec<_>>().into();
    for (key, value) in &image.labels {
        config.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    merge_command(config, image);
    if let Some(healthcheck) = &image.healthcheck {
        merge_health(config.healthcheck.get_or_insert_default(), healthcheck);
    }
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    let mut volumes = config.volumes.take().unwrap_or_default();
    for path in image.volumes.keys() {
        volumes.entry(path.clone()).or_insert(Empty {});
    }
    // Clients send `{}`, and find `null` where neither they nor the image named one.
    config.volumes = Some(volumes).filter(|volumes| !volumes.is_empty());
    if config.stop_signal.is_empty() {
        config.stop_signal = image.stop_signal.clone().unwrap_or_default();
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    if config.shell.is_empty() && !image.shell.is_empty() {
        config.shell = StrSlice(Some(image.shell.clone()));
    }
}

/// An entry point of one's own takes the image's command away, too: it was meant for another program.
fn merge_command(config: &mut ContainerConfig, image: &RunConfig) {
    if !config.entrypoint.is_empty() {
        // `--entrypoint ""` arrives as one empty word and means "none".
        if config.entrypoint.first().is_some_and(String::is_empty) {
            config.entrypoint = StrSlice::default();
        }
        return;
    }
    if config.cmd.is_empty() {
        config.cmd = StrSlice(image.cmd.clone());
    }
    if config.entrypoint.0.is_none() {
        config.entrypoint = StrSlice(image.entrypoint.clone());
    }
}

fn merge_health(own: &mut HealthConfig, image: &dory_store::HealthcheckConfig) {
    if own.test.is_empty() {
        own.test = image.test.clone().into();
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

/// What of a container's configuration an image keeps.
pub(crate) fn run_config(config: &ContainerConfig) -> RunConfig {
    let names = |keys: Vec<&String>| keys.into_iter().map(|key| (key.clone(), Default::default())).collect();
    RunConfig {
        user: config.user.clone(),
        exposed_ports: names(config.exposed_ports.keys().collect()),
        env: config.env.to_vec(),
        entrypoint: config.entrypoint.0.clone(),
        cmd: config.cmd.0.clone(),
        args_escaped: config.args_escaped,
        volumes: names(config.volumes.iter().flat_map(std::collections::BTreeMap::keys).collect()),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: Some(config.stop_signal.clone()).filter(|signal| !signal.is_empty()),
        stop_timeout: config.stop_timeout,
        healthcheck: config.healthcheck.as_ref().map(|health| dory_store::HealthcheckConfig {
            test: health.test.to_vec(),
            interval: health.interval,
            timeout: health.timeout,
            start_period: health.start_period,
            start_interval: health.start_interval,
            retries: health.retries,
        }),
        on_build: config.on_build.to_vec(),
        shell: config.shell.0.clone().unwrap_or_default(),
    }
}

/// A container's configuration with nothing but what an image has.
pub(crate) fn container_config(image: &RunConfig) -> ContainerConfig {
    let mut config = ContainerConfig {
        args_escaped: image.args_escaped,
        on_build: image.on_build.clone().into(),
        ..ContainerConfig::default()
    };
    merge_image(&mut config, image);
    config
}

/// Program and arguments.
pub(crate) fn path_and_args(config: &ContainerConfig) -> Result<(String, Vec<String>)> {
    let mut words = config.entrypoint.iter().chain(config.cmd.iter()).cloned();
    match words.next() {
        Some(path) => Ok((path, words.collect())),
        None => Err(EngineError::invalid("No command specified")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn merges_commands_as_dockerd_does() {
        let image =
            RunConfig { entrypoint: words(&["/entry"]), cmd: words(&["default"]), ..RunConfig::default() };
        let cases = [
            (None, None, "/entry", vec!["default"]),
            (None, words(&["own"]), "/entry", vec!["own"]),
            (words(&["/mine"]), None, "/mine", vec![]),
            (words(&[""]), words(&["sh", "-c"]), "sh", vec!["-c"]),
            (words(&["/mine"]), words(&["a"]), "/mine", vec!["a"]),
        ];
        for (entrypoint, cmd, path, args) in cases {
            let mut config = ContainerConfig {
                entrypoint: StrSlice(entrypoint),
                cmd: StrSlice(cmd),
                ..ContainerConfig::default()
            };
            merge_image(&mut config, &image);
            assert_eq!(
                path_and_args(&config).unwrap(),
                (path.to_owned(), args.iter().map(|a| (*a).to_owned()).collect())
            );
        }
        let mut config = ContainerConfig { entrypoint: StrSlice(words(&[""])), ..ContainerConfig::default() };
        merge_image(&mut config, &image);
        assert_eq!(path_and_args(&config).unwrap_err().message(), "No command specified");
    }

    #[test]
    fn own_values_win() {
        let image = RunConfig {
            env: vec!["A=image".into(), "B=image".into()],
            labels: [("l".to_owned(), "image".to_owned())].into(),
            working_dir: "/image".into(),
            ..RunConfig::default()
        };
        let mut config =
            ContainerConfig { env: vec!["A=own".to_owned()].into(), ..ContainerConfig::default() };
        merge_image(&mut config, &image);
        assert_eq!(&config.env[..], ["A=own", "B=image"]);
        assert_eq!(config.working_dir, "/image");
        assert_eq!(config.labels["l"], "image");
    }
}
