//! Objects of a repository, read through one process of `git cat-file --batch`.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use agent_trace_store::{Error, ErrorKind, Result};

use super::process::{Git, not_started};

/// The largest file whose lines are looked at.
pub(crate) const FILE_BYTES_MAX: u64 = 8 << 20;

/// A reader of objects.
pub(crate) struct Objects {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// What stands under a name.
pub(crate) enum Object {
    /// There is nothing.
    Missing,
    /// It is larger than files that are looked at.
    TooLarge,
    /// Its bytes.
    Bytes(Vec<u8>),
}

impl Objects {
    /// Starts the process.
    pub(crate) fn open(git: &Git) -> Result<Objects> {
        let mut child = git
            .command(["cat-file", "--batch"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| not_started(&error))?;
        let input = child.stdin.take().expect("it was piped");
        let output = BufReader::new(child.stdout.take().expect("it was piped"));
        Ok(Objects { child, input, output })
    }

    /// Reads an object by its id, or by anything on one line that names it.
    pub(crate) fn read(&mut self, name: &str) -> Result<Object> {
        self.ask(name).map_err(|error| {
            Error::new(ErrorKind::Failed, format!("cannot read `{name}` from git"))
                .with_source(error.to_string())
        })
    }

    fn ask(&mut self, name: &str) -> io::Result<Object> {
        if name.contains('\n') {
            return Ok(Object::Missing);
        }
        self.input.write_all(format!("{name}\n").as_bytes())?;
        self.input.flush()?;
        let mut header = String::new();
        if self.output.read_line(&mut header)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut words = header.trim_end().rsplitn(3, ' ');
        let bytes = words.next().and_then(|size| size.parse::<u64>().ok());
        let (Some(bytes), Some(_)) = (bytes, words.next()) else { return Ok(Object::Missing) };
        if bytes > FILE_BYTES_MAX {
            // The line feed after it goes as well.
            io::copy(&mut (&mut self.output).take(bytes + 1), &mut io::sink())?;
            return Ok(Object::TooLarge);
        }
        let mut content = vec![0; usize::try_from(bytes + 1).map_err(io::Error::other)?];
        self.output.read_exact(&mut content)?;
        content.pop();
        Ok(Object::Bytes(content))
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        // It ends when its input does; waiting for it leaves no zombie.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
