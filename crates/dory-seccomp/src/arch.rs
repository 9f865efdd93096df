//! Architectures, their audit tokens and system call numbers.

use crate::syscall_table::SYSCALLS;

/// An architecture that a filter can be compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Arch {
    /// 64-bit x86. Its filters also cover [`Arch::X86`] where the profile's `archMap` says so.
    X86_64,
    /// 32-bit x86 programs; only ever a sub-architecture.
    X86,
    /// 64-bit Arm.
    Aarch64,
}

/// Numbers from here on are calls of the x32 ABI, which shares x86_64's audit token (kernel `__X32_SYSCALL_BIT`).
pub(crate) const X32_SYSCALL_BIT: u32 = 0x4000_0000;

impl Arch {
    /// The architecture this program was built for, or `None` where no filter can be compiled.
    pub fn native() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// Value of `seccomp_data.arch` (kernel uapi `linux/audit.h`).
    pub(crate) fn audit_token(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// Name in `archMap` and `architectures` (libseccomp's constants).
    pub(crate) fn from_libseccomp(name: &str) -> Option<Self> {
        match name {
            "SCMP_ARCH_X86_64" => Some(Self::X86_64),
            "SCMP_ARCH_X86" => Some(Self::X86),
            "SCMP_ARCH_AARCH64" => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// Name in `includes.arches` and `excludes.arches` (Docker's own names).
    pub(crate) fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::X86 => "x86",
            Self::Aarch64 => "arm64",
        }
    }

    fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::Aarch64 => 2,
        }
    }
}

/// The number of system call `name` on `arch`; `None` for an unknown name and for a call that `arch` lacks.
pub fn syscall_number(arch: Arch, name: &str) -> Option<u32> {
    let index = SYSCALLS.binary_search_by_key(&name, |(name, _)| *name).ok()?;
    u32::try_from(SYSCALLS[index].1[arch.column()]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_sorted() {
        assert!(SYSCALLS.is_sorted_by(|left, right| left.0 < right.0));
    }

    #[test]
    fn numbers_match_the_c_library() {
        #[cfg(target_arch = "x86_64")]
        let native = Arch::X86_64;
        #[cfg(target_arch = "aarch64")]
        let native = Arch::Aarch64;
        for (name, number) in [
            ("read", libc::SYS_read),
            ("clone3", libc::SYS_clone3),
            ("openat2", libc::SYS_openat2),
            ("pivot_root", libc::SYS_pivot_root),
            ("personality", libc::SYS_personality),
            ("mseal", libc::SYS_mseal),
        ] {
            assert_eq!(syscall_number(native, name).map(libc::c_long::from), Some(number), "{name}");
        }
        assert_eq!(syscall_number(Arch::X86, "socketcall"), Some(102));
        assert_eq!(syscall_number(Arch::Aarch64, "open"), None);
        assert_eq!(syscall_number(Arch::X86_64, "nonsense"), None);
    }
}
