//! Everything around the product: tests, machines, images, benchmarks.

mod debian;
mod docker_py;
mod fuzz;
mod images;
mod paths;
mod process;
mod setup;
mod test;
mod vm;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Everything around the product: tests, machines, images, benchmarks.
#[derive(Debug, Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install what the tests need, and run all of them.
    Test {
        /// Leave out the emulated Debian machine.
        #[arg(long)]
        no_vm: bool,
    },
    /// Install what the tests need and make the test images, but run nothing.
    Setup,
    /// Install what the tests need, and run only the transcripts; arguments go to `dory-tests run`.
    Blackbox {
        /// For example parts of cases' names, or `--tag smoke`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Feed what reads foreign bytes with invented ones, one target after another.
    Fuzz(fuzz::Arguments),
    /// Make the same things on dory and on dockerd, and report what they answer differently.
    Inspector {
        /// For example parts of the things' names, or `--all`; they go to `dory-tests inspector`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Let dory and dockerd unpack the same images, and compare every file.
    Unpacked,
    /// Build the same Dockerfiles on dory and on dockerd, and report what differs in the images.
    BuildCompare {
        /// For example parts of the Dockerfiles' names, or `--all`; they go to `dory-tests build-compare`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run docker-py's own integration tests against dockerd and dory.
    DockerPy(docker_py::Arguments),
    /// Measure the release binary beside dockerd.
    #[command(subcommand)]
    Bench(Bench),
    /// Run a command, or the longer list of transcripts, on an emulated Debian 13 machine with cgroup v2.
    Vm(vm::Arguments),
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// Times, memory and sizes, as medians with their ranges.
    Run {
        /// For example `--rounds 50`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Networks: throughput, what a network costs a start, a page of a sibling by name, two hundred containers on one.
    Network {
        /// For example `starts siblings --rounds 50`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Builds: five stages, a hundred thousand files, a large file; beside dockerd's BuildKit and Buildah.
    Build {
        /// For example `--without buildah` or `project`; they go to `dory-tests bench-builds`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Load, save, push and pull of an image of a gigabyte, beside dockerd, podman where it is installed, and plain tools.
    Images {
        /// For example `--prepare`, `--without podman` or `load pull`; they go to `dory-tests bench-images`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Dory with many containers: listing, inspecting, starting, opening.
    Scale {
        /// How many there are.
        #[arg(long, default_value_t = 10_000)]
        stopped: usize,
        /// How many of them run.
        #[arg(long, default_value_t = 500)]
        running: usize,
    },
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Verb::Test { no_vm } => test::all(!no_vm),
        Verb::Setup => {
            setup::tools().and_then(|_| test::build_tests()).and_then(|()| images::make(None)).map(drop)
        }
        Verb::Blackbox { arguments } => test::blackbox(&setup::tools()?, &test::release()?, &arguments),
        Verb::Inspector { arguments } => test::inspector(&arguments),
        Verb::Unpacked => test::unpacked(&setup::tools()?, &test::release()?),
        Verb::BuildCompare { arguments } => test::build_compare(&arguments),
        Verb::DockerPy(arguments) => docker_py::run(&arguments),
        Verb::Bench(Bench::Run { arguments }) => test::bench(&arguments),
        Verb::Bench(Bench::Network { arguments }) => {
            test::bench(&[vec!["--network".to_owned()], arguments].concat())
        }
        Verb::Bench(Bench::Build { arguments }) => test::bench_build(&arguments),
        Verb::Bench(Bench::Images { arguments }) => test::bench_images(&arguments),
        Verb::Bench(Bench::Scale { stopped, running }) => {
            let (stopped, running) = (stopped.to_string(), running.to_string());
            test::bench(&["--stopped".to_owned(), stopped, "--running".to_owned(), running])
        }
        Verb::Fuzz(arguments) => fuzz::fuzz(&arguments),
        Verb::Vm(arguments) => vm::run(&arguments),
    }
}
