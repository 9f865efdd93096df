//! Probes this machine. The test is its own probe child, as the engine's binary is; started with `show` it prints what
//! it finds, so that it can be tried in any container.

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use dory_probe::{Attempt, Facilities, Feature, PROBE_ROLE, Tier};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match arguments.first().and_then(|argument| argument.to_str()) {
        Some(PROBE_ROLE) => dory_probe::run_child_role(arguments.into_iter().skip(1)),
        Some("show") => {
            show(arguments.get(1).map_or(Path::new("/tmp"), |path| Path::new(path)));
            ExitCode::SUCCESS
        }
        _ => {
            privileged_root_has_the_kernel_tier();
            privileged_scratch_is_removed();
            eprintln!("test result: ok. 2 passed");
            ExitCode::SUCCESS
        }
    }
}

fn show(data_root: &Path) {
    for (name, probe) in [("quick", dory_probe::quick as fn(&Path) -> _), ("full", dory_probe::full)] {
        let start = Instant::now();
        let facilities: Facilities = probe(data_root).expect("the probe must answer");
        println!("# {name}: {:?} in all, {} us in the child", start.elapsed(), facilities.microseconds);
        if name == "full" {
            for (name, finding) in facilities.render() {
                println!("{name:36}{finding}");
            }
            match facilities.missing() {
                Some(missing) => println!("{missing}"),
                None => println!("nothing is missing"),
            }
        }
    }
}

fn privileged_root_has_the_kernel_tier() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let facilities = dory_probe::full(directory.path()).expect("the probe must answer");
    assert_eq!(facilities.tier(), Some(Tier::Kernel), "{:#?}", facilities.render());
    assert!(facilities.tried_data_root);
    for feature in
        [Feature::Overlay, Feature::FreshProc, Feature::PivotRoot, Feature::CgroupWrite, Feature::Nat]
    {
        assert_eq!(facilities.direct(feature), Attempt::Works, "{feature:?}");
    }
    for feature in [Feature::Overlay, Feature::Veth, Feature::PivotRoot] {
        assert_eq!(facilities.in_user_namespace(feature), Attempt::Works, "{feature:?}");
    }
    let untried: Vec<_> =
        Feature::ALL.iter().filter(|&&feature| facilities.direct(feature) == Attempt::Untried).collect();
    assert_eq!(untried, [&Feature::SysfsReadOnly, &Feature::MoveRoot], "both are second choices");
}

fn privileged_scratch_is_removed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    dory_probe::quick(directory.path()).expect("the probe must answer");
    let left = std::fs::read_dir(directory.path()).expect("the directory is still there").count();
    assert_eq!(left, 0);
}
