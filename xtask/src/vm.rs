//! An emulated Debian 13 machine, for what a build machine may lack: cgroup v2 with its controllers, systemd, AppArmor,
//! Yama, a distribution's kernel. Software emulation needs no `/dev/kvm` and boots in about 35 s on two cores.
//!
//! The disk is made once from Debian packages. Each run boots a throw-away snapshot of it with a second disk that holds
//! the command and its files, and reads the output from a virtio console. The machine has no network.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{run as run_command, script};
use crate::{images, paths, setup, test};

const PACKAGES: &str = "linux-image-cloud-amd64,systemd-sysv,udev,dbus,kmod,apparmor,docker.io,docker-cli,\
    ca-certificates,iproute2,iptables,procps,uidmap,curl,busybox-static,python3-minimal";

/// Makes the disk: `$1` is the folder for it, `$2` the packages.
const BUILD_SCRIPT: &str = r#"
root=$1/root
rm -rf "$root"
mmdebstrap --quiet --variant=minbase --include="$2" trixie "$root" 2>"$1/build.log" || { cat "$1/build.log" >&2; exit 1; }
cp "$root"/boot/vmlinuz-* "$1/vmlinuz"
cp "$root"/boot/initrd.img-* "$1/initrd"
echo dory-vm >"$root/etc/hostname"
cat >"$root/etc/systemd/system/payload.service" <<'UNIT'
[Unit]
After=multi-user.target
[Service]
Type=oneshot
StandardOutput=file:/dev/hvc0
StandardError=file:/dev/hvc0
ExecStart=/bin/sh -c 'mkdir -p /payload && mount /dev/disk/by-label/payload /payload && cd /payload && stty -F /dev/hvc0 -opost -echo; sh ./command; echo "@@status $?"; sync'
ExecStopPost=/bin/systemctl poweroff --force
[Install]
WantedBy=default.target
UNIT
export SYSTEMD_OFFLINE=1
chroot "$root" systemctl --quiet enable payload.service 2>/dev/null
# dockerd is started by whoever tests it, so that booting does not wait for it.
chroot "$root" systemctl --quiet disable docker.service docker.socket containerd.service 2>/dev/null || true
chroot "$root" systemctl --quiet mask serial-getty@hvc0.service serial-getty@ttyS0.service getty@tty1.service 2>/dev/null
mke2fs -q -F -t ext4 -L root -d "$root" "$1/base.img.new" 8G >/dev/null
mv "$1/base.img.new" "$1/base.img"
rm -rf "$root"
"#;

/// What to run, and with what.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Memory in megabytes.
    #[arg(short, default_value_t = 2048)]
    memory: u32,
    /// A file or folder to put into `/payload`, where the command starts.
    #[arg(short)]
    payload: Vec<PathBuf>,
    /// Seconds until the machine is turned off.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Run the transcripts with this tag instead of a command.
    #[arg(long, value_name = "TAG", num_args = 0..=1, default_missing_value = "vm")]
    suite: Option<String>,
    /// The command; its exit status becomes ours (124: out of time).
    #[arg(last = true)]
    command: Vec<String>,
}

/// `cargo xtask vm`.
///
/// # Errors
/// The machine cannot be made or started, or the command fails.
pub fn run(arguments: &Arguments) -> Result<()> {
    if let Some(tag) = &arguments.suite {
        let (tools, dory) = (setup::tools()?, test::release()?);
        return suite(&tools, &dory, tag, arguments.timeout.max(3600));
    }
    ensure!(!arguments.command.is_empty(), "no command after `--`");
    let machine = Machine::get()?;
    let payload: Vec<&Path> = arguments.payload.iter().map(PathBuf::as_path).collect();
    let timeout = Duration::from_secs(arguments.timeout);
    let status = machine.run(&arguments.command.join(" "), &payload, arguments.memory, timeout)?;
    ensure!(status == 0, "the command ended with status {status}");
    Ok(())
}

/// The short list that belongs to every test run.
///
/// # Errors
/// A transcript fails there.
pub fn smoke(tools: &Path, dory: &Path) -> Result<()> {
    suite(tools, dory, "smoke", 1200)
}

