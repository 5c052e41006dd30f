//! A segment written anew without what goes: events, tips and all other objects are copied, and every hash is compared.

use std::sync::Arc;

use super::live::Removal;
use crate::build::{Builder, Sink};
use crate::codec::Decoder;
use crate::error::{Error, Result};
use crate::frame::{Effort, FrameKind, Packer, Unpacker};
use crate::limits::CHUNK_FRAME_BYTES_TARGET;
use crate::log::Received;
use crate::object::{Objects, ObjectsBuilder, ObjectsFrame, Stored};
use crate::scan::{Marks, marks};
use crate::segment::{all_names, read_frame};
use crate::segments::Sealed;
use crate::store::{Handle, read_events};
use crate::writer::decode_tips;

/// Frames larger than this hold parts of transcripts, which repeat what stands far before.
const RECORDS_BYTES_MAX: usize = 1 << 20;

/// Writes what stays of a segment into one that is being built.
pub fn rewrite<S: Sink>(sealed: &Arc<Sealed>, removal: &Removal, builder: &mut Builder<S>) -> Result<()> {
    let mut unpacker = Unpacker::new();
    let mut names: Vec<Marks> = vec![Marks::default(); sealed.directory.events as usize];
    for entry in all_names(sealed.file.as_ref(), &sealed.key, &sealed.directory)? {
        let marks = names.get_mut(entry.event as usize);
        marks
            .ok_or_else(|| Error::corrupt("a name stands for an event that is not there"))?
            .names
            .push((entry.prefix, entry.cites));
    }
    let mut names = names.into_iter();
    // In the order in which they stand: what comes before an event was there before it.
    let directory = &sealed.directory;
    let mut frames: Vec<(u32, FrameKind)> = Vec::new();
    frames.extend(directory.objects_frames.iter().map(|offset| (*offset, FrameKind::Objects)));
    frames.extend(directory.events_frames.iter().map(|place| (place.offset, FrameKind::Events)));
    frames.extend(directory.tips_frames.iter().map(|offset| (*offset, FrameKind::Tips)));
    frames.sort_unstable_by_key(|(offset, _)| *offset);
    for (offset, kind) in frames {
        match kind {
            FrameKind::Objects => copy_frame(sealed, offset, removal, &mut unpacker, builder)?,
            FrameKind::Events => copy_events(sealed, offset, removal, &mut names, builder)?,
            _ => {
                let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(offset))?;
                let raw = frame.into_raw(&mut unpacker)?;
                builder.tips(&decode_tips(&mut Decoder::new("tips frame", &raw))?)?;
            }
        }
    }
    Ok(())
}

fn copy_events<S: Sink>(
    sealed: &Arc<Sealed>,
    offset: u32,
    removal: &Removal,
    names: &mut impl Iterator<Item = Marks>,
    builder: &mut Builder<S>,
) -> Result<()> {
    let events = read_events(&Handle::Sealed(Arc::clone(sealed)), offset)?;
    let received: Vec<Received> = events
        .into_iter()
        .map(|(event, id)| {
            let known = names.next().unwrap_or_default();
            // What an erased record says is forgotten with it.
            let erased = removal.gone.contains(&event.fact.objects[0]);
            let marks = if erased { marks(&event.fact, &[]) } else { known };
            Received { event, id, marks }
        })
        .collect();
    builder.received(&received)
}

fn copy_frame<S: Sink>(
    sealed: &Sealed,
    offset: u32,
    removal: &Removal,
    unpacker: &mut Unpacker,
    builder: &mut Builder<S>,
) -> Result<()> {
    let frame = read_frame(sealed.file.as_ref(), &sealed.key, u64::from(offset))?;
    if frame.kind != FrameKind::Objects {
        return Err(Error::corrupt(format!("frame at byte {offset}: expected objects")));
    }
    let whole = frame.clone();
    let objects = Objects::decode(frame.into_raw(unpacker)?)?;
    let mut ids = Vec::with_capacity(objects.len());
    let mut is_touched = false;
    for slot in 0..objects.len() {
        let (id, _) = objects.get_with_id(slot)?;
        is_touched |= removal.gone.contains(&id) || removal.flat.contains_key(&id);
        ids.push(id);
    }
    if !is_touched {
        return builder.objects(&ObjectsFrame { frame: whole, ids });
    }
    let effort = if objects.raw_bytes() > RECORDS_BYTES_MAX { Effort::FAST_LONG } else { Effort::FAST };
    let mut packer = Packer::new(effort);
    let mut kept = ObjectsBuilder::new();
    for (slot, id) in ids.iter().enumerate().filter(|(_, id)| !removal.gone.contains(*id)) {
        let flat = removal.flat.get(id).filter(|_| matches!(objects.get(slot), Ok(Stored::Recipe(_))));
        let bytes = match flat {
            Some(recipe) => recipe.encode().len(),
            None => objects.laid(slot)?.bytes(),
        };
        if !kept.is_empty()
            && (!kept.fits(bytes) || kept.raw_bytes() + bytes > CHUNK_FRAME_BYTES_TARGET * 3 / 2)
        {
            builder.objects(&kept.finish(&mut packer))?;
        }
        match flat {
            Some(recipe) => kept.add_recipe(recipe),
            None => kept.add_stored(*id, &objects.laid(slot)?),
        }
    }
    if !kept.is_empty() {
        builder.objects(&kept.finish(&mut packer))?;
    }
    Ok(())
}
