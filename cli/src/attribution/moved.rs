//! Lines that were moved: gone from one place of a commit's files, new in another.
//!
//! A run of lines counts as moved where it says enough that nobody types it by chance, and where it does not also stand
//! where it was: that would be a copy, and nobody knows whose.

use std::collections::{HashMap, HashSet};

use super::carry::Carried;
use super::replay::{Mark, Text};
use super::{By, FileChange, How, PriorLine, Priors};
use crate::edit::line::Line;

/// What a moved run of several lines must say at least, in letters and digits.
const RUN_WEIGHT_MIN: usize = 20;
/// The same of a single line.
const LINE_WEIGHT_MIN: usize = 24;
/// The same of a run that stands next to what the edit said would be next to it.
const ANCHORED_WEIGHT_MIN: usize = 6;
/// A line says something if it has at least so many letters and digits.
const TELLING_WEIGHT_MIN: u8 = 3;
/// In how many places one line is looked for.
const PLACES_MAX: usize = 32;

/// Where a gone line came from.
#[derive(Clone, Copy)]
enum Origin {
    Edit(usize),
    Prior(PriorLine),
}

/// Lines that stood together and are gone.
struct Run {
    lines: Vec<(u64, Origin)>,
    above: Option<u64>,
    below: Option<u64>,
    how: How,
}

/// What is gone from the files of a commit.
#[derive(Default)]
pub(crate) struct Pool {
    runs: Vec<Run>,
    /// Lines of parents that are in the file with other white space: file, line of the file, line of the parent.
    reindented: Vec<(usize, usize, usize)>,
    /// Lines that still stand where they stood.
    standing: HashSet<u64>,
}

/// A place where lines of a run stand in a file.
struct Fit {
    run: usize,
    run_start: usize,
    start: usize,
    length: usize,
    weight: usize,
}

impl Pool {
    /// Adds what is gone from one file.
    pub(crate) fn add(&mut self, number: usize, text: &Text, carried: &Carried) {
        let mut lines: Vec<(u64, Origin)> = Vec::new();
        for at in 0..=text.lines.len() {
            if at < text.lines.len() && carried.gone[at] {
                let origin = match text.marks[at] {
                    Mark::Edit(source) => Origin::Edit(source),
                    Mark::Prior(line) => Origin::Prior((number, line)),
                };
                lines.push((text.lines[at].loose, origin));
                continue;
            }
            if at < text.lines.len() {
                self.standing.insert(text.lines[at].loose);
            }
            if !lines.is_empty() {
                self.runs.push(Run {
                    lines: std::mem::take(&mut lines),
                    above: None,
                    below: None,
                    how: How::Moved,
                });
            }
        }
        for (source, hunk) in &text.aside {
            let lines = hunk.new.iter().map(|line| (line.loose, Origin::Edit(*source))).collect();
            let (above, below) = (hunk.above.last().copied(), hunk.below.first().copied());
            self.runs.push(Run { lines, above, below, how: How::Found });
        }
        self.reindented.extend(carried.reindented.iter().map(|(at, line)| (number, *at, *line)));
    }

