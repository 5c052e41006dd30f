//! The index follows the segments: what was appended is handed over, what others appended is read.

use super::*;

impl Store {
    /// Brings the index up to the segments: first with what this process has in memory, then by reading.
    /// What another process appended is made durable first: the index must not know what a power cut can take back.
    pub fn catch_up(&self) -> Result<()> {
        self.settle()?;
        // Many events cost less in a footer than in the tables of the open segment.
        if self.log().events_waiting() >= SEAL_EVENTS_MIN {
            self.seal()?;
        }
        let feeds = self.log().take_feeds();
        self.apply(feeds)?;
        let rows = self.catch_up_from_files()?;
        self.learn_erased(rows)
    }

    pub(super) fn apply(&self, feeds: Vec<([u8; 16], u64, Feed)>) -> Result<()> {
        for (nonce, from, feed) in feeds {
            self.index.write(|change| {
                let rows = change.segments()?;
                let known = rows.iter().find(|(_, row)| row.nonce == nonce);
                let end = known.map_or(HEADER_BYTES as u64, |(_, row)| row.end);
                let sealed = known.is_some_and(|(_, row)| row.id.is_some());
                // Another process was faster, or has sealed the segment: then the tables of the open segment may
                // belong to the next one. What is missing is read from the files.
                if end != from || sealed || feed.open.is_some() && !self.is_open_file(&nonce)? {
                    return Ok(());
                }
                let number = known.map_or_else(|| next_number(&rows), |(number, _)| *number);
                if feed.open.is_some() {
                    change.set_open(number)?;
                }
                change.feed(number, &feed)
            })?;
        }
        Ok(())
    }

