//! Docker's profile format: parsing and the choice of rules for a target.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

use crate::action::Action;
use crate::arch::Arch;
use crate::filter::Filter;
use crate::{assemble, outcome};

/// Docker's default profile, from moby/profiles (see NOTICE).
const DOCKER_DEFAULT: &[u8] = include_bytes!("../profiles/default.json");

/// The profile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// The text is not JSON of the profile's form, or names an unknown action, operator or kernel version.
    #[error("decoding seccomp profile failed")]
    Decode(#[source] serde_json::Error),
    /// Both ways to name architectures at once, which Docker refuses too.
    #[error(
        "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'"
    )]
    BothArchitectureLists,
    /// Both ways to name system calls in one entry.
    #[error("'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'")]
    BothNames,
    /// A system call has six arguments.
    #[error("argument index `{index}` of system call `{name}` is past 5")]
    ArgumentIndex {
        /// The call that the rule is about.
        name: String,
        /// The index that was asked for.
        index: u32,
    },
    /// A filter flag that this engine does not know.
    #[error("unknown seccomp flag `{0}`")]
    UnknownFlag(String),
    /// An error number does not fit the 16 bits that a filter can return, or the kernel's limit of 4095.
    #[error("error number `{0}` is past 4095")]
    ErrnoRange(u32),
    /// The rules need more than the kernel's 4096 instructions.
    #[error("the profile compiles to `{0}` instructions, the kernel takes 4096")]
    TooLarge(usize),
}

/// A kernel version as far as profiles compare it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct KernelVersion {
    /// First number.
    pub kernel: u32,
    /// Second number.
    pub major: u32,
}

/// The text does not start with two numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid kernel version `{0}`: it must start with two numbers, such as 4.8")]
pub struct KernelVersionError(String);

impl FromStr for KernelVersion {
    type Err = KernelVersionError;

    /// Reads `uname -r`'s form, of which only the first two numbers count.
    fn from_str(text: &str) -> Result<Self, KernelVersionError> {
        let mut numbers = text.split(|character: char| !character.is_ascii_digit()).map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(kernel)), Some(Ok(major))) => Ok(Self { kernel, major }),
            _ => Err(KernelVersionError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for KernelVersion {
    type Error = KernelVersionError;
    fn try_from(text: String) -> Result<Self, KernelVersionError> {
        text.parse()
    }
}

impl fmt::Display for KernelVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.kernel, self.major)
    }
}

/// What a profile's conditions are resolved against.
#[derive(Debug, Clone, Copy)]
pub struct CompileTarget<'a> {
    /// Architecture of the kernel that will run the filter.
    pub arch: Arch,
    /// The container's bounding capabilities by their kernel names, such as `CAP_SYS_ADMIN`.
    pub capabilities: &'a BTreeSet<String>,
    /// The running kernel.
    pub kernel: KernelVersion,
}

/// A seccomp profile in the form that `docker run --security-opt seccomp=FILE` takes.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    pub(crate) default_action: Action,
    pub(crate) default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_as_empty")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    arch_map: Vec<ArchMapEntry>,
    #[serde(default, deserialize_with = "null_as_empty")]
    flags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    syscalls: Vec<Rule>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMapEntry {
    architecture: String,
    #[serde(default, deserialize_with = "null_as_empty")]
    sub_architectures: Vec<String>,
}

/// One entry of `syscalls`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Rule {
    /// The form of Docker 1.10 to 1.12, still taken by dockerd.
    name: Option<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    names: Vec<String>,
    pub(crate) action: Action,
    pub(crate) errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "null_as_empty")]
    pub(crate) args: Vec<Condition>,
    #[serde(default, deserialize_with = "null_as_empty")]
    includes: Circumstances,
    #[serde(default, deserialize_with = "null_as_empty")]
    excludes: Circumstances,
}

/// A test of one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Condition {
    pub(crate) index: u32,
    pub(crate) value: u64,
    #[serde(default)]
    pub(crate) value_two: u64,
    pub(crate) op: Operator,
}

/// How an argument is compared with the rule's value; all unsigned, 64 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub(crate) enum Operator {
    #[serde(rename = "SCMP_CMP_NE")]
    NotEqual,
    #[serde(rename = "SCMP_CMP_LT")]
    Less,
    #[serde(rename = "SCMP_CMP_LE")]
    LessOrEqual,
    #[serde(rename = "SCMP_CMP_EQ")]
    Equal,
    #[serde(rename = "SCMP_CMP_GE")]
    GreaterOrEqual,
    #[serde(rename = "SCMP_CMP_GT")]
    Greater,
    /// `argument & value == value_two`.
    #[serde(rename = "SCMP_CMP_MASKED_EQ")]
    MaskedEqual,
}

/// Conditions of `includes` and `excludes`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Circumstances {
    #[serde(default, deserialize_with = "null_as_empty")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "null_as_empty")]
    arches: Vec<String>,
    min_kernel: Option<KernelVersion>,
}

/// Go writes an empty list as `null`.
fn null_as_empty<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

