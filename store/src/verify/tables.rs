//! The footer of a sealed segment against what its batches hold.

use super::survey::{Fault, Survey, Walked, text};
use crate::error::Result;
use crate::frame::{FrameKey, FrameKind};
use crate::segment::{Directory, Filter, all_ids, all_names};
use crate::table::{ID_PAGE_ENTRIES, IdEntry, NAME_PAGE_ENTRIES, NameEntry};

/// Compares every table of a footer; what differs is noted in the survey.
pub(crate) fn compare(survey: &mut Survey, key: &FrameKey, walked: &Walked) {
    let Some(directory) = survey.directory.take() else { return };
    let mut messages = Vec::new();
    match compare_tables(survey, key, &directory, &mut messages) {
        Ok(()) => {}
        Err(error) => messages.push(text(&error)),
    }
    compare_frames(survey, &directory, walked, &mut messages);
    let place = Some((directory.ids_start, survey.source.bytes));
    survey.faults.extend(messages.into_iter().map(|message| Fault { code: "table", place, message }));
    survey.directory = Some(directory);
}

fn compare_tables(
    survey: &mut Survey,
    key: &FrameKey,
    directory: &Directory,
    messages: &mut Vec<String>,
) -> Result<()> {
    let mut ids = std::mem::take(&mut survey.contents.ids);
    ids.sort_unstable();
    ids.dedup_by_key(|entry| entry.id);
    compare_directory(survey, directory, &ids, messages);
    let file = survey.source.file.as_ref();
    let filter = Filter::read(file, key, directory)?;
    let missed = ids.iter().filter(|entry| !filter.admits(&entry.id)).count();
    if missed > 0 {
        messages.push(format!("the filter misses {missed} objects"));
    }
    if all_ids(file, key, directory)? != ids {
        messages.push("the id table is not that of its objects".to_owned());
    }
    let fences: Vec<[u8; 8]> = ids.chunks(ID_PAGE_ENTRIES).map(id_fence).collect();
    if fences != directory.id_fences {
        messages.push("the fences of the id table do not fit".to_owned());
    }
    let listed = all_names(file, key, directory)?;
    compare_names(survey, &listed, messages);
    let fences: Vec<[u8; 8]> = listed.chunks(NAME_PAGE_ENTRIES).map(|page| page[0].prefix).collect();
    if fences != directory.name_fences {
        messages.push("the fences of the name table do not fit".to_owned());
    }
    Ok(())
}

fn id_fence(page: &[IdEntry]) -> [u8; 8] {
    crate::scan::object_prefix(&page[0].id)
}

fn compare_directory(survey: &Survey, directory: &Directory, ids: &[IdEntry], messages: &mut Vec<String>) {
    let contents = &survey.contents;
    let mut check = |what: &str, same: bool| {
        if !same {
            messages.push(format!("the directory is wrong about its {what}"));
        }
    };
    check("raw bytes", directory.raw_bytes == contents.raw_bytes);
    check("number of objects", directory.objects as usize == ids.len());
    check("number of events", directory.events == contents.events);
    check("kinds", directory.kinds == contents.kinds);
    check("objects frames", directory.objects_frames == contents.objects_frames);
    check("events frames", directory.events_frames == contents.events_frames);
    check("tips frames", directory.tips_frames == contents.tips_frames);
    check("runs", directory.runs == contents.runs);
    check("start", directory.ids_start == survey.end);
}

/// Each event is found by its own names; by those of a record that lies elsewhere it may be.
fn compare_names(survey: &mut Survey, listed: &[NameEntry], messages: &mut Vec<String>) {
    let mut names = std::mem::take(&mut survey.contents.names);
    names.sort_unstable();
    names.dedup();
    if names == listed {
        return;
    }
    let missing = names.iter().filter(|name| listed.binary_search(name).is_err()).count();
    let mut loose = std::mem::take(&mut survey.loose_names);
    loose.sort_unstable();
    let extra = listed.iter().filter(|name| {
        names.binary_search(name).is_err()
            && loose.binary_search(name).is_err()
            && !survey.erased_events.contains(&name.event)
    });
    let extra = extra.count();
    let sorted = listed.is_sorted_by(|a, b| a < b);
    if missing > 0 || extra > 0 || !sorted {
        messages.push(format!("the name table misses {missing} names and has {extra} that are none"));
    }
}

/// The footer's frames: id pages, name pages, filter, directory, trailer, and no others.
fn compare_frames(survey: &Survey, directory: &Directory, walked: &Walked, messages: &mut Vec<String>) {
    let pages = |kind| walked.footer.iter().filter(|frame| frame.1 == kind).count();
    let in_order = walked.footer.is_sorted_by_key(|frame| rank(frame.1));
    let counts = pages(FrameKind::Ids) == directory.id_fences.len()
        && pages(FrameKind::Names) == directory.name_fences.len()
        && [FrameKind::Filter, FrameKind::Directory, FrameKind::Trailer].iter().all(|kind| pages(*kind) == 1);
    let filter = walked.footer.iter().find(|frame| frame.1 == FrameKind::Filter);
    let placed = filter.is_none_or(|frame| frame.0 == directory.filter_at);
    let broken = survey.faults.iter().any(|fault| fault.code == "table");
    let fits = in_order && counts && placed;
    if !broken && !fits {
        messages.push("the footer has other frames than its directory says".to_owned());
    }
}

fn rank(kind: FrameKind) -> u8 {
    match kind {
        FrameKind::Ids => 0,
        FrameKind::Names => 1,
        FrameKind::Filter => 2,
        FrameKind::Directory => 3,
        _ => 4,
    }
}
