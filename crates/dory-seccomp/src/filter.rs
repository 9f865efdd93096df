//! The compiled filter as a value that can be handed to another process.

use serde::{Deserialize, Serialize};

/// One classic BPF instruction, laid out as the kernel's `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[repr(C)]
pub struct Instruction {
    /// Operation and addressing mode.
    pub code: u16,
    /// Instructions to skip where a conditional jump's test holds.
    pub jt: u8,
    /// Instructions to skip where it does not.
    pub jf: u8,
    /// Operand: constant, offset into `struct seccomp_data`, or distance.
    pub k: u32,
}

/// Bytes of one instruction in [`Filter::to_bytes`].
const INSTRUCTION_LEN: usize = 8;

/// The kernel's limit for one filter (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// The bytes are not a filter.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` bytes are not a seccomp filter: a flag word and 1 to 4096 instructions of 8 bytes are needed")]
pub struct FilterError(pub usize);

/// A program for `seccomp(SECCOMP_SET_MODE_FILTER)` and its flags.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// The program; 1 to 4096 instructions.
    pub instructions: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*` that the profile asked for; 0 for most.
    pub flags: u32,
}

impl Filter {
    /// True where some call is answered by user notification, so that loading must ask for a listener.
    pub fn notifies(&self) -> bool {
        self.instructions.iter().any(|instruction| {
            instruction.code == crate::assemble::RETURN && instruction.k == libc::SECCOMP_RET_USER_NOTIF
        })
    }

    /// The program in the C library's type, for the code that loads it.
    pub fn program(&self) -> Vec<libc::sock_filter> {
        self.instructions
            .iter()
            .map(|&Instruction { code, jt, jf, k }| libc::sock_filter { code, jt, jf, k })
            .collect()
    }

    /// Flags and program in native byte order: 8 bytes of flags and padding, then 8 for each instruction.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((self.instructions.len() + 1) * INSTRUCTION_LEN);
        bytes.extend_from_slice(&u64::from(self.flags).to_ne_bytes());
        for instruction in &self.instructions {
            bytes.extend_from_slice(&instruction.code.to_ne_bytes());
            bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
            bytes.extend_from_slice(&instruction.k.to_ne_bytes());
        }
        bytes
    }

    /// Reads what [`Filter::to_bytes`] wrote. The kernel, not this function, checks the program itself.
    ///
    /// # Errors
    /// [`FilterError`] with the length where the length or the flag word cannot be a filter's.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, FilterError> {
        let invalid = || FilterError(bytes.len());
        let (words, rest) = bytes.as_chunks::<INSTRUCTION_LEN>();
        let (flags, instructions) = words.split_first().ok_or_else(invalid)?;
        if !rest.is_empty() || !(1..=MAX_INSTRUCTIONS).contains(&instructions.len()) {
            return Err(invalid());
        }
        Ok(Self {
            flags: u32::try_from(u64::from_ne_bytes(*flags)).map_err(|_| invalid())?,
            instructions: instructions.iter().map(decode).collect(),
        })
    }
}

fn decode(&[code0, code1, jt, jf, k0, k1, k2, k3]: &[u8; INSTRUCTION_LEN]) -> Instruction {
    Instruction { code: u16::from_ne_bytes([code0, code1]), jt, jf, k: u32::from_ne_bytes([k0, k1, k2, k3]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_round_trip_and_wrong_lengths_are_refused() {
        let filter =
            Filter { instructions: vec![Instruction { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 }], flags: 2 };
        let bytes = filter.to_bytes();
        assert_eq!(Filter::from_bytes(&bytes), Ok(filter));
        for wrong in [&bytes[..0], &bytes[..8], &bytes[..15], &[0; 8 * 4098]] {
            assert_eq!(Filter::from_bytes(wrong), Err(FilterError(wrong.len())));
        }
    }
}
