//! Runs compiled programs in an interpreter and compares every outcome with a plain reading of the JSON.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::assemble::{
    AND, JUMP, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_OR_EQUAL, LOAD, OFFSET_ARCH, OFFSET_ARGS,
    OFFSET_NUMBER, RETURN,
};
use crate::{Arch, CompileTarget, Filter, KernelVersion, Profile, syscall_number};

const ALLOW: u32 = 0x7fff_0000;
const ERRNO: u32 = 0x0005_0000;
const ENOSYS: u32 = ERRNO | 38;
const KILL_PROCESS: u32 = 0x8000_0000;
const KERNEL: KernelVersion = KernelVersion { kernel: 6, major: 18 };

/// `struct seccomp_data` without the instruction pointer.
#[derive(Debug, Clone, Copy)]
struct Call {
    arch: u32,
    number: u32,
    args: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            OFFSET_NUMBER => self.number,
            OFFSET_ARCH => self.arch,
            _ => {
                let at = usize::try_from(offset - OFFSET_ARGS).unwrap();
                let bytes: Vec<u8> = self.args.iter().flat_map(|arg| arg.to_ne_bytes()).collect();
                u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap())
            }
        }
    }
}

fn interpret(filter: &Filter, call: &Call) -> u32 {
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = filter.instructions[at];
        let k = instruction.k;
        at += 1;
        let test = match instruction.code {
            RETURN => return k,
            LOAD => {
                accumulator = call.word(k);
                continue;
            }
            AND => {
                accumulator &= k;
                continue;
            }
            JUMP => {
                at += usize::try_from(k).unwrap();
                continue;
            }
            JUMP_EQUAL => accumulator == k,
            JUMP_GREATER => accumulator > k,
            JUMP_GREATER_OR_EQUAL => accumulator >= k,
            other => panic!("unknown instruction {other:#x}"),
        };
        at += usize::from(if test { instruction.jt } else { instruction.jf });
    }
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().map_or_else(Vec::new, |list| list.iter().map(|item| item.as_str().unwrap()).collect())
}

fn rule_applies(rule: &Value, docker_arch: &str, capabilities: &BTreeSet<String>) -> bool {
    let old_enough = |version: &Value| {
        version.as_str().map(|text| {
            let (kernel, major) = text.split_once('.').unwrap();
            (kernel.parse::<u32>().unwrap(), major.parse::<u32>().unwrap()) <= (KERNEL.kernel, KERNEL.major)
        })
    };
    let (includes, excludes) = (&rule["includes"], &rule["excludes"]);
    let arches = strings(&includes["arches"]);
    (arches.is_empty() || arches.contains(&docker_arch))
        && strings(&includes["caps"]).iter().all(|name| capabilities.contains(*name))
        && old_enough(&includes["minKernel"]).unwrap_or(true)
        && !strings(&excludes["arches"]).contains(&docker_arch)
        && !strings(&excludes["caps"]).iter().any(|name| capabilities.contains(*name))
        && !old_enough(&excludes["minKernel"]).unwrap_or(false)
}

fn test_holds(test: &Value, args: &[u64; 6]) -> bool {
    let argument = args[usize::try_from(test["index"].as_u64().unwrap()).unwrap()];
    let (value, second) = (test["value"].as_u64().unwrap(), test["valueTwo"].as_u64().unwrap_or(0));
    match test["op"].as_str().unwrap() {
        "SCMP_CMP_NE" => argument != value,
        "SCMP_CMP_LT" => argument < value,
        "SCMP_CMP_LE" => argument <= value,
        "SCMP_CMP_EQ" => argument == value,
        "SCMP_CMP_GE" => argument >= value,
        "SCMP_CMP_GT" => argument > value,
        "SCMP_CMP_MASKED_EQ" => argument & value == second,
        other => panic!("{other}"),
    }
}

fn value_of(action: &Value, errno: &Value) -> u32 {
    let errno = u32::try_from(errno.as_u64().unwrap_or(1)).unwrap();
    match action.as_str().unwrap() {
        "SCMP_ACT_ALLOW" => ALLOW,
        "SCMP_ACT_ERRNO" => ERRNO | errno,
        "SCMP_ACT_LOG" => 0x7ffc_0000,
        "SCMP_ACT_TRACE" => 0x7ff0_0000 | errno,
        "SCMP_ACT_TRAP" => 0x0003_0000,
        "SCMP_ACT_NOTIFY" => 0x7fc0_0000,
        "SCMP_ACT_KILL" => 0,
        "SCMP_ACT_KILL_PROCESS" => KILL_PROCESS,
        other => panic!("{other}"),
    }
}

