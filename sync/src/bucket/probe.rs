//! What a bucket keeps of what S3 promises, found out by trying it on a few small files that are removed again.
//!
//! Nothing here is needed for an exchange to be right; it tells a user what to expect.

use agent_trace_store::Result;
use agent_trace_store::id::encode_hex;
use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::{Bucket, Inner};
use crate::limits::READ_BACK_BYTES_MAX;
use crate::transport::Transport;

/// One promise, and whether it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// Which one, in one word or two.
    pub name: &'static str,
    /// Whether the bucket keeps it.
    pub is_kept: bool,
    /// Whether an exchange is slower or worse where it is not kept.
    pub matters: bool,
    /// What that means.
    pub words: &'static str,
}

impl Bucket {
    /// Tries what the bucket keeps.
    pub fn probe(&self) -> Result<Vec<Promise>> {
        let mut random = [0; 8];
        self.inner.env.entropy.fill(&mut random);
        let name = encode_hex(&random);
        let key = format!("probes/{name}");
        let tried = self.try_all(&key, &name);
        // Whatever came of it.
        let removed = self.remove(&key);
        let mut promises = tried?;
        removed?;
        let is_gone = self.inner.read(&key, READ_BACK_BYTES_MAX)?.is_none();
        promises.push(promise(
            "removal",
            is_gone,
            true,
            "what is removed is gone",
            "what is removed is still read",
        ));
        Ok(promises)
    }

    fn try_all(&self, key: &str, name: &str) -> Result<Vec<Promise>> {
        let inner = &self.inner;
        let path = inner.path(key);
        let mut promises = Vec::new();
        // Longer than a block, so that a range is a part.
        let first: Bytes = (0..inner.sizes.block * 2).map(|at| (at * 31 % 251).to_le_bytes()[0]).collect();
        inner.put(&path, first.clone())?;
        let read = inner.read(key, first.len() as u64)?;
        let reads_back = read.as_ref().is_some_and(|(content, _)| *content == first);
        promises.push(promise(
            "read after write",
            reads_back,
            true,
            "what is written is read, byte for byte",
            "what is written is not what is read",
        ));
        let range = inner.range(&path, 1000..1010)?.flatten();
        let has_ranges = range.is_some_and(|(part, _)| part == first.slice(1000..1010));
        promises.push(promise(
            "ranges",
            has_ranges,
            false,
            "parts of a file can be read",
            "parts of a file cannot be read: whole ones are fetched instead",
        ));
        let listed = self.list("probes")?.into_iter().find(|listed| listed.name == name);
        promises.push(promise(
            "list after write",
            listed.is_some(),
            true,
            "what is written is listed at once",
            "lists are late: others may see a push later",
        ));
        let second: Bytes = first.iter().map(|byte| byte ^ 1).collect();
        inner.put(&path, second.clone())?;
        let again = inner.read(key, second.len() as u64)?;
        let is_replaced = again.as_ref().is_some_and(|(content, _)| *content == second);
        promises.push(promise(
            "replacing",
            is_replaced,
            true,
            "what is replaced is read anew",
            "the old content is still read after a replacement",
        ));
        let versions = (read.and_then(|(_, version)| version), again.and_then(|(_, version)| version));
        let agree = listed.and_then(|listed| listed.version) == versions.0;
        let tells = matches!(versions, (Some(before), Some(after)) if before != after) && agree;
        promises.push(promise(
            "tags",
            tells,
            false,
            "tags tell whether a file has changed",
            "tags do not tell whether a file has changed: heads are read each time",
        ));
        promises.push(promise(
            "conditions",
            self.keeps_conditions(&path)?,
            false,
            "a write that is to create does not overwrite",
            "conditions are ignored: let the first push to a new remote end before the second begins",
        ));
        promises.push(promise(
            "parts",
            self.takes_parts(inner, &path)?,
            true,
            "long files can be sent in parts",
            "files cannot be sent in parts: segments above 16 MB cannot be pushed",
        ));
        Ok(promises)
    }

    fn keeps_conditions(&self, path: &Path) -> Result<bool> {
        let inner = &self.inner;
        let before =
            inner.attempt("look at a file", || async { inner.store.get(path).await?.bytes().await })?;
        inner.put_new(path, Bytes::from_static(b"created"))?;
        let after =
            inner.attempt("look at a file", || async { inner.store.get(path).await?.bytes().await })?;
        Ok(before.is_some() && before == after)
    }

    fn takes_parts(&self, inner: &Inner, path: &Path) -> Result<bool> {
        let content = Bytes::from_static(b"one part");
        let sent = inner.attempt("send in parts", || async {
            let upload = inner.store.create_multipart(path).await?;
            let part =
                inner.store.put_part(path, &upload, 0, PutPayload::from_bytes(content.clone())).await?;
            inner.store.complete_multipart(path, &upload, vec![part]).await?;
            inner.store.get_opts(path, object_store::GetOptions::default()).await?.bytes().await
        });
        Ok(sent.is_ok_and(|read| read.is_some_and(|read| read == content)))
    }
}

fn promise(
    name: &'static str,
    is_kept: bool,
    matters: bool,
    kept: &'static str,
    broken: &'static str,
) -> Promise {
    Promise { name, is_kept, matters, words: if is_kept { kept } else { broken } }
}
