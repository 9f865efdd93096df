//! An engine under test, in a network of its own.
//!
//! ```text
//!  outside (netns)                    host (netns)
//!  192.0.2.1 httpd :80  ---- veth ---- 192.0.2.2  engine, its bridges and published ports
//!  2001:db8:d0::1                      2001:db8:d0::2
//! ```
//!
//! A namespace lives as long as a `cat` inside it, which ends when this process closes its standard input.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::transcript::EngineKind;

/// A network namespace that goes away with this value.
#[derive(Debug)]
pub struct NetworkNamespace {
    holder: Child,
    _stdin: Option<ChildStdin>,
}

impl NetworkNamespace {
    /// Makes an empty namespace with loopback up.
    ///
    /// # Errors
    /// `unshare` or `ip` fails.
    pub fn new() -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo up && exec cat >/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start `unshare`")?;
        let mut up = [0; 3];
        holder.stdout.take().context("no output")?.read_exact(&mut up).context("no network namespace")?;
        let stdin = holder.stdin.take();
        Ok(Self { holder, _stdin: stdin })
    }

    /// The file to enter it by.
    pub fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.holder.id())
    }

    /// A command that will run inside.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path())).arg("--").arg(program);
        command
    }

    fn ip(&self, arguments: &str) -> Result<()> {
        let status = self.command("ip").args(arguments.split_whitespace()).status()?;
        ensure!(status.success(), "`ip {arguments}` failed");
        Ok(())
    }
}

impl Drop for NetworkNamespace {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A running engine with everything around it.
#[derive(Debug)]
pub struct Engine {
    /// Which one.
    pub kind: EngineKind,
    /// Where it answers.
    pub socket: PathBuf,
    /// Its folder: data, sockets, log.
    pub folder: PathBuf,
    /// The network that it runs in.
    pub host: NetworkNamespace,
    /// The network beyond.
    pub outside: NetworkNamespace,
    /// Options beside those that say where it lives.
    pub options: Vec<String>,
    binary: PathBuf,
    process: Option<Child>,
    web: Option<Child>,
}

impl Engine {
    /// Makes folders and networks for an engine below `folder`; it does not run yet.
    ///
    /// # Errors
    /// Folders, namespaces or the web server outside cannot be made.
    pub fn prepare(kind: EngineKind, binary: &Path, folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (host, outside) = (NetworkNamespace::new()?, NetworkNamespace::new()?);
        outside.ip(&format!("link add uplink type veth peer name uplink netns {}", host.holder.id()))?;
        outside.ip("addr add 192.0.2.1/24 dev uplink")?;
        outside.ip("link set uplink up")?;
        host.ip("addr add 192.0.2.2/24 dev uplink")?;
        host.ip("link set uplink up")?;
        host.ip("route add default via 192.0.2.1")?;
        // Without duplicate address detection, which would keep them from being used for a second.
        outside.ip("addr add 2001:db8:d0::1/64 dev uplink nodad")?;
        host.ip("addr add 2001:db8:d0::2/64 dev uplink nodad")?;
        host.ip("route add default via 2001:db8:d0::1")?;
        let web = serve_outside(&outside, &folder.join("www"))?;
        Ok(Self {
            kind,
            socket: folder.join("docker.sock"),
            folder: folder.to_owned(),
            host,
            outside,
            options: Vec::new(),
            binary: binary.to_owned(),
            process: None,
            web: Some(web),
        })
    }

    /// Makes an engine of dory's that does not run any more when this returns: its folder `data` has `archives`, for commands
    /// that need no engine.
    ///
    /// # Errors
    /// Those of [`Self::prepare`], [`Self::start`], [`Self::load_images`] and [`Self::stop`].
    pub fn prepare_store(dory: &Path, folder: &Path, tools: &Path, archives: &[PathBuf]) -> Result<Self> {
        let mut engine = Self::prepare(EngineKind::Dory, dory, folder)?;
        engine.start()?;
        engine.load_images(tools, archives)?;
        engine.stop(Signal::TERM)?;
        Ok(engine)
    }

    /// Sets the size of the largest packet that goes to the outside, in bytes.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn set_uplink_mtu(&self, mtu: u32) -> Result<()> {
        [&self.outside, &self.host].iter().try_for_each(|side| side.ip(&format!("link set uplink mtu {mtu}")))
    }