/// The profile's meaning for one architecture and capability set, by looking through its rules one after the other.
struct Reading<'a> {
    rules: Vec<(BTreeSet<u32>, &'a Value)>,
    default: u32,
    last: u32,
    x32: Option<u32>,
}

impl<'a> Reading<'a> {
    fn new(profile: &'a Value, arch: Arch, docker_arch: &str, capabilities: &BTreeSet<String>) -> Self {
        let default = value_of(&profile["defaultAction"], &profile["defaultErrnoRet"]);
        let rules: Vec<(BTreeSet<u32>, &Value)> = profile["syscalls"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|rule| rule_applies(rule, docker_arch, capabilities))
            .map(|rule| {
                (strings(&rule["names"]).iter().filter_map(|name| syscall_number(arch, name)).collect(), rule)
            })
            .collect();
        let last = rules.iter().flat_map(|(numbers, _)| numbers).max().copied().unwrap_or(u32::MAX);
        let x32 = (arch == Arch::X86_64).then_some(0x4000_0000);
        Self { rules, default, last, x32 }
    }

    fn judge(&self, number: u32, args: &[u64; 6]) -> u32 {
        if self.x32.is_some_and(|first| number >= first) || (number > self.last && self.default != ALLOW) {
            return ENOSYS;
        }
        let about = || {
            let named = self.rules.iter().filter(|(numbers, _)| numbers.contains(&number));
            named
                .map(|(_, rule)| (rule, value_of(&rule["action"], &rule["errnoRet"])))
                .filter(|(_, result)| *result != self.default)
        };
        let tests = |rule: &Value| rule["args"].as_array().cloned().unwrap_or_default();
        if let Some((_, result)) = about().find(|(rule, _)| tests(rule).is_empty()) {
            return result;
        }
        let holds = |rule: &Value| {
            let tests = tests(rule);
            let indexes: BTreeSet<u64> = tests.iter().map(|test| test["index"].as_u64().unwrap()).collect();
            let mut each = tests.iter().map(|test| test_holds(test, args));
            if indexes.len() < tests.len() { each.any(|held| held) } else { each.all(|held| held) }
        };
        about().find(|(rule, _)| holds(rule)).map_or(self.default, |(_, result)| result)
    }
}

/// Values on both sides of every boundary that the profile's tests have, and with upper halves set.
fn sample_values(profile: &Value) -> BTreeSet<u64> {
    let rules = profile["syscalls"].as_array().unwrap().iter();
    let tests: Vec<Value> =
        rules.flat_map(|rule| rule["args"].as_array().cloned().unwrap_or_default()).collect();
    let values = tests.iter().flat_map(|test| [test["value"].as_u64(), test["valueTwo"].as_u64()]).flatten();
    let mut samples: BTreeSet<u64> = [0, 1, 17, 0xffff_ffff, u64::MAX, 1 << 32].into();
    for value in values {
        samples.extend([
            value,
            value.wrapping_add(1),
            value.wrapping_sub(1),
            value ^ (1 << 32),
            value ^ (1 << 63),
            !value,
        ]);
    }
    samples
}

fn numbers() -> impl Iterator<Item = u32> {
    (0..600).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0065, 0x4000_0200, u32::MAX])
}

/// Compares everything; each sample value goes to every argument, and one at a time.
fn assert_equivalent(
    profile: &Value,
    native: Arch,
    docker_arch: &str,
    arches: &[Arch],
    capabilities: &BTreeSet<String>,
) {
    let parsed = Profile::parse(profile.to_string().as_bytes()).unwrap();
    let filter = parsed.compile(&CompileTarget { arch: native, capabilities, kernel: KERNEL }).unwrap();
    let samples = sample_values(profile);
    for &arch in arches {
        let reading = Reading::new(profile, arch, docker_arch, capabilities);
        for number in numbers() {
            for &value in &samples {
                let mut rows = vec![[value; 6]];
                rows.extend(
                    (0..6).map(|at| std::array::from_fn(|index| if index == at { value } else { 3 })),
                );
                for args in rows {
                    let call = Call { arch: arch.audit_token(), number, args };
                    let (got, expected) = (interpret(&filter, &call), reading.judge(number, &args));
                    assert_eq!(got, expected, "{call:x?} with {capabilities:?}");
                }
            }
        }
    }
    let foreign = Call { arch: 0x1234, number: 0, args: [0; 6] };
    assert_eq!(interpret(&filter, &foreign), KILL_PROCESS);
}

