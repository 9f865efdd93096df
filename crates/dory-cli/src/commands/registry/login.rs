//! `login` and `logout`.

use std::io::{BufRead, Read, Write};

use anyhow::{Context, Result, bail, ensure};
use dory_registry::{Credentials, DockerConfig, Secret};

use super::super::super::terminal;
use crate::client::Path;
use crate::command::{Arity, Command, Invocation};
use crate::failure::ExitStatus;
use crate::flags::{FlagsEnd, long_switch, value};
use crate::print;

/// Docker Hub, as its entry in the configuration is called.
const HUB: &str = "docker.io";
/// The longest password that standard input may have, in bytes.
const PASSWORD_LENGTH_MAX: u64 = 1 << 20;

/// `dory login`.
pub(crate) const LOGIN: Command = Command {
    usage: "[OPTIONS] [SERVER]",
    about: "Sign in to a registry",
    flags: &[&[
        value("password", 'p', "string", "Password"),
        long_switch("password-stdin", "Take the password from standard input"),
        value("username", 'u', "string", "Username"),
    ]],
    arity: Arity::AtMost(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(login(invocation)),
};

/// `dory logout`.
pub(crate) const LOGOUT: Command = Command {
    usage: "[SERVER]",
    about: "Sign out from a registry",
    flags: &[],
    arity: Arity::AtMost(1),
    flags_end: FlagsEnd::DoubleDash,
    run: |invocation| Box::pin(logout(invocation)),
};

fn server<'i>(invocation: &'i Invocation<'_>) -> &'i str {
    invocation.arguments.positional().first().map_or(HUB, String::as_str)
}

async fn login(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let server = server(invocation);
    let mut config = DockerConfig::load(&invocation.docker_config)?;
    let arguments = &invocation.arguments;
    let given = arguments.value("username").is_some() || arguments.value("password").is_some();
    let known = match given || arguments.on("password-stdin") {
        true => Credentials::Anonymous,
        false => config.credentials(server)?,
    };
    let credentials = match known {
        Credentials::Anonymous => typed(invocation)?,
        known => {
            print("Authenticating with existing credentials...\n")?;
            known
        }
    };
    // The engine asks the registry: it is the one that will use the credentials, by its own configuration.
    let answer: serde_json::Value =
        invocation.client.post_json(Path::new(&["auth"]).as_str(), &body(&credentials, server)).await?;
    let token = answer["IdentityToken"].as_str().unwrap_or_default();
    match &credentials {
        Credentials::Basic { username, .. } if !token.is_empty() => {
            config.store_identity(server, username, &Secret::new(token))?;
        }
        _ => {
            if config.stores_plainly(server) {
                eprintln!(
                    "WARNING! Your password will be stored unencrypted in {}.\nConfigure a credential helper to \
                     remove this warning.",
                    config.path().display()
                );
            }
            config.store(server, &credentials)?;
        }
    }
    let status = answer["Status"].as_str().unwrap_or("Login Succeeded");
    print(&format!("{status}\n"))
}

/// API 1.51, `AuthConfig`.
fn body(credentials: &Credentials, server: &str) -> serde_json::Value {
    let address = DockerConfig::key(server);
    match credentials {
        Credentials::Basic { username, password } => serde_json::json!({
            "username": username, "password": password.expose(), "serveraddress": address,
        }),
        Credentials::IdentityToken(token) => {
            serde_json::json!({"identitytoken": token.expose(), "serveraddress": address})
        }
        Credentials::RegistryToken(token) => {
            serde_json::json!({"registrytoken": token.expose(), "serveraddress": address})
        }
        Credentials::Anonymous => serde_json::json!({"serveraddress": address}),
    }
}

/// What flags, standard input or the terminal say.
fn typed(invocation: &Invocation<'_>) -> Result<Credentials> {
    let arguments = &invocation.arguments;
    let username = arguments.value("username").map(str::to_owned);
    if arguments.on("password-stdin") {
        ensure!(
            arguments.value("password").is_none(),
            "--password and --password-stdin are mutually exclusive"
        );
        let username = username.context("Must provide --username with --password-stdin")?;
        let mut password = String::new();
        std::io::stdin()
            .take(PASSWORD_LENGTH_MAX)
            .read_to_string(&mut password)
            .context("cannot read the password")?;
        let password = password.trim_end_matches('\n').trim_end_matches('\r');
        return Ok(Credentials::Basic { username, password: Secret::new(password) });
    }
    if arguments.value("password").is_some() {
        eprintln!("WARNING! Using --password via the CLI is insecure. Use --password-stdin.");
    }
    let username = match username {
        Some(username) => username,
        None => ask("Username: ", true)?,
    };
    ensure!(!username.is_empty(), "username is empty");
    let password = match arguments.value("password") {
        Some(password) => password.to_owned(),
        None => ask("Password: ", false)?,
    };
    ensure!(!password.is_empty(), "password is empty");
    Ok(Credentials::Basic { username, password: Secret::new(password) })
}

/// Asks on the terminal; what is typed is not shown unless `echo`.
fn ask(question: &str, echo: bool) -> Result<String> {
    if !terminal::stdin_is_terminal() {
        bail!("Error: Cannot perform an interactive login from a non TTY device");
    }
    let mut error = std::io::stderr();
    write!(error, "{question}").and_then(|()| error.flush()).context("cannot write to standard error")?;
    let hidden = (!echo).then(terminal::Hidden::enter).transpose()?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("cannot read from the terminal")?;
    if hidden.is_some() {
        eprintln!();
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

async fn logout(invocation: &Invocation<'_>) -> Result<ExitStatus> {
    let server = server(invocation);
    let mut config = DockerConfig::load(&invocation.docker_config)?;
    if !config.erase(server)? {
        return print(&format!("Not logged in to {}\n", DockerConfig::key(server)));
    }
    print(&format!("Removing login credentials for {}\n", DockerConfig::key(server)))
}