    /// Starts the engine, and waits until it answers `_ping`.
    ///
    /// # Errors
    /// It ends or stays silent for a minute; the end of its log is in the error.
    pub fn start(&mut self) -> Result<Duration> {
        let log = File::options().create(true).append(true).open(self.log())?;
        let began = Instant::now();
        let mut command = self.host.command(&self.binary.display().to_string());
        command.args(self.arguments()).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().context("cannot start `nsenter`")?;
        loop {
            if ping(&self.socket).is_ok() {
                self.process = Some(process);
                return Ok(began.elapsed());
            }
            let ended = process.try_wait()?;
            if ended.is_some() || began.elapsed() > Duration::from_secs(60) {
                let _ = process.kill();
                bail!("{} does not answer ({ended:?}); its log ends:\n{}", self.kind.name(), self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn arguments(&self) -> Vec<String> {
        let folder = self.folder.display();
        let own = match self.kind {
            EngineKind::Dory => vec!["serve".to_owned()],
            EngineKind::Dockerd => vec![format!("--pidfile={folder}/pid"), "--config-file=".to_owned()],
        };
        let shared = ["--data-root", &format!("{folder}/data"), "--exec-root", &format!("{folder}/exec")];
        let socket = ["-H".to_owned(), format!("unix://{}", self.socket.display())];
        let parent = ["--cgroup-parent".to_owned(), self.cgroup_parent()];
        let options = self.options.iter().cloned();
        own.into_iter().chain(socket).chain(shared.map(str::to_owned)).chain(parent).chain(options).collect()
    }

    /// A name for the engine's control groups that no other engine on the machine has.
    pub fn cgroup_parent(&self) -> String {
        let run = self.folder.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        format!("dory-tests-{run}-{}", self.kind.name())
    }

    /// Removes the empty groups that a failed case has left.
    fn remove_control_groups(&self) {
        let pattern = format!("*/{}*", self.cgroup_parent());
        let _ = Command::new("find")
            .args(["/sys/fs/cgroup", "-depth", "-type", "d", "-path", &pattern, "-exec", "rmdir", "{}", ";"])
            .stderr(Stdio::null())
            .status();
    }

    /// Loads image archives through the docker command in `tools`.
    ///
    /// # Errors
    /// The engine refuses one; the end of its log is in the error.
    pub fn load_images(&self, tools: &Path, archives: &[PathBuf]) -> Result<()> {
        for archive in archives {
            let status = Command::new(tools.join("new/docker"))
                .env("DOCKER_HOST", format!("unix://{}", self.socket.display()))
                .args(["load", "--quiet", "--input"])
                .arg(archive)
                .stdout(Stdio::null())
                .status()?;
            ensure!(
                status.success(),
                "`docker load` of `{}` fails; log:\n{}",
                archive.display(),
                self.log_tail()
            );
        }
        Ok(())
    }

    /// The process id of the engine, which is that of `nsenter` since that replaces itself.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The file that the engine's own messages go to.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The last lines of [`Self::log`].
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }

    /// Stops it with `signal`, and waits; killed after half a minute.
    ///
    /// # Errors
    /// It had to be killed.
    pub fn stop(&mut self, signal: Signal) -> Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        kill_process(pid, signal)?;
        let began = Instant::now();
        while process.try_wait()?.is_none() {
            if began.elapsed() > Duration::from_secs(30) {
                process.kill()?;
                process.wait()?;
                bail!("{} did not stop within 30 s of {signal:?}", self.kind.name());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(mut web) = self.web.take() {
            let _ = web.kill();
            let _ = web.wait();
        }
        let _ = self.stop(Signal::TERM);
        self.remove_control_groups();
    }
}

/// The image archives in `folder`, in order of their names.
///
/// # Errors
/// The folder cannot be read.
pub fn archives(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut archives: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(|| format!("cannot list `{}`", folder.display()))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "tar"))
        .collect();
    archives.sort();
    Ok(archives)
}

/// Removes all containers: what is left running would outlive the engine.
pub fn remove_containers(engine: &Engine, tools: &Path) {
    let _ = Command::new("sh")
        .args(["-c", "timeout 60 sh -c 'left=$(\"$0\" ps -aq); [ -z \"$left\" ] || \"$0\" rm -fv $left' \"$0\" >/dev/null 2>&1"])
        .arg(tools.join("new/docker"))
        .env("DOCKER_HOST", format!("unix://{}", engine.socket.display()))
        .status();
}

/// Serves a page, a big one, one that tells the caller's address, to see translation of addresses at work, and one that
/// tells the size of what it was sent.
fn serve_outside(outside: &NetworkNamespace, root: &Path) -> Result<Child> {
    use std::os::unix::fs::PermissionsExt as _;
    let programs = root.join("cgi-bin");
    std::fs::create_dir_all(&programs)?;
    std::fs::write(root.join("hello"), "hello from outside\n")?;
    std::fs::write(root.join("big"), vec![0; 3_000_000])?;
    for (name, says) in [("whoami", "echo \"$REMOTE_ADDR\""), ("size", "wc -c")] {
        let program = programs.join(name);
        std::fs::write(
            &program,
            format!("#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\n'\n{says}\n"),
        )?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    }
    outside
        .command("busybox")
        .args(["httpd", "-f", "-p", "192.0.2.1:80", "-h"])
        .arg(root)
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start `busybox httpd`")
}

/// Asks for `/_ping`, as every client does first.
///
/// # Errors
/// Nobody listens, or the answer is not 200.
pub fn ping(socket: &Path) -> Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "`_ping` answered `{}`", answer.lines().next().unwrap_or(""));
    Ok(())
}
