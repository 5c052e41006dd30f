//! The files of a store beside its segments, and how a store is made.
//!
//! ```text
//! format        version and the store's id
//! writer.key    the private key of the own writer, 0600
//! instance      the mark of this copy: machine, device, inode, a random number
//! lock          held while a batch is appended          index.lock    held while the index is open
//! segments/     the truth                               index.redb    computed from it
//! tmp/          files that are not named yet            remotes/      what is cached of remotes
//! ```
//!
//! Each file is written aside, synced and renamed, so making a store may be cut short anywhere and run again.

use std::io;
use std::path::Path;

use crate::codec::{Decoder, Encoder};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::id::{decode_hex, encode_hex};
use crate::writer::WriterKey;

const FORMAT_FIRST: &str = "agent-trace store";
const FORMAT_VERSION: u32 = 1;
const MACHINE_FILE: &str = "/etc/machine-id";

/// Names a store, the same on all its copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreId(pub [u8; 16]);

impl std::fmt::Display for StoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&encode_hex(&self.0))
    }
}

/// Reads a small file whole.
pub fn read_small(env: &Env, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = env.fs.open(path)?;
    let bytes = file.len()?;
    if bytes > bytes_max {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("expected at most {bytes_max} bytes, found {bytes}"),
        ));
    }
    let mut content = vec![0; usize::try_from(bytes).expect("small")];
    file.read_exact_at(&mut content, 0)?;
    Ok(content)
}

/// Replaces a file durably: aside, sync, rename, sync the directory.
pub fn write_durably(env: &Env, path: &Path, bytes: &[u8], private: bool) -> Result<()> {
    let doing = |error| Error::io(format!("cannot write `{}`", path.display()), error);
    let dir =
        path.parent().ok_or_else(|| Error::invalid(format!("`{}` has no directory", path.display())))?;
    let mut random = [0; 8];
    env.entropy.fill(&mut random);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let aside = dir.join(format!(".{name}.{}.new", encode_hex(&random)));
    let file = env.fs.create(&aside, private).map_err(doing)?;
    let written = file.write_all_at(bytes, 0).and_then(|()| file.sync());
    if let Err(error) = written {
        // The name is our own; a failure to remove it leaves a file that nobody reads.
        let _ = env.fs.remove(&aside);
        return Err(doing(error));
    }
    env.fs.rename(&aside, path).map_err(doing)?;
    env.fs.sync_dir(dir).map_err(doing)
}

/// Makes a directory with its parents, all of whose names last.
pub fn create_dir_durably(env: &Env, dir: &Path) -> io::Result<()> {
    env.fs.create_dir_all(dir)?;
    // Also those that exist: whoever made them may have died before they were durable.
    for parent in dir.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()) {
        match env.fs.sync_dir(parent) {
            // Nobody makes a directory where he may not look.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => break,
            synced => synced?,
        }
    }
    Ok(())
}

fn is_absent(env: &Env, path: &Path) -> Result<bool> {
    match env.fs.metadata(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(Error::io(format!("cannot look at `{}`", path.display()), error)),
    }
}

/// Makes the files of a store that are not there yet; a finished store is left as it is.
pub fn init(env: &Env, dir: &Path) -> Result<()> {
    let doing = |error| Error::io(format!("cannot create store `{}`", dir.display()), error);
    create_dir_durably(env, dir).map_err(doing)?;
    for name in ["segments", "tmp", "remotes"] {
        env.fs.create_dir_all(&dir.join(name)).map_err(doing)?;
    }
    if is_absent(env, &dir.join("writer.key"))? {
        write_durably(
            env,
            &dir.join("writer.key"),
            &WriterKey::generate(env.entropy.as_ref()).secret(),
            true,
        )?;
    }
    if is_absent(env, &dir.join("instance"))? {
        write_durably(env, &dir.join("instance"), &fresh_mark(env, dir)?, true)?;
    }
    // Last, because its presence says that the rest is there.
    if is_absent(env, &dir.join("format"))? {
        let mut id = [0; 16];
        env.entropy.fill(&mut id);
        let text = format!("{FORMAT_FIRST} {FORMAT_VERSION}\n{}\n", encode_hex(&id));
        write_durably(env, &dir.join("format"), text.as_bytes(), false)?;
    }
    env.fs.sync_dir(dir).map_err(doing)
}