impl Rule {
    /// The names that the rule is about.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.name.iter().chain(&self.names).map(String::as_str)
    }

    /// Whether the rule holds for `target`: every inclusion is met and no exclusion is.
    fn applies(&self, target: &CompileTarget<'_>) -> bool {
        let has = |capability: &String| target.capabilities.contains(capability);
        let is_target = |arch: &String| arch == target.arch.docker_name();
        let (includes, excludes) = (&self.includes, &self.excludes);
        (includes.arches.is_empty() || includes.arches.iter().any(is_target))
            && includes.caps.iter().all(has)
            && includes.min_kernel.is_none_or(|minimum| target.kernel >= minimum)
            && !excludes.arches.iter().any(is_target)
            && !excludes.caps.iter().any(has)
            && excludes.min_kernel.is_none_or(|minimum| target.kernel < minimum)
    }

    fn check(&self) -> Result<(), ProfileError> {
        if self.name.is_some() && !self.names.is_empty() {
            return Err(ProfileError::BothNames);
        }
        if let Some(condition) = self.args.iter().find(|condition| condition.index > 5) {
            let name = self.names().next().unwrap_or_default().to_owned();
            return Err(ProfileError::ArgumentIndex { name, index: condition.index });
        }
        check_errno(self.errno_ret)
    }
}

fn check_errno(errno: Option<u32>) -> Result<(), ProfileError> {
    match errno {
        Some(number) if number > 4095 => Err(ProfileError::ErrnoRange(number)),
        _ => Ok(()),
    }
}

impl Profile {
    /// Docker's default profile.
    pub fn docker_default() -> Self {
        Self::parse(DOCKER_DEFAULT).expect("a test parses the embedded profile")
    }

    /// Reads a profile.
    ///
    /// # Errors
    /// Every variant of [`ProfileError`] but [`ProfileError::TooLarge`].
    pub fn parse(json: &[u8]) -> Result<Self, ProfileError> {
        let profile: Self = serde_json::from_slice(json).map_err(ProfileError::Decode)?;
        if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
            return Err(ProfileError::BothArchitectureLists);
        }
        check_errno(profile.default_errno_ret)?;
        profile.syscalls.iter().try_for_each(Rule::check)?;
        profile.filter_flags()?;
        Ok(profile)
    }

    /// Compiles the rules that hold for `target`.
    ///
    /// # Errors
    /// [`ProfileError::TooLarge`] past 4096 instructions.
    pub fn compile(&self, target: &CompileTarget<'_>) -> Result<Filter, ProfileError> {
        let rules: Vec<&Rule> = self.syscalls.iter().filter(|rule| rule.applies(target)).collect();
        let searches: Vec<_> = self
            .arches(target.arch)
            .into_iter()
            .map(|arch| (arch.audit_token(), outcome::ranges(self, &rules, arch)))
            .collect();
        let instructions = assemble::program(&searches);
        if instructions.len() > 4096 {
            return Err(ProfileError::TooLarge(instructions.len()));
        }
        Ok(Filter { instructions, flags: self.filter_flags()? })
    }

    /// The architectures whose calls are judged by rules; calls of any other kill the process.
    fn arches(&self, native: Arch) -> Vec<Arch> {
        let mapped =
            self.arch_map.iter().find(|entry| Arch::from_libseccomp(&entry.architecture) == Some(native));
        let listed = mapped.map_or(&self.architectures, |entry| &entry.sub_architectures);
        let also = listed.iter().filter_map(|name| Arch::from_libseccomp(name));
        // The native one is always there, as in libseccomp; i386 exists only beneath x86_64.
        let mut arches = vec![native];
        arches.extend(also.filter(|&arch| native == Arch::X86_64 && arch == Arch::X86));
        arches
    }

    fn filter_flags(&self) -> Result<u32, ProfileError> {
        self.flags.iter().try_fold(0, |flags, name| {
            let flag = match name.as_str() {
                "SECCOMP_FILTER_FLAG_TSYNC" => libc::SECCOMP_FILTER_FLAG_TSYNC,
                "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
                "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
                "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV,
                _ => return Err(ProfileError::UnknownFlag(name.clone())),
            };
            Ok(flags | u32::try_from(flag).expect("the flags are small bits"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_profile_parses() {
        assert_eq!(Profile::docker_default().default_action, Action::Errno);
    }

    #[test]
    fn malformed_profiles_are_refused() {
        let rule = |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rule}]}}"#);
        for (json, message) in [
            ("[".to_owned(), "decoding seccomp profile failed"),
            (r#"{"defaultAction":"SCMP_ACT_PARDON"}"#.to_owned(), "decoding seccomp profile failed"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86"],"archMap":[{"architecture":"SCMP_ARCH_X86_64"}]}"#.to_owned(),
                "'architectures' and 'archMap' were specified",
            ),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["LOUD"]}"#.to_owned(), "unknown seccomp flag `LOUD`"),
            (rule(r#"{"name":"a","names":["b"],"action":"SCMP_ACT_ALLOW"}"#), "'name' and 'names' were specified"),
            (rule(r#"{"names":["b"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}"#), "error number `5000`"),
            (
                rule(r#"{"names":["b"],"action":"SCMP_ACT_ALLOW","args":[{"index":6,"value":0,"op":"SCMP_CMP_EQ"}]}"#),
                "argument index `6` of system call `b`",
            ),
            (rule(r#"{"names":["b"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"new"}}"#), "decoding"),
        ] {
            let error = Profile::parse(json.as_bytes()).expect_err(&json);
            assert!(error.to_string().contains(message), "{json}: {error}");
        }
    }

    #[test]
    fn kernel_versions_compare_by_number() {
        let version = |text: &str| text.parse::<KernelVersion>().unwrap();
        assert!(version("4.10") > version("4.8"));
        assert_eq!(version("6.18.44-fc"), KernelVersion { kernel: 6, major: 18 });
        assert!("6".parse::<KernelVersion>().is_err());
    }
}
