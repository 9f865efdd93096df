//! Options of tmpfs mounts.

use dory_runtime::spec::MountFlags;

use crate::EngineError;

/// tmpfs(5) options that take a value, as dockerd accepts them.
const VALUED: [&str; 7] = ["gid", "mode", "mpol", "nr_blocks", "nr_inodes", "size", "uid"];

/// Merges `options` (`size=64m,exec`) into Docker's defaults of noexec, nosuid and nodev.
pub(crate) fn parse(options: &str) -> Result<(MountFlags, Vec<String>), EngineError> {
    let mut flags = MountFlags { nosuid: true, nodev: true, noexec: true, ..MountFlags::default() };
    let mut data: Vec<String> = Vec::new();
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => flags.readonly = true,
            "rw" => flags.readonly = false,
            "exec" => flags.noexec = false,
            "noexec" => flags.noexec = true,
            "suid" => flags.nosuid = false,
            "nosuid" => flags.nosuid = true,
            "dev" => flags.nodev = false,
            "nodev" => flags.nodev = true,
            "noatime" => flags.noatime = true,
            // The kernel's defaults for a tmpfs of one's own, and what has no meaning for one.
            "defaults" | "atime" | "relatime" | "norelatime" | "strictatime" | "nostrictatime"
            | "diratime" | "nodiratime" | "async" | "sync" | "dirsync" | "mand" | "nomand" | "private"
            | "rprivate" => {}
            _ => {
                let name = option.split('=').next().unwrap_or_default();
                if !option.contains('=') || !VALUED.contains(&name) {
                    return Err(EngineError::invalid(format!("invalid tmpfs option [\"{option}\"]")));
                }
                data.retain(|known| known.split('=').next() != Some(name));
                data.push(option.to_owned());
            }
        }
    }
    Ok((flags, data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_options_win() {
        let (flags, data) = parse("rw,size=1m,exec,size=64m,mode=1777").unwrap();
        assert!(flags.nosuid && flags.nodev && !flags.noexec && !flags.readonly);
        assert_eq!(data, ["size=64m", "mode=1777"]);
        assert!(parse("").unwrap().0.noexec);
        for wrong in ["foo", "foo=1", "size"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
