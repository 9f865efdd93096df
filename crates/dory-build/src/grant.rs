//! What a build is lent: secrets and SSH agents. Neither is ever part of a cache key or of an image.

use std::fmt::Debug;
use std::io;
use std::os::unix::net::UnixStream;

/// Gives secrets by their ids.
pub trait Secrets: Debug + Send + Sync {
    /// The secret `id`; `None` where there is none of the name. Blocks.
    ///
    /// # Errors
    /// Where the one who has it cannot be asked.
    fn secret(&self, id: &str) -> io::Result<Option<Vec<u8>>>;
}

/// Gives connections to SSH agents by their ids.
pub trait Agents: Debug + Send + Sync {
    /// Whether there is an agent `id` (`default` where the Dockerfile names none). Blocks.
    ///
    /// # Errors
    /// Where the one who has it cannot be asked.
    fn has(&self, id: &str) -> io::Result<bool>;

    /// Connects to the agent `id`; each connection of a command gets its own. Blocks.
    ///
    /// # Errors
    /// Where there is no such agent, or it does not answer.
    fn connect(&self, id: &str) -> io::Result<UnixStream>;
}