    /// Gives lines that are wanted their authors, where they were moved.
    pub(crate) fn place(
        mut self,
        files: &[FileChange<'_>],
        wanted: &[Vec<bool>],
        authors: &mut [Vec<Option<By>>],
        priors: &mut Priors<'_>,
    ) {
        let mut index: HashMap<u64, Vec<(usize, usize)>> = HashMap::new();
        for (run, lines) in self.runs.iter().enumerate() {
            for (at, (loose, _)) in lines.lines.iter().enumerate() {
                let places = index.entry(*loose).or_default();
                if places.len() < PLACES_MAX {
                    places.push((run, at));
                }
            }
        }
        // Lines of the parent whose author has to be asked for: where they come to stand.
        let mut asked: Vec<(PriorLine, usize, usize, How)> = Vec::new();
        for (number, at, line) in std::mem::take(&mut self.reindented) {
            if wanted[number][at] || authors[number][at].is_none() {
                asked.push(((number, line), number, at, How::Reindented));
            }
        }
        let mut used: HashSet<(usize, usize)> = HashSet::new();
        for (number, file) in files.iter().enumerate() {
            let mut at = 0;
            while at < file.after.len() {
                let fit = self.best(&index, &used, file, &wanted[number], at);
                let Some(fit) = fit else {
                    at += 1;
                    continue;
                };
                for step in 0..fit.length {
                    let (_, origin) = self.runs[fit.run].lines[fit.run_start + step];
                    used.insert((fit.run, fit.run_start + step));
                    let how = self.runs[fit.run].how;
                    match origin {
                        Origin::Edit(source) => authors[number][fit.start + step] = Some(By { source, how }),
                        Origin::Prior(prior) => asked.push((prior, number, fit.start + step, how)),
                    }
                }
                at = fit.start + fit.length;
            }
        }
        if asked.is_empty() {
            return;
        }
        let lines: Vec<PriorLine> = asked.iter().map(|(line, ..)| *line).collect();
        for (source, (_, number, at, how)) in priors(&lines).into_iter().zip(asked) {
            if let Some(source) = source {
                authors[number][at].get_or_insert(By { source, how });
            }
        }
    }

    /// The run that says most of those that start at a line of a file.
    fn best(
        &self,
        index: &HashMap<u64, Vec<(usize, usize)>>,
        used: &HashSet<(usize, usize)>,
        file: &FileChange<'_>,
        wanted: &[bool],
        at: usize,
    ) -> Option<Fit> {
        if !wanted[at] {
            return None;
        }
        // Of lines of another program's trace only the strict hash is known.
        let places = [file.after[at].loose, file.after[at].strict].map(|hash| index.get(&hash));
        let mut best: Option<Fit> = None;
        for (run, run_start) in places.into_iter().flatten().flatten() {
            let lines = &self.runs[*run].lines[*run_start..];
            let length = lines
                .iter()
                .zip(&file.after[at..])
                .zip(&wanted[at..])
                .enumerate()
                .take_while(|(step, (((loose, _), line), wanted))| {
                    **wanted
                        && [line.loose, line.strict].contains(loose)
                        && !used.contains(&(*run, run_start + step))
                })
                .count();
            let fit = Fit {
                run: *run,
                run_start: *run_start,
                start: at,
                length,
                weight: weight(&file.after[at..at + length]),
            };
            if self.is_certain(&fit, file) && best.as_ref().is_none_or(|best| fit.weight > best.weight) {
                best = Some(fit);
            }
        }
        best
    }

    /// Whether a run says enough, and is not a copy.
    fn is_certain(&self, fit: &Fit, file: &FileChange<'_>) -> bool {
        let run = &self.runs[fit.run];
        let lines = &file.after[fit.start..fit.start + fit.length];
        let telling = lines.iter().filter(|line| line.weight >= TELLING_WEIGHT_MIN);
        let copied = telling.clone().filter(|line| self.standing.contains(&line.loose)).count();
        let telling = telling.count();
        if telling == 0 || copied * 2 > telling {
            return false;
        }
        let strict = |at: Option<usize>| at.and_then(|at| file.after.get(at)).map(|line| line.strict);
        let is_whole = fit.run_start == 0 && fit.length == run.lines.len();
        let is_anchored = is_whole
            && ((run.above.is_some() && run.above == strict(fit.start.checked_sub(1)))
                || (run.below.is_some() && run.below == strict(Some(fit.start + fit.length))));
        let least = match (is_anchored, telling) {
            (true, _) => ANCHORED_WEIGHT_MIN,
            (false, 1) => LINE_WEIGHT_MIN,
            (false, _) => RUN_WEIGHT_MIN,
        };
        fit.weight >= least
    }
}

fn weight(lines: &[Line]) -> usize {
    lines.iter().map(|line| usize::from(line.weight)).sum()
}
