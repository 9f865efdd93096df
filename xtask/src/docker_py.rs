//! docker-py's own integration tests, unchanged, against dockerd and dory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::process::run as run_command;
use crate::test::{isolated, release};
use crate::{images, paths, setup};

/// What the tests import besides docker-py itself, which comes in the version that the tests belong to.
const PYTHON: [&str; 4] = ["docker==7.2.0", "paramiko==5.1.0", "pytest==9.2.0", "pytest-timeout==2.4.0"];
/// Names under which the tests look for a small image, all given to the test image `busybox`.
const TAGS: [&str; 3] = ["alpine:3.10", "alpine:latest", "busybox:uclibc"];
/// Swarm, plugins and credential programs are out of scope.
const LEFT_OUT: [&str; 11] = [
    "api_config_test.py",
    "api_plugin_test.py",
    "api_secret_test.py",
    "api_service_test.py",
    "api_swarm_test.py",
    "models_nodes_test.py",
    "models_services_test.py",
    "models_swarm_test.py",
    "credentials/store_test.py",
    "credentials/utils_test.py",
    "context_api_test.py",
];

/// Tests of the other files that dockerd alone passes, and why.
const KNOWN: [(&str, &str); 5] = [
    (
        "test_build_with_cache_from",
        "lines that change the configuration alone are in no cache, and so do not say that they use it",
    ),
    ("test_create_with_cpu_rt_options", "real-time scheduling is refused by name, so the test skips itself"),
    ("test_create_inspect_network_with_scope", "swarm"),
    ("test_create_network_attachable", "swarm"),
    ("test_create_network_ingress", "swarm"),
];

/// What is tried.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The folder `tests` of docker-py's repository at the tag 7.2.0, which its packages do not contain.
    #[arg(long)]
    tests: PathBuf,
    /// Try only this engine.
    #[arg(long, value_parser = ["dory", "dockerd"])]
    engine: Option<String>,
    /// The dory binary; without it, the release binary is built.
    #[arg(long)]
    dory: Option<PathBuf>,
    /// More arguments of pytest, such as `-k NAME`.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pytest: Vec<String>,
}

/// Runs the tests on both engines; prints how many passed and which only dockerd passes.
///
/// # Errors
/// Dory fails what dockerd passes, or an engine does not start.
pub fn run(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.tests.join("integration").is_dir(),
        "`{}` is not docker-py's folder of tests",
        arguments.tests.display()
    );
    let tools = setup::tools()?;
    let python = environment()?;
    let dory = match &arguments.dory {
        Some(dory) => {
            crate::test::build_tests()?;
            std::path::absolute(dory)?
        }
        None => release()?,
    };
    let images = images::make(None)?;
    let mut outcomes = Vec::new();
    for (engine, binary) in [("dockerd", Path::new("/usr/sbin/dockerd")), ("dory", &dory)] {
        if arguments.engine.as_deref().is_some_and(|only| only != engine) {
            continue;
        }
        let report = paths::target().join("tests").join(format!("docker-py-{engine}.xml"));
        let _ = std::fs::remove_file(&report);
        let mut command = isolated(&paths::built("debug", "dory-tests"));
        command
            .current_dir(arguments.tests.parent().context("the folder of tests is a root")?)
            .args(["with", "--engine", engine])
            .args([
                Path::new("--binary"),
                binary,
                Path::new("--tools"),
                &tools,
                Path::new("--images"),
                &images,
            ]);
        for tag in TAGS {
            command.args(["--tag", tag]);
        }
        command.arg(python.join("bin/python")).args([
            "-m",
            "pytest",
            "-q",
            "--timeout=120",
            "-p",
            "no:cacheprovider",
        ]);
        for file in LEFT_OUT {
            command.arg("--ignore").arg(arguments.tests.join("integration").join(file));
        }
        command.arg(format!("--junitxml={}", report.display())).arg(arguments.tests.join("integration"));
        command.args(&arguments.pytest);
        // pytest fails where a single test does; what counts is the comparison below.
        let _ = run_command(&mut command);
        let text = std::fs::read_to_string(&report).with_context(|| format!("no report for {engine}"))?;
        outcomes.push((engine, outcomes_of(&text)));
    }
    compare(&outcomes)
}

/// A folder of Python packages that changes its name with them.
fn environment() -> Result<PathBuf> {
    let folder = paths::cache().join(setup::stamp("docker-py", &PYTHON));
    if !folder.join("complete").exists() {
        run_command(Command::new("/usr/bin/python3").args(["-m", "venv"]).arg(&folder))?;
        run_command(
            Command::new(folder.join("bin/pip"))
                .args(["install", "--quiet", "--disable-pip-version-check"])
                .args(PYTHON),
        )?;
        std::fs::write(folder.join("complete"), "")?;
    }
    Ok(folder)
}

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

/// The outcomes by test in a JUnit report, which pytest writes with one element per test and its fate inside.
fn outcomes_of(report: &str) -> BTreeMap<String, Outcome> {
    let attribute = |element: &str, name: &str| {
        let (_, rest) = element.split_once(&format!(" {name}=\""))?;
        rest.split('"').next().map(str::to_owned)
    };
    let cases = report.split("<testcase").skip(1);
    cases
        .filter_map(|case| {
            let name = format!("{}::{}", attribute(case, "classname")?, attribute(case, "name")?);
            let outcome = if case.contains("<failure") || case.contains("<error") {
                Outcome::Failed
            } else if case.contains("<skipped") {
                Outcome::Skipped
            } else {
                Outcome::Passed
            };
            Some((name, outcome))
        })
        .collect()
}

fn compare(outcomes: &[(&str, BTreeMap<String, Outcome>)]) -> Result<()> {
    for (engine, tests) in outcomes {
        let count = |wanted| tests.values().filter(|outcome| **outcome == wanted).count();
        println!(
            "{engine}: {} passed, {} failed, {} skipped",
            count(Outcome::Passed),
            count(Outcome::Failed),
            count(Outcome::Skipped)
        );
    }
    let [(_, dockerd), (_, dory)] = outcomes else { return Ok(()) };
    let worse: Vec<&String> = dockerd
        .iter()
        .filter(|(name, outcome)| **outcome == Outcome::Passed && dory.get(*name) != Some(&Outcome::Passed))
        .map(|(name, _)| name)
        .collect();
    let reason = |name: &str| KNOWN.iter().find(|(test, _)| name.ends_with(&format!("::{test}")));
    let (known, worse): (Vec<_>, Vec<_>) = worse.into_iter().partition(|name| reason(name).is_some());
    for (name, (_, why)) in known.iter().filter_map(|name| Some((name, reason(name)?))) {
        println!("only dockerd passes {name}: {why}");
    }
    for name in &worse {
        println!("only dockerd passes {name}");
    }
    ensure!(worse.is_empty(), "dory fails {} tests that dockerd passes", worse.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_reports() {
        let report = r#"<testsuite><testcase classname="a.B" name="c" time="1" /><testcase classname="a.B" name="d"
            time="1"><failure message="x">no</failure></testcase><testcase classname="a.B" name="e"><skipped
            type="x"/></testcase></testsuite>"#;
        let outcomes = outcomes_of(report);
        assert_eq!(outcomes["a.B::c"], Outcome::Passed);
        assert_eq!((outcomes["a.B::d"], outcomes["a.B::e"]), (Outcome::Failed, Outcome::Skipped));
    }
}