fn suite(tools: &Path, dory: &Path, tag: &str, timeout: u64) -> Result<()> {
    let machine = Machine::get()?;
    images::make(Some(dory))?;
    let stage = paths::target().join("tests/vm");
    let _ = std::fs::remove_dir_all(&stage);
    script(
        "mkdir -p \"$1/images\" \"$1/tools/new/config\" \"$1/tools/old/config\"
         cp \"$2/new/docker\" \"$1/tools/new/\"; cp \"$2/old/docker\" \"$1/tools/old/\"
         for name in busybox hello-world dory; do cp \"$3/$name.tar\" \"$1/images/\"; done
         cp -r \"$4\" \"$1/cases\"; cp \"$5\" \"$6\" \"$1/\"",
        &[
            stage.as_os_str(),
            tools.as_os_str(),
            paths::target().join("tests/images").as_os_str(),
            paths::repository().join("tests/cases").as_os_str(),
            dory.as_os_str(),
            paths::built("debug", "dory-tests").as_os_str(),
        ],
    )?;
    let command = format!(
        "cd vm && ./dory-tests run --dory ./dory --tools tools --images images --cases cases --slow 8 --jobs 1 --tag {tag}"
    );
    let status = machine.run(&command, &[&stage], 3072, Duration::from_secs(timeout))?;
    ensure!(status == 0, "transcripts fail on the Debian 13 machine (status {status})");
    Ok(())
}

/// The disk, kernel and initrd.
struct Machine {
    folder: PathBuf,
}

impl Machine {
    fn get() -> Result<Self> {
        let folder = paths::cache().join(setup::stamp("vm", &[PACKAGES, BUILD_SCRIPT]));
        if !folder.join("base.img").exists() {
            println!("making the disk of the Debian 13 machine");
            std::fs::create_dir_all(&folder)?;
            script(BUILD_SCRIPT, &[folder.as_os_str(), OsStr::new(PACKAGES)])?;
        }
        Ok(Self { folder })
    }

    /// Boots, runs `command` as root with the files of `payload` around it, and gives back its exit status.
    fn run(&self, command: &str, payload: &[&Path], memory: u32, timeout: Duration) -> Result<i32> {
        let scratch = paths::target().join(format!("tests/vm-run-{}", std::process::id()));
        let stage = scratch.join("payload");
        std::fs::create_dir_all(&stage)?;
        std::fs::write(stage.join("command"), format!("{command}\n"))?;
        for path in payload {
            run_command(Command::new("cp").args([OsStr::new("-a"), path.as_os_str(), stage.as_os_str()]))?;
        }
        let disk = scratch.join("payload.img");
        script(
            "mke2fs -q -F -t ext4 -L payload -d \"$1\" \"$2\" \"$(( $(du -sm \"$1\" | cut -f1) + 1024 ))M\" >/dev/null",
            &[stage.as_os_str(), disk.as_os_str()],
        )?;
        let status = self.boot(&disk, memory, timeout);
        let _ = std::fs::remove_dir_all(&scratch);
        status
    }

    fn boot(&self, payload: &Path, memory: u32, timeout: Duration) -> Result<i32> {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let drive = |path: &str| format!("file={path},if=virtio,format=raw");
        let began = Instant::now();
        let mut machine = Command::new("timeout")
            .arg(timeout.as_secs().to_string())
            .arg("qemu-system-x86_64")
            .args([
                "-accel",
                "tcg,thread=multi",
                "-cpu",
                "max",
                "-smp",
                "2",
                "-display",
                "none",
                "-no-reboot",
            ])
            .args(["-snapshot", "-nic", "none", "-m", &memory.to_string()])
            .args(["-kernel", &file("vmlinuz"), "-initrd", &file("initrd")])
            .args(["-append", "root=LABEL=root rw quiet console=ttyS0"])
            .args(["-drive", &drive(&file("base.img")), "-drive", &drive(&payload.display().to_string())])
            .args(["-serial", &format!("file:{}", file("console.log")), "-device", "virtio-serial"])
            .args(["-chardev", "stdio,id=out,signal=off", "-device", "virtconsole,chardev=out"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `qemu-system-x86_64`")?;
        let mut status = None;
        let output = machine.stdout.take().context("no output")?;
        for line in BufReader::new(output).lines() {
            let line = line?;
            let line = line.trim_end_matches('\r');
            match line.strip_prefix("@@status ") {
                Some(number) => status = number.parse().ok(),
                None => println!("{line}"),
            }
        }
        let ended = machine.wait()?;
        println!("the machine ran for {} s", began.elapsed().as_secs());
        match status {
            Some(status) => Ok(status),
            None if ended.code() == Some(124) => {
                bail!("the machine was turned off after {} s", timeout.as_secs())
            }
            None => bail!("the machine ended early ({ended}); see `{}`", file("console.log")),
        }
    }
}