    /// Whether the segment with this nonce has its open name. Under the index's lock that stays true long enough: the
    /// next open segment cannot be indexed meanwhile.
    fn is_open_file(&self, nonce: &[u8; 16]) -> Result<bool> {
        let path = crate::segments::open_path(&self.dir, nonce);
        match self.env.fs.metadata(&path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::io(format!("cannot look at `{}`", path.display()), error)),
        }
    }

    /// Returns the rows of the segments where they are as they were read at first.
    fn catch_up_from_files(&self) -> Result<Option<BTreeMap<u32, SegmentRow>>> {
        let set = self.refresh()?;
        let rows = self.index.read(|view| view.segments())?.unwrap_or_default();
        let stale = rows.values().any(|row| match &row.id {
            Some(id) => set.get(id).is_none(),
            None => {
                set.open.as_ref().is_none_or(|open| open.header.nonce != row.nonce)
                    && set.sealed.iter().all(|sealed| sealed.header.nonce != row.nonce)
            }
        });
        if stale && set.unreadable.is_empty() {
            self.index.renew()?;
            self.catch_up_from_files_of(&set, &BTreeMap::new())?;
            return Ok(None);
        }
        let changed = self.catch_up_from_files_of(&set, &rows)?;
        Ok((!changed).then_some(rows))
    }

    /// Says whether the index has changed.
    fn catch_up_from_files_of(&self, set: &SegmentSet, rows: &BTreeMap<u32, SegmentRow>) -> Result<bool> {
        let mut changed = false;
        let by_nonce: HashMap<[u8; 16], &SegmentRow> = rows.values().map(|row| (row.nonce, row)).collect();
        for sealed in &set.sealed {
            let row = by_nonce.get(&sealed.header.nonce).copied();
            if row.is_none_or(|row| row.id.is_none()) {
                self.index_sealed(sealed, row)?;
                changed = true;
            }
        }
        if let Some(open) = &set.open {
            let row = by_nonce.get(&open.header.nonce).copied();
            changed |= self.index_open(open, row)?;
        }
        Ok(changed)
    }

    /// Indexes what a sealed segment holds beyond what the index has seen of it.
    fn index_sealed(&self, sealed: &Arc<Sealed>, row: Option<&SegmentRow>) -> Result<()> {
        let start = scan_start(sealed.header.tail, row);
        let handle = Handle::Sealed(Arc::clone(sealed));
        let (contents, rows, tips, end) = self.take_apart(&handle, start)?;
        let directory = &sealed.directory;
        let feed = Feed {
            row: SegmentRow {
                nonce: sealed.header.nonce,
                id: Some(sealed.id),
                end: end.offset,
                batch: end.batch,
                events: directory.events,
                objects: directory.objects,
                raw_bytes: directory.raw_bytes,
                tail: end.tail,
                kinds: directory.kinds.clone(),
            },
            rows,
            runs: directory.runs.clone(),
            tips,
            open: None,
        };
        drop(contents);
        self.apply(vec![(sealed.header.nonce, start.offset, feed)])
    }

    fn index_open(&self, open: &Arc<OpenFile>, row: Option<&SegmentRow>) -> Result<bool> {
        let start = scan_start(open.header.tail, row);
        let handle = Handle::Open(Arc::clone(open));
        let (contents, rows, tips, end) = self.take_apart(&handle, start)?;
        if end.offset == start.offset {
            return Ok(false);
        }
        let mut kinds = row.map_or_else(BTreeMap::new, |row| row.kinds.clone());
        for (kind, events) in &contents.kinds {
            *kinds.entry(*kind).or_default() += events;
        }
        let added = crate::codec::length_u32(contents.ids.len());
        let feed = Feed {
            row: SegmentRow {
                nonce: open.header.nonce,
                id: None,
                end: end.offset,
                batch: end.batch,
                events: contents.events,
                objects: row.map_or(0, |row| row.objects) + added,
                raw_bytes: row.map_or(0, |row| row.raw_bytes) + contents.raw_bytes,
                tail: end.tail,
                kinds,
            },
            rows,
            runs: contents.runs.clone(),
            tips,
            open: Some(OpenFeed { ids: contents.ids, names: contents.names, frames: contents.events_frames }),
        };
        self.apply(vec![(open.header.nonce, start.offset, feed)])?;
        Ok(true)
    }

    /// Reads a segment from a place on and takes its batches apart, several at once.
    fn take_apart(
        &self,
        handle: &Handle,
        start: ScanStart,
    ) -> Result<(Contents, Vec<crate::scan::Row>, Vec<crate::writer::Tip>, ScanStart)> {
        let mut contents = Contents { events: start.events, ..Contents::default() };
        let (mut rows, mut tips, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
        let mut end = start;
        let mut flush = |waiting: &mut Vec<Batch>| -> Result<()> {
            for digest in self.digest_all(waiting)? {
                tips.extend(digest.tips.iter().copied());
                rows.extend(contents.absorb(digest)?);
            }
            waiting.clear();
            Ok(())
        };
        let mut each = |batch| {
            waiting.push(batch);
            let raw: u64 = waiting.iter().map(Batch::raw_bytes).sum();
            if waiting.len() >= DIGEST_BATCHES || raw >= DIGEST_BYTES { flush(&mut waiting) } else { Ok(()) }
        };
        let scanned = match handle {
            Handle::Sealed(_) => scan(handle.file(), handle.key(), start, &mut each)?,
            Handle::Open(_) => scan_open(handle.file(), handle.key(), start, &mut each)?,
        };
        flush(&mut waiting)?;
        if let Some(damage) = scanned.damage.into_iter().next() {
            let path = handle.path(&self.dir);
            return Err(damage.error.context(format!("segment `{}` is damaged", path.display())));
        }
        end.offset = scanned.end;
        end.batch = scanned.batch;
        end.tail = scanned.tail;
        end.events = scanned.events;
        if contents.events != end.events {
            let path = handle.path(&self.dir);
            return Err(Error::corrupt(format!(
                "segment `{}`: its commits count {} events, found {}",
                path.display(),
                end.events,
                contents.events
            )));
        }
        Ok((contents, rows, tips, end))
    }
}
