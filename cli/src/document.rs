//! A settings file: one JSON object, read whole and replaced whole, mode 0600 from its first moment.
//!
//! Members that nobody here knows are kept, and so is the order of all. A file that cannot be read as JSON is an error
//! and never overwritten. Changes are for holders of the file's lock; agent-trace-cli, which writes some of these files
//! too, takes none, so a reader that meets half of what it writes says so and stops.

use std::io;
use std::path::{Path, PathBuf};

use agent_trace_store::env::Env;
use agent_trace_store::layout::{read_small, write_durably};
use agent_trace_store::{Error, ErrorKind};
use serde_json::{Map, Value};

use crate::report::Failure;

const FILE_BYTES_MAX: u64 = 4 << 20;

/// A settings file in memory.
pub(crate) struct Document {
    path: PathBuf,
    members: Map<String, Value>,
    before: Map<String, Value>,
}

impl Document {
    /// Reads a file; one that is not there is an empty object.
    pub(crate) fn read(env: &Env, path: &Path) -> Result<Document, Failure> {
        let mut document = Document { path: path.to_owned(), members: Map::new(), before: Map::new() };
        let bytes = match read_small(env, path, FILE_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(document),
            Err(error) => return Err(Error::io(format!("cannot read `{}`", path.display()), error).into()),
        };
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
            let mut failure = document.refused("expected JSON");
            failure.error = failure.error.with_source(error);
            failure
        })?;
        let Value::Object(members) = value else { return Err(document.refused("expected a JSON object")) };
        document.before = members.clone();
        document.members = members;
        Ok(document)
    }

    /// Replaces the file, if anything has changed; durable when it returns.
    pub(crate) fn write(&self, env: &Env) -> Result<(), Failure> {
        if self.members == self.before {
            return Ok(());
        }
        let mut bytes = serde_json::to_vec_pretty(&self.members)
            .map_err(|error| Error::invalid("cannot write settings as JSON").with_source(error))?;
        bytes.push(b'\n');
        Ok(write_durably(env, &self.path, &bytes, true)?)
    }

    /// The members.
    pub(crate) fn members(&self) -> &Map<String, Value> {
        &self.members
    }

    /// The members, to be changed.
    pub(crate) fn members_mut(&mut self) -> &mut Map<String, Value> {
        &mut self.members
    }

    /// Whether `write` would leave fewer members than there are in the file.
    pub(crate) fn loses_members(&self) -> bool {
        self.members.len() < self.before.len()
    }

    /// A member that is an object itself; `null` counts as absent.
    pub(crate) fn section(&self, name: &str) -> Result<Option<&Map<String, Value>>, Failure> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(section)) => Ok(Some(section)),
            Some(_) => Err(self.refused(&format!("expected `{name}` to be an object"))),
        }
    }

    /// The same, to be changed; it is made where it is absent.
    pub(crate) fn section_mut(&mut self, name: &str) -> Result<&mut Map<String, Value>, Failure> {
        if self.section(name)?.is_none() {
            self.members.insert(name.to_owned(), Value::Object(Map::new()));
        }
        let section = self.members.get_mut(name).and_then(Value::as_object_mut);
        Ok(section.expect("`section` takes nothing but an object, and what is absent has just been made"))
    }

    /// Removes a member of a section, and the section with its last one.
    pub(crate) fn remove(&mut self, section: &str, member: &str) -> Result<(), Failure> {
        if self.section(section)?.is_some() {
            let members = self.section_mut(section)?;
            if members.shift_remove(member).is_some() && members.is_empty() {
                self.members.shift_remove(section);
            }
        }
        Ok(())
    }

    /// Says that the file cannot be taken as it is.
    pub(crate) fn refused(&self, why: &str) -> Failure {
        let message = format!("cannot read `{}`: {why}", self.path.display());
        Failure::new(ErrorKind::Invalid, message, "correct the file; nothing is written to it as it is")
    }
}

#[cfg(test)]
mod tests {
    use agent_trace_store::env::os_env;
    use serde_json::json;

    use super::*;

    fn check(content: &str, change: impl FnOnce(&mut Document), expected: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.json");
        let env = os_env();
        write_durably(&env, &path, content.as_bytes(), false).unwrap();
        let mut document = Document::read(&env, &path).unwrap();
        change(&mut document);
        document.write(&env).unwrap();
        let bytes = read_small(&env, &path, FILE_BYTES_MAX).unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn unknown_members_and_their_order_are_kept() {
        check(
            r#"{"z":1.0,"a":{"y":[1e2,18446744073709551615,"é\u2028"],"x":null},"m":false}"#,
            |document| {
                document.section_mut("a").unwrap().insert("w".into(), json!({}));
            },
            "{\n  \"z\": 1.0,\n  \"a\": {\n    \"y\": [\n      100.0,\n      18446744073709551615,\n      \"é\u{2028}\"\n    ],\n    \"x\": null,\n    \"w\": {}\n  },\n  \"m\": false\n}\n",
        );
        check(
            "{\"b\":1,\"c\":{\"d\":1},\"a\":2}",
            |document| document.remove("c", "d").unwrap(),
            "{\n  \"b\": 1,\n  \"a\": 2\n}\n",
        );
    }

    #[test]
    fn what_has_not_changed_is_not_written() {
        check("{ \"a\" : 1 }", |document| document.remove("b", "c").unwrap(), "{ \"a\" : 1 }");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.json");
        let env = os_env();
        for content in ["", "{", "[]", "{} x", "\u{feff}{}", "null"] {
            write_durably(&env, &path, content.as_bytes(), false).unwrap();
            assert_eq!(
                Document::read(&env, &path).err().unwrap().error.kind(),
                ErrorKind::Invalid,
                "{content}"
            );
        }
        write_durably(&env, &path, b"{\"a\":1,\"n\":null}", false).unwrap();
        let mut document = Document::read(&env, &path).unwrap();
        assert!(document.section("a").is_err() && document.section_mut("a").is_err());
        assert!(document.section("n").unwrap().is_none() && document.section_mut("n").unwrap().is_empty());
        assert!(Document::read(&env, &directory.path().join("absent")).unwrap().members().is_empty());
    }
}
