//! What is erased, as a store knows it: the file `erased` in memory, made anew when erase events have come.

use std::sync::Arc;

use super::*;
use crate::erased::{self, Act, EraseRecord, Erased};
use crate::index::Place;
use crate::kind::Kind;
use crate::limits::LOCK_WAIT_MICROS_MAX;
use crate::lock::lock;
use crate::scan::Term;

/// What is erased, and by which state of the file.
pub(super) type Known = (erased::Stamp, Arc<Erased>);

impl Store {
    /// What is erased, as it was when the directory was last looked at.
    pub fn erased(&self) -> Arc<Erased> {
        Arc::clone(&self.erased.read().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// Reads the file `erased` again if it has changed; says what is erased.
    pub fn reload_erased(&self) -> Result<Arc<Erased>> {
        let stamp = erased::stamp(&self.env, &self.dir)?;
        if self.erased.read().unwrap_or_else(PoisonError::into_inner).0 != stamp {
            let read = Arc::new(erased::read(&self.env, &self.dir)?);
            *self.erased.write().unwrap_or_else(PoisonError::into_inner) = (stamp, read);
        }
        Ok(self.erased())
    }

    /// Finds out what is erased by erase events that the file does not count yet; `rows` are those of the index, where
    /// they have been read just now.
    pub(super) fn learn_erased(&self, rows: Option<BTreeMap<u32, SegmentRow>>) -> Result<()> {
        let rows = match rows {
            Some(rows) => rows,
            None => self.index.read(|view| view.segments())?.unwrap_or_default(),
        };
        let counted: u64 =
            rows.values().filter_map(|row| row.kinds.get(&Kind::ERASE)).map(|count| u64::from(*count)).sum();
        if self.reload_erased()?.counted == counted {
            return Ok(());
        }
        let events = self.erase_events(&rows)?;
        self.note_erased(events, counted)
    }

    /// The same without the index; the open segment has been sealed.
    pub(crate) fn learn_erased_from(&self, set: &SegmentSet) -> Result<()> {
        let mut found: BTreeMap<EventId, (Act, EraseRecord)> = BTreeMap::new();
        let mut counted = 0;
        for sealed in &set.sealed {
            let erases = sealed.directory.kinds.get(&Kind::ERASE).map_or(0, |count| u64::from(*count));
            counted += erases;
            if erases == 0 {
                continue;
            }
            let handle = Handle::Sealed(Arc::clone(sealed));
            for place in &sealed.directory.events_frames {
                for (event, id) in read_events(&handle, place.offset)? {
                    self.note_erase(&event, id, &mut found)?;
                }
            }
        }
        if self.reload_erased()?.counted == counted {
            return Ok(());
        }
        self.note_erased(found.into_values().collect(), counted)
    }

    fn note_erase(
        &self,
        event: &Event,
        id: EventId,
        found: &mut BTreeMap<EventId, (Act, EraseRecord)>,
    ) -> Result<()> {
        let record = event.fact.objects[0];
        if event.fact.kind != Kind::ERASE || found.contains_key(&id) {
            return Ok(());
        }
        if let Some(says) = self.erase_record(&record)? {
            let (time, writer) = (event.fact.time, event.writer);
            found.insert(id, (Act { time, event: id, writer, record }, says));
        }
        Ok(())
    }

    fn note_erased(&self, events: Vec<(Act, EraseRecord)>, counted: u64) -> Result<()> {
        self.change_erased(|known| {
            let made = Erased::of(events, counted)?;
            // Bytes may be left of what is new; the rest stays as it is.
            let swept = (known.swept || known.is_empty()) && made.ids().all(|id| known.contains(id));
            Ok(Some(made.with_swept(swept)))
        })
    }

    /// All erase events with what they say.
    fn erase_events(&self, rows: &BTreeMap<u32, SegmentRow>) -> Result<Vec<(Act, EraseRecord)>> {
        let mut places: Vec<Place> = Vec::new();
        self.index.read(|view| {
            // A version that did not know them has listed them among the unknown.
            for term in [Term::kind(Kind::ERASE), Term::kind(Kind::UNKNOWN)] {
                view.postings(term, &mut |events, _| {
                    places.extend(events.iter().map(|(_, place)| *place));
                    true
                })?;
            }
            Ok(())
        })?;
        let set = self.refresh()?;
        let mut found: BTreeMap<EventId, (Act, EraseRecord)> = BTreeMap::new();
        for place in places {
            let Some(row) = rows.get(&place.segment) else { continue };
            let sealed = set.sealed.iter().find(|sealed| sealed.header.nonce == row.nonce);
            let open = set.open.as_ref().filter(|open| open.header.nonce == row.nonce);
            let handle = match (sealed, open) {
                (Some(sealed), _) => Handle::Sealed(Arc::clone(sealed)),
                (None, Some(open)) => Handle::Open(Arc::clone(open)),
                (None, None) => continue,
            };
            let (event, id) = self.event(&handle, place.event, Some(row))?;
            self.note_erase(&event, id, &mut found)?;
        }
        Ok(found.into_values().collect())
    }

    /// What an erase event says; nothing where it is of another form, or damaged.
    fn erase_record(&self, id: &ObjectId) -> Result<Option<EraseRecord>> {
        let mut bytes = Vec::new();
        let read = self.with_plain(&[], id, &mut |plain| {
            bytes.extend_from_slice(plain);
            Ok(())
        });
        match read {
            Ok(()) => Ok(EraseRecord::decode(&bytes).ok()),
            Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the file under the store's lock, unless `change` says that nothing is to be changed.
    pub(crate) fn change_erased(&self, change: impl FnOnce(&Erased) -> Result<Option<Erased>>) -> Result<()> {
        let path = self.dir.join("lock");
        let _lock = lock(&self.env, &path, LockMode::Exclusive, LOCK_WAIT_MICROS_MAX)?;
        let known = self.reload_erased()?;
        if let Some(made) = change(&known)? {
            erased::write(&self.env, &self.dir, &made)?;
            self.reload_erased()?;
        }
        Ok(())
    }

    /// Notes that bytes of what is erased may be here.
    pub fn unsweep(&self) -> Result<()> {
        self.change_erased(|known| {
            let swept = known.swept && !known.is_empty();
            Ok(swept.then(|| known.with_swept(false)))
        })
    }

    /// Lets go of decoded frames.
    pub(crate) fn forget_frames(&self) {
        self.cache.clear();
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Refuses an object that is erased.
    pub(super) fn refuse_erased(&self, id: &ObjectId) -> Result<()> {
        let known = self.erased.read().unwrap_or_else(PoisonError::into_inner);
        match known.1.act(id) {
            Some(act) => Err(erased::gone(id, act)),
            None => Ok(()),
        }
    }

    /// Reads a record, unless it is erased.
    pub fn read_unless_erased(&self, id: &ObjectId) -> Result<Option<Vec<u8>>> {
        if self.erased().contains(id) { Ok(None) } else { self.read(id).map(Some) }
    }
}
