//! Extended BPF as far as device control needs it (bpf(2), kernel uapi `linux/bpf.h`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// One instruction, laid out as the kernel's `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Operation.
    pub code: u8,
    /// Destination in the low half, source in the high half (the kernel's bit fields on little-endian machines).
    pub registers: u8,
    /// Distance of a jump, or offset of a load.
    pub offset: i16,
    /// Constant operand.
    pub immediate: i32,
}

impl Instruction {
    const fn new(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Self {
        let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
        Self { code, registers, offset, immediate }
    }

    /// `to = *(u32 *)(from + offset)`.
    pub const fn load_word(to: u8, from: u8, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    /// `to &= number`.
    pub const fn and(to: u8, number: i32) -> Self {
        Self::new(0x57, to, 0, 0, number)
    }

    /// `to >>= bits`.
    pub const fn shift_right(to: u8, bits: i32) -> Self {
        Self::new(0x77, to, 0, 0, bits)
    }

    /// `to = number`.
    pub const fn set(to: u8, number: i32) -> Self {
        Self::new(0xb7, to, 0, 0, number)
    }

    /// `to = from`.
    pub const fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbf, to, from, 0, 0)
    }

    /// Skips `skip` instructions if `register == number`.
    pub const fn jump_if(register: u8, number: i32, skip: i16) -> Self {
        Self::new(0x15, register, 0, skip, number)
    }

    /// Skips `skip` instructions if `register != number`.
    pub const fn jump_if_not(register: u8, number: i32, skip: i16) -> Self {
        Self::new(0x55, register, 0, skip, number)
    }

    /// Skips `skip` instructions if `left != right`.
    pub const fn jump_if_not_register(left: u8, right: u8, skip: i16) -> Self {
        Self::new(0x5d, left, right, skip, 0)
    }

    /// Ends the program with register 0 as its answer.
    pub const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of descendants run as well, so that a nested engine can attach its own; all of them must allow.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buffer: u64,
}

/// The head of `union bpf_attr` for `BPF_PROG_ATTACH`.
#[repr(C)]
struct AttachAttributes {
    target: u32,
    program: u32,
    attach_type: u32,
    attach_flags: u32,
}

/// Loads a program that answers for devices of a control group.
///
/// # Errors
/// EPERM without CAP_BPF or CAP_SYS_ADMIN in the initial user namespace; EINVAL or EACCES where the verifier refuses.
pub fn load_cgroup_device(instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(instructions.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log_buffer: 0,
    };
    // SAFETY: `instructions` and the license are readable for the length that the attributes state, and live through
    // the call.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    let descriptor = RawFd::try_from(descriptor).map_err(|_| io::ErrorKind::InvalidData)?;
    // SAFETY: BPF_PROG_LOAD returns a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Attaches `program` to the v2 group whose directory is `group`; it stays until the group is removed.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace; EBADF where `group` is no v2 group.
pub fn attach_cgroup_device(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = AttachAttributes {
        target: group.as_raw_fd().cast_unsigned(),
        program: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the attributes contain no pointers.
    unsafe { bpf(BPF_PROG_ATTACH, &attributes) }.map(|_| ())
}

/// Calls bpf(2).
///
/// # Safety
/// `attributes` must be a head of `union bpf_attr` that belongs to `command`, its pointers valid for what they state.
unsafe fn bpf<T>(command: libc::c_int, attributes: &T) -> io::Result<libc::c_long> {
    // SAFETY: the pointer and size describe `attributes`; the kernel takes missing fields as zero. What the
    // attributes point to is the caller's promise.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