/// Reads which store this is.
pub fn read_format(env: &Env, dir: &Path) -> Result<StoreId> {
    let path = dir.join("format");
    let bytes = read_small(env, &path, 256).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Error::new(ErrorKind::NotFound, format!("there is no store in `{}`", dir.display()))
        }
        _ => Error::io(format!("cannot read `{}`", path.display()), error),
    })?;
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    let version = lines.next().and_then(|line| line.strip_prefix(FORMAT_FIRST)).map(str::trim);
    let version: u32 = version
        .and_then(|version| version.parse().ok())
        .ok_or_else(|| Error::corrupt(format!("`{}` is not a store's format file", path.display())))?;
    if version != FORMAT_VERSION {
        return Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "cannot open store `{}`: its version {version} is newer than this program",
                dir.display()
            ),
        ));
    }
    let mut id = [0; 16];
    if !lines.next().is_some_and(|line| decode_hex(line, &mut id)) {
        return Err(Error::corrupt(format!("`{}` has no store id", path.display())));
    }
    Ok(StoreId(id))
}

/// What a store's directory says of its writer.
#[derive(Debug)]
pub enum Writer {
    /// This copy writes with this key.
    Here(WriterKey),
    /// The directory was copied: the key belongs to the copy that it came from, since one log must not be written in
    /// two places (I3).
    Elsewhere(WriterKey),
    /// The key is lost or cut, and signs nothing any more.
    Lost,
}

/// Reads the own writer's key.
pub fn read_writer(env: &Env, dir: &Path) -> Result<Writer> {
    let mark = read_if_there(env, &dir.join("instance"))?;
    let mut decoder = Decoder::new("instance mark", &mark);
    let known = decoder.array::<16>().and_then(|random| Ok((random, decoder.array::<32>()?)));
    let here = match &known {
        Ok((random, mark)) => place_mark(env, dir, random)? == *mark,
        Err(_) => false,
    };
    let secret: Result<[u8; 32], _> = read_if_there(env, &dir.join("writer.key"))?.try_into();
    let Ok(secret) = secret else { return Ok(Writer::Lost) };
    let key = WriterKey::from_secret(&secret);
    Ok(if here { Writer::Here(key) } else { Writer::Elsewhere(key) })
}

/// Reads a small file; one that is not there is empty. That it cannot be read does not say that it is not there.
fn read_if_there(env: &Env, path: &Path) -> Result<Vec<u8>> {
    match read_small(env, path, 256) {
        Ok(content) => Ok(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io(format!("cannot read `{}`", path.display()), error)),
    }
}

/// Gives a store a new writer; the log of the old one stays, and grows no further here.
pub fn mint_writer(env: &Env, dir: &Path) -> Result<WriterKey> {
    let key = WriterKey::generate(env.entropy.as_ref());
    // The key first: a crash in between leaves a mark that still does not fit, and another key is minted.
    write_durably(env, &dir.join("writer.key"), &key.secret(), true)?;
    write_durably(env, &dir.join("instance"), &fresh_mark(env, dir)?, true)?;
    Ok(key)
}

fn fresh_mark(env: &Env, dir: &Path) -> Result<Vec<u8>> {
    let mut random = [0; 16];
    env.entropy.fill(&mut random);
    let mut encoder = Encoder::new();
    encoder.put(&random).put(&place_mark(env, dir, &random)?);
    Ok(encoder.finish())
}

/// Where this copy lies: a hash of the machine, the directory's device and inode, and a random number.
fn place_mark(env: &Env, dir: &Path, random: &[u8; 16]) -> Result<[u8; 32]> {
    let metadata = env
        .fs
        .metadata(dir)
        .map_err(|error| Error::io(format!("cannot look at `{}`", dir.display()), error))?;
    // Machines without the file are told apart by device and inode alone.
    let machine = read_if_there(env, Path::new(MACHINE_FILE))?;
    let mut encoder = Encoder::new();
    encoder.put(random).u64(metadata.device).u64(metadata.inode).prefixed(&machine);
    Ok(*blake3::hash(&encoder.finish()).as_bytes())
}