fn default_profile() -> Value {
    serde_json::from_slice(include_bytes!("../profiles/default.json")).unwrap()
}

fn capability_sets() -> Vec<BTreeSet<String>> {
    let profile = default_profile();
    let rules = profile["syscalls"].as_array().unwrap();
    let all: BTreeSet<String> = rules
        .iter()
        .flat_map(|rule| [strings(&rule["includes"]["caps"]), strings(&rule["excludes"]["caps"])].concat())
        .map(str::to_owned)
        .collect();
    let mut sets: Vec<BTreeSet<String>> = all.iter().map(|name| [name.clone()].into()).collect();
    sets.extend([BTreeSet::new(), ["CAP_CHOWN", "CAP_SYS_CHROOT"].map(str::to_owned).into(), all]);
    sets
}

#[test]
fn docker_default_on_x86_64_and_i386() {
    for capabilities in capability_sets() {
        assert_equivalent(
            &default_profile(),
            Arch::X86_64,
            "amd64",
            &[Arch::X86_64, Arch::X86],
            &capabilities,
        );
    }
}

#[test]
fn docker_default_on_aarch64() {
    for capabilities in capability_sets() {
        assert_equivalent(&default_profile(), Arch::Aarch64, "arm64", &[Arch::Aarch64], &capabilities);
    }
}

#[test]
fn every_operator_and_action() {
    let operators = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
    let actions = ["ALLOW", "ERRNO", "LOG", "TRACE", "TRAP", "NOTIFY", "KILL", "KILL_PROCESS"];
    let pairs: [(u64, u64); 3] =
        [(5, 5), (0xff00_0000_0000_0000, 0xff00_0000_0000_0000), (0xf_0000_000f, 0x1_0000_0001)];
    for default in ["ALLOW", "ERRNO"] {
        let mut syscalls = Vec::new();
        // Enough distinct rules to put jump targets out of a conditional jump's reach.
        for (at, name) in (0..250).filter_map(|number| crate::syscall_table::SYSCALLS.get(number)).enumerate()
        {
            let (value, second) = pairs[at % pairs.len()];
            let test = |index: usize, op: usize| {
                json!({"index": index % 6, "value": value, "valueTwo": second,
                       "op": format!("SCMP_CMP_{}", operators[op % operators.len()])})
            };
            let args = match at % 5 {
                0 => vec![],
                1 | 2 => vec![test(at, at)],
                3 => vec![test(at, at), test(at + 1, at / 7)],
                _ => vec![test(at, at), test(at, at / 7)],
            };
            let action = format!("SCMP_ACT_{}", actions[at % actions.len()]);
            syscalls.push(json!({"names": [name.0], "action": action, "errnoRet": at % 3, "args": args}));
            if at % 11 == 0 {
                syscalls.push(
                    json!({"names": [name.0], "action": "SCMP_ACT_TRAP", "args": [test(at + 2, at + 1)]}),
                );
            }
        }
        let profile = json!({
            "defaultAction": format!("SCMP_ACT_{default}"),
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": syscalls,
        });
        let none = BTreeSet::new();
        assert_equivalent(&profile, Arch::X86_64, "amd64", &[Arch::X86_64, Arch::X86], &none);
    }
}

#[test]
fn compiled_default_stays_small() {
    // 32,768 instructions are shared by all nested filters: at this size more than 100 levels fit.
    for capabilities in capability_sets() {
        let target = CompileTarget { arch: Arch::X86_64, capabilities: &capabilities, kernel: KERNEL };
        let length = Profile::docker_default().compile(&target).unwrap().instructions.len();
        assert!(length <= 250, "{length} instructions with {capabilities:?}");
    }
}

#[test]
fn a_profile_of_denials_cannot_be_passed_by_x32() {
    let profile =
        br#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"ptrace","action":"SCMP_ACT_ERRNO"}]}"#;
    let none = BTreeSet::new();
    let target = CompileTarget { arch: Arch::X86_64, capabilities: &none, kernel: KERNEL };
    let filter = Profile::parse(profile).unwrap().compile(&target).unwrap();
    let call = |number| Call { arch: Arch::X86_64.audit_token(), number, args: [0; 6] };
    assert_eq!(interpret(&filter, &call(101)), ERRNO | 1);
    assert_eq!(interpret(&filter, &call(0x4000_0000 | 101)), ENOSYS);
    assert_eq!(interpret(&filter, &call(599)), ALLOW);
}
