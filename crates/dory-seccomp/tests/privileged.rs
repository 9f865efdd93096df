//! Loads compiled filters into the running kernel. Needs root: a filter without no_new_privs takes CAP_SYS_ADMIN.

use std::collections::BTreeSet;

use dory_seccomp::{Arch, CompileTarget, KernelVersion, Profile};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};

/// Mounts onto a directory that does not exist, under Docker's default profile for `capabilities`. The filter belongs
/// to the thread, and the thread ends here.
fn mount_under_default_profile(capabilities: &[&str]) -> Errno {
    let capabilities: BTreeSet<String> = capabilities.iter().map(|&name| name.to_owned()).collect();
    let work = || {
        let arch = Arch::native().expect("the tests run where filters exist");
        let kernel = KernelVersion { kernel: 6, major: 1 };
        let target = CompileTarget { arch, capabilities: &capabilities, kernel };
        let filter = Profile::docker_default().compile(&target).expect("the default profile compiles");
        dory_sys::seccomp::load_filter(&filter.program()).expect("the kernel must take the filter");
        mount("none", "/does/not/exist", "tmpfs", MountFlags::empty(), None)
            .expect_err("there is no such directory")
    };
    std::thread::scope(|scope| scope.spawn(work).join().expect("the thread ends"))
}

#[test]
fn privileged_kernel_takes_the_default_profile() {
    assert_eq!(mount_under_default_profile(&[]), Errno::PERM);
    assert_eq!(mount_under_default_profile(&["CAP_SYS_ADMIN"]), Errno::NOENT);
}
