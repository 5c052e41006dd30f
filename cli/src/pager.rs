//! The user's pager: `$AGENT_TRACE_PAGER`, `$PAGER`, else `less`. Started on a terminal only; what goes there has been
//! made harmless before.

use std::io::{self, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::settings;

/// A pager that is running.
pub(crate) struct Pager {
    child: Child,
    input: Option<ChildStdin>,
}

impl Pager {
    /// Starts it; nothing where none is wanted or none can be started.
    pub(crate) fn start() -> Option<Pager> {
        let command = settings::pager()?;
        // Through a shell, since users give options with it, as they do to git.
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(command).stdin(Stdio::piped());
        shell.envs(settings::less_options());
        let mut child = shell.spawn().ok()?;
        let input = child.stdin.take();
        Some(Pager { child, input })
    }
}

impl Write for Pager {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.input {
            Some(input) => input.write(bytes),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.input.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for Pager {
    fn drop(&mut self) {
        // It ends when it has read all of it and the user has seen enough.
        drop(self.input.take());
        let _ = self.child.wait();
    }
}
